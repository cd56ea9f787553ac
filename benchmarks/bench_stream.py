"""The trade stream under load: every trade on its tape, how late, and ccxt's own loop beside it.

A server in a process of its own sends trades in Binance's form over a real websocket; ccxt
receives them here.

python benchmarks/bench_stream.py [--seconds 60] [--only busy|many]
"""

import argparse
import asyncio
import gc
import itertools
import json
import multiprocessing
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import ccxt.pro
import numpy as np
from aiohttp import WSMsgType, web
from rich.console import Console
from rich.table import Table

from lstm_model.practice.dialect import exchange_info
from lstm_model.practice.overlay import loopback_overlay
from lstm_model.practice.tape_market import Instrument
from lstm_model.settings import Settings
from lstm_model.stream.trade_stream import TradeStream

OnTrades = Callable[[TradeStream, set[str]], None]
LOADS = {"busy": (1_000, 1), "many": (20_000, 50)}  # trades per second, pairs
BATCH_S = 0.002  # as the server's timer allows; Binance sends in bursts too
console = Console(width=110)


# The server, in a process of its own


class Source:
    """Sends trades at a steady rate to whoever has subscribed, and remembers the ids."""

    def __init__(self, per_second: int, pairs: int) -> None:
        self.instruments = [Instrument(f"C{i}", "USDT", 2, 3) for i in range(pairs)]
        self.per_second = per_second
        self.last_ids = [0] * pairs
        self.first_ids: list[int] | None = None
        self.frames, self.sending, self.backlog = 0, True, 0
        self.transports: list[Any] = []

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/stream/{_:.*}", self.websocket)
        application.router.add_get("/api/v3/{path}", self.rest)
        return application

    async def rest(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        now_ms = time.time_ns() // 1_000_000
        answers: dict[str, Callable[[], Any]] = {
            "exchangeInfo": lambda: exchange_info(now_ms, self.instruments),
            "truth": lambda: {"first": self.first_ids, "last": self.last_ids,
                              "frames": self.frames, "backlog": self.backlog},
            "halt": self.halt,
        }  # fmt: skip
        return web.json_response(answers.get(path, list)())

    def halt(self) -> list[Any]:
        self.sending = False
        return []

    async def websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                number = json.loads(message.data)["id"]
                await socket.send_str(json.dumps({"result": None, "id": number}))
                self.first_ids = self.first_ids or [last + 1 for last in self.last_ids]
                self.transports.append(request.transport)
        return socket

    async def send_forever(self) -> None:
        order = itertools.cycle(range(len(self.instruments)))
        begun, sent = time.perf_counter(), 0
        while True:
            await asyncio.sleep(BATCH_S)
            self.transports = [item for item in self.transports if not item.is_closing()]
            if not self.transports or not self.sending:
                begun, sent = time.perf_counter(), 0
                continue
            due = int((time.perf_counter() - begun) * self.per_second)
            batch = b"".join([self.frame(next(order)) for _ in range(due - sent)])
            sent = due
            for transport in self.transports:
                transport.write(batch)
                self.backlog = max(self.backlog, transport.get_write_buffer_size())

    def frame(self, pair: int) -> bytes:
        """One text frame as the server would send it: header and Binance's combined message."""
        self.last_ids[pair] += 1
        self.frames += 1
        number, now_ms = self.last_ids[pair], time.time_ns() // 1_000_000
        text = (
            f'{{"stream":"c{pair}usdt@trade","data":{{"e":"trade","E":{now_ms},"s":"C{pair}USDT",'
            f'"t":{number},"p":"64000.{number % 90 + 10}","q":"0.0{number % 90 + 10}",'
            f'"T":{now_ms},"m":{"true" if number % 3 else "false"},"M":true}}}}'
        ).encode()
        return b"\x81\x7e" + len(text).to_bytes(2) + text


def serve(per_second: int, pairs: int, told: Connection) -> None:
    async def run() -> None:
        source = Source(per_second, pairs)
        runner = web.AppRunner(source.application(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        told.send(runner.addresses[0][1])
        await source.send_forever()

    asyncio.run(run())


class Server:
    """The server, for `with`."""

    def __init__(self, load: str) -> None:
        self._ours, theirs = multiprocessing.Pipe()
        arguments = (*LOADS[load], theirs)
        self._process = multiprocessing.get_context("spawn").Process(target=serve, args=arguments)
        self._process.start()
        self.url = f"http://127.0.0.1:{self._ours.recv()}"
        self.pairs = [f"C{i}/USDT" for i in range(LOADS[load][1])]

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v3/{path}", timeout=5) as response:  # noqa: S310
            return json.load(response)

    def client(self) -> Any:
        return ccxt.pro.binance(loopback_overlay(self.url)["exchange"]["ccxt_config"])


# What is measured


class Result(NamedTuple):
    sent: int
    got: int
    missing: int
    cpu: float
    bursts: int
    frame_to_callback_ms: Sequence[float]  # the newest trade of each pair in a burst
    sent_to_callback_ms: Sequence[float]
    oldest_untold_ms: float


class Watch:
    """Times every call of `on_trades`, and passes it on."""

    def __init__(self, on_trades: OnTrades | None) -> None:
        self.stream: TradeStream | None = None
        self._on_trades = on_trades
        self.bursts = 0
        self.frame_ms: list[float] = []
        self.sent_ms: list[float] = []
        self.oldest_ms = 0.0

    def __call__(self, pairs: set[str]) -> None:
        assert self.stream is not None
        if self._on_trades is not None:
            self._on_trades(self.stream, pairs)
        now_ns = time.time_ns()
        self.bursts += 1
        tape = self.stream.tapes[next(iter(pairs))]
        self.frame_ms.append((now_ns - tape.last_received_ns) / 1e6)
        self.sent_ms.append(now_ns / 1e6 - tape.last_time_ms)
        self.oldest_ms = max(self.oldest_ms, (now_ns - self.stream.untold_since_ns()) / 1e6)

    def forget(self) -> None:
        """What came before is warm-up."""
        self.bursts, self.oldest_ms = 0, 0.0
        self.frame_ms.clear()
        self.sent_ms.clear()


def measure_stream(load: str, seconds: float, on_trades: OnTrades | None = None) -> Result:
    """`TradeStream` under a load; `on_trades(stream, pairs)` is what is done with the trades."""
    with Server(load) as server:
        watch = Watch(on_trades)
        stream = watch.stream = TradeStream(server.client, 60_000, Settings(), watch)
        stream.follow(server.pairs)
        stream.start()
        try:
            gc.collect()
            time.sleep(2.0)
            watch.forget()
            began_s, cpu_s = time.perf_counter(), time.process_time()
            time.sleep(seconds)
            cpu = (time.process_time() - cpu_s) / (time.perf_counter() - began_s)
            figures = (watch.bursts, list(watch.frame_ms), list(watch.sent_ms), watch.oldest_ms)
            server.get("halt")
            time.sleep(1.0)
            truth = server.get("truth")
            tapes = [stream.tapes[pair] for pair in server.pairs]
            got = sum(tape.counts.trades for tape in tapes)
            newest = [tape.last_id for tape in tapes]
            assert newest == truth["last"], f"on the tapes up to {newest}, sent {truth}"
        finally:
            stream.stop()
    return Result(truth["frames"], got, _sent(truth) - got, cpu, *figures)


def measure_peer(load: str, seconds: float) -> Result:
    """The loop of ccxt's manual, with its default settings."""
    seen: set[tuple[str, str]] = set()
    bursts, frame_ms = 0, []

    async def follow(server: Server) -> None:
        nonlocal bursts
        client = server.client()
        try:
            while True:
                trades = await client.watch_trades_for_symbols(server.pairs)
                seen.update((trade["symbol"], trade["id"]) for trade in trades)
                bursts += 1
                frame_ms.append(time.time_ns() / 1e6 - trades[-1]["timestamp"])
        finally:
            await client.close()

    with Server(load) as server:
        loop = asyncio.new_event_loop()
        task = loop.create_task(follow(server))
        thread = threading.Thread(target=_run, args=(loop, task))
        cpu_s = time.process_time()
        thread.start()
        time.sleep(seconds)
        cpu = (time.process_time() - cpu_s) / seconds
        server.get("halt")
        time.sleep(1.0)
        truth = server.get("truth")
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
    got = len(seen)
    return Result(truth["frames"], got, _sent(truth) - got, cpu, bursts, [], frame_ms, np.nan)


def _run(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]") -> None:
    with suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


def _sent(truth: dict[str, Any]) -> int:
    pairs = zip(truth["first"], truth["last"], strict=True)
    return sum(last - first + 1 for first, last in pairs)


def _show(rows: Sequence[tuple[str, Result]], seconds: float) -> Table:
    table = Table(title=f"{seconds:g} s each; milliseconds as p50 / p99 / largest")
    for name in ("", "sent", "taken", "missing", "CPU", "bursts/s", "frame to callback",
                 "sent to callback", "oldest untold"):  # fmt: skip
        table.add_column(name, justify="right" if name else "left")
    for name, result in rows:
        table.add_row(
            name, f"{result.sent:,}", f"{result.got:,}", f"{result.missing:,}",
            f"{result.cpu:.0%}", f"{result.bursts / seconds:,.0f}",
            _spread(result.frame_to_callback_ms), _spread(result.sent_to_callback_ms),
            f"{result.oldest_untold_ms:.1f}",
        )  # fmt: skip
    return table


def _spread(values: Sequence[float]) -> str:
    if not len(values):
        return "-"
    p50, p99 = np.percentile(values, (50, 99))
    return f"{p50:.2f} / {p99:.2f} / {max(values):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", choices=LOADS)
    parser.add_argument("--no-peer", action="store_true")
    chosen = parser.parse_args()
    rows = []
    for load in [chosen.only] if chosen.only else LOADS:
        title = "{:,} trades/s, {} pair(s)".format(*LOADS[load])
        rows.append((title, measure_stream(load, chosen.seconds)))
        if not chosen.no_peer:
            rows.append(("  plain ccxt loop", measure_peer(load, chosen.seconds)))
    console.print(_show(rows, chosen.seconds))


if __name__ == "__main__":
    main()
