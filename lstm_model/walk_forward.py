"""Which model may forecast which candle, and how that model comes into being.

Time is cut into slots of `retrain_candles`, counted from 1970-01-01. The model of a slot is trained
on candles that had closed when the slot began and serves, `training_lag_candles` later, for as long
as a slot lasts. Live and backtest share the schedule. A model's version is the hash of everything
that decides its weights, so whoever needs it again finds it in the store.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

import lstm_model
from lstm_model.calibration import Calibration
from lstm_model.card import ModelCard, version_id
from lstm_model.config import Settings
from lstm_model.dataset import Panel, Scaler, Split, build_panel, purged_split
from lstm_model.errors import DataError, StoreError
from lstm_model.evaluation import evaluate
from lstm_model.features import WARM_UP, feature_names
from lstm_model.flow_store import merge
from lstm_model.forecast import Forecast
from lstm_model.lstm import Lstm
from lstm_model.market import FLOW, Candles, Floats, Ints, Records, timeframe_ms, unknown_flow
from lstm_model.store import ModelStore, StoredModel
from lstm_model.trainer import ProgressCallback, Stop, TrainingJob, TrainingResult, run_training

logger = logging.getLogger(__name__)

_MISSING_FRACTION = 0.05  # chosen: of a pair's candles; exchange outages stay below

_FOREVER_MS = 2**62

# What decides a model beside the candles when it learns from order flow: all that features use.
_LEARNT_FLOW = ("trades", "volume", "quote_volume", "taker_base", "taker_quote", "coverage")

History = Callable[[str], Candles | None]
KnownFlow = Callable[[str], Records]

# The code that decides a model's weights and card; a change of any makes new versions.
_DECISIVE_MODULES = (
    "calibration", "dataset", "evaluation", "features", "forecast", "fused", "lstm", "market",
    "network",
)  # fmt: skip


class Slot(NamedTuple):
    """One period of the schedule; times are integer UTC milliseconds, half-open.

    Examples
    --------
    >>> slot = slot_at(1_719_792_000_000, 300_000, Settings())
    >>> slot.data_end_ms < slot.serves_from_ms <= 1_719_792_000_000 < slot.serves_until_ms
    True
    """

    data_end_ms: int  # training uses candles that closed by then
    serves_from_ms: int  # for candles that close at or after this
    serves_until_ms: int


def slot_at(close_ms: int, step_ms: int, settings: Settings) -> Slot:
    """The slot whose model forecasts a candle that closes at `close_ms`."""
    period = settings.retrain_candles * step_ms
    lag = settings.training_lag_candles * step_ms
    data_end = (close_ms - lag) // period * period
    return Slot(data_end, data_end + lag, data_end + lag + period)


@dataclass(frozen=True)
class Model:
    """A stored version, ready to forecast."""

    card: ModelCard
    lstm: Lstm
    calibration: Calibration

    @classmethod
    def of(cls, stored: StoredModel, settings: Settings) -> Self:
        """Check that a stored version fits the settings, and prepare it.

        Raises
        ------
        StoreError
            The version was made by another release or for other settings.
        """
        card = stored.card
        if card.feature_names != feature_names(settings.order_flow):
            raise StoreError(f"model {card.version} was trained on other features; train anew")
        if card.settings.get("lookback") != settings.lookback:
            raise StoreError(f"model {card.version} was trained for other settings; train anew")
        calibration = Calibration.from_card(settings.levels, card.calibration)
        return cls(card, Lstm(stored.weights, settings.lookback), calibration)

    def forecast(self, pair: str, rows: Floats, volatility: Floats, ends: Ints) -> Forecast:
        """Forecasts after the windows that end in rows `ends` (N,) of one pair's features."""
        return self.calibrated(pair, self.lstm.predict(rows, ends), volatility[ends])

    def calibrated(self, pair: str, raw: Floats, volatility: Floats) -> Forecast:
        """The network's raw output (N, K) as forecasts of one pair; `volatility` (N,)."""
        return self.calibration.apply(raw, volatility, self.card.settings["horizon"], pair)

    def is_skilled(self, settings: Settings) -> bool:
        """Whether its out-of-sample skill is significant, at once and one candle late."""
        return not settings.require_skill or self.card.p_value <= settings.skill_p_value


