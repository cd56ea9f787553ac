"""A real freqtrade backtest of a user's strategy with a class of ours in front of it.

freqtrade itself looks the strategy up, with all that lies beside it: siblings that it imports, and
the parameters of a hyperopt. What it finds is handed on as a class of the same name that derives
from ours and theirs, as a user would write it into a file.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from traceback import extract_tb
from types import new_class
from typing import Any, Protocol

from freqtrade.enums import RunMode
from freqtrade.exceptions import FreqtradeException, StrategyError
from freqtrade.optimize.backtesting import Backtesting
from freqtrade.strategy import IStrategy
from freqtrade.util import get_dry_run_wallet

from lstm_model.bot import insides
from lstm_model.bot.forecasting import LSTMForecasts
from lstm_model.bot.named import STATIC_FILE, static_pairs, words
from lstm_model.bot.reading import in_a_line
from lstm_model.bot.theirs import or_else
from lstm_model.errors import ConfigError
from lstm_model.market.candles import timeframe_ms
from lstm_model.replay.backtest import as_it_was
from lstm_model.replay.forecasts import opens_of
from lstm_model.risk.strategy import LSTMRisk
from lstm_model.rivals.ledger import Deal, Prices, Window

Make = Callable[[type], type]
Scale = Callable[[str, int], float]
_PACKAGE = str(Path(__file__).parents[1])


class Watch(Protocol):
    """Looks on while backtests run.

    Attributes
    ----------
    log : takes all that is logged; freqtrade's own handlers are off
    """

    log: logging.Handler

    def begin(self, title: str) -> None:
        """Hear that a backtest begins."""

    def progress(self, doing: str, share: float) -> None:
        """Hear how far it is in what it does."""


class ScaledStake(IStrategy):  # type: ignore[misc]
    """Stakes what theirs would, times a factor."""

    _lstm_scale: Scale

    def custom_stake_amount(
        self, pair: str, current_time: datetime, proposed_stake: float, **kwargs: Any
    ) -> Any:
        """Theirs, asked by keyword, scaled; freqtrade keeps it within its limits."""
        theirs = or_else(super().custom_stake_amount, proposed_stake)(
            pair=pair, current_time=current_time, proposed_stake=proposed_stake, **kwargs
        )
        if not theirs or isinstance(theirs, str):
            return theirs
        return theirs * type(self)._lstm_scale(pair, int(current_time.timestamp() * 1000))


def plain(theirs: type) -> type:
    """The strategy as it is.

    Raises
    ------
    ConfigError
        It has no other: it derives from `LSTMRisk`.
    """
    if issubclass(theirs, LSTMRisk):
        others = [
            cls.__name__ for cls in theirs.__mro__[1:]
            if issubclass(cls, IStrategy) and not issubclass(cls, LSTMForecasts)
            and cls is not IStrategy
        ]  # fmt: skip
        instead = (
            f"give the one it is made of: --strategy {others[0]}" if others
            else "give a strategy that trades without it"
        )  # fmt: skip
        raise ConfigError(
            f"{theirs.__name__} derives from LSTMRisk already, so there is no plain one to compare "
            f"it with: {instead}"
        )
    return theirs


def with_risk(theirs: type) -> type:
    """`class Theirs(LSTMRisk, Theirs)`."""
    return _in_front(LSTMRisk, plain(theirs), {})


def with_stake(scale: Scale) -> Make:
    """`class Theirs(ScaledStake, Theirs)`: what makes it.

    Parameters
    ----------
    scale : of a pair at a time in ms, the factor of a stake
    """
    return lambda theirs: _in_front(
        ScaledStake, plain(theirs), {"_lstm_scale": staticmethod(scale)}
    )


def _in_front(mixin: type, theirs: type, names: Mapping[str, Any]) -> type:
    """Of the same name: freqtrade checks it against that in a file of parameters."""
    body = {**names, "__module__": theirs.__module__, "__doc__": theirs.__doc__}
    return new_class(theirs.__name__, (mixin, theirs), {}, lambda space: space.update(body))


@dataclass(frozen=True)
class Ran:
    """What a backtest did.

    Attributes
    ----------
    config : freqtrade's, as it was in the end
    wallet : at the start, in stake currency
    promise : `risk_fraction`, where the strategy has the mixin
    refused : reason -> entries that the mixin staked nothing on
    """

    name: str
    config: dict[str, Any]
    deals: tuple[Deal, ...]
    prices: Prices
    window: Window
    wallet: float
    promise: float | None = None
    refused: Counter[str] = field(default_factory=Counter)


def backtest_as(make: Make, config_args: Mapping[str, Any], watch: Watch) -> Ran:
    """Run one strategy as `freqtrade backtesting` would, with a class made of it.

    Nothing is exported, printed or taken from a cache, and freqtrade's classes are afterwards as
    they were. The exchange of the configuration must answer: freqtrade asks for its markets.

    Parameters
    ----------
    config_args : as freqtrade's command line gives them

    Raises
    ------
    ConfigError
        Whatever freqtrade or the strategy have against the configuration or the data.
    """
    args = {
        **config_args, "export": "none", "backtest_cache": "none", "strategy_list": None,
    }  # fmt: skip
    try:
        with as_it_was(), _found_as(make):
            return _run(_set_up(args, watch.log), watch)
    except StrategyError as error:
        raise ConfigError(f"the strategy failed: {_where(error)}") from None
    except (FreqtradeException, ImportError, OSError) as error:
        advice = _advice(str(error), args)
        raise ConfigError(f"the backtest failed: {in_a_line(error)}{advice}") from None


def _where(error: StrategyError) -> str:
    """What was raised, and in which line of the user's own code."""
    cause = error.__cause__ or error
    frames = [
        frame for frame in extract_tb(cause.__traceback__)
        if "site-packages" not in frame.filename and not frame.filename.startswith(_PACKAGE)
    ]  # fmt: skip
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"{cause!r}{place}"


