"""The exchange's faults: what really went out is what its log says, on paper and over sockets."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_model.commands.main import main
from lstm_model.errors import ConfigError
from lstm_model.practice.exchange import LoopbackExchange
from lstm_model.practice.faults import Faults, parse_faults
from lstm_model.practice.mischief import OVERSIZED_BYTES, Cut, Frame, Line, Mischief
from lstm_model.practice.synthetic import synthetic_market
from lstm_model.practice.tape_market import DAY_MS, Market

START_MS = 1_700_006_400_000  # a midnight, UTC
NOON_MS = START_MS + DAY_MS + DAY_MS // 2
SYMBOL = "BTCUSDT"
TEXT, PONG, CLOSE = aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.PONG, aiohttp.WSMsgType.CLOSE


# On paper: one connection on which one trade is due every tenth of a second


class Bench:
    """A line with a clock of its own; `seen` is what a client would get: (time, text, trade)."""

    def __init__(self, faults: Faults, combined: bool = True) -> None:
        self.now_s = 0.0
        self.combined = combined
        self.mischief = Mischief(faults, lambda: self.now_s)
        self.log = self.mischief.log
        self.line = Line(self.mischief, 0.0)
        self.seen: list[tuple[float, Frame]] = []
        self.cut: Cut | None = None
        self.next_id = 0

    def message(self, number: int) -> Any:
        body = {"e": "trade", "s": SYMBOL, "t": number, "p": "10.5", "q": "1", "T": number}
        return {"stream": "btcusdt@trade", "data": body} if self.combined else body

    def run(self, trades: int, batch: int = 1) -> Bench:
        for _ in range(0, trades, batch):
            due = [self.message(number) for number in range(self.next_id, self.next_id + batch)]
            self.next_id += batch
            self.poll(due)
            self.now_s = round(self.now_s + 0.1 * batch, 6)
        return self

    def poll(self, due: list[Any]) -> None:
        for action in self.line.poll(due, self.now_s):
            if isinstance(action, Cut):
                self.cut = action
                self.line.close()
                return
            self.seen.append((self.now_s, action))

    def good(self) -> list[int]:
        """Ids in the order in which their good frames came."""
        found = []
        for _, frame in self.seen:
            try:
                body = json.loads(frame.text)
                body = body.get("data", body) if isinstance(body, dict) else {}
            except ValueError:
                continue
            if body.get("p") == "10.5" and "t" in body:
                found.append(body["t"])
        return found


def test_without_faults_everything_passes_in_order() -> None:
    bench = Bench(Faults()).run(50)
    assert bench.good() == list(range(50))
    assert not bench.log.withheld


@pytest.mark.parametrize("combined", [True, False])
def test_gaps_hit_the_same_trades_however_often_one_polls(combined: bool) -> None:
    one, many = (Bench(Faults(gaps=0.2), combined).run(500, batch) for batch in (1, 50))
    assert one.log.withheld == many.log.withheld
    assert one.good() == [n for n in range(500) if n not in one.log.withheld[SYMBOL]]
    assert 60 <= len(one.log.withheld[SYMBOL]) <= 140
    assert Bench(Faults(gaps=0.2, seed=2)).run(500).log.withheld != one.log.withheld


def test_the_newest_trade_that_was_sent_is_known() -> None:
    bench = Bench(Faults(gaps=0.5, reorder=(0.3, 2.0), malformed=0.2, malformed_replaces=True))
    for _ in range(100):
        bench.run(1)
        assert bench.log.newest.get(SYMBOL, 0) == max(bench.good(), default=0)
    assert 60 < bench.log.newest[SYMBOL] <= 99


def test_duplicates_come_again_much_later_too() -> None:
    bench = Bench(Faults(duplicates=(0.3, 20.0))).run(500)
    times: dict[int, list[float]] = {}
    for (at_s, _), number in zip(bench.seen, bench.good(), strict=True):
        times.setdefault(number, []).append(at_s)
    twice = {number for number, at in times.items() if len(at) == 2}
    pending = bench.log.duplicated[SYMBOL] - twice
    assert set(times) == set(range(500))
    assert twice <= bench.log.duplicated[SYMBOL]
    assert all(number > 290 for number in pending)
    late = [max(at) - min(at) for at in times.values()]
    assert 10.0 < max(late) <= 20.2
    assert not bench.log.withheld


def test_reordered_trades_are_late_but_not_lost() -> None:
    bench = Bench(Faults(reorder=(0.3, 2.0))).run(300)
    bench.mischief.set(Faults())
    bench.run(30)
    order = bench.good()
    assert sorted(order) == list(range(330))
    assert order != sorted(order)
    late = {n: at - n * 0.1 for (at, _), n in zip(bench.seen, order, strict=True)}
    assert {n for n, by_s in late.items() if by_s > 0.05} <= bench.log.delayed[SYMBOL]
    assert max(late.values()) <= 2.15


def test_broken_frames_come_in_every_form_before_the_good_ones() -> None:
    bench = Bench(Faults(malformed=0.5)).run(400)
    assert bench.good() == list(range(400))
    broken = [frame.text for _, frame in bench.seen if frame.trade is None]
    assert len(broken) == len(bench.log.malformed[SYMBOL])
    forms = Counter(_form(text) for text in broken)
    assert set(forms) == {"text", "cut", "list", "abc", "NaN", "-10.5", "no id"}


def _form(text: str) -> str:
    if not text.startswith(("{", "[")):
        return "text"
    try:
        found = json.loads(text)
    except ValueError:
        return "cut"
    if isinstance(found, list):
        return "list"
    return str(found["data"]["p"]) if "t" in found["data"] else "no id"


def test_broken_frames_may_replace_the_good_ones() -> None:
    bench = Bench(Faults(malformed=0.3, malformed_replaces=True)).run(300)
    assert bench.log.withheld[SYMBOL] == bench.log.malformed[SYMBOL]
    assert bench.good() == [n for n in range(300) if n not in bench.log.withheld[SYMBOL]]


def test_what_happens_in_a_silence_is_never_sent() -> None:
    bench = Bench(Faults(silence=(10.0, 3.0)))
    bench.now_s = 0.05
    bench.run(200)
    silent = {n for n in range(200) if (n * 0.1 + 0.05) % 10.0 >= 7.0}
    assert bench.log.withheld[SYMBOL] == silent
    assert set(bench.good()) == set(range(200)) - silent
    assert bench.log.silences == 2
    bench.mischief.silence(1.0)
    assert bench.line.poll([{"e": "kline"}], bench.now_s) == []


def test_a_stalled_exchange_sends_everything_at_once_later() -> None:
    bench = Bench(Faults(slow_reader=(10.0, 3.0)))
    bench.now_s = 0.05
    bench.run(69)
    assert not bench.line.stalled(bench.now_s)
    bench.run(31)
    assert bench.line.stalled(bench.now_s - 0.1)
    assert bench.good() == list(range(70))
    bench.run(1)
    assert bench.good() == list(range(101))
    assert bench.log.stalls == 1


@pytest.mark.parametrize(("name", "polite"), [("drop", False), ("disconnect", True)])
def test_a_connection_ends_at_its_age_and_what_was_held_back_is_withheld(
    name: str, polite: bool
) -> None:
    bench = Bench(Faults(reorder=(1.0, 1000.0), **{name: 5.0})).run(50)
    assert bench.cut is None
    bench.run(1)
    assert bench.cut == Cut(polite)
    assert bench.log.withheld[SYMBOL] | set(bench.good()) == set(range(51))
    young = Line(bench.mischief, bench.now_s)
    assert young.poll([], bench.now_s + 4.9) == []
    assert young.poll([], bench.now_s + 5.0) == [Cut(polite)]


def test_oversized_frames_come_at_their_pace() -> None:
    bench = Bench(Faults(oversized=5.0)).run(120)
    large = [at_s for at_s, frame in bench.seen if len(frame.text) == OVERSIZED_BYTES]
    assert large == pytest.approx([5.0, 10.0], abs=0.15)
    assert bench.log.oversized == 2


def test_rest_lacks_the_fraction_asked_for() -> None:
    bench = Bench(Faults(gaps=0.5, rest_hole=0.5)).run(400)
    lost = bench.log.lost(SYMBOL)
    assert lost == bench.log.holes[SYMBOL] <= bench.log.withheld[SYMBOL]
    assert 70 <= len(lost) <= 130
    rows = [{"id": number} for number in range(400)]
    kept = bench.mischief.without_holes("trades", SYMBOL, rows)
    assert {row["id"] for row in kept} == set(range(400)) - lost
    assert bench.mischief.without_holes("klines", SYMBOL, rows) == rows


def test_chosen_trades_can_be_lost_for_good() -> None:
    bench = Bench(Faults())
    bench.mischief.lose(SYMBOL, [3, 4], rest=True)
    bench.mischief.lose(SYMBOL, [8])
    bench.run(10)
    assert bench.good() == [0, 1, 2, 5, 6, 7, 9]
    assert (bench.log.withheld[SYMBOL], bench.log.lost(SYMBOL)) == ({3, 4, 8}, {3, 4})


def test_refusals_are_of_trades_unless_everything_is_meant() -> None:
    mischief = Mischief(Faults(rest_429=0.3, rest_5xx=0.3), lambda: 0.0)
    statuses = Counter(mischief.refusal("aggTrades") for _ in range(500))
    assert set(statuses) == {429, 503, None}
    assert mischief.log.refused == {429: statuses[429], 503: statuses[503]}
    assert 110 <= statuses[429] <= 190
    assert mischief.refusal("klines") is None
    mischief.set(Faults(rest_5xx=1.0, rest_everywhere=True))
    assert mischief.refusal("klines") == 503
    mischief.set(Faults())
    mischief.refuse(429, for_s=1.0)
    assert (mischief.refusal("trades"), mischief.refusal("klines")) == (429, None)


def test_new_faults_end_what_was_provoked() -> None:
    bench = Bench(Faults())
    bench.mischief.silence(100.0)
    bench.mischief.stall(100.0)
    bench.mischief.refuse(503, 100.0)
    bench.mischief.set(Faults())
    assert bench.run(5).good() == [0, 1, 2, 3, 4]
    assert bench.mischief.refusal("trades") is None


FRACTIONS = st.sampled_from([0.0, 0.1, 0.5])
ANY_FAULTS = st.builds(
    Faults,
    seed=st.integers(0, 5),
    drop=st.sampled_from([0.0, 7.0]),
    silence=st.sampled_from([(0.0, 0.0), (3.0, 1.0)]),
    duplicates=st.tuples(FRACTIONS, st.sampled_from([0.0, 4.0])),
    reorder=st.tuples(FRACTIONS, st.sampled_from([0.0, 4.0])),
    gaps=FRACTIONS,
    malformed=FRACTIONS,
    malformed_replaces=st.booleans(),
    slow_reader=st.sampled_from([(0.0, 0.0), (4.0, 1.5)]),
)


@settings(max_examples=60, deadline=None)
@given(ANY_FAULTS, st.sampled_from([1, 7]))
def test_every_trade_is_either_sent_or_on_record_as_withheld(faults: Faults, batch: int) -> None:
    bench = Bench(faults)
    while bench.next_id < 100 and bench.cut is None:
        bench.run(batch, batch)
    bench.line.close()
    good, withheld = Counter(bench.good()), bench.log.withheld[SYMBOL]
    assert set(good) | withheld == set(range(bench.next_id))
    twice = {number for number, count in good.items() if count == 2}
    assert max(good.values(), default=1) <= 2
    assert twice <= bench.log.duplicated[SYMBOL]
    # A copy may have been sent of a trade that was itself held back until the end.
    assert set(good) & withheld <= bench.log.duplicated[SYMBOL] & bench.log.delayed[SYMBOL]


# The command line


def test_the_words_of_the_command_line() -> None:
    faults = parse_faults(["drop=30", "silence=60:5", "malformed_replaces=1", "seed=3"])
    assert faults == Faults(drop=30.0, silence=(60.0, 5.0), malformed_replaces=True, seed=3)
    assert parse_faults([]) == Faults()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gabs=0.1", 'no fault "gabs"; did you mean "gaps"?.* rest_hole'),
        ("nonsense", "there are seed, drop"),
        ("gaps", 'gaps=number, found ""'),
        ("gaps=2", r"\[0, 1\] is needed, not 2.0"),
        ("gaps=nan", r"\[0, 1\]"),
        ("silence=60", "silence=every_s:for_s"),
        ("reorder=2:1", r"\[0, 1\]"),
        ("drop=-1", "seconds from 0 to"),
        ("skew=1e300", r"seconds from -1e\+08 to 1e\+08"),
        ("skew=-1e12", r"seconds from -1e\+08 to 1e\+08"),
        ("skew=inf", "seconds"),
        ("malformed_replaces=maybe", "1 or 0"),
        ("seed=x", "number"),
    ],
)
def test_a_wrong_fault_is_explained(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_faults([spec])


def test_the_command_names_a_wrong_fault_before_it_prepares_a_market() -> None:
    done = CliRunner().invoke(main, ["exchange", "--fault", "gaps=0.1", "--fault", "gabs=1"])
    assert done.exit_code == 1
    assert done.output.startswith('Error: no fault "gabs"; did you mean "gaps"?')


# Over sockets


class Clock:
    """A clock that stands until a test moves it."""

    now_ms = NOON_MS

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def tape() -> Market:
    return synthetic_market(1, 1, start_ms=START_MS, now_ms=lambda: NOON_MS)


@pytest.fixture
def exchange(tape: Market, clock: Clock) -> Iterator[LoopbackExchange]:
    with LoopbackExchange(Market(tape.listings, clock)) as running:
        yield running


class Client:
    """A websocket client that notes what it gets."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.texts: list[str] = []

    def ids(self) -> Counter[int]:
        bodies = (json.loads(text) for text in self.texts if text.startswith('{"e"'))
        return Counter(body["t"] for body in bodies)

    async def read(self, enough: Callable[[], bool]) -> aiohttp.WSMessage | None:
        """Read until `enough` or until the connection ends, which is returned."""
        while not enough():
            try:
                message = await self.socket.receive(timeout=0.05)
            except TimeoutError:
                continue
            if message.type not in (TEXT, PONG):
                return message
            self.texts.append(message.data if message.type is TEXT else "pong")
        return None

    async def pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        await self.read(lambda: time.monotonic() >= end)


