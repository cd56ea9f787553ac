"""A model ready to serve: a stored version with the calibration and the skill it has by now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from lstm_model.errors import StoreError
from lstm_model.features.closed_candle import feature_names
from lstm_model.market.candles import Floats, Ints
from lstm_model.model.calibration import Calibration, Widths
from lstm_model.model.ensemble import Ensemble
from lstm_model.model.forecast import Forecast
from lstm_model.settings import Settings
from lstm_model.store.card import ModelCard
from lstm_model.store.models import StoredModel


@dataclass(frozen=True)
class Model:
    """A stored version, ready to forecast.

    Attributes
    ----------
    calibration : shrinkage and interval scales in force
    p_value : of the mean's out-of-sample skill against zero return, by what is known so far
    """

    card: ModelCard
    lstm: Ensemble
    calibration: Calibration
    p_value: float

    @classmethod
    def of(cls, stored: StoredModel, settings: Settings) -> Self:
        """Check that a stored version fits the settings, and prepare it as its card has it.

        Raises
        ------
        StoreError
            The version was made by another release or for other settings.
        """
        card = stored.card
        if card.feature_names != feature_names(settings.order_flow):
            raise StoreError(f"model {card.version} was trained on other features; train anew")
        if any(card.settings.get(n) != getattr(settings, n) for n in ("lookback", "horizon")):
            raise StoreError(f"model {card.version} was trained for other settings; train anew")
        try:
            calibration = Calibration.from_card(settings.levels, card.calibration)
            lstm = Ensemble(stored.weights, settings.lookback)
            _check_widths(calibration)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise StoreError(
                f"model {card.version} is of another form than this release makes ({error!r}); "
                "train anew"
            ) from None
        return cls(card, lstm, calibration, card.p_value)

    def forecast(self, pair: str, rows: Floats, volatility: Floats, ends: Ints) -> Forecast:
        """Forecasts after the windows that end in rows `ends` (N,) of one pair's features."""
        return self.calibrated(pair, self.lstm.predict(rows, ends), volatility[ends])

    def calibrated(self, pair: str, raw: Floats, volatility: Floats) -> Forecast:
        """The network's raw output (N, K) as forecasts of one pair; `volatility` (N,)."""
        return self.calibration.apply(raw, volatility, self.card.settings["horizon"], pair)

    def is_skilled(self, settings: Settings) -> bool:
        """Whether its out-of-sample skill is significant, at once and one candle late."""
        return not settings.require_skill or self.p_value <= settings.skill_p_value


def _check_widths(calibration: Calibration) -> None:
    """`ValueError` for widths of other intervals than the levels make."""
    wanted = len(Widths.neutral(calibration.levels).scales)
    lengths = {len(part) for known in calibration.widths.values() for part in known[2:]}
    if lengths - {wanted}:
        raise ValueError(f"its widths are of {sorted(lengths)} intervals, not {wanted}")
