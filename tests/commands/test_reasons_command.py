"""`freqtrade-lstm reasons` and `coverage`: why there was no trade, what the intervals are worth."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from freqtrade.data.history import get_datahandler
from freqtrade.enums import CandleType
from series import STEP_MS, make_candles, to_frame
from stored import make_card, make_weights

from lstm_model.commands import coverage as coverage_cli
from lstm_model.commands.main import main
from lstm_model.market.candles import Candles
from lstm_model.model.dataset import realized_return
from lstm_model.model.forecast import winkler_score
from lstm_model.model.reach import excursions
from lstm_model.model.reliability import Reliability
from lstm_model.scoring.har import walk_forward
from lstm_model.settings import DEFAULT_LEVELS, parse_settings
from lstm_model.store.journal import Journal, JournalRow, VerdictRow
from lstm_model.store.models import ModelStore
from lstm_model.trading.sizing import REASONS

# freqtrade reads candles with an option that a newer pandas warns of.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The inplace keyword"),
    pytest.mark.usefixtures("same_logging"),
]

HORIZON = 12
NEWEST_MS = (time.time_ns() // 1_000_000) // STEP_MS * STEP_MS - STEP_MS
PAIRS = ("BTC/USDT", "ETH/USDT")


@dataclass(frozen=True)
class User:
    """A user_data folder with a configuration, a journal that may be empty, and candles."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "lstm"

    @property
    def journal(self) -> Journal:
        return Journal(f"sqlite:///{self.root}/journal.sqlite")

    def run(self, *words: str, columns: int = 160) -> Result:
        options = ["-c", str(self.folder / "config.json"), "--userdir", str(self.folder)]
        return CliRunner().invoke(main, [*words, *options], env={"COLUMNS": str(columns)})

    def told(self, *words: str, columns: int = 160) -> str:
        done = self.run(*words, columns=columns)
        assert done.exit_code == 0, done.output
        return done.output

    def refused(self, *words: str) -> str:
        done = self.run(*words)
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
        return done.stderr

    def judged(self, *verdicts: tuple[str, int, str]) -> None:
        """Write down (pair, candles ago, reason), the later ones as said later."""
        journal = self.journal
        journal.record_verdicts(
            VerdictRow(pair, "5m", NEWEST_MS - ago * STEP_MS, reason, "", number)
            for number, (pair, ago, reason) in enumerate(verdicts)
        )
        journal.close()

    def said(self, candles: Candles, half: float, version: str = "a1", made_ms: int = 1) -> None:
        """Write down a forecast of +-`half` for every candle."""
        quantiles = tuple(half * (level - 0.5) / 0.45 for level in DEFAULT_LEVELS)
        journal = self.journal
        journal.record(
            JournalRow(candles.pair, "5m", candle_ms, version, quantiles, 1e-3 * (1 + candle_ms %
                       (7 * STEP_MS) / STEP_MS), 0.0, -half, half, "no_edge", made_ms)
            for candle_ms in candles.date_ms.tolist()
        )  # fmt: skip
        journal.close()

    def reached(self, candles: Candles, near: float, far: float | None) -> None:
        """Write down reaches of every candle: of the horizon, and of all spans beyond it."""
        zeros = (0.0,) * len(DEFAULT_LEVELS)
        beyond = tuple(None if far is None else side * far for side in (-1, -1, -1, 1, 1, 1))
        journal = self.journal
        journal.record(
            JournalRow(candles.pair, "5m", candle_ms, "a1", zeros, 1e-3, 0.0, 0.0, 0.0, "no_edge",
                       1, 0.0, -near, near, beyond)
            for candle_ms in candles.date_ms.tolist()
        )  # fmt: skip
        journal.close()

    def downloaded(self, candles: Candles) -> None:
        handler = get_datahandler(self.folder / "data" / "binance", "feather")
        handler.ohlcv_store(candles.pair, "5m", to_frame(candles), CandleType.SPOT)


@pytest.fixture
def user(tmp_path: Path) -> User:
    write_config(tmp_path)
    (tmp_path / "data" / "binance").mkdir(parents=True)
    return User(tmp_path)