def with_client(
    exchange: LoopbackExchange,
    work: Callable[[Client], Coroutine[Any, Any, Any]],
    max_msg_size: int = 10 * 2**20,
) -> Any:
    """Run `work` with a client that is subscribed to the trades."""

    async def connected() -> Any:
        url = exchange.url + "/ws/btcusdt@trade"
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, autoping=False, max_msg_size=max_msg_size) as socket,
        ):
            client = Client(socket)
            while not exchange.open_connections:
                await asyncio.sleep(0.005)
            return await work(client)

    return asyncio.run(asyncio.wait_for(connected(), 20))


def test_a_client_gets_exactly_what_the_log_says(exchange: LoopbackExchange, clock: Clock) -> None:
    async def watch(client: Client) -> None:
        exchange.faults = Faults(gaps=0.1, duplicates=(0.2, 0.1), reorder=(0.2, 0.1), rest_hole=0.5)
        for _ in range(20):
            clock.now_ms += 60_000
            await client.pause(0.02)
        exchange.faults = Faults()
        clock.now_ms += 60_000
        ids = exchange.trade_ids(SYMBOL, NOON_MS + 1)
        expected = set(ids) - exchange.log.withheld[SYMBOL]
        copies = len(exchange.log.duplicated[SYMBOL])
        await client.read(lambda: client.ids().total() >= len(expected) + copies)
        assert set(client.ids()) == expected
        assert {n for n, count in client.ids().items() if count == 2} == (
            exchange.log.duplicated[SYMBOL]
        )
        assert exchange.log.withheld[SYMBOL]
        assert list(client.ids()) != sorted(client.ids())

    with_client(exchange, watch)
    for path in ("trades", "historicalTrades", "aggTrades"):
        rows = get(exchange, f"{path}?symbol={SYMBOL}&limit=1000")[1]
        found = {row.get("id", row.get("a")) for row in rows}
        wanted = set(range(min(found), max(found) + 1))
        assert wanted - found == exchange.log.holes[SYMBOL] & wanted
    assert exchange.log.lost(SYMBOL) == exchange.log.holes[SYMBOL] != set()


