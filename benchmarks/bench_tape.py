"""Speed and memory of the trade tape, beside pandas and freqtrade's own order flow, in one run.

python benchmarks/bench_tape.py
"""

import gc
import logging
import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pandas as pd

from lstm_model.market.candles import TRADE, Records
from lstm_model.market.tape import TradeTape

STEP_MS = 300_000
START_MS = 1_699_920_000_000
PER_CANDLE = 5_000
PEER_CANDLES = 3  # freqtrade takes 11 s for 300 candles of 5,000 trades
TAPES = 100


def measure(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median and 99th percentile in microseconds, after a warm-up."""
    for _ in range(max(1, min(10, repeats // 10))):
        work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append((time.perf_counter() - started) * 1e6)
    return float(np.median(times)), float(np.percentile(times, 99))


def invented_trades(candles: int, *, hashed: bool = False) -> Records:
    """Candles of 5,000 trades each, in order of time; prices and amounts are decimals."""
    count, random = candles * PER_CANDLE, np.random.default_rng(0)
    trades = np.zeros(count, TRADE)
    trades["id"] = random.integers(-(2**62), 2**62, count) if hashed else 10**6 + np.arange(count)
    trades["time_ms"] = START_MS + np.arange(count) * STEP_MS // PER_CANDLE
    trades["received_ns"] = trades["time_ms"] * 1_000_000 + 40_000_000
    trades["price"] = np.round(64_000 * np.exp(np.cumsum(random.normal(0, 1e-5, count))), 2)
    trades["amount"] = np.round(random.gamma(0.5, 0.1, count) + 1e-5, 5)
    trades["taker_buy"] = random.random(count) < 0.5
    return trades


def new_tape(*, consecutive: bool = True) -> TradeTape:
    tape = TradeTape("BTC/USDT", STEP_MS)
    tape.ids_consecutive = consecutive
    return tape


def feeding() -> None:
    """How many trades a second the tape takes: in batches, one by one, late, without order."""
    print(f"{'feeding':44}{'batch':>8}{'median':>12}{'p99':>12}{'trades/s':>14}")
    plain, hashed = invented_trades(60), invented_trades(60, hashed=True)
    for size in (5_000, 1_000, 100):
        feed("in order", plain, size, new_tape())
    feed("in order, ids are hashes", hashed, 1_000, new_tape(consecutive=False))
    # One trade in ten comes up to 50 trades late, and every batch repeats ten of the one before.
    delay = np.random.default_rng(1).uniform(0, 50, len(plain))
    late = np.argsort(np.arange(len(plain)) + delay * (np.arange(len(plain)) % 10 == 0))
    feed("a tenth late, 1 % twice", plain[late], 1_000, new_tape(), again=10)
    feed("one by one", plain[:100_000], 1, new_tape())
    feed("one by one, ids are hashes", hashed[:100_000], 1, new_tape(consecutive=False))
    feed("one by one, a tenth late", plain[late[late < 20_000]], 1, new_tape())


def feed(name: str, trades: Records, size: int, tape: TradeTape, again: int = 0) -> None:
    batches = [trades[max(a - again, 0) : a + size] for a in range(0, len(trades), size)]
    rows = [batch[0].item() for batch in batches]
    times = []
    for batch, row in zip(batches, rows, strict=True):
        started = time.perf_counter()
        if size == 1:
            tape.append(*row)
        else:
            tape.extend(batch)
        times.append((time.perf_counter() - started) * 1e6)
    assert tape.counts.trades == len(trades)
    assert tape.counts.missing == 0
    times = times[len(times) // 20 :]  # warm-up
    rate = f"{size * len(times) / sum(times) * 1e6:,.0f}"
    report = readable(float(np.median(times))), readable(float(np.percentile(times, 99)))
    print(f"{name:44}{size:>8}{report[0]:>12}{report[1]:>12}{rate:>14}")


def reading() -> None:
    """Flow of a candle of 5,000 trades, beside pandas and freqtrade on the same trades."""
    trades = invented_trades(PEER_CANDLES)
    tape, batch = new_tape(), trades[:PER_CANDLE]
    tape.extend(trades[:-1])
    open_ms, end_ms = int(trades["time_ms"][-1]) // STEP_MS * STEP_MS, 2**62
    rows = iter(invented_trades(40)[len(trades) :].tolist())

    def from_nothing() -> object:
        fresh = new_tape()
        fresh.extend(batch)
        return fresh.flow(0, end_ms)

    def another() -> object:
        tape.append(*next(rows))
        return tape.flow(tape.last_time_ms - STEP_MS, end_ms)

    frame = pd.DataFrame({name: batch[name] for name in TRADE.names or ()})
    print(f"\n{'reading a candle of 5,000 trades':44}{'median':>12}{'p99':>12}{'ratio':>10}")
    ours = measure(from_nothing, 300)
    line("ours: told all at once, then read", ours, None)
    line("pandas: groupby", measure(lambda: grouped(frame), 100), ours)
    line("freqtrade: populate_dataframe_with_trades", freqtrades(trades), ours)
    line("ours: one more trade, then read", measure(another, 5_000), None)
    line("ours: read again", measure(lambda: tape.flow(open_ms, end_ms), 5_000), None)
    flow = new_tape()
    flow.extend(batch)
    theirs, mine = grouped(frame).iloc[0], flow.flow(0, end_ms)[0]
    for name in ("volume", "quote_volume", "taker_base", "realized_volatility", "largest"):
        np.testing.assert_allclose(theirs[name], mine[name], rtol=1e-6)


def grouped(frame: pd.DataFrame) -> pd.DataFrame:
    """The same numbers as the tape's, by pandas; not exact, and nothing said of what is missing."""
    price, amount, buys = frame["price"], frame["amount"], frame["taker_buy"]
    candle = frame["time_ms"] // STEP_MS
    squared = np.log(price).groupby(candle).diff() ** 2
    values = frame.assign(
        quote=price * amount, base_buy=amount * buys, quote_buy=price * amount * buys, rv=squared
    )
    found = values.groupby(candle).agg(
        trades=("id", "count"), volume=("amount", "sum"), quote_volume=("quote", "sum"),
        taker_base=("base_buy", "sum"), taker_quote=("quote_buy", "sum"),
        realized_volatility=("rv", "sum"), largest=("amount", "max"), open=("price", "first"),
        high=("price", "max"), low=("price", "min"), close=("price", "last"),
    )  # fmt: skip
    found["realized_volatility"] **= 0.5
    return found


def freqtrades(trades: Records) -> tuple[float, float]:
    """freqtrade's order flow of a few candles, per candle."""
    from freqtrade.data.converter.orderflow import populate_dataframe_with_trades

    logging.disable(logging.INFO)
    frame = pd.DataFrame({name: trades[name] for name in ("price", "amount")})
    frame["date"] = pd.to_datetime(trades["time_ms"], unit="ms", utc=True)
    frame["side"] = np.where(trades["taker_buy"], "buy", "sell")
    dates = pd.to_datetime(START_MS + STEP_MS * np.arange(PEER_CANDLES), unit="ms", utc=True)
    candles = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), 1.0), index=dates)
    candles = candles.rename_axis("date").reset_index()
    settings = {
        "timeframe": "5m",
        "orderflow": {
            "max_candles": PEER_CANDLES, "cache_size": PEER_CANDLES, "scale": 1.0,
            "stacked_imbalance_range": 3, "imbalance_volume": 1, "imbalance_ratio": 3,
        },
    }  # fmt: skip

    def populate() -> None:
        found, _ = populate_dataframe_with_trades(None, settings, candles.copy(), frame.copy())
        assert found["total_trades"].sum() == len(trades)

    median, p99 = measure(populate, 20)
    return median / PEER_CANDLES, p99 / PEER_CANDLES


