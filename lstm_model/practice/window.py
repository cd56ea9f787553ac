"""What is replayed of the past, and how much of it the market must hold.

It holds from what a bot asks for when it starts (its startup candles, in whole pages of the
exchange, and a day more for the 24 h ticker) to a few candles after the window.
"""

from __future__ import annotations

from dataclasses import dataclass

from lstm_model.errors import ConfigError
from lstm_model.market.candles import candle_open_ms, timeframe_ms, utc_text
from lstm_model.practice.tape_market import DAY_MS, TIMEFRAMES

_PAGE_CANDLES = 1_000  # klines per answer; freqtrade asks for whole pages when a bot starts
_CANDLES_AFTER = 5  # chosen: a bot that is being stopped still asks for the newest candles


@dataclass(frozen=True)
class Window:
    """The time that is replayed, `[start_ms, end_ms)`.

    Parameters
    ----------
    startup_candles : how many closed candles a bot wants to see at `start_ms`
    detail : a finer timeframe whose candles stand for the prices inside a candle, "" for none

    Raises
    ------
    ConfigError
        For an unknown timeframe, a detail that does not divide it, a window without length and
        negative numbers.

    Examples
    --------
    >>> window = Window("5m", 1_700_006_400_000, 1_700_092_800_000, startup_candles=300)
    >>> utc_text(window.first_ms), utc_text(window.last_ms)
    ('2023-11-10T12:40:00Z', '2023-11-16T00:25:00Z')
    """

    timeframe: str
    start_ms: int
    end_ms: int
    startup_candles: int = 0
    detail: str = ""

    def __post_init__(self) -> None:
        for timeframe in (self.timeframe, self.detail or self.timeframe):
            if timeframe not in TIMEFRAMES:
                known = ", ".join(TIMEFRAMES)
                raise ConfigError(f'timeframe "{timeframe}" is unknown; give one of {known}')
        if self.detail and (self.detail_ms >= self.step_ms or self.step_ms % self.detail_ms):
            raise ConfigError(
                f'the detail of {self.timeframe} candles must be a part of them, "{self.detail}" '
                "is not; give a shorter timeframe that divides it"
            )
        if not 0 <= self.start_ms < self.end_ms:
            raise ConfigError(f"a window starts after 1970 and ends later, found {self}")
        if self.startup_candles < 0:
            raise ConfigError(f"startup_candles must be at least 0, found {self.startup_candles}")

    def __str__(self) -> str:
        return f"{utc_text(self.start_ms)} to {utc_text(self.end_ms)}"

    @property
    def step_ms(self) -> int:
        """Length of a candle."""
        return timeframe_ms(self.timeframe)

    @property
    def detail_ms(self) -> int:
        """Length of a candle of the detail, 0 without one."""
        return timeframe_ms(self.detail) if self.detail else 0

    def is_detail(self, step_ms: int) -> bool:
        """Whether a recording of that resolution (0: trades) gives the detail's candles."""
        return self.detail_ms > 0 and (not step_ms or self.detail_ms % step_ms == 0)

    @property
    def first_ms(self) -> int:
        """From where on the market must hold trades; the open of a candle."""
        pages = self.startup_candles // _PAGE_CANDLES + 1
        wanted = self.start_ms - pages * _PAGE_CANDLES * self.step_ms - DAY_MS
        return max(0, int(candle_open_ms(wanted, self.step_ms)))

    @property
    def last_ms(self) -> int:
        """Up to where the market must hold trades."""
        return self.end_ms + _CANDLES_AFTER * self.step_ms