def test_a_broken_and_an_oversized_frame_reach_the_client(exchange: LoopbackExchange) -> None:
    async def watch(client: Client) -> None:
        await asyncio.to_thread(exchange.send_raw, '{"e":')
        await client.read(lambda: client.texts == ['{"e":'])
        sending = asyncio.create_task(asyncio.to_thread(exchange.send_raw, "x" * OVERSIZED_BYTES))
        ended = await client.read(lambda: False)
        assert ended is not None
        assert ended.type is aiohttp.WSMsgType.ERROR
        assert client.socket.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
        await sending

    with_client(exchange, watch)


@pytest.mark.parametrize("polite", [False, True])
def test_connections_end_with_or_without_a_word(exchange: LoopbackExchange, polite: bool) -> None:
    async def watch(client: Client) -> None:
        end = exchange.close_connections if polite else exchange.drop_connections
        ending = asyncio.create_task(asyncio.to_thread(end))
        ended = await client.read(lambda: False)
        await ending
        assert ended is not None
        assert (ended.type is CLOSE) == polite
        assert client.socket.close_code == (1001 if polite else 1006)

    with_client(exchange, watch)
    assert (exchange.log.drops, exchange.log.disconnects) == (not polite, polite)


def test_connections_end_by_schedule(tape: Market, clock: Clock) -> None:
    for faults, code in ((Faults(drop=0.1), 1006), (Faults(disconnect=0.1), 1001)):

        async def watch(client: Client) -> int | None:
            await client.read(lambda: False)
            return client.socket.close_code

        with LoopbackExchange(Market(tape.listings, clock), faults=faults) as exchange:
            assert with_client(exchange, watch) == code
            assert with_client(exchange, watch) == code
            assert exchange.log.connections == 2
            assert exchange.log.drops + exchange.log.disconnects == 2


