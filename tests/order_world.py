"""Scenarios of real orders: freqtrade's own worker in virtual time, and answers that get lost.

`python order_world.py FOLDER` reads a list of scenarios from its standard input, plays them one
after the other, and prints for each what went wrong. A process of its own, because the virtual
clock is the whole process's.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from e2e import SMALL
from freqtrade.persistence import Trade
from places import ROOT

from lstm_model.accounts import faults
from lstm_model.accounts.exchange import TradingExchange, Truth
from lstm_model.accounts.orders import Order
from lstm_model.practice.incidents import Incident
from lstm_model.practice.scenario import open_scenario, write_candles
from lstm_model.practice.window import Window
from lstm_model.replay.fast_forward import FastForward, Leavings, Moment, Plan
from lstm_model.store.models import copy_learnt

PAIRS = ("BTC/USDT", "SOL/USDT", "XRP/USDT")
WALLET, PORTFOLIO = 1000.0, 0.75
START_MS = int(datetime(2024, 7, 10, 0, 30, tzinfo=UTC).timestamp() * 1000)
MINUTES, CALM, MINUTE_MS = 26, 12, 60_000  # after `CALM` minutes nothing goes wrong any more
LSTM = {**SMALL, "store_dir": "lstm", "max_portfolio_fraction": PORTFOLIO, "trade_stream": False}

STRATEGY = '''
from freqtrade.strategy import IStrategy

from lstm_model import LSTMRisk


class Eager(LSTMRisk, IStrategy):
    """Enters a pair every third minute, adds to it, and leaves after five.

    An entry that waits follows the price, and so does the stop on the exchange.
    """

    timeframe = "1m"
    can_short = CAN_SHORT
    minimal_roi = {"0": 100}
    stoploss = -0.05
    startup_candle_count = 5
    use_custom_stoploss = True
    position_adjustment_enable = True
    max_entry_position_adjustment = 1

    def populate_entry_trend(self, dataframe, metadata):
        turn = (dataframe["date"].dt.minute + len(metadata["pair"])) % 3 == 0
        side = "enter_short" if self.can_short and "BTC" in metadata["pair"] else "enter_long"
        dataframe.loc[turn, [side, "enter_tag"]] = (1, "eager")
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        return dataframe

    def custom_stoploss(self, *args, **kwargs):
        return -0.03

    def adjust_entry_price(self, *args, proposed_rate, **kwargs):
        return proposed_rate

    def custom_exit(self, pair, trade, current_time, current_rate, current_profit, **kwargs):
        age_s = (current_time - trade.open_date_utc).total_seconds()
        return "old" if age_s >= 300 else None

    def adjust_trade_position(self, trade, current_time, current_rate, current_profit, min_stake,
                              max_stake, *args, **kwargs):
        age_s = (current_time - trade.open_date_utc).total_seconds()
        return 30.0 if age_s >= 120 and trade.nr_of_successful_entries == 1 else None
'''
STRATEGY = (
    STRATEGY.replace("class Eager(LSTMRisk, IStrategy)", "class Wanting(IStrategy)")
    + """

class Eager(LSTMRisk, Wanting):
    pass


class Careless(Eager):
    # Without what is tested: the same scenarios must then go wrong.

    def _lstm_may_send(self, intent):
        return True
