"""Whether a bot did what a backtest says it would have done: forecasts, trades, and money."""

from __future__ import annotations

from dataclasses import dataclass

from lstm_model.replay.accounts import Account, Rules
from lstm_model.replay.causes import Evidence, Explanation, explain
from lstm_model.replay.forecasts import ForecastComparison
from lstm_model.replay.money import MoneyComparison, Purse, reckon
from lstm_model.replay.trades import TradeComparison, compare_trades


@dataclass(frozen=True)
class Comparison:
    """A backtest beside a bot.

    Attributes
    ----------
    explanation : of the first difference of forecasts; None: there is none
    """

    forecasts: ForecastComparison
    explanation: Explanation | None
    trades: TradeComparison
    money: MoneyComparison

    @property
    def ok(self) -> bool:
        """Whether all forecasts are equal, every trade is explained, and the profit was kept."""
        return self.forecasts.ok and self.trades.ok and self.money.ok


def compare(
    forecasts: ForecastComparison, backtest: Account, replay: Account, rules: Rules,
    evidence: Evidence, purse: Purse,
) -> Comparison:  # fmt: skip
    """Explain the first difference of forecasts, compare the trades, and reckon their profits."""
    first = forecasts.first
    explanation = None if first is None else explain(first, evidence)
    trades = compare_trades(backtest, replay, forecasts, rules)
    return Comparison(forecasts, explanation, trades, reckon(trades, rules, purse))
