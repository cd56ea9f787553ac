"""Whether a bot did what a backtest says it would have done: forecasts first, then trades."""

from __future__ import annotations

from dataclasses import dataclass

from lstm_model.replay.accounts import Account, Rules
from lstm_model.replay.causes import Evidence, Explanation, explain
from lstm_model.replay.forecasts import ForecastComparison
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

    @property
    def ok(self) -> bool:
        """Whether all forecasts are equal, and every trade has its like or a cause."""
        return self.forecasts.ok and self.trades.ok


def compare(
    forecasts: ForecastComparison, backtest: Account, replay: Account, rules: Rules,
    evidence: Evidence,
) -> Comparison:  # fmt: skip
    """Explain the first difference of forecasts, and compare the trades."""
    first = forecasts.first
    explanation = None if first is None else explain(first, evidence)
    return Comparison(forecasts, explanation, compare_trades(backtest, replay, forecasts, rules))