"""
)
FAULTS: dict[str, tuple[str, str, faults.Fault]] = {
    "order dropped": ("POST", "order", faults.DROPPED),
    "order hung": ("POST", "order", faults.HUNG),
    "order 503": ("POST", "order", faults.UNAVAILABLE),
    "order -1007": ("POST", "order", faults.UNKNOWN_FATE),
    "order garbled": ("POST", "order", faults.GARBLED),
    "order never arrived": ("POST", "order", faults.NEVER_ARRIVED),
    "order -2010": ("POST", "order", faults.Refused(-2010, "insufficient balance")),
    "order -2019": ("POST", "order", faults.Refused(-2019, "Margin is insufficient.")),
    "order -1013": ("POST", "order", faults.Refused(-1013, "Filter failure: PERCENT_PRICE")),
    "order -1021": ("POST", "order", faults.Refused(-1021, "Timestamp outside of recvWindow")),
    "order -1015": ("POST", "order", faults.Refused(-1015, "Too many new orders")),
    "cancel dropped": ("DELETE", "order", faults.DROPPED),
    "cancel -2011": ("DELETE", "order", faults.Refused(-2011, "Unknown order sent.")),
    "look blind": ("GET", "order", faults.BLIND),
    "look 503": ("GET", "order", faults.UNAVAILABLE),
    "account 503": ("GET", "account", faults.UNAVAILABLE),
    "account dropped": ("GET", "account", faults.DROPPED),
    "orders 503": ("GET", "openOrders", faults.UNAVAILABLE),
    "trades 503": ("GET", "myTrades", faults.UNAVAILABLE),
    "stop dropped": ("POST", "stop", faults.DROPPED),
    "stop refused": ("POST", "stop", faults.Refused(-2021, "Order would immediately trigger.")),
    "stop cancel dropped": ("DELETE", "stop", faults.DROPPED),
    "stop blind": ("GET", "stop", faults.BLIND),
    "stops 503": ("GET", "openStops", faults.UNAVAILABLE),
    "positions 503": ("GET", "positions", faults.UNAVAILABLE),
}  # by what is asked; the paths are the market's
KINDS = (*FAULTS, "held", "partly", "crash", "leap", "taken", "given", "restart")
_SPOT = dict.fromkeys(("order", "stop"), "/api/v3/order") | {
    "account": "/api/v3/account", "openOrders": "/api/v3/openOrders",
    "openStops": "/api/v3/openOrders", "positions": "/api/v3/account",
    "myTrades": "/api/v3/myTrades",
}  # fmt: skip
_FUTURES = {
    "order": "/fapi/v1/order", "stop": "/fapi/v1/algoOrder", "account": "/fapi/v3/account",
    "openOrders": "/fapi/v1/openOrders", "openStops": "/fapi/v1/openAlgoOrders",
    "positions": "/fapi/v3/positionRisk", "myTrades": "/fapi/v1/userTrades",
}  # fmt: skip


@dataclass(frozen=True)
class Happening:
    """A fault: from which minute on, at which such request, and how many in a row."""

    minute: int
    kind: str
    nth: int = 1
    calls: int = 1
    pair: str = "BTC/USDT"

    def happen(self, world: World) -> None:
        exchange, symbol = world.exchange, _symbol(self.pair)
        assert isinstance(exchange, TradingExchange)
        if self.kind in FAULTS:
            method, asked, fault = FAULTS[self.kind]
            path = (_FUTURES if world.is_futures else _SPOT)[asked]
            exchange.fail(method, path, self.nth, fault, self.calls)
        elif self.kind == "held":
            exchange.fill_only(symbol, "0")
        elif self.kind == "partly":
            exchange.fill_only(symbol, "0.4")
        elif self.kind == "filled":
            exchange.fill_only(symbol, "1")
        elif self.kind in ("crash", "leap"):
            exchange.jump(symbol, 0.9 if self.kind == "crash" else 1.1, 120_000)
        elif self.kind == "taken":
            asset = "USDT" if world.is_futures else self.pair.split("/")[0]
            exchange.give(asset, f"-{exchange.truth.free(asset)}")
        elif self.kind == "given":
            exchange.give("USDT" if world.is_futures else self.pair.split("/")[0], "0.5")
        elif self.kind == "healed":
            exchange.heal()
        else:
            raise KeyError(self.kind)


class World(FastForward):
    """One scenario, and what may never be is looked for at every look of the bot."""

    def __init__(self, plan: Plan, happenings: Sequence[Happening]) -> None:
        super().__init__(plan, self._judge)
        self._planned, self.wrong = happenings, set[str]()
        self._alone_ms: dict[str, int] = {}
        self._before: dict[str, int] = {}  # by pair, lost entries until it was last clear
        self.sent = self.trades = 0
        self.open_exits = set[int]()  # that waited on the exchange while no trade knew of them

    def _happenings(self) -> Iterator[tuple[int, Callable[[], None]]]:
        yield from super()._happenings()
        for it in self._planned:
            yield START_MS + it.minute * MINUTE_MS + 5_000, partial(it.happen, self)

    @property
    def truth(self) -> Truth:
        assert isinstance(self.exchange, TradingExchange)
        return self.exchange.truth

    @property
    def told(self) -> str:
        """All that the user has heard."""
        return self.files.messages.read_text() if self.files.messages.exists() else ""

    def _judge(self, moment: Moment) -> None:
        self.sent = len(self.truth.orders)
        self.trades = moment.open_trades + moment.closed_trades
        self.open_exits |= {it.number for it in self._unknown(self.truth.open_orders)
                            if not self._enters(it) and it.draft.type == "LIMIT"}  # fmt: skip
        given = {it.pair for it in self._planned if it.kind == "given"}
        watched = [pair for pair in self._scenario.pairs if self.is_futures or pair not in given]
        self._stays_within_bounds(watched)
        for pair in watched:
            self._is_owned_or_told(pair, moment.now_ms)

    @property
    def is_futures(self) -> bool:
        return self._scenario.trading_mode == "futures"

    def _worth(self, pair: str) -> float:
        """Of what is held, stake currency, shorts below zero."""
        assert isinstance(self.exchange, TradingExchange)
        if self.is_futures:
            position = self.truth.positions.get(_symbol(pair))
            held = position.quantity if position else Decimal(0)
        else:
            held = self.truth.balances.get(pair.split("/")[0], Decimal(0))
        return float(held * self.exchange.price(_symbol(pair)))

    def _stays_within_bounds(self, pairs: Sequence[str]) -> None:
        waiting = sum(
            float((it.draft.quantity - it.filled) * (it.draft.price or 0))
            for it in self.truth.open_orders if self._enters(it)
        )  # fmt: skip
        held = {pair: round(abs(self._worth(pair))) for pair in pairs}
        # What was bought may have risen since, and an entry may be a little dearer than its rate.
        if sum(held.values()) + waiting > PORTFOLIO * WALLET * 1.1:
            self.wrong.add(f"{held} and {waiting:.0f} in orders exceed the portfolio's bound")

    def _is_owned_or_told(self, pair: str, now_ms: int) -> None:
        """What no trade owns is told within minutes, and nothing more is sent meanwhile."""
        owned = sum(
            (-1 if trade.is_short else 1) * trade.amount
            for trade in Trade.get_open_trades() if trade.pair == pair
        )  # fmt: skip
        moving = sum(
            it.safe_remaining for trade in Trade.get_open_trades() if trade.pair == pair
            for it in trade.open_orders
        )  # fmt: skip
        assert isinstance(self.exchange, TradingExchange)
        rate = float(self.exchange.price(_symbol(pair)))
        lost = [it for it in self._lost(pair) if it.filled or it in self.truth.open_orders]
        waits = [it for it in self.truth.open_orders if it.number in {o.number for o in lost}]
        beyond = abs(self._worth(pair) - owned * rate) - moving * rate
        if not waits and (beyond < 10.0 or self._is_smaller(pair, owned)):
            self._before[pair] = len(lost)
            self._alone_ms.pop(pair, None)
            return
        unknown = lost[self._before.get(pair, 0) :]
        if unknown and any(it.number > unknown[0].number for it in self._entries(pair)):
            self.wrong.add(f"{pair}: a second order was sent while the first was not known")
        since_ms = self._alone_ms.setdefault(pair, now_ms)
        if now_ms - since_ms > 4 * MINUTE_MS and f"{pair}: on the exchange" not in self.told:
            self.wrong.add(f"{pair}: worth {self._worth(pair):.0f} is held, and nobody was told")

    def _is_smaller(self, pair: str, owned: float) -> bool:
        """Whether less is held than the trades know: nothing that could be lost unseen."""
        held = self._worth(pair)
        return held * owned >= 0.0 and abs(held) <= abs(owned) * float(
            self.exchange.price(_symbol(pair))
        )

    def _enters(self, order: Order) -> bool:
        return not order.draft.reduce_only if self.is_futures else order.draft.side == "BUY"

    def _lost(self, pair: str) -> list[Order]:
        """Entries that no trade of freqtrade's knows."""
        return self._unknown(self._entries(pair))

    @staticmethod
    def _unknown(orders: Sequence[Order]) -> list[Order]:
        known = {row.order_id for trade in Trade.get_trades([]).all() for row in trade.orders}
        return [it for it in orders if str(it.number) not in known]

    def _entries(self, pair: str) -> list[Order]:
        orders = [it for it in self.truth.orders if it.draft.symbol == _symbol(pair)]
        return [it for it in orders if self._enters(it)]

    def _end(self) -> None:
        """Before the database is left: who is old by now could not leave, and that was told."""
        if self._worker is not None and self.now_ms >= self._end_ms:
            for trade in Trade.get_open_trades():
                age_ms = self.now_ms - trade.open_date_utc.timestamp() * 1000
                if age_ms > 12 * MINUTE_MS and f"trade {trade.id} " not in self.told:
                    self.wrong.add(f"{trade.pair}: trade {trade.id} did not end, and nobody heard")
        super()._end()


