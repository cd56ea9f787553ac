"""What can be learnt from at one boundary: candles, features and labels, and windows of them.

Shapes: N windows, R pooled rows of all pairs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lstm_model.durations import MIN_RECENT_WINDOWS
from lstm_model.errors import DataError
from lstm_model.features.closed_candle import MASKS, WARM_UP, feature_names, too_slow
from lstm_model.market.candles import Candles, Floats, Ints, timeframe_ms
from lstm_model.market.history import Disk, digest_of
from lstm_model.model.dataset import Panel, Panels, Scaler, Split, purged_split
from lstm_model.scoring.evaluation import Baselines
from lstm_model.settings import Settings
from lstm_model.training.downloads import no_history

logger = logging.getLogger(__name__)

_LEAST_DEVIATION = 0.1  # chosen: of a mask; one that is set in a hundredth of all rows
_MISSING_FRACTION = 0.05  # chosen: of a pair's candles; exchange outages stay below


class RecentWindows(NamedTuple):
    """Rows (N,) that end the windows of a fine-tuning: new ones, old ones, and to stop by."""

    train: Ints
    replay: Ints
    validation: Ints


@dataclass(frozen=True)
class Material:
    """The candles of every pair that a model may learn from, and what becomes of them.

    Attributes
    ----------
    boundary_ms : nothing later was known
    panels : what the panel is built with
    words : that name the configuration to a command, each after a blank
    old : pairs that have candles as old as are wanted
    """

    settings: Settings
    timeframe: str
    pairs: tuple[str, ...]
    boundary_ms: int
    candles: Sequence[Candles]
    panels: Panels
    words: str = ""
    old: tuple[str, ...] = ()

    @classmethod
    def gather(
        cls, settings: Settings, timeframe: str, pairs: tuple[str, ...], boundary_ms: int,
        known: Disk, panels: Panels, words: str = "",
    ) -> Material:  # fmt: skip
        """What `known` has of the pairs; those with too few candles are left out."""
        start_ms = boundary_ms - reach_ms(settings, timeframe, len(pairs))
        found = [known(pair) for pair in pairs]
        recent = [c.known_at(start_ms, boundary_ms) for c in found if c is not None]
        enough = WARM_UP + settings.lookback + settings.horizon
        usable = [candles for candles in recent if len(candles) > enough]
        old = tuple(c.pair for c in found if c is not None and len(c.between(0, start_ms + 1)))
        return cls(settings, timeframe, pairs, boundary_ms, usable, panels, words, old)

    @cached_property
    def panel(self) -> Panel:
        """Features and labels of all pairs; every label was known at the boundary.

        Raises
        ------
        DataError
            As `check`.
        """
        self.check()
        return self.panels.build(self.candles, self.settings)

    @cached_property
    def split(self) -> Split:
        """Train, validation and test block.

        Raises
        ------
        DataError
            Too few windows to train on.
        """
        return purged_split(self.panel, self.settings)

    @cached_property
    def scaler(self) -> Scaler:
        """Of the training block. Raises as `split`."""
        rows, dates = self.panel.rows[self.split.train], self.panel.date_ms[self.split.train]
        names = feature_names(self.settings.order_flow)
        slow = [names.index(name) for name in too_slow(int(dates.max() - dates.min()))]
        return Scaler.fit(rows, [*slow, *_rarely_set(rows, self.settings)])

    @cached_property
    def scaled(self) -> NDArray[np.float32]:
        """(R, F) the panel's rows by `scaler`. Raises as `split`."""
        return self.scaler.transform(self.panel.rows)

    @cached_property
    def baselines(self) -> Baselines:
        """What a network is compared with. Raises as `split`."""
        return Baselines(self.panel, self.split, self.settings, self.scaled)

    @cached_property
    def digest(self) -> str:
        """Hash of the candles."""
        return digest_of(self.candles, self.settings)

    @cached_property
    def recent_windows(self) -> RecentWindows:
        """Windows of the newest `finetune_recent_candles`, and older ones drawn to go with them.

        Raises
        ------
        DataError
            Too few recent windows.
        """
        settings, panel, end = self.settings, self.panel, self.boundary_ms
        recent, candle_ms = settings.finetune_recent_candles, timeframe_ms(self.timeframe)
        held_out = max(1, round(recent * settings.validation_fraction))
        begin, validation = (end - count * candle_ms for count in (recent, held_out))
        newest, older = panel.labelled_within(begin, validation), panel.labelled_within(0, begin)
        if len(newest) < MIN_RECENT_WINDOWS:
            raise DataError(
                f"too few recent candles to fine-tune on: {len(newest)} complete windows in the "
                f"last {recent} candles, {MIN_RECENT_WINDOWS} are needed"
            )
        wanted = min(len(older), round(settings.finetune_replay * len(newest)))
        random = np.random.default_rng((settings.seed, end // candle_ms))
        replay = np.sort(random.choice(older, wanted, replace=False))
        return RecentWindows(newest, replay, panel.labelled_within(validation, end))

    def check(self) -> None:
        """Refuse to learn from nothing; warn of what is missing.

        Raises
        ------
        DataError
            No pair has candles before the boundary; says what to download.
        """
        if not self.candles:
            raise DataError(no_history(
                self.settings, self.timeframe, self.boundary_ms, self.pairs, self.old, self.words
            ))  # fmt: skip
        for pair, missing in self.holes.items():
            logger.warning(
                "%s: %.0f %% of the candles to train on are missing; run `freqtrade "
                "download-data%s --timeframes %s`", pair, 100 * missing, self.words, self.timeframe,
            )  # fmt: skip
        for pair, known in self.unknown_flow.items():
            logger.warning(
                "%s: order flow is known of %.0f %% of the candles to train on; run "
                "`freqtrade-lstm download-flow%s`", pair, 100 * known, self.words,
            )  # fmt: skip

    @property
    def holes(self) -> dict[str, float]:
        """Pairs of which many candles are missing, from their first one here to the boundary, and
        what share.
        """
        wanted = {c.pair: (self.boundary_ms - int(c.date_ms[0])) // c.step_ms for c in self.candles}
        shares = {c.pair: 1.0 - len(c) / wanted[c.pair] for c in self.candles}
        return {pair: share for pair, share in shares.items() if share > _MISSING_FRACTION}

    @property
    def unknown_flow(self) -> dict[str, float]:
        """Pairs of which order flow is wanted and little known, and of what share it is."""
        wanted = self.candles if self.settings.order_flow else ()
        shares = {c.pair: _known_flow(c) for c in wanted}
        return {pair: share for pair, share in shares.items() if share < 1.0 - _MISSING_FRACTION}


def reach_ms(settings: Settings, timeframe: str, pairs: int) -> int:
    """How far before a boundary the candles begin that a model of so many pairs learns from."""
    most = min(settings.train_candles, settings.pool_candles // max(1, pairs))
    return (most + WARM_UP + settings.lookback) * timeframe_ms(timeframe)


def _rarely_set(rows: Floats, settings: Settings) -> list[int]:
    """Masks (of rows (N, F)) that were the same in so many rows that a change would overwhelm.

    A network hardly meets it in training; scaled by so small a deviation, it would be enormous.
    """
    names = feature_names(settings.order_flow)
    masks = [names.index(name) for name in MASKS if name in names]
    return [number for number in masks if rows[:, number].std() < _LEAST_DEVIATION]


def _known_flow(candles: Candles) -> float:
    return 0.0 if candles.flow is None else float(candles.flow["coverage"].mean())
