"""kill -9 of a live futures bot: `python tests/kill_orders.py 30 SEED`, half a minute each.

Real freqtrade with orders on the practice exchange is killed at a random moment, or while an order
is on its way, and started anew. Then the exchange's own books say whether what nobody owns was
told, whether an order was sent twice, and whether more is at stake than the portfolio's bound
allows, which counts one pair of each side here.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path

from e2e import run_lstm
from guarded_bot import GuardedBot, learn
from places import ROOT

from lstm_model.accounts.exchange import TradingExchange
from lstm_model.accounts.faults import Meanwhile
from lstm_model.practice.synthetic import synthetic_market

PAIRS = {"BTC/USDT:USDT": "short", "SOL/USDT:USDT": "long"}
WALLET, PORTFOLIO = 1000.0, 0.75
LOOKED_S = 16.0  # by then the account was looked at twice


class Killing:
    """One bot that is killed again and again."""

    def __init__(self, bot: GuardedBot, exchange: TradingExchange, dice: random.Random) -> None:
        self._bot, self._exchange, self._dice = bot, exchange, dice
        self.wrong: list[str] = []
        self.lost = self.stuck = self.orphans = 0

    def once(self) -> str:
        """Start, kill, start again and look; says how it was killed."""
        how = self._kill()
        self._bot.start()
        time.sleep(LOOKED_S)
        self._look()
        self._put_in_order()
        return how

    def _put_in_order(self) -> None:
        """What a user does who was told: so that the next kill meets a bot that trades."""
        for row in self._bot.rows("trades"):
            if row["is_open"] and self._bot.messages(f"trade {row['id']} is to be left"):
                self.stuck += 1
                self._bot.ask("POST", f"trades/{row['id']}/reload")
        for pair in PAIRS:
            if self._bot.messages(f"{pair}: on the exchange is an order"):
                self.orphans += 1
                self._settle(pair)

    def _settle(self, pair: str) -> None:
        options = [*self._bot.options, "-p", pair, "--settle", "close", "--yes"]
        settled = run_lstm("orders", *options)
        left = settled.text.partition("no trade explains")[2]  # the table of what is there still
        if pair in left or "Error" in settled.text:
            self.wrong.append(settled.text[-500:])

    def _kill(self) -> str:
        if self._dice.random() < 0.4:
            after_s = self._dice.uniform(0.0, 12.0)
            time.sleep(after_s)
            self._bot.kill()
            return f"after {after_s:.1f} s"
        path = self._dice.choice(["/fapi/v1/order", "/fapi/v1/order", "/fapi/v1/algoOrder"])
        nth, killed = self._dice.randint(1, 2), []

        def kill() -> None:
            killed.append(True)
            self._bot.kill()

        self._exchange.fail("POST", path, nth, Meanwhile(kill))
        until_s = time.monotonic() + 40.0
        while not killed and time.monotonic() < until_s:
            time.sleep(0.05)
        self._exchange.heal()
        if not killed:
            self._bot.kill()
        return f"at POST {path} {nth}" if killed else "no such order in 40 s"

    def _look(self) -> None:
        truth, bot = self._exchange.truth, self._bot
        trades = [row for row in bot.rows("trades") if row["is_open"]]
        known = {row["order_id"] for row in bot.rows("orders")}
        for pair in PAIRS:
            symbol = pair.partition(":")[0].replace("/", "")
            rate = float(self._exchange.price(symbol))
            position = truth.positions.get(symbol)
            held = float(position.quantity) if position else 0.0
            if abs(held) * rate > PORTFOLIO * WALLET * 1.05:
                self.wrong.append(f"{pair}: {abs(held) * rate:.0f} exceed the portfolio's bound")
            mine = [row for row in trades if row["pair"] == pair]
            owned = sum((-1 if row["is_short"] else 1) * row["amount"] for row in mine)
            moving = any(
                str(it.number) in known and it.draft.symbol == symbol for it in truth.open_orders
            )
            is_smaller = held * owned >= 0.0 and abs(held) <= abs(owned)  # an exit, not an entry
            if abs(held - owned) * rate < 10.0 or moving or is_smaller:
                continue
            self.lost += 1
            if not bot.messages(f"{pair}: on the exchange") and pair not in bot.pending():
                self.wrong.append(f"{pair}: {held} held, {owned} owned, and nobody was told")
            self._settle(pair)
        entries = [it for it in truth.orders if not it.draft.reduce_only and it.filled]
        unknown = [it for it in entries if str(it.number) not in known]
        if len(unknown) > self.lost:
            self.wrong.append(f"{len(unknown)} entries that no trade knows, {self.lost} were lost")


def main(count: int, number: int) -> None:
    dice = random.Random(number)
    with (
        tempfile.TemporaryDirectory(prefix="kills-") as folder,
        TradingExchange(
            synthetic_market(seed=5, days=7), {"USDT": str(WALLET)}, "futures"
        ) as there,
    ):
        learnt = learn(Path(folder) / "learnt", "futures")
        bot = GuardedBot(
            Path(folder) / "bot", there, learnt, "futures", PAIRS, holds_s=8, stake_amount=200
        )
        with bot:
            killing = Killing(bot, there, dice)
            for turn in range(1, count + 1):
                how = killing.once()
                done = len(there.truth.orders), killing.lost, killing.orphans, killing.stuck
                print(turn, how, *done, killing.wrong, flush=True)
    said = "nothing went wrong" if not killing.wrong else "\n".join(killing.wrong)
    print(
        f"{count} kills, seed {number}: {killing.lost} positions and {killing.orphans} orders "
        f"without an owner, {killing.stuck} trades that could not be left: {said}"
    )
    sys.exit(bool(killing.wrong))


if __name__ == "__main__":
    os.chdir(ROOT)
    warnings.simplefilter("ignore")  # the exchange's certificate is its own
    main(int(sys.argv[1]), int(sys.argv[2]))