def _symbol(pair: str) -> str:
    return pair.partition(":")[0].replace("/", "")


def play(
    folder: Path, happenings: Sequence[Happening], learnt: Path | None, strategy: str, futures: bool
) -> dict[str, Any]:
    """Play one scenario; what went wrong, and what was done at all."""
    pairs = tuple(f"{pair}:USDT" for pair in PAIRS) if futures else PAIRS
    window = Window("1m", START_MS, START_MS + MINUTES * MINUTE_MS, 200)
    scenario = open_scenario("synthetic", pairs, window, seed=5, days_before=6)
    files = Leavings(folder)
    write_candles(scenario, files.before, START_MS)
    if learnt:
        copy_learnt(learnt, files.live)
    (folder / "eager.py").write_text(STRATEGY.replace("CAN_SHORT", str(futures)))
    overlay = folder / "user.json"
    price = {"price_side": "other", "use_order_book": True, "order_book_top": 1}
    config = {
        "strategy_path": str(folder), "max_open_trades": 3, "stake_amount": 300,
        "minimal_roi": {"0": 100}, "stoploss": -0.05,
        "exchange": {"ccxt_config": {"timeout": 300}},
        **({"trading_mode": "futures", "margin_mode": "isolated"} if futures else {}),
        "order_types": {
            "entry": "limit", "exit": "limit", "emergency_exit": "market", "force_entry": "limit",
            "force_exit": "market", "stoploss": "market" if futures else "limit",
            "stoploss_on_exchange": True,
            "stoploss_on_exchange_interval": 60,
        },
        "entry_pricing": price, "exit_pricing": price,
        "unfilledtimeout": {"entry": 3, "exit": 3, "unit": "minutes"},
    }  # fmt: skip
    overlay.write_text(json.dumps(config))
    restarts = tuple(
        Incident("restart", START_MS + it.minute * MINUTE_MS, MINUTE_MS)
        for it in happenings if it.kind == "restart"
    )  # fmt: skip
    calm = [Happening(CALM, "healed"), *(Happening(CALM, "filled", pair=pair) for pair in PAIRS)]
    faulty = [*(it for it in happenings if it.kind != "restart"), *calm]
    plan = Plan(
        scenario, ("config.json", str(overlay)), folder, folder, strategy, 20, WALLET,
        LSTM, restarts, orders=True,
    )  # fmt: skip
    world = World(plan, faulty)
    world.run()
    return {
        "wrong": sorted(world.wrong), "orders": world.sent, "trades": world.trades,
        "open_exits": len(world.open_exits), "told": world.told,
    }  # fmt: skip


