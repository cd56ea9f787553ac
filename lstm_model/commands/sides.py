"""Some trades of a backtest on futures, long and short, with what their funding came to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from lstm_model.commands.terminal import add_numbers

_LAST, _FUNDED = 3, 2  # chosen: of each side


def both_sides(results: Path, strategy: str) -> Table:
    """The last trades of each side of the newest backtest, and the last with funding in them."""
    from lstm_model.bot.insides import exported_trades  # freqtrade takes a second

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("pair", "side", "entered, UTC", "end"):
        table.add_column(name, no_wrap=True)
    add_numbers(table, "leverage", "funding", "USDT", "%")
    trades = exported_trades(results, strategy).sort_values("open_date", ignore_index=True)
    for side, chosen in (("long", ~trades["is_short"]), ("short", trades["is_short"])):
        for trade in _some(trades[chosen]).itertuples():
            table.add_row(
                trade.pair, side, f"{trade.open_date:%m-%d %H:%M}", trade.exit_reason,
                f"{trade.leverage:g}", f"{trade.funding_fees:+.4f}", f"{trade.profit_abs:+.2f}",
                f"{100.0 * trade.profit_ratio:+.2f}",
            )  # fmt: skip
    return table


def _some(trades: Any) -> Any:
    funded = trades[trades["funding_fees"] != 0.0].tail(_FUNDED)
    return trades.loc[sorted({*funded.index, *trades.tail(_LAST).index})]
