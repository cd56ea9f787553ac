"""Every option of the `lstm` section in freqtrade's config.json: bound, unit, default and help.

Some defaults are times: a step of the learner a day, a retraining every four weeks. In candles they
depend on the timeframe, see `parse_settings`.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lstm_model.durations import LASTING, in_candles, midnight_ms
from lstm_model.errors import ConfigError, explained
from lstm_model.pairs import Pairs

DEFAULT_LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
_FIVE_MINUTES_MS = 300_000
_GONE = {"loss": "the network always forecasts the quantiles of `levels`"}  # and why

# Options that change how the work is done but not its result: they do not name a model version.
_NOT_IN_VERSION = {
    "store_dir", "journal_url", "train_threads", "train_timeout_s", "training_lag_candles",
    "require_skill", "skill_p_value", "slippage_fraction", "kelly_fraction",
    "max_stake_fraction", "train_pairs", "trade_stream", "tape_trades", "stream_silence_s",
    "require_fresh_stream", "step_candles", "finetune_candles", "finetune_recent_candles",
    "finetune_replay", "finetune_epochs", "finetune_learning_rate", "promotion_error",
    "drift_cooldown_candles", "train_memory_mb", "keep_models", "learn_from",
    "half_spread_fraction", "min_edge", "risk_fraction", "max_portfolio_fraction",
    "stop_multiple", "max_leverage", "stale_model_candles", "inside_exits", "stop",
    "hold_candles", "stop_trails", "stake", "min_move", "journal_days", "train_python",
}  # fmt: skip
# Of these, the ones that decide what a fine-tuning makes of its champion ...
_OF_FINETUNE = (
    "finetune_recent_candles", "finetune_replay", "finetune_epochs", "finetune_learning_rate",
)  # fmt: skip
# ... and, with them, the ones that decide when the learner does what.
_OF_LEARNING = (
    *_OF_FINETUNE, "step_candles", "finetune_candles", "training_lag_candles", "promotion_error",
    "drift_cooldown_candles",
)  # fmt: skip


def _lasting(name: str, most: int, description: str) -> Any:
    """An option in candles whose default is a time, see `lstm_model.durations`."""
    time_ms, least = LASTING[name]
    return Field(time_ms // _FIVE_MINUTES_MS, ge=least, le=most, description=description)


class Settings(BaseModel):
    """The validated `lstm` section. Frozen; unknown options are refused.

    Defaults that are times are those of 5m candles here; `parse_settings` knows the timeframe.

    Examples
    --------
    >>> Settings(horizon=6).horizon
    6
    >>> parse_settings({"horizn": 6})
    Traceback (most recent call last):
        ...
    lstm_model.errors.ConfigError: ... unknown option "horizn". Did you mean "horizon"?
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    lookback: int = Field(16, ge=8, le=500, description="Candles the network looks back on.")
    horizon: int = Field(
        12, ge=1, le=500, description="Candles ahead whose summed log return is forecast."
    )
    levels: tuple[float, ...] = Field(
        DEFAULT_LEVELS,
        description="Quantile levels of the forecast; symmetric around 0.5, which is one of them.",
    )
    units: int = Field(24, ge=4, le=256, description="Width of each LSTM layer.")
    layers: int = Field(1, ge=1, le=4, description="Number of LSTM layers.")
    dropout: float = Field(0.2, ge=0.0, le=0.8, description="Dropout after each LSTM layer.")
    members: int = Field(
        4, ge=1, le=8, description="Networks of different seeds whose forecasts are averaged."
    )
    learning_rate: float = Field(0.001, gt=0.0, le=0.1, description="Adam's step size.")
    batch_size: int = Field(256, ge=8, le=4096, description="Windows per training step.")
    max_epochs: int = Field(2, ge=1, le=200, description="Most passes over the training windows.")
    patience: int = Field(
        2, ge=1, le=50, description="Epochs without a better validation loss before training stops."
    )
    seed: int = Field(1, ge=0, le=2**31 - 1, description="Seed of every random draw in training.")
    train_candles: int = _lasting(
        "train_candles", 2_000_000, "Most recent candles per pair to train on."
    )
    retrain_candles: int = _lasting(
        "retrain_candles", 1_000_000,
        "Candles between trainings from scratch, counted from 1970-01-01.",
    )  # fmt: skip
    step_candles: int = _lasting(
        "step_candles", 100_000,
        "Candles between two steps of the learner, counted from 1970-01-01: it scores, "
        "calibrates, looks for drift, promotes and trains.",
    )  # fmt: skip
    learn_from: str | None = Field(
        None, pattern=r"^\d{8}$",
        description="Day (YYYYMMDD) from which on the learner's steps are walked, so that bots and "
        "backtests of other days share them; null: the retraining before the first candle.",
    )  # fmt: skip
    finetune_candles: int = _lasting(
        "finetune_candles", 1_000_000, "Candles between fine-tunings; 0: never."
    )
    finetune_recent_candles: int = _lasting(
        "finetune_recent_candles", 1_000_000, "Newest candles per pair to fine-tune on."
    )
    finetune_replay: float = Field(
        1.0, ge=0.0, le=20.0,
        description="Older windows learnt again for each recent one, against forgetting.",
    )  # fmt: skip
    finetune_epochs: int = Field(
        1, ge=1, le=100, description="Most passes of a fine-tuning over its windows."
    )
    finetune_learning_rate: float = Field(
        0.0003, gt=0.0, le=0.1, description="Adam's step size in a fine-tuning."
    )
    epoch_windows: int = Field(
        100_000, ge=1_000, le=10_000_000,
        description="Most windows per epoch; of more, every epoch draws others.",
    )  # fmt: skip
    pool_candles: int = Field(
        1_000_000, ge=10_000, le=50_000_000,
        description="Most candles of all pairs to train on; with many pairs each gives fewer.",
    )  # fmt: skip
    promotion_error: float = Field(
        0.05, gt=0.0, lt=0.5,
        description="Chance that a challenger no better than the champion is ever promoted.",
    )  # fmt: skip
    drift_cooldown_candles: int = _lasting(
        "drift_cooldown_candles", 1_000_000,
        "Candles after a fine-tuning in which drift starts no other.",
    )  # fmt: skip
    keep_models: int = Field(
        100, ge=4, le=100_000,
        description="Model versions a bot keeps; champion, predecessor and challengers always.",
    )  # fmt: skip
    training_lag_candles: int = _lasting(
        "training_lag_candles", 1_000,
        "Candles from the end of a training's data to its first forecast, so that live has time"
        " to train: it begins a candle after the end.",
    )  # fmt: skip
    validation_fraction: float = Field(
        0.05, ge=0.01, lt=0.5, description="Share of the candles kept for early stopping."
    )
    test_fraction: float = Field(
        0.07, ge=0.01, lt=0.5, description="Newest share, never trained on: scores and calibration."
    )
    train_pairs: Pairs | None = Field(
        None, description="Pairs the pooled network learns from; null: the whole whitelist."
    )
    train_threads: int = Field(
        2, ge=1, le=64,
        description="Threads that trainings share; a backtest runs one for every two, up to four.",
    )  # fmt: skip
    train_timeout_s: int = Field(
        3_600, ge=10, le=86_400, description="Seconds after which a training is killed."
    )
    train_memory_mb: int = Field(
        4_096, ge=256, le=1_000_000,
        description="Megabytes above which a training is killed; sooner where fewer are left.",
    )  # fmt: skip
    train_python: str | None = Field(  # a path of this machine: no card is to show it
        None, exclude=True, min_length=1, pattern=r"^[^\x00]*$",
        description="Python interpreter that trains; null: this one if it has TensorFlow, else "
        "what `freqtrade-lstm trainer` finds.",
    )  # fmt: skip
    require_skill: bool = Field(
        True, description="Enter only while the model's out-of-sample skill is significant."
    )
    skill_p_value: float = Field(
        0.05, gt=0.0, le=1.0, description="Largest p-value at which skill counts as significant."
    )
    slippage_fraction: float = Field(
        0.0005, ge=0.0, le=0.05, description="Assumed slippage per side, as a fraction of price."
    )
    half_spread_fraction: float = Field(
        0.0001, ge=0.0, le=0.05,
        description="Half of the usual bid-ask spread, as a fraction of price.",
    )  # fmt: skip
    min_edge: float = Field(
        0.0, ge=0.0, le=0.5,
        description="Least expected return after all costs for an entry, as a fraction.",
    )  # fmt: skip
    kelly_fraction: float = Field(
        0.25, gt=0.0, le=1.0, description="Share of the Kelly stake that is put at risk."
    )
    max_stake_fraction: float = Field(
        1.0, gt=0.0, le=1.0, description="Cap of a stake, as a fraction of freqtrade's own stake."
    )
    risk_fraction: float = Field(
        0.01, gt=0.0, le=0.2,
        description="Most of the wallet that a trade may lose, as a fraction: at its stop, with "
        "fees, spread, slippage and the gap beyond it.",
    )  # fmt: skip
    max_portfolio_fraction: float = Field(
        0.75, gt=0.0, le=1.0,
        description="Cap of all positions together (stakes times leverage), as a fraction of the "
        "wallet; others count by their correlation.",
    )  # fmt: skip
    stop_multiple: float = Field(
        1.0, ge=0.25, le=10.0,
        description="Stop distance in multiples of the adverse excursion that 95 % of positions "
        "stay within for as long as they are held.",
    )  # fmt: skip
    max_leverage: float | None = Field(
        None, ge=1.0, le=20.0, description="Most leverage on futures, whole; null: the strategy's."
    )
    stop: Literal["strategy", "forecast"] | None = Field(
        None,
        description="`strategy`: its own stop rules are the only ones, and stakes follow from its "
        "`stoploss`; `forecast`: also a stop by the forecast, never looser; null: `forecast` for "
        "`LSTMStrategy`, `strategy` for all others.",
    )
    hold_candles: int | None = Field(
        None, ge=1, le=100_000,
        description="Candles that the forecast's stop is to last for; null: the median of the "
        "strategy's own closed trades, and no such stop before there are ten; of the forecast's "
        "own trades the horizon.",
    )  # fmt: skip
    stop_trails: bool = Field(False, description="Move the forecast's stop after the closes.")
    stake: Literal["steady"] | None = Field(
        None,
        description="`steady`: freqtrade's own stake times the usual over the forecast width, for "
        "equal risk per trade; null: as it is.",
    )
    min_move: float = Field(
        0.0, ge=0.0, le=100.0,
        description="No entry while the forecast interval is narrower than so many round trips "
        "cost; 0: off.",
    )  # fmt: skip
    stale_model_candles: int = _lasting(
        "stale_model_candles", 1_000_000,
        "Candles without a step of the learner after which its model counts as stale.",
    )  # fmt: skip
    leader: str | None = Field(
        None, pattern=r"^([\w.-]+/[\w.:-]+)?$",
        description='Pair that forecasts of all pairs see too; null: BTC on their market; "": none',
    )  # fmt: skip
    order_flow: bool = Field(
        False,
        description="Let the network see order flow too; `freqtrade-lstm download-flow` gets the "
        "past of it.",
    )
    trade_stream: bool = Field(
        True, description="In dry run and live, follow every trade and forecast inside the candle."
    )
    inside_exits: bool = Field(
        False,
        description="In dry run and live, let forecasts inside the candle end trades, and a stop "
        "that trails follow every price. A backtest has no twin of that: what it promised is then "
        "not kept.",
    )
    tape_trades: int = Field(
        20_000, ge=1_000, le=1_000_000, description="Newest trades kept in memory per pair."
    )
    stream_silence_s: int = Field(
        15, ge=2, le=600,
        description="Seconds without a sign of life after which the trade stream counts as stale.",
    )  # fmt: skip
    require_fresh_stream: bool = Field(
        False, description="Enter only while the trade stream of the pair is fresh."
    )
    store_dir: str = Field(
        "lstm", min_length=1, pattern=r"^[^\x00]*$",
        description="Where models and journal live: absolute, or inside user_data.",
    )  # fmt: skip
    journal_url: str | None = Field(  # may hold a password: no card, no job is to show it
        None, exclude=True, repr=False,
        description="SQLAlchemy URL of the forecast journal; null: SQLite in `store_dir`.",
    )  # fmt: skip
    journal_days: int | None = Field(
        400, ge=0, le=36_500, description="Days that the journal keeps; 0 or null: all of them."
    )

    @field_validator("levels", "train_pairs", mode="before")
    @classmethod
    def _accept_json_or_commas(cls, value: Any) -> Any:
        listed = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
        return tuple(listed) if isinstance(listed, list) else listed

    @field_validator("levels")
    @classmethod
    def _check_levels(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        mirrored = tuple(round(1.0 - level, 9) for level in reversed(levels))
        rounded = tuple(round(level, 9) for level in levels)
        if len(levels) < 3 or 0.5 not in levels or rounded != mirrored:
            raise ValueError("must be symmetric around 0.5, contain 0.5 and two more levels")
        if not all(0.0 < a < b < 1.0 for a, b in itertools.pairwise(levels)):
            raise ValueError("must rise strictly and lie between 0 and 1")
        return levels

    @field_validator("learn_from", "store_dir", "train_python", mode="before")
    @classmethod
    def _accept_number(cls, value: Any) -> Any:
        # An environment variable of freqtrade's that looks like a number arrives as one.
        return str(value) if type(value) in (int, float) else value

    @field_validator("learn_from")
    @classmethod
    def _check_day(cls, day: str | None) -> str | None:
        if day is not None:
            midnight_ms(day)
        return day

    @model_validator(mode="after")
    def _leave_room_for_training(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 0.6:
            raise ValueError("validation_fraction + test_fraction must stay below 0.6")
        return self

    @model_validator(mode="after")
    def _let_labels_mature_within_a_step(self) -> Self:
        least, found = self.training_lag_candles + self.horizon, self.step_candles
        if found <= least:
            limit = f"training_lag_candles + horizon = {least}"
            raise ValueError(f"step_candles must exceed {limit}, found {found}")
        return self

    @model_validator(mode="after")
    def _let_a_step_come_before_the_model_is_stale(self) -> Self:
        age, step = self.stale_model_candles, self.step_candles
        if age <= step:
            raise ValueError(f"stale_model_candles must exceed step_candles = {step}, found {age}")
        return self

    @property
    def learn_from_ms(self) -> int | None:
        """Midnight (UTC) of `learn_from`."""
        return None if self.learn_from is None else midnight_ms(self.learn_from)

    def digest(self) -> str:
        """Hash of the options that decide a trained model; part of its version."""
        return _hash(self.model_dump_json(exclude=_NOT_IN_VERSION))

    def finetune_digest(self) -> str:
        """Hash of the options that decide a fine-tuning; part of its version."""
        return _hash(self.model_dump_json(include=set(_OF_FINETUNE)))

    def learning_digest(self) -> str:
        """Hash of the options that decide the learner's course; part of a step's address."""
        return _hash(self.digest() + self.model_dump_json(include=set(_OF_LEARNING)))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def default_of(name: str) -> Any:
    """Default of an option; of one that is a time, with 5m candles.

    Examples
    --------
    >>> default_of("kelly_fraction")
    0.25
    """
    return Settings.model_fields[name].default


_OTHER_DEFAULTS = {name: default_of(name) for name in Settings.model_fields if name not in LASTING}


def parse_settings(
    section: Mapping[str, Any] | None, candle_ms: int = _FIVE_MINUTES_MS,
    of: str = "the configuration",
) -> Settings:  # fmt: skip
    """Validate the `lstm` section of a freqtrade configuration.

    Parameters
    ----------
    candle_ms : length of a candle in milliseconds. Defaults that are times become so many candles,
        and more where the other options need more. `of`: what the section is a part of

    Raises
    ------
    ConfigError
        Names every wrong option, what was found and what is allowed.

    Examples
    --------
    >>> hourly = parse_settings({"horizon": 4}, candle_ms=3_600_000)
    >>> hourly.step_candles, hourly.retrain_candles, hourly.training_lag_candles
    (24, 672, 2)
    """
    if not isinstance(section, Mapping | None):
        raise ConfigError(f'{of}: "lstm" must be a section in braces, found {section!r}')
    given = dict(section or {})
    try:
        times = in_candles({**_OTHER_DEFAULTS, **given}, candle_ms)
        return Settings.model_validate({**times, **given})
    except ValidationError as error:
        known = Settings.model_fields
        problems = "; ".join(explained(item, known, _GONE) for item in error.errors())
        raise ConfigError(f'{of}, section "lstm": {problems}') from None
