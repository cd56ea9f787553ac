"""The options of the `lstm` section for people: all in a table, a handful in an example."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lstm_model.durations import LASTING, in_words
from lstm_model.market.candles import timeframe_ms
from lstm_model.settings import Settings, parse_settings

# The options that users change, and what each is, in a line.
EXAMPLES = {
    "horizon": "candles ahead that are forecast",
    "require_skill": "LSTMStrategy enters only while the model has proven skill in direction",
    "slippage_fraction": "expected per side, on top of the exchange's fee",
    "kelly_fraction": "share of Kelly's stake",
    "risk_fraction": "of the wallet, lost at the stop at most",
    "max_portfolio_fraction": "of the wallet in all trades, others by their correlation",
    "trade_stream": "dry run and live: follow every trade, forecast inside the candle",
}
TIMEFRAMES = ("1m", "5m", "15m", "1h", "4h", "1d")
WHERE_ALL_ARE = "All options: docs/configuration.md, or `freqtrade-lstm settings`."


def example_section(indent: int) -> str:
    """The `lstm` section of an example: a handful of options at their defaults, a comment each."""
    pad = " " * indent
    defaults = {name: json.dumps(Settings.model_fields[name].default) for name in EXAMPLES}
    last = list(EXAMPLES)[-1]
    rows = {
        name: f'"{name}": {text}{"" if name == last else ","}' for name, text in defaults.items()
    }
    width = max(map(len, rows.values()))
    lines = [f"{pad}    {rows[name]:<{width}} // {text}" for name, text in EXAMPLES.items()]
    return "\n".join([f'{pad}"lstm": {{ // {WHERE_ALL_ARE}', *lines, f"{pad}}}"])


def settings_table() -> str:
    """All options as a Markdown table, for docs/configuration.md."""
    rows = ["| option | default | allowed | what it does |", "| --- | --- | --- | --- |"]
    schema = Settings.model_json_schema()["properties"]
    for name, field in Settings.model_fields.items():
        default = f"`{json.dumps(field.default)}`"
        if name in LASTING:
            default = in_words(LASTING[name].time_ms)
        rows.append(f"| `{name}` | {default} | {_allowed(schema[name])} | {field.description} |")
    return "\n".join(rows)


def times_table() -> str:
    """What defaults that are times come to in candles, as a Markdown table."""
    made = [parse_settings({}, timeframe_ms(timeframe)) for timeframe in TIMEFRAMES]
    rows = [f"| option | is | {' | '.join(TIMEFRAMES)} |", "| --- " * (2 + len(made)) + "|"]
    for name, (time_ms, _) in LASTING.items():
        counts = " | ".join(f"{getattr(settings, name):,}" for settings in made)
        rows.append(f"| `{name}` | {in_words(time_ms)} | {counts} |")
    return "\n".join(rows)


def _allowed(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "boolean":
        return "`true`, `false`"
    if "anyOf" in schema:
        allowed = [_allowed(each) for each in schema["anyOf"] if each.get("type") != "null"]
        return ", ".join([*dict.fromkeys(allowed), "`null`"])
    low = _bound(schema, "minimum", "from ") or _bound(schema, "exclusiveMinimum", "above ")
    high = _bound(schema, "maximum", "to ") or _bound(schema, "exclusiveMaximum", "below ")
    return " ".join(part for part in (low, high) if part) or "text"


def _bound(schema: Mapping[str, Any], key: str, word: str) -> str:
    return f"{word}{schema[key]:,}" if key in schema else ""