def line(name: str, times: tuple[float, float], ours: tuple[float, float] | None) -> None:
    ratio = f"{times[0] / ours[0]:.1f} x" if ours else ""
    print(f"{name:44}{readable(times[0]):>12}{readable(times[1]):>12}{ratio:>10}")


def memory() -> None:
    """What 100 tapes of the default size hold, empty and after twice their capacity."""
    trades = invented_trades(8)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tapes = [new_tape() for _ in range(TAPES)]
    empty = tracemalloc.get_traced_memory()[0] - before
    for tape in tapes:
        for start in range(0, len(trades), 5_000):
            tape.extend(trades[start : start + 5_000])
    full = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    said = sum(tape.nbytes for tape in tapes)
    print(
        f"\n{TAPES} tapes of {tapes[0].capacity:,} trades: {empty / 1e6:.1f} MB empty, "
        f"{full / 1e6:.1f} MB after {len(trades):,} trades each; by nbytes {said / 1e6:.1f} MB"
    )


def readable(microseconds: float) -> str:
    for limit, unit, scale in ((1e3, "us", 1.0), (1e6, "ms", 1e3)):
        if microseconds < limit:
            return f"{microseconds / scale:.3g} {unit}"
    return f"{microseconds / 1e6:.3g} s"


def main() -> None:
    feeding()
    reading()
    memory()
    print(f"freqtrade: per candle, of {PEER_CANDLES} told at once; NumPy {np.__version__}, "
          f"pandas {pd.__version__}, Python {sys.version.split()[0]}")  # fmt: skip


if __name__ == "__main__":
    main()
