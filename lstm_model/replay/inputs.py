"""What a network saw of a candle, computed anew from what was known when it closed, and no more.

Shapes: L lookback, F features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lstm_model.durations import DAY_MS
from lstm_model.features.closed_candle import WARM_UP, feature_names
from lstm_model.features.context import REACH_DAYS, Contexts
from lstm_model.market.candles import LEADING, Candles, Floats, utc_text
from lstm_model.settings import Settings
from lstm_model.trading.outlook import Frame

DOWNLOAD = "`freqtrade download-data` gets them"


@dataclass(frozen=True)
class Inputs:
    """What a network sees of one candle.

    Attributes
    ----------
    names : of the F features
    rows : (L, F) float64, not scaled; the last is that of the candle
    volatility : log return per candle
    candles : all they were computed from; the last is the candle
    """

    names: tuple[str, ...]
    rows: Floats
    volatility: float
    candles: Candles


def inputs_at(
    candles: Candles, candle_ms: int, settings: Settings, leading: Candles | None = None
) -> Inputs | str:
    """What is seen of the candle that opens at `candle_ms`, or why it cannot be forecast.

    Later candles are cut off before anything is computed, also of the leader, and so are earlier
    ones that no feature of the window may look back on.

    Parameters
    ----------
    leading : the leader's candles, where candles have a context
    """
    count = WARM_UP + settings.lookback
    since_ms = candle_ms - (count - 1) * candles.step_ms
    known = candles.between(since_ms, candle_ms + 1).copy()
    if why := _missing(known, candle_ms, settings):
        return why
    if known.context is not None:
        known = _in_context(candles, known, leading)
    return _shown(known, settings)


def without_leader(inputs: Inputs, settings: Settings) -> Inputs | str:
    """What was seen if the leader's candle came too late."""
    assert inputs.candles.context is not None  # noqa: S101
    context = inputs.candles.context.copy()
    for name in LEADING:
        context[f"leader_{name}"][-1] = np.nan
    return _shown(replace(inputs.candles, context=context), settings)


def _in_context(candles: Candles, known: Candles, leading: Candles | None) -> Candles:
    """The candles with what they are seen in, by what was known when the last of them closed."""
    since_ms, end_ms = int(known.date_ms[0]), int(known.date_ms[-1]) + 1
    series = {known.pair: candles.between(since_ms - REACH_DAYS * DAY_MS, end_ms)}
    if leading is not None:
        begin_ms = since_ms - WARM_UP * known.step_ms
        series.setdefault(leading.pair, leading.between(begin_ms, end_ms))
    contexts = Contexts(None if leading is None else leading.pair)
    return known.with_context(contexts.of(known, series.get))


def _shown(known: Candles, settings: Settings) -> Inputs | str:
    frame = Frame(known, settings)
    if not frame.usable[-1]:
        return _unsound(frame, settings)
    window = frame.features.rows[-settings.lookback :]
    volatility = float(frame.features.volatility[-1])
    return Inputs(feature_names(settings.order_flow), window, volatility, known)


def _missing(known: Candles, candle_ms: int, settings: Settings) -> str:
    """Which of the candles that a forecast looks back on are not known; empty if all are."""
    count = WARM_UP + settings.lookback
    if len(known) < count:
        wanted = candle_ms + known.step_ms * np.arange(1 - count, 1)
        gone = wanted[~np.isin(wanted, known.date_ms)]
        if gone[-1] == candle_ms:
            return f"the candle of {utc_text(candle_ms)} is not on disk: {DOWNLOAD}"
        what = f"{len(gone)} of the {count} candles up to its own are not on disk"
        return f"{what}, the last of them that of {utc_text(gone[-1])}: {DOWNLOAD}"
    if settings.order_flow and known.flow is None:
        return "its order flow is unknown: `freqtrade-lstm download-flow` gets it"
    return ""


def _unsound(frame: Frame, settings: Settings) -> str:
    """Why the last window of a complete frame cannot be forecast."""
    newest, sound = utc_text(frame.candles.date_ms[-1]), frame.candles.sound()
    if sound[-1] and not frame.features.known[-settings.lookback :].all():
        return f"up to the candle of {newest} a price is impossible, or none moved"
    bad = int((~sound[-settings.lookback :]).sum())
    own = "" if sound[-1] else f", that of {newest} among them"
    return f"{bad} of {settings.lookback} candles have no trades or impossible prices{own}"


def look_ahead(inputs: Inputs, whole: Frame) -> str:
    """Which number is another where later candles are known too, as a clause; empty if none is."""
    newest_ms = inputs.candles.date_ms[-1]
    end = int(np.searchsorted(whole.candles.date_ms, newest_ms))
    first = end - len(inputs.rows) + 1
    window, volatility = whole.features.rows[first : end + 1], whole.features.volatility[end]
    found = np.argwhere(window != inputs.rows)
    if not len(found) and volatility == inputs.volatility:
        return ""
    name, opened_ms, numbers = "volatility", newest_ms, (volatility, inputs.volatility)
    if len(found):
        row, column = found[0]
        name, opened_ms = inputs.names[column], whole.candles.date_ms[first + row]
        numbers = window[row, column], inputs.rows[row, column]
    what = f'"{name}" of the candle of {utc_text(opened_ms)} is {float(numbers[0])} in the whole'
    known = f"{float(numbers[1])} with those until {utc_text(newest_ms)}"
    return f"look-ahead: {what} series and {known}"
