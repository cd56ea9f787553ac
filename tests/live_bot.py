"""Real freqtrade that trades for play money: a bot with `dry_run` false on a practice exchange."""

from __future__ import annotations

import base64
import json
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from e2e import Running, environment, free_port
from places import ROOT

from lstm_model.accounts.exchange import TradingExchange
from lstm_model.accounts.overlay import live_overlay

STRATEGY = '''
from freqtrade.strategy import IStrategy


class Obedient(IStrategy):
    """Enters and exits when it is told to, and has its stop on the exchange."""

    timeframe = "1m"
    can_short = {can_short}
    minimal_roi = {{"0": 100}}
    stoploss = -0.05
    startup_candle_count = 5
    process_only_new_candles = True

    def populate_indicators(self, dataframe, metadata):
        return dataframe

    def populate_entry_trend(self, dataframe, metadata):
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        return dataframe

    def leverage(self, *args, **kwargs):
        return 5.0
'''
_USER, _PASSWORD = "tester", "for-this-test-alone"


class LiveBot:
    """`freqtrade trade` with orders, told what to do by freqtrade's own REST API; for `with`.

    Parameters
    ----------
    options : configuration on top of the rest
    """

    def __init__(
        self, folder: Path, exchange: TradingExchange, mode: str = "spot", **options: Any
    ) -> None:
        self._folder, self._port = folder, free_port()
        self.database = folder / "trades.sqlite"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "data" / "binance").mkdir(parents=True, exist_ok=True)
        (folder / "obedient.py").write_text(STRATEGY.format(can_short=mode == "futures"))
        self._config = folder / "config.json"
        config = {**self._written(exchange, mode), **options}
        self._config.write_text(json.dumps(config))
        self._running: Running | None = None
        self._starts = 0

    def _written(self, exchange: TradingExchange, mode: str) -> dict[str, Any]:
        overlay = live_overlay(exchange.url, mode, exchange.keys)
        pairs = ["BTC/USDT", "SOL/USDT"]
        contracts = [f"{pair}:USDT" for pair in pairs]
        overlay["exchange"]["pair_whitelist"] = contracts if mode == "futures" else pairs
        overlay["exchange"]["ccxt_config"]["timeout"] = 2_000
        price = {"price_side": "other", "use_order_book": True, "order_book_top": 1}
        return {
            **overlay,
            "strategy": "Obedient", "strategy_path": str(self._folder), "timeframe": "1m",
            "max_open_trades": 2, "stake_currency": "USDT", "stake_amount": 100,
            "fiat_display_currency": "", "cancel_open_orders_on_exit": False,
            "unfilledtimeout": {"entry": 10, "exit": 10, "unit": "minutes"},
            "entry_pricing": price, "exit_pricing": price,
            "order_types": {
                "entry": "limit", "exit": "limit", "emergency_exit": "market",
                "force_entry": "limit", "force_exit": "market",
                "stoploss": "limit" if mode == "spot" else "market",
                "stoploss_on_exchange": True, "stoploss_on_exchange_interval": 5,
            },
            "pairlists": [{"method": "StaticPairList"}],
            "api_server": {
                "enabled": True, "listen_ip_address": "127.0.0.1", "listen_port": self._port,
                "username": _USER, "password": _PASSWORD, "jwt_secret_key": "play" * 8,
                "ws_token": "play" * 8,
            },
            "db_url": f"sqlite:///{self.database}",
            "force_entry_enable": True, "initial_state": "running",
            "internals": {"process_throttle_secs": 1},
        }  # fmt: skip

    def __enter__(self) -> LiveBot:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def text(self) -> str:
        """What it has printed since its last start."""
        return self._running.text if self._running else ""

    def run(self, command: str, *arguments: str) -> str:
        """Another command of freqtrade's with this bot's configuration; what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "freqtrade", command, *self.options, *arguments],
            cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    @property
    def options(self) -> list[str]:
        """What names its configuration."""
        return ["-c", str(self._config), "--userdir", str(self._folder)]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._starts += 1
        command = [
            sys.executable, "-W", "ignore", "-m", "freqtrade", "trade", *self.options,
        ]  # fmt: skip
        self._running = Running(command, self._folder / f"trade-{self._starts}.log")
        self.wait_for(lambda: "running" in self.ask("GET", "show_config").get("state", ""), 60.0)

    def stop(self) -> None:
        """End it politely."""
        if self._running:
            self._running.stop()

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self._running
        self._running.process.kill()
        self._running.process.wait(10)

    def wait_for(self, condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
        """What the condition gives as soon as it is true."""
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            try:
                if found := condition():
                    return found
            except (urllib.error.URLError, ConnectionError, TimeoutError, KeyError, IndexError):
                pass  # it has not begun to answer, or there is no such trade yet
            assert self._lives(), self.text[-4_000:]
            time.sleep(0.2)
        raise AssertionError(f"not within {timeout_s:g} s:\n{self.text[-6_000:]}")

    def _lives(self) -> bool:
        return self._running is not None and self._running.process.poll() is None

    def ask(self, method: str, path: str, wait_s: float = 30.0, **body: Any) -> Any:
        """The answer of freqtrade's REST API."""
        token = base64.b64encode(f"{_USER}:{_PASSWORD}".encode()).decode()
        head = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}"
        data = json.dumps(body).encode() if method == "POST" else None
        request = urllib.request.Request(url, data, head, method=method)
        with urllib.request.urlopen(request, timeout=wait_s) as answer:  # noqa: S310
            return json.loads(answer.read())

    def enter(self, pair: str, **options: Any) -> bool:
        """Force an entry; whether freqtrade says that it made one."""
        return self._obeyed("forceenter", pair=pair, **options)

    def exit(self, trade: int, **options: Any) -> bool:
        """Force an exit; whether freqtrade says that it made one."""
        return self._obeyed("forceexit", tradeid=str(trade), **options)

    def _obeyed(self, path: str, **body: Any) -> bool:
        try:
            self.ask("POST", path, **body)
        except urllib.error.HTTPError as error:
            if error.code not in (500, 502):  # its order was refused, or no answer came
                raise
            return False
        return True

    def rows(self, table: str) -> list[dict[str, Any]]:
        """A table of freqtrade's database, oldest row first."""
        with closing(sqlite3.connect(self.database)) as opened:
            opened.row_factory = sqlite3.Row
            found = opened.execute(f"SELECT * FROM {table} ORDER BY id")  # noqa: S608
            return [dict(row) for row in found]
