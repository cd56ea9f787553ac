"""freqtrade's configuration for trading on the practice exchange, and nowhere else."""

from __future__ import annotations

from typing import Any, Final

from lstm_model.accounts.signed import Keys
from lstm_model.practice.overlay import bot_overlay, loopback_overlay

# By the beginning of an address ccxt knows whose codes an answer speaks: those of the exchange's
# own places to practise. It stands where a user's name would, and the host stays 127.0.0.1.
_SPEAKERS: Final = {
    "/api/": "testnet.binance.vision",
    "/sapi/": "testnet.binance.vision",
    "/fapi/": "demo-fapi",
    "/dapi/": "demo-dapi",
}


def live_overlay(url: str, trading_mode: str = "spot", keys: Keys | None = None) -> dict[str, Any]:
    """freqtrade configuration that trades with the account of a `TradingExchange` at `url`.

    Every address that ccxt knows of Binance is one of 127.0.0.1, so that nothing signed leaves
    the machine.

    Parameters
    ----------
    trading_mode : `spot` or `futures`, as freqtrade names them

    Examples
    --------
    >>> overlay = live_overlay("https://127.0.0.1:8787", "futures")
    >>> overlay["exchange"]["ccxt_config"]["urls"]["api"]["fapiPrivate"]
    'https://demo-fapi@127.0.0.1:8787/fapi/v1'
    """
    keys = keys or Keys()
    overlay = loopback_overlay(url, trading_mode)
    told = overlay["exchange"]["ccxt_config"]
    told["verify"] = False  # the exchange's certificate is its own
    addresses = told["urls"]["api"]
    spoken = {name: _spoken(addresses[name]) for name in addresses if name != "ws"}
    told["urls"] = {"api": {**addresses, **spoken}}
    account = {"name": "binance", "key": keys.key, "secret": keys.secret}
    return {**overlay, "dry_run": False, "exchange": {**overlay["exchange"], **account}}


def live_bot_overlay(url: str, trading_mode: str = "spot") -> dict[str, Any]:
    """The same for a bot that a user starts: apart from what other bots leave."""
    dry, live = bot_overlay(url, trading_mode), live_overlay(url, trading_mode)
    database = dry["db_url"].replace(".dryrun", ".practice")
    return {**dry, **live, "db_url": database, "exchange": {**dry["exchange"], **live["exchange"]}}


def _spoken(address: str) -> str:
    speakers = [speaker for path, speaker in _SPEAKERS.items() if path in address]
    return address.replace("://", f"://{speakers[0]}@") if speakers else address
