"""What a replay came to, from what it has left."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from lstm_model.bot import configuration
from lstm_model.files import content_of
from lstm_model.market.candles import Candles, timeframe_ms, utc_minute
from lstm_model.model.dataset import realized_return
from lstm_model.model.reliability import Reliability
from lstm_model.practice.scenario import INVENTED, Scenario, known_candles
from lstm_model.replay.facts import Balance, Moment, ReplayFacts
from lstm_model.replay.forecasts import first_words
from lstm_model.replay.life import middle
from lstm_model.replay.run import Ran, Replay, Wish
from lstm_model.replay.standing import lives
from lstm_model.store.journal_rows import JournalRow
from lstm_model.trading.sizing import round_trip_cost

# freqtrade's websocket of candles is renewed once a day, and complains where its line has ended
# before; it asks by REST meanwhile, so that nothing is lost.
_WARNING = re.compile(
    r"^(?P<at>[\d-]+ [\d:]+),\d+ - (?!freqtrade\.exchange\.exchange_ws )[\w.]+ - "
    r"(WARNING|ERROR|CRITICAL) - (?P<text>.*)"
)
_VARYING = re.compile(r"[A-Z0-9]+/[A-Z0-9]+|\d+")
_DECISIONS = 1_000  # far more than a window has


def facts_of(replay: Replay, ran: Ran) -> ReplayFacts:
    """The facts of a replay that is over."""
    scenario, config = replay.plan.scenario, replay.config()
    rows, last = replay.rows(), ran.equity[-1] if ran.equity else None
    made = lives()
    with replay.journal() as journal:
        counts = journal.count_verdicts(scenario.timeframe, scenario.start_ms, ran.end_ms)
        lineage = configuration.lineage(config, configuration.settings_of(config))
        decisions = journal.decisions(lineage, _DECISIONS)
    return ReplayFacts(
        data=_words(replay.wish),
        pairs=scenario.pairs,
        timeframe=scenario.timeframe,
        start_ms=scenario.start_ms,
        end_ms=ran.end_ms,
        stake_currency=str(config["stake_currency"]),
        wallet_start=replay.plan.wallet,
        wallet_end=last.equity if last else None,
        wall_s=ran.wall_s,
        step_s=float(replay.plan.step_s),
        strategy=replay.plan.strategy,
        equity=[Balance(at.now_ms, at.equity, at.open_trades) for at in ran.equity],
        prices={pair: _prices(scenario, pair, ran.end_ms) for pair in scenario.pairs},
        fee_fraction=ran.fee_fraction,
        slippage_fraction=round_trip_cost(0.0, replay.settings),
        trades=[each.trade for each in made],
        life=middle(made),
        reasons=_by_pair(counts),
        forecasts=sum(row.candle_ms >= scenario.start_ms for row in chain(*rows.values())),
        intervals=dict(_intervals(replay, rows, ran.end_ms)),
        decisions=[Moment(row.at_ms, row.text) for row in reversed(decisions)],
        incidents=_warnings(replay.files.log),
        messages=len((content_of(replay.files.messages) or b"").splitlines()),  # none: no file
        account=ran.agreement,
        notes=[*_notes(ran, scenario.end_ms), *detail_notes(scenario)],
    )


def _intervals(
    replay: Replay, rows: dict[str, list[JournalRow]], end_ms: int
) -> Iterator[tuple[str, Reliability]]:
    """What the intervals of forecasts were worth that have come true by the end."""
    level = replay.settings.levels[-1] - replay.settings.levels[0]
    parts = [_come_true(replay, pair, mine, end_ms) for pair, mine in rows.items()]
    for pair, part in zip(rows, parts, strict=True):
        yield pair, _reliability(part, level)
    numbers = np.repeat(np.arange(len(parts)), [part.shape[1] for part in parts])
    yield "all pairs", _reliability(np.concatenate(parts, axis=1), level, numbers)


def _come_true(replay: Replay, pair: str, rows: list[JournalRow], end_ms: int) -> Any:
    """(4, N) low, high, realized and volatility of a pair's forecasts."""
    scenario = replay.plan.scenario
    known = Candles.from_frame(
        known_candles(scenario, pair, end_ms), pair, scenario.timeframe
    ).on_grid()
    said = list(first_words(rows).values())
    dates = np.array([row.candle_ms for row in said], np.int64)
    realized = realized_return(known, replay.settings.horizon)
    places = np.searchsorted(known.date_ms, dates)
    numbers = np.array([(row.low, row.high, row.volatility) for row in said]).reshape(-1, 3)
    low, high, volatility = numbers.T
    return np.stack([low, high, realized[places], volatility])


def _reliability(columns: Any, level: float, groups: Any = None) -> Reliability:
    low, high, realized, volatility = columns
    return Reliability.of(low, high, realized, volatility, level, groups=groups)


def _words(wish: Wish) -> str:
    if wish.data in INVENTED:
        return f"the invented {wish.data} market (seed {wish.seed})"
    return f"recorded data of {wish.data}"


def _prices(scenario: Scenario, pair: str, end_ms: int) -> list[tuple[int, float]]:
    """Time and price at the start and at the close of every candle of the window."""
    step_ms = timeframe_ms(scenario.timeframe)
    known = Candles.from_frame(
        known_candles(scenario, pair, end_ms), pair, scenario.timeframe
    ).between(scenario.start_ms - step_ms, end_ms)
    closes = (known.date_ms + known.step_ms).tolist()
    return list(zip(closes, known.close.tolist(), strict=True))


def _by_pair(counts: dict[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    reasons: dict[str, dict[str, int]] = {}
    for (pair, reason), count in counts.items():
        reasons.setdefault(pair, {})[reason] = count
    return reasons


def _warnings(log: Path) -> list[Moment]:
    """What the bot warned of: of texts that differ in pairs and numbers alone the first."""
    told: dict[str, Moment] = {}
    for line in log.read_text().splitlines():
        if match := _WARNING.match(line):
            at = datetime.fromisoformat(match["at"]).replace(tzinfo=UTC)
            kind = _VARYING.sub("", match["text"])
            told.setdefault(kind, Moment(int(at.timestamp() * 1000), match["text"]))
    return list(told.values())


def _notes(ran: Ran, end_ms: int) -> list[str]:
    """What a reader must know first."""
    notes = []
    if ran.end_ms < end_ms:
        notes.append(f"Stopped at {utc_minute(ran.end_ms)} UTC, before its end.")
    for what, count in Counter(ran.missed).items():
        notes.append(f"The bot waited in vain for {what}, {count} time(s): a run may differ.")
    return notes


def detail_notes(scenario: Scenario) -> Iterator[str]:
    """Which pairs have finer candles for what happens inside a candle, and which have not."""
    if not scenario.detail:
        return
    yield f"Inside a candle: the {scenario.detail} candles of {', '.join(scenario.detailed)}"
    without = [pair for pair in scenario.pairs if pair not in scenario.detailed]
    if without:
        yield (
            f"No {scenario.detail} candles over the window: {', '.join(without)}; bot and backtest "
            f"have the {scenario.timeframe} candles alone there"
        )