def test_a_silent_exchange_answers_pings(exchange: LoopbackExchange, clock: Clock) -> None:
    async def watch(client: Client) -> None:
        exchange.silence(60.0)
        clock.now_ms += 120_000
        missed = set(exchange.trade_ids(SYMBOL, NOON_MS + 1))
        await client.socket.ping()
        await client.read(lambda: "pong" in client.texts)
        while exchange.log.withheld[SYMBOL] != missed:
            await client.pause(0.01)
        assert client.texts == ["pong"]
        exchange.faults = Faults()
        clock.now_ms += 120_000
        later = set(exchange.trade_ids(SYMBOL, NOON_MS + 1)) - missed
        await client.read(lambda: set(client.ids()) >= later)
        assert set(client.ids()) == later

    with_client(exchange, watch)


def test_a_hanging_exchange_answers_nothing_and_then_everything(
    exchange: LoopbackExchange, clock: Clock
) -> None:
    async def watch(client: Client) -> None:
        exchange.stall(60.0)
        clock.now_ms += 120_000
        await client.socket.ping()
        await client.pause(0.15)
        assert client.texts == []
        exchange.faults = Faults()
        await client.read(
            lambda: (
                "pong" in client.texts
                and list(client.ids()) == exchange.trade_ids(SYMBOL, NOON_MS + 1)
            )
        )

    with_client(exchange, watch)
    assert not exchange.log.withheld


