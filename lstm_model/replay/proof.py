"""Is what a bot said what a backtest says, and what its own models make of the same candles?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from freqtrade.persistence.pairlock import PairLock

from lstm_model.bot import assembly, configuration
from lstm_model.learning.chain import Learning
from lstm_model.learning.steps import Step
from lstm_model.market.candles import Candles, timeframe_ms
from lstm_model.practice.exchange import LoopbackExchange
from lstm_model.practice.overlay import loopback_overlay
from lstm_model.practice.perpetual import Perpetual
from lstm_model.practice.scenario import Scenario, write_detail
from lstm_model.replay.accounts import Account, Lock, Rules, first_in_time
from lstm_model.replay.backtest import BacktestRun, backtest
from lstm_model.replay.causes import Evidence
from lstm_model.replay.comparison import Comparison, compare
from lstm_model.replay.forecasts import compare_forecasts
from lstm_model.replay.money import Payment, Purse
from lstm_model.replay.reproduction import Finding, StepsInForce, check_journal
from lstm_model.replay.run import Replay
from lstm_model.replay.standing import trades
from lstm_model.settings import Settings
from lstm_model.store.journal_rows import JournalRow

_MOST_STEPS = 10_000  # far more than a window has
_FOREVER_MS = 2**62


def prove(replay: Replay, tolerance: float) -> Comparison:
    """Backtest the window of a replay that is over, and hold one against the other.

    The backtest has a store of its own: it trains what the bot has trained.

    Parameters
    ----------
    tolerance : difference of profits that fills may make, see `lstm_model.replay.money.Purse`

    Raises
    ------
    ConfigError
        The backtest cannot be run.
    """
    scenario = replay.plan.scenario
    replay.write_candles(replay.files.whole, scenario.end_ms)
    write_detail(scenario, replay.files.whole)
    tested, rows = _backtest(replay), replay.rows()
    step_ms = timeframe_ms(scenario.timeframe)
    forecasts = compare_forecasts(
        tested.forecasts, rows, step_ms, scenario.start_ms, scenario.end_ms
    )
    replayed = _account(replay, rows, step_ms)
    rules = Rules(step_ms, scenario.end_ms, tested.max_open_trades)
    evidence, purse = _evidence(replay, replayed), _purse(replay, tolerance)
    return compare(forecasts, tested.account, replayed, rules, evidence, purse)


def _purse(replay: Replay, tolerance: float) -> Purse:
    scenario, last = replay.plan.scenario, {}
    whole = {**replay.config(), "datadir": replay.files.whole}
    for pair in scenario.pairs:
        candles = configuration.load_candles(whole, pair)
        if candles is not None and len(known := candles.between(0, scenario.end_ms)):
            last[pair] = float(known.close[-1])
    inside = replay.settings.inside_exits
    return Purse(replay.plan.wallet, last, tolerance, inside, dict(_payments(scenario)))


def _payments(scenario: Scenario) -> Iterator[tuple[str, list[Payment]]]:
    """Each future's funding within the window."""
    for pair in scenario.pairs:
        listing = scenario.listing(pair)
        if isinstance(listing, Perpetual):
            tick = 10.0**-listing.instrument.price_decimals
            due = listing.fundings(scenario.start_ms, scenario.end_ms)
            yield pair, [Payment(at_ms, rate * mark * tick) for at_ms, rate, mark in due]


def _backtest(replay: Replay) -> BacktestRun:
    files, plan = replay.files, replay.plan
    scenario = plan.scenario
    with LoopbackExchange(scenario.market) as exchange:
        overlay = json.loads(files.overlay.read_text())
        address = loopback_overlay(exchange.url, scenario.trading_mode)
        overlay["exchange"] |= address["exchange"]
        overlay["lstm"]["store_dir"] = str(files.backtest)
        overlay["timeframe_detail"] = scenario.detail
        overlay["log_config"]["handlers"]["file"]["filename"] = str(files.folder / "backtest.log")
        path = Path(files.folder / "backtest.json")
        path.write_text(json.dumps(overlay, indent=4))
        arguments = {
            "config": [*plan.configs, str(path)],
            "user_data_dir": str(plan.userdir),
            "datadir": str(files.whole),
            "strategy": plan.strategy,
        }
        # freqtrade enters nothing in the first candle, in which the bot looks for the first time.
        first_ms = scenario.start_ms - timeframe_ms(scenario.timeframe)
        return backtest(arguments, first_ms, scenario.end_ms)


def _account(replay: Replay, rows: dict[str, list[JournalRow]], step_ms: int) -> Account:
    scenario = replay.plan.scenario
    span = (scenario.start_ms - step_ms, scenario.end_ms)
    with replay.journal() as journal:
        verdicts = journal.verdicts(scenario.timeframe, *span)
    locks = [Lock.of(lock.to_json()) for lock in PairLock.get_all_locks().all()]
    every = [row for mine in rows.values() for row in mine]
    return Account(tuple(trades()), tuple(verdicts), tuple(locks), first_in_time(every, step_ms))


def _evidence(replay: Replay, replayed: Account) -> Evidence:
    config = replay.config()
    settings, pairs = configuration.settings_of(config), replay.plan.scenario.pairs
    in_force = StepsInForce(*known_steps(config, settings, pairs))

    whole: dict[str, Any] = {**config, "datadir": replay.files.whole}
    history = assembly.open_learning(whole, settings, pairs).maker.history

    def given(pair: str) -> Candles | None:
        seen = replay.seen.get(pair)
        return Candles.from_frame(pd.concat(seen), pair, config["timeframe"]) if seen else None

    return Evidence(
        settings,
        history.of,
        given,
        in_force.model_for,
        replayed.words,
        history.leader,
    )


def journaled(config: dict[str, Any], since_ms: int) -> Iterator[Finding]:
    """Compute again what the bot of a configuration has journaled since then.

    Raises
    ------
    LstmModelError
        There is no journal, or it cannot be read.
    """
    settings = configuration.settings_of(config)
    journal = configuration.journal_of(config, settings, read_only=True, whole_market=True)
    timeframe = config["timeframe"]
    journal.check_exists()
    try:
        pairs = journal.pairs(timeframe, since_ms, _FOREVER_MS)
        rows = [
            row for pair in pairs for row in journal.read(pair, timeframe, since_ms, _FOREVER_MS)
        ]
    finally:
        journal.close()
    learning, steps = known_steps(config, settings, pairs)
    yield from check_journal(rows, learning.maker.history.of, learning, steps, settings)


def known_steps(
    config: dict[str, Any], settings: Settings, pairs: Sequence[str]
) -> tuple[Learning, Sequence[Step]]:
    """The learner of a bot, and the steps that it has come along."""
    learning = assembly.open_learning(config, settings, pairs)
    head = assembly.open_lineage(config, settings).head
    return learning, learning.resume(head, _MOST_STEPS) if head else ()
