"""Whether a bot of the configuration starts, and whether its news arrive."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from lstm_model.bot import configuration, insides
from lstm_model.bot.named import STATIC_FILE, static_pairs, words_of
from lstm_model.errors import ConfigError
from lstm_model.settings import Settings
from lstm_model.setup.finding import Finding, good, note, to_do, warning
from lstm_model.setup.subject import Config

# Under which names freqtrade and ccxt take them; some exchanges sign with a wallet.
_KEYS = (
    ("key", "apiKey", "api_key", "walletAddress", "wallet_address"),
    ("secret", "privateKey", "private_key"),
)


def check_strategy(config: Config, settings: Settings | None) -> Iterator[Finding]:
    """Whether freqtrade loads the strategy, and would start with it and this configuration.

    Parameters
    ----------
    settings : None: our section is wrong, which is told apart; the strategy is judged without it
    """
    named = config.get("strategy")
    if settings is None:
        config = configuration.without_section(config)
    try:
        strategy = configuration.load_strategy(config)
    except ConfigError as error:
        if named or insides.NO_STRATEGY not in str(error):
            yield to_do("strategy", str(error), "")
        else:
            yield note(
                "strategy", f"none is named, and {configuration.STRATEGY} is not there",
                "Name yours with --strategy, or run `freqtrade-lstm init --userdir "
                f"{shlex.quote(str(config['user_data_dir']))}`",
            )  # fmt: skip
        return
    name = type(strategy).__name__
    try:
        configuration.check_startable({**config, "strategy": name})
    except ConfigError as error:
        yield to_do("config", f"freqtrade would not start: {error}", "")
        return
    yield good("strategy", f"{name} loads, timeframe {config['timeframe']}")


def check_backtests(config: Config, settings: Settings | None) -> Iterator[Finding]:
    """Whether freqtrade's backtest and hyperopt take the list of pairs."""
    if refused := insides.refused_in_backtests(config):
        named = () if settings is None else configuration.training_pairs(config, settings, ())
        pairs = shlex.join(named or ["BTC/USDT", "ETH/USDT"])
        command = f"freqtrade backtesting{words_of(config)} -c {STATIC_FILE} -p {pairs}"
        yield note(
            "backtests", f"freqtrade's backtesting and hyperopt refuse {', '.join(refused)}",
            static_pairs(command),
        )  # fmt: skip


def check_money(config: Config, settings: Settings | None) -> Iterator[Finding]:
    """Whether a bot that trades with money has keys, and stops that hold while it is down.

    Whether the exchange takes the keys is not asked: nothing is signed here.
    """
    told = config.get("original_config", config)  # a command's own is always of a dry run
    if told.get("dry_run", True):
        return
    if missing := _missing_keys(told.get("exchange") or {}):
        are = "is" if len(missing) == 1 else "are"
        yield to_do(
            "money", f"dry_run is false and {' and '.join(missing)} {are} empty",
            'Put the keys into a file of their own, named by one more -c, or set "dry_run" to true',
        )  # fmt: skip
    else:
        words = words_of(config)
        yield good(
            "money", "dry_run is false, and there are keys; whether the exchange takes them "
            f"`freqtrade-lstm orders{words}` shows",
        )  # fmt: skip
    if not _stops_on_exchange(config, settings):
        yield note(
            "stops", "dry_run is false and order_types.stoploss_on_exchange is off: while the bot "
            "or its line is down, no stop is in force",
            "Set it to true where the exchange has such orders, see docs/live.md",
        )  # fmt: skip


def _missing_keys(exchange: Config) -> list[str]:
    """What of a key and its secret is nowhere, in any of the names that freqtrade and ccxt take."""
    parts = [exchange, *(exchange.get(name) or {} for name in ("ccxt_config", "ccxt_sync_config"))]
    return [
        f"exchange.{names[0]}"
        for names in _KEYS
        if not any(part.get(name) for part in parts for name in names)
    ]


def _stops_on_exchange(config: Config, settings: Settings | None) -> bool:
    """By the configuration, else by its strategy; one that does not load is told elsewhere."""
    try:
        strategy = configuration.load_strategy(
            configuration.without_section(config) if settings is None else config
        )
    except ConfigError:
        return True
    return bool(strategy.order_types.get("stoploss_on_exchange"))


def check_telegram(config: Config) -> Iterator[Finding]:
    """Whether what the bot tells of its learning reaches Telegram."""
    section = config.get("telegram") or {}
    if not section.get("enabled"):
        yield note("telegram", "off: what is trained, promoted and rolled back is in the log alone")
    elif not section.get("allow_custom_messages", False):
        yield _silent("allow_custom_messages is false", "Set it to true")
    elif (section.get("notification_settings") or {}).get("strategy_msg") == "off":
        yield _silent("notification_settings.strategy_msg is off", 'Set it to "on" or "silent"')
    else:
        yield good("telegram", "on, and our news are allowed")


def _silent(why: str, todo: str) -> Finding:
    return warning("telegram", f"on, but telegram.{why}, so our news do not arrive", todo)