def test_a_client_that_does_not_read_is_cut(exchange: LoopbackExchange) -> None:
    async def watch(client: Client) -> None:
        exchange.faults = Faults(oversized=0.01, slow_client=0.1)
        while not exchange.log.drops:
            await asyncio.sleep(0.01)

    with_client(exchange, watch, max_msg_size=0)


def get(exchange: LoopbackExchange, path: str) -> tuple[int, Any]:
    try:
        url = f"{exchange.url}/api/v3/{path}"
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, (error.headers["Retry-After"], error.read())


def test_rest_refuses_as_exchanges_do(exchange: LoopbackExchange) -> None:
    exchange.faults = Faults(rest_429=1.0)
    status, (retry_after, body) = get(exchange, f"trades?symbol={SYMBOL}")
    assert (status, retry_after, json.loads(body)["code"]) == (429, "1", -1003)
    assert get(exchange, "ping") == (200, {})
    exchange.faults = Faults(rest_5xx=1.0, rest_everywhere=True)
    assert get(exchange, "ping")[0] == 503
    exchange.faults = Faults()
    exchange.refuse(503, 60.0)
    assert get(exchange, f"aggTrades?symbol={SYMBOL}")[0] == 503
    assert exchange.log.refused == {429: 1, 503: 2}


def test_a_clock_ahead_shows_in_every_time(tape: Market, clock: Clock) -> None:
    with LoopbackExchange(Market(tape.listings, clock), faults=Faults(skew=90.0)) as exchange:

        async def watch(client: Client) -> None:
            clock.now_ms += 60_000
            await client.read(lambda: len(client.texts) >= 5)

            for text in client.texts:
                assert NOON_MS + 90_000 < json.loads(text)["T"] <= json.loads(text)["E"]

        with_client(exchange, watch)
        assert get(exchange, "time")[1] == {"serverTime": NOON_MS + 150_000}
        last = get(exchange, f"trades?symbol={SYMBOL}&limit=1")[1][0]
        assert last["id"] == exchange.trade_ids(SYMBOL)[-1]
        exchange.faults = Faults(skew=-3600.0)
        assert get(exchange, "time")[1] == {"serverTime": NOON_MS + 60_000 - 3_600_000}


def test_the_exchange_leaves_no_thread_whatever_went_wrong(tape: Market, clock: Clock) -> None:
    before = threading.active_count()
    faults = Faults(silence=(1.0, 1.0), slow_reader=(1.0, 1.0), reorder=(1.0, 100.0))
    with LoopbackExchange(Market(tape.listings, clock), faults=faults) as exchange:

        async def watch(client: Client) -> None:
            clock.now_ms += 60_000
            await client.pause(0.05)

        with_client(exchange, watch)
    assert threading.active_count() == before