class ModelMaker:
    """Finds the model of a slot in the store, or trains it.

    Parameters
    ----------
    history : pair -> its candles on disk, or None
    pairs : what the pooled network learns from
    flow : pair -> order flow of its candles on disk (N,) FLOW, rising
    """

    def __init__(
        self, settings: Settings, timeframe: str, pairs: Sequence[str], store: ModelStore,
        history: History, flow: KnownFlow | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.timeframe = timeframe
        self.pairs = tuple(sorted(set(pairs)))
        self.store = store
        self._load_history = history
        self._load_flow = flow
        self._recent: dict[str, Candles] = {}
        self._step_ms = timeframe_ms(timeframe)
        self._history_candles = settings.train_candles + WARM_UP + settings.lookback

    def history(self, pair: str) -> Candles | None:
        """All candles known so far: those on disk, continued by those the bot has seen."""
        stored, recent = self._load_history(pair), self._recent.get(pair)
        if stored is None or recent is None:
            return recent if stored is None else stored
        newer = recent.between(int(stored.date_ms[-1]) + 1, _FOREVER_MS)
        return self.with_flow(stored.then(newer)) if len(newer) else stored

    def with_flow(self, candles: Candles) -> Candles:
        """The candles with their order flow, for those that freqtrade hands over.

        What they carry already stays where no more of it is stored. Without `order_flow` they
        come back as they are.
        """
        if not self.settings.order_flow:
            return candles
        nothing = np.empty(0, FLOW)
        stored = nothing if self._load_flow is None else self._load_flow(candles.pair)
        return candles.with_flow(merge(stored, nothing if candles.flow is None else candles.flow))

    def remember(self, candles: Candles) -> None:
        """Keep what the bot sees of a pair, which is not on disk yet, as long as it is of use."""
        if len(candles):
            seen = self._recent.get(candles.pair, candles).then(candles)
            oldest = int(candles.date_ms[-1]) - 2 * self._history_candles * self._step_ms
            self._recent[candles.pair] = seen.between(oldest, _FOREVER_MS)

    def training_candles(self, slot: Slot) -> list[Candles]:
        """Every pair's candles that the slot's model may learn from; pairs without any left out."""
        count = self.settings.train_candles + WARM_UP + self.settings.lookback
        start = slot.data_end_ms - count * self._step_ms
        known = [self.history(pair) for pair in self.pairs]
        recent = [c.between(start, slot.data_end_ms) for c in known if c is not None]
        enough = WARM_UP + self.settings.lookback + self.settings.horizon
        return [candles for candles in recent if len(candles) > enough]

    def check_history(self, slot: Slot) -> list[Candles]:
        """The `training_candles`, refused when there are none; warns of what is missing.

        Raises
        ------
        DataError
            No pair has candles before the slot; says what to download.
        """
        series = self.training_candles(slot)
        if not series:
            raise DataError(self._no_history(slot))
        for candles in series:
            wanted = (slot.data_end_ms - int(candles.date_ms[0])) // self._step_ms
            missing = 1.0 - len(candles) / wanted
            if missing > _MISSING_FRACTION:
                logger.warning(
                    "%s: %.0f %% of the candles to train on are missing; run `freqtrade "
                    "download-data --timeframes %s`", candles.pair, 100 * missing, self.timeframe,
                )  # fmt: skip
            if self.settings.order_flow:
                self._warn_of_unknown_flow(candles)
        return series

    def _warn_of_unknown_flow(self, candles: Candles) -> None:
        known = 0.0 if candles.flow is None else float(candles.flow["coverage"].mean())
        if known < 1.0 - _MISSING_FRACTION:
            logger.warning(
                "%s: order flow is known of %.0f %% of the candles to train on; run "
                "`freqtrade-lstm download-flow`", candles.pair, 100 * known,
            )  # fmt: skip

    def version(self, candles: Sequence[Candles]) -> str:
        """Content address of the model that these candles make."""
        return version_id(
            settings=self.settings.digest(),
            data=_digest(candles, self.settings),
            code=_code_digest(),
            timeframe=self.timeframe,
        )

    def find(self, slot: Slot) -> StoredModel | None:
        """The slot's model if it is in the store."""
        version = self.version(self.training_candles(slot))
        return self.store.load(version) if self.store.has(version) else None

    def make(
        self, slot: Slot, progress: ProgressCallback | None = None, stop: Stop | None = None,
        *, background: bool = False,
    ) -> StoredModel:  # fmt: skip
        """Train, score and store the slot's model.

        Raises
        ------
        DataError
            Too little history before the slot.
        TrainingError
            The training failed or was stopped.
        StoreError
            The store cannot be written.
        """
        self.store.check_writable()
        candles = self.check_history(slot)
        panel = build_panel(candles, self.settings)
        split = purged_split(panel, self.settings)
        scaler = Scaler.fit(panel.rows[split.train])
        workdir = Path(tempfile.mkdtemp(prefix="lstm-training-"))
        try:
            job = _job(panel, split, scaler, self.settings)
            result = run_training(job, workdir, progress, stop, background=background)
            weights = {**result.weights, **_named(scaler)}
            card = self._card(slot, candles, panel, split, weights, result)
            self.store.publish(card, weights, result.network)
        finally:
            shutil.rmtree(workdir, ignore_errors=True)
        return self.store.load(card.version)

    def _card(
        self, slot: Slot, candles: Sequence[Candles], panel: Panel, split: Split,
        weights: Mapping[str, NDArray[np.float32]], result: TrainingResult,
    ) -> ModelCard:  # fmt: skip
        lstm = Lstm(weights, self.settings.lookback)
        evaluation = evaluate(
            panel, split, self.settings, lambda ends: lstm.predict(panel.rows, ends)
        )
        return ModelCard(
            version=self.version(candles),
            created_ms=time.time_ns() // 1_000_000,
            code_version=lstm_model.__version__,
            timeframe=self.timeframe,
            pairs=panel.pairs,
            settings=self.settings.model_dump(mode="json"),
            feature_names=feature_names(self.settings.order_flow),
            train_start_ms=int(min(series.date_ms[0] for series in candles)),
            train_end_ms=slot.data_end_ms,
            serves_from_ms=slot.serves_from_ms,
            data_digest=_digest(candles, self.settings),
            windows={name: len(rows) for name, rows in split._asdict().items()},
            epochs=result.epochs,
            seconds=result.seconds,
            scores=evaluation.scores,
            skill=evaluation.skill,
            calibration=evaluation.calibration.to_card(),
        )

    def _no_history(self, slot: Slot) -> str:
        end = np.datetime64(slot.data_end_ms, "ms").astype("datetime64[D]")
        days = (self.settings.train_candles * self._step_ms) // 86_400_000 + 1
        return (
            f"no {self.timeframe} candles of {', '.join(self.pairs) or 'any pair'} before {end} to "
            f"train on; about {days} days are wanted. Run `freqtrade download-data --timeframes "
            f"{self.timeframe} --timerange {str(end - days).replace('-', '')}-` with your config."
        )


def _job(panel: Panel, split: Split, scaler: Scaler, settings: Settings) -> TrainingJob:
    return TrainingJob(
        settings,
        scaler.transform(panel.rows),
        panel.target().astype(np.float32),
        split.train.astype(np.int32),
        split.validation.astype(np.int32),
    )


def _named(scaler: Scaler) -> dict[str, NDArray[np.float32]]:
    return {"scaler/mean": scaler.mean, "scaler/scale": scaler.scale}


def _digest(candles: Sequence[Candles], settings: Settings) -> str:
    digest = hashlib.sha256()
    for series in candles:
        digest.update(series.pair.encode())
        for column in series.columns():
            digest.update(column.tobytes())
        if settings.order_flow:
            flow = unknown_flow(series.date_ms) if series.flow is None else series.flow
            for name in _LEARNT_FLOW:
                digest.update(_canonical(flow[name]).tobytes())
    return digest.hexdigest()[:32]


def _canonical(values: Floats) -> Floats:
    """One bit pattern for every NaN and one for zero."""
    return np.where(np.isnan(values), np.nan, values + 0.0)


@cache
def _code_digest() -> str:
    digest = hashlib.sha256()
    for name in _DECISIVE_MODULES:
        spec = importlib.util.find_spec(f"lstm_model.{name}")
        assert spec is not None and spec.origin is not None, name  # noqa: S101, PT018
        digest.update(Path(spec.origin).read_bytes())
    return digest.hexdigest()[:16]
