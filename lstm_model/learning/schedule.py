"""When the learner does what, in absolute candle time, for a live bot as for a backtest.

Time is cut at boundaries: multiples of `step_candles` since 1970-01-01. At each the learner makes a
step from what had closed by then; what comes out serves `training_lag_candles` later, for as long
as a step lasts. A chain of steps begins at the last retraining from scratch, so that everyone who
begins within `retrain_candles` begins with the same network.

Times are integer UTC milliseconds; shapes: N candles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from lstm_model.market.candles import timeframe_ms
from lstm_model.settings import Settings


@dataclass(frozen=True)
class Schedule:
    """The rhythms of one configuration, in milliseconds.

    Examples
    --------
    >>> schedule = Schedule.of(Settings(), "5m")
    >>> boundary = schedule.boundary_at(1_719_792_000_000)
    >>> boundary + schedule.lag_ms <= 1_719_792_000_000 < boundary + schedule.lag_ms + 86_400_000
    True
    >>> schedule.retrains_at(schedule.origin_of(boundary))
    True
    """

    candle_ms: int
    step_ms: int
    lag_ms: int
    retrain_ms: int
    finetune_ms: int  # 0: never

    @classmethod
    def of(cls, settings: Settings, timeframe: str) -> Self:
        """The rhythms that the settings ask for."""
        candle_ms = timeframe_ms(timeframe)
        return cls(
            candle_ms,
            settings.step_candles * candle_ms,
            settings.training_lag_candles * candle_ms,
            settings.retrain_candles * candle_ms,
            settings.finetune_candles * candle_ms,
        )

    def boundary_at(self, close_ms: int) -> int:
        """The boundary whose step serves a candle that closes at `close_ms`."""
        return self.last_boundary(close_ms - self.lag_ms)

    def last_boundary(self, now_ms: int) -> int:
        """The newest boundary at or before `now_ms`."""
        return now_ms // self.step_ms * self.step_ms

    def origin_of(self, boundary_ms: int) -> int:
        """Where a chain begins that is to reach `boundary_ms`: the last retraining until then."""
        retraining = boundary_ms // self.retrain_ms * self.retrain_ms
        return -(-retraining // self.step_ms) * self.step_ms

    def retrains_at(self, boundary_ms: int) -> bool:
        """Whether a training from scratch is due at this boundary."""
        return self._passes(boundary_ms, self.retrain_ms)

    def finetunes_at(self, boundary_ms: int) -> bool:
        """Whether a fine-tuning is due at this boundary by the clock."""
        return self.finetune_ms > 0 and self._passes(boundary_ms, self.finetune_ms)

    def retrainings(self, first_ms: int, last_ms: int) -> list[int]:
        """The boundaries in `[first_ms, last_ms]` at which a training from scratch is due."""
        return [at for at in range(first_ms, last_ms + 1, self.step_ms) if self.retrains_at(at)]

    def trainings(self, first_ms: int, last_ms: int) -> int:
        """How many trainings are due in `[first_ms, last_ms]` by the clock."""
        boundaries = range(first_ms, last_ms + 1, self.step_ms)
        return sum(self.retrains_at(at) or self.finetunes_at(at) for at in boundaries)

    def _passes(self, boundary_ms: int, period_ms: int) -> bool:
        return boundary_ms // period_ms != (boundary_ms - self.step_ms) // period_ms