def write_config(folder: Path, **changes: object) -> None:
    config = {
        "timeframe": "5m", "stake_currency": "USDT", "dry_run": True, "trading_mode": "spot",
        "exchange": {"name": "binance", "pair_whitelist": list(PAIRS)},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_what_somebody_wrote_into_the_journal_is_shown_as_it_is(user: User) -> None:
    user.judged((PAIRS[0], 1, "[/x]"), (PAIRS[0], 2, ":smile:"))
    told = user.told("reasons")
    assert "[/x]" in told
    assert ":smile:" in told


def market(pair: str, count: int = 900) -> Candles:
    start_ms = NEWEST_MS - (count - 1) * STEP_MS
    return make_candles(count, pair=pair, seed=len(pair) + ord(pair[0]), start_ms=start_ms)


def row(output: str, name: str, columns: int) -> list[str]:
    """The last row of the printed tables that begins with `name`."""
    found = [line for line in output.splitlines() if line.startswith(name)][-1]
    return found.split()[-columns:]


@pytest.mark.parametrize("command", ["reasons", "coverage"])
def test_without_a_journal_it_is_said_what_writes_one(user: User, command: str) -> None:
    assert re.match(r"Error: there is no journal at .*dry run or live", user.refused(command))
    assert not user.root.exists()


@pytest.mark.parametrize("name", ["a?b", "a%20b #c", "Märkte"])
def test_the_journal_is_looked_for_where_the_store_is(user: User, name: str) -> None:
    write_config(user.folder, lstm={"store_dir": name})
    journal = Journal(user.folder / name / "journal.sqlite", "binance-spot-5m-0")
    journal.record_verdicts([VerdictRow("BTC/USDT", "5m", NEWEST_MS, "no_edge", "", 1)])
    journal.close()
    assert "What became of 1 candles" in user.told("reasons")


def test_another_exchange_in_the_same_store_is_not_counted(user: User) -> None:
    for lineage in ("kraken-spot-5m-0", "binance-futures-5m-0", "binance-spot-5m-0"):
        journal = Journal(user.root / "journal.sqlite", lineage)
        journal.record_verdicts([VerdictRow("BTC/USDT", "5m", NEWEST_MS, "no_edge", "", 1)])
        journal.close()
    assert "What became of 1 candles" in user.told("reasons")


@pytest.mark.parametrize("command", ["reasons", "coverage"])
def test_without_a_timeframe_it_is_said_what_is_missing(user: User, command: str) -> None:
    write_config(user.folder, timeframe="")
    assert 'no "timeframe"' in user.refused(command)


@pytest.mark.parametrize("command", ["reasons", "coverage"])
def test_a_damaged_journal_is_refused_in_a_line(user: User, command: str) -> None:
    user.root.mkdir()
    (user.root / "journal.sqlite").write_bytes(b"no database" * 500)
    assert "is unusable" in user.refused(command)


def test_candles_are_counted_by_what_they_ended_in(user: User) -> None:
    user.judged(
        *[("BTC/USDT", ago, "no_edge") for ago in range(1_500)],
        *[("ETH/USDT", ago, "no_skill") for ago in range(500)],
        ("BTC/USDT", 1_600, "enter_long"), ("BTC/USDT", 1_600, "too_small"),
        ("ETH/USDT", 1_600, "enter_long"),
        ("ETH/USDT", 3 * 2_016, "error"),
    )  # fmt: skip
    output = user.told("reasons")
    assert "What became of 2,002 candles from 20" in output
    meanings = {code: count for code in REASONS if (count := re.search(
        rf"{code} +([\d,]+) +([\d.]+%) {re.escape(REASONS[code])}", output))}  # fmt: skip
    assert {code: found.groups() for code, found in meanings.items()} == {
        "no_edge": ("1,500", "74.9%"), "no_skill": ("500", "25.0%"),
        "enter_long": ("1", "0.0%"), "too_small": ("1", "0.0%"),
    }  # fmt: skip
    counts = {name: row(output, name, 5) for name in (*PAIRS, "all pairs")}
    assert counts == {
        "BTC/USDT": ["1,501", "1,500", "0", "0", "1"],
        "ETH/USDT": ["501", "0", "500", "1", "0"],
        "all pairs": ["2,002", "1,500", "500", "1", "1"],
    }
    assert "What became of 2,003 candles" in user.told("reasons", "--days", "30")


def test_the_counts_fit_into_a_narrow_terminal(user: User) -> None:
    user.judged(*[("DOGE/USDT:USDT", ago, code) for ago, code in enumerate(REASONS)])
    output = user.told("reasons", columns=80)
    assert max(map(len, output.splitlines())) <= 80
    count = len(REASONS)
    assert row(output, "DOGE/USDT:USDT", count + 1) == [str(count)] + ["1"] * count
    assert all(word in output.split() for code in REASONS for word in REASONS[code].split())
    assert "…" not in output


def test_a_reason_of_another_release_is_counted_too(user: User) -> None:
    user.judged(("BTC/USDT", 0, "full_moon"))
    assert re.search(r"full_moon .* unknown to this release", user.told("reasons"))


def test_nothing_judged_is_said(user: User) -> None:
    user.judged(("BTC/USDT", 3_000, "no_edge"))
    assert "No candle was judged from" in user.told("reasons")
    assert user.run("reasons", "--days", "0").exit_code == 2


def cells(made: Reliability, plain: Sequence[float]) -> list[str]:
    """With the scores of EWMA, of HAR and of constant width; NaN: not known."""
    shares = (made.coverage, made.worst_quintile, made.worst_window)
    return [
        f"{made.count:,}",
        *("-" if np.isnan(share) else f"{share:.1%}" for share in shares),
        *("-" if np.isnan(s) else f"{1e4 * s:.1f}" for s in (made.winkler, *plain)),
    ]


@pytest.mark.lengthy
def test_intervals_are_held_against_what_came(user: User) -> None:
    half, parts = 0.006, []
    for pair in PAIRS:
        candles = market(pair)
        user.downloaded(candles)
        user.said(candles.rows(100, 900), half)
        realized = realized_return(candles, HORIZON)[100:888]
        volatility = 1e-3 * (1 + candles.date_ms[100:888] % (7 * STEP_MS) / STEP_MS)
        low, high = np.full(788, -half), np.full(788, half)
        reach = 1.6448536 * volatility * np.sqrt(HORIZON)
        ends = np.quantile(realized, [0.05, 0.95], method="inverted_cdf")
        plain = [winkler_score(-reach, reach, realized, 0.9), np.full(788, np.nan),
                 winkler_score(ends[0], ends[1], realized, 0.9)]  # fmt: skip
        parts.append(([low, high, realized, volatility], plain))
    output = user.told("coverage")
    assert "1,576 of 1,600 forecasts from" in output
    assert "90% interval of 12 candles' return:" in output
    for pair, (columns, plain) in zip(PAIRS, parts, strict=True):
        scores = [float(score.mean()) for score in plain]
        assert row(output, pair, 8) == cells(Reliability.of(*columns, 0.9), scores)
    columns = [np.concatenate(both) for both in zip(*(part[0] for part in parts), strict=True)]
    scores = [float(np.mean(both)) for both in zip(*(part[1] for part in parts), strict=True)]
    whole = Reliability.of(*columns, 0.9, groups=np.repeat([0, 1], 788))
    assert row(output, "all pairs", 8) == cells(whole, scores)
    assert 0.5 < whole.worst_window < whole.coverage < 1.0


@pytest.mark.lengthy
def test_har_stands_beside_where_candles_before_the_forecasts_are_enough(user: User) -> None:
    parts = []
    for pair, count in zip(PAIRS, (4_000, 3_500), strict=True):
        candles = market(pair, count)
        user.downloaded(candles)
        user.said(candles.rows(count - 900, count), 0.006)
        settings = parse_settings({"horizon": HORIZON}, STEP_MS)
        dates, ends = walk_forward(candles, int(candles.date_ms[-900]), settings)
        realized = realized_return(candles, HORIZON)[-900:-HORIZON]
        assert np.array_equal(dates, candles.date_ms[-900:-HORIZON])
        parts.append(winkler_score(*ends.T, realized, 0.9))
    output = user.told("coverage")
    for pair, scores in zip(PAIRS, parts, strict=True):
        assert row(output, pair, 8)[6] == f"{1e4 * scores.mean():.1f}"
    assert row(output, "all pairs", 8)[6] == f"{1e4 * np.concatenate(parts).mean():.1f}"
    assert "HAR is not known" not in output


def test_without_candles_before_the_forecasts_har_is_not_known(user: User) -> None:
    candles = market("BTC/USDT")
    user.downloaded(candles)
    user.said(candles, 9.0)
    output = user.told("coverage")
    assert "HAR is not known of BTC/USDT: 1,000 candles" in output
    assert row(output, "BTC/USDT", 8)[6] == "-"


def test_of_several_forecasts_for_a_candle_the_first_counts(user: User) -> None:
    candles = market("BTC/USDT")
    user.downloaded(candles)
    user.said(candles, 9.0, "a1", made_ms=5)
    user.said(candles.rows(0, 888), 1e-9, "b2", made_ms=4)
    assert row(user.told("coverage"), "BTC/USDT", 8)[:2] == ["888", "0.0%"]


def test_what_a_hole_in_the_candles_hides_is_not_known() -> None:
    candles = make_candles(100)
    holed = candles.rows(0, 40).then(candles.rows(41, 100))
    dates = np.concatenate([candles.date_ms[::-1], [candles.date_ms[0] - 1, 0, 2**60]])
    found = coverage_cli._realized(holed, dates, HORIZON)
    expected = realized_return(candles, HORIZON)
    expected[[40, 28]] = np.nan
    assert np.array_equal(found[:100], expected[::-1], equal_nan=True)
    assert np.isnan(found[100:]).all()


def test_few_forecasts_have_no_worst(user: User) -> None:
    candles = market("BTC/USDT", 200)
    user.downloaded(candles)
    user.said(candles, 0.02)
    assert row(user.told("coverage"), "BTC/USDT", 8)[2:4] == ["-", "-"]


def test_forecasts_of_models_made_for_something_else_are_left_out(user: User) -> None:
    candles = market("BTC/USDT")
    user.downloaded(candles)
    store = ModelStore(user.root)
    hourly = parse_settings({"horizon": 4}).model_dump()
    store.publish(make_card(0, version="0dd0", settings=hourly), make_weights(0), None)
    store.publish(make_card(1, version="f1d0"), make_weights(1), None)
    user.said(candles.rows(0, 300), 9.0, "0dd0")
    user.said(candles.rows(300, 900), 9.0, "f1d0")
    output = user.told("coverage")
    assert "300 were made for another horizon or other levels" in output
    assert row(output, "BTC/USDT", 8)[0] == "588"


def test_what_is_missing_to_judge_by_is_said(user: User) -> None:
    for pair in (*PAIRS, "SOL/USDT"):
        user.said(market(pair, 50), 9.0)
    old = make_candles(300, pair="ETH/USDT", start_ms=NEWEST_MS - 600 * STEP_MS)
    user.downloaded(old)
    output = user.told("coverage")
    assert "0 of 150 forecasts" in output
    command = f"freqtrade download-data -c {user.folder}/config.json --userdir {user.folder}"
    gets = "--timeframes 5m --pairs BTC/USDT SOL/USDT` gets them."
    assert f"No candles of BTC/USDT, SOL/USDT: `{command} {gets}" in output
    assert "No forecast of ETH/USDT has come true in these candles" in output
    assert "Winkler" not in output


def test_candles_may_lie_elsewhere(user: User, tmp_path: Path) -> None:
    candles = market("BTC/USDT")
    user.downloaded(candles)
    user.said(candles, 9.0)
    (tmp_path / "data" / "binance").rename(tmp_path / "elsewhere")
    output = user.told("coverage", "--datadir", str(tmp_path / "elsewhere"))
    assert row(output, "BTC/USDT", 8)[:2] == ["888", "100.0%"]


def test_only_the_days_asked_for_are_judged(user: User) -> None:
    candles = market("BTC/USDT")
    user.downloaded(candles)
    user.said(candles, 9.0)
    count = int(row(user.told("coverage", "--days", "1"), "BTC/USDT", 8)[0])
    assert 240 < count <= 288 - 12  # candles close while the suite runs; 888 of all days


@pytest.mark.lengthy
def test_how_often_the_price_went_further_than_a_reach_is_told_for_every_span(user: User) -> None:
    candles = market("BTC/USDT", 7_000)
    user.downloaded(candles)
    user.reached(candles, 0.003, 0.01)
    went = excursions(candles, HORIZON)
    output = user.told("coverage")
    for number, (span, reach) in enumerate([(1, 0.003), (4, 0.01), (16, 0.01), (64, 0.01)]):
        down, up = went[:, number], went[:, number + 4]
        known = np.isfinite(down)
        matured, apart, below, worst, above, _ = row(output, f"{span * HORIZON} ", 6)
        assert int(matured.replace(",", "")) == known.sum()
        assert int(apart) == known.sum() // (span * HORIZON)
        enough = span < 64  # of 64 horizons there are nine that do not overlap
        assert below == (f"{(down[known] > reach).mean():.1%}" if enough else "-")
        assert above == (f"{(up[known] > reach).mean():.1%}" if enough else "-")
        assert worst == "-" if span > 1 else float(worst[:-1]) >= float(below[:-1])


def test_a_side_that_no_row_knows_has_no_share() -> None:
    """Rows written by hand may know how far down, and not how far up."""
    nothing, fifths = np.full(1_000, np.nan), np.arange(1_000) % 5
    assert [*coverage_cli._shares(nothing, fifths, 1_000)] == ["-", "-"]
    assert [*coverage_cli._shares(np.zeros(1_000), fifths, 1_000)] == ["0.0%", "0.0%"]


def test_a_span_that_was_not_forecast_is_not_judged(user: User) -> None:
    candles = market("BTC/USDT")
    user.downloaded(candles)
    user.reached(candles, 0.003, None)
    output = user.told("coverage")
    assert row(output, f"{4 * HORIZON} ", 6) == ["0", "0", "-", "-", "-", "-"]
    assert row(output, f"{HORIZON} ", 6)[0] == "888"


def test_no_forecast_in_that_time_is_said(user: User) -> None:
    user.judged(("BTC/USDT", 0, "no_edge"))
    assert "No forecast was made from" in user.told("coverage")


def test_the_scores_fit_into_a_narrow_terminal(user: User) -> None:
    candles = market("BTC/USDT")
    user.downloaded(candles)
    user.said(candles, 9.0)
    told = user.told("coverage", columns=80).splitlines()[1:]
    lines = [line for line in told if not line.startswith(("worst fifth: ", "HAR is not known"))]
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