class Stage:
    """Where scenarios are played one after the other; what the first has learnt serves them all."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._learnt: dict[bool, Path] = {}  # by whether it is of futures

    def play(
        self, happenings: Sequence[Happening], strategy: str = "Eager", *, futures: bool = False
    ) -> dict[str, Any]:
        """What became of it; its folder is kept if something went wrong."""
        place = self._folder / str(self._count)
        self._count += 1
        place.mkdir(parents=True)
        played = play(place, happenings, self._learnt.get(futures), strategy, futures)
        if futures not in self._learnt:
            self._learnt[futures] = self._folder / f"learnt-{int(futures)}"
            shutil.copytree(place / "live", self._learnt[futures])
        if not played["wrong"]:
            shutil.rmtree(place)
        return played


def main(folder: Path) -> None:
    stage = Stage(folder)
    for scenario in json.load(sys.stdin):
        happenings = [Happening(**one) for one in scenario["happenings"]]
        played = stage.play(
            happenings, scenario.get("strategy", "Eager"), futures=scenario.get("futures", False)
        )
        print(json.dumps(played), flush=True)


if __name__ == "__main__":
    os.chdir(ROOT)
    warnings.simplefilter("ignore")  # the exchange's certificate is its own
    main(Path(sys.argv[1]).resolve())
