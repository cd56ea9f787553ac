"""freqtrade's configuration for the practice exchange: every address of ccxt's Binance on it."""

from __future__ import annotations

from typing import Any

from lstm_model.practice.dialect import Json

# ccxt's names of Binance's addresses, all of them: with a key in it, a bot whose addresses lead
# elsewhere would sign requests to the real exchange. A test compares the names with ccxt's own.
_REST = {
    "public": "api/v3", "private": "api/v3", "v1": "api/v1",
    "sapi": "sapi/v1", "sapiV2": "sapi/v2", "sapiV3": "sapi/v3", "sapiV4": "sapi/v4",
    "fapiPublic": "fapi/v1", "fapiPublicV2": "fapi/v2", "fapiPublicV3": "fapi/v3",
    "fapiPrivate": "fapi/v1", "fapiPrivateV2": "fapi/v2", "fapiPrivateV3": "fapi/v3",
    "fapiData": "futures/data",
    "dapiPublic": "dapi/v1", "dapiPrivate": "dapi/v1", "dapiPrivateV2": "dapi/v2",
    "dapiData": "futures/data", "eapiPublic": "eapi/v1", "eapiPrivate": "eapi/v1",
    "papi": "papi/v1", "papiV2": "papi/v2",
}  # fmt: skip
# ccxt takes what holds "/stream" for spot, and opens /public/ws or /market/ws where it reads /ws.
_SOCKETS = {
    "spot": "stream", "margin": "stream", "linear": "ws", "inverse": "inverse", "stock": "stock",
    "option": "option", "optionMarket": "option", "optionPrivate": "option", "papi": "papi",
    "future": "ws", "delivery": "inverse",  # what ccxt 4.5.50 calls linear and inverse
}  # fmt: skip
_SOCKET_APIS = {
    "spot": "ws-api/v3", "linear": "ws-fapi/v1", "inverse": "ws-dapi/v1",
    "future": "ws-fapi/v1", "delivery": "ws-dapi/v1",
}  # fmt: skip
_MODES: dict[str, dict[str, Json]] = {
    "spot": {"trading_mode": "spot", "margin_mode": ""},
    "futures": {"trading_mode": "futures", "margin_mode": "isolated"},
}
_FILES = {"spot": "", "futures": "-futures"}  # how the names of what a bot leaves end
_FUTURES = ("BTC/USDT:USDT", "ETH/USDT:USDT", "SOL/USDT:USDT")  # config.json names spot's pairs
_MARKETS = {"spot": "spot", "futures": "linear"}  # ccxt's kinds of them


def loopback_overlay(url: str, trading_mode: str = "spot") -> dict[str, Any]:
    """freqtrade configuration that points ccxt's Binance at a loopback exchange, and nowhere else.

    Parameters
    ----------
    trading_mode : `spot` or `futures`, as freqtrade names them

    Examples
    --------
    >>> overlay = loopback_overlay("http://127.0.0.1:8787", "futures")
    >>> overlay["margin_mode"], overlay["exchange"]["ccxt_config"]["urls"]["api"]["fapiPublic"]
    ('isolated', 'http://127.0.0.1:8787/fapi/v1')
    """
    options = {
        "fetchMarkets": {"types": [_MARKETS[trading_mode]]},
        # With a key in the configuration ccxt would sign a request for each when it starts.
        "fetchCurrencies": False,
        "fetchMargins": False,
    }
    return {
        **_MODES[trading_mode],
        "exchange": {
            "only_from_ccxt": True,
            "ccxt_config": {
                "enableRateLimit": False,
                "options": options,
                "urls": {"api": _addresses(url)},
            },
            "ccxt_async_config": {"enableRateLimit": False},
        },
    }


def bot_overlay(url: str, trading_mode: str = "spot") -> dict[str, Any]:
    """The same for a dry run that a user starts: no keys, and apart from what other bots leave."""
    overlay, name = loopback_overlay(url, trading_mode), f"loopback{_FILES[trading_mode]}"
    pairs = {"pair_whitelist": list(_FUTURES)} if trading_mode == "futures" else {}
    exchange = {"name": "binance", "key": "", "secret": "", **pairs, **overlay["exchange"]}
    return {
        "db_url": f"sqlite:///user_data/tradesv3-{name}.dryrun.sqlite", "dry_run": True,
        **overlay, "exchange": exchange, "lstm": {"store_dir": f"lstm-{name}"},
    }  # fmt: skip


def _addresses(url: str) -> dict[str, Any]:
    socket = url.replace("http", "ws", 1)
    return {name: f"{url}/{path}" for name, path in _REST.items()} | {
        "ws": {name: f"{socket}/{path}" for name, path in _SOCKETS.items()}
        | {"ws-api": {name: f"{socket}/{path}" for name, path in _SOCKET_APIS.items()}}
    }