def _advice(text: str, args: Mapping[str, Any]) -> str:
    """What to do, where freqtrade does not say so."""
    same = words(args.get("config") or (), args.get("user_data_dir"), args.get("datadir"))
    if insides.NO_BACKTEST in text:
        pairs = "".join(f" -p {pair}" for pair in args.get("pairs") or ["BTC/USDT", "ETH/USDT"])
        return f" {static_pairs(f'freqtrade-lstm compare{same} -c {STATIC_FILE}{pairs} ...')}"
    if insides.NO_CANDLES in text:
        return (
            f" Get the candles by `freqtrade download-data{same}` with the same --timerange, and "
            "--prepend where it begins before those that there are."
        )
    return ""


def _set_up(args: dict[str, Any], log: logging.Handler) -> dict[str, Any]:
    """Read the configuration, and let all be logged to one handler alone."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        config = insides.set_up(args, RunMode.BACKTEST)
    finally:
        logging.disable(before)
    logging.root.handlers[:] = [log]
    return config


@contextmanager
def _found_as(make: Make) -> Iterator[None]:
    """Have freqtrade find a strategy as usual, and load what is made of it."""

    def instead(search: insides.Search) -> insides.Search:
        def found(directory: Path, **named: Any) -> tuple[type | None, Path | None]:
            theirs, path = search(directory=directory, **named)
            return (make(theirs), path) if theirs else (None, None)

        return found

    with insides.finding(instead):
        yield


def _run(config: dict[str, Any], watch: Watch) -> Ran:
    def show(task: Any) -> None:
        if task.description and task.total:
            watch.progress(str(task.description).lower(), task.completed / task.total)

    testing = Backtesting(config, progress_callback=show)
    try:
        strategy = testing.strategylist[0]
        for name in ("advise_all_indicators", "ft_advise_signals"):
            setattr(strategy, name, insides.guarded(getattr(strategy, name)))
        refused = _refusals(strategy)
        candles, timerange = testing.load_bt_data()
        first, last = testing.backtest_one_strategy(strategy, candles, timerange)
    finally:
        testing.exchange.close()
    name, step_ms = strategy.get_strategy_name(), timeframe_ms(testing.timeframe)
    records = testing.all_bt_content[name]["results"].to_dict("records")
    settings = getattr(strategy, "lstm_settings", None)
    start_ms, last_ms = (int(at.timestamp() * 1000) for at in (first, last))
    return Ran(
        name=name,
        config=config,
        deals=tuple(Deal.of(record) for record in records),
        prices={
            pair: (opens_of(frame) + step_ms, frame["close"].to_numpy(float))
            for pair, frame in candles.items()
        },
        window=Window(start_ms, last_ms + step_ms, step_ms),
        wallet=float(get_dry_run_wallet(config)),
        promise=None if settings is None else settings.risk_fraction,
        refused=refused,
    )


def _refusals(strategy: Any) -> Counter[str]:
    """Count, from now on, the entries that the mixin stakes nothing on, by reason."""
    counts: Counter[str] = Counter()
    if not hasattr(strategy, "lstm_stake_for"):
        return counts
    ask = strategy.lstm_stake_for

    def hear(entry: Any) -> Any:
        stake = ask(entry)
        if stake.amount == 0.0 and entry.trade_id is None:
            counts[stake.reason] += 1
        return stake

    strategy.lstm_stake_for = hear
    return counts
