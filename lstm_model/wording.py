"""Progress and results of a training in words, for the log and Telegram."""

from __future__ import annotations

import logging
import time

import numpy as np

from lstm_model.trainer import Progress
from lstm_model.walk_forward import Model, Slot

logger = logging.getLogger(__name__)

_TELL_EVERY_S = 5.0  # chosen: a training reports its progress this often


class Teller:
    """Reports a training's progress to the log, not too often."""

    def __init__(self, slot: Slot) -> None:
        self._until = minute(slot.data_end_ms)
        self._told_s = -_TELL_EVERY_S

    def __call__(self, progress: Progress) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s >= _TELL_EVERY_S:
            self._told_s = now_s
            logger.info("Training on candles until %s: %s", self._until, describe(progress))


def describe(progress: Progress) -> str:
    """A training's progress in words."""
    parts = [f"{progress.fraction:4.0%}", progress.stage]
    if progress.epochs:
        parts.append(f"epoch {progress.epoch} of {progress.epochs}")
    if progress.windows_per_s:
        parts.append(f"{progress.windows_per_s:,.0f} windows/s")
    if progress.eta_s is not None:
        parts.append(f"{progress.eta_s:.0f} s left at most")
    return ", ".join(parts)


def summary(model: Model) -> str:
    """A model's card in one line."""
    card = model.card
    skill, scores = card.skill, card.scores["lstm"]
    verdict = "proven" if card.proven else "not proven"
    return (
        f"Model {card.version}, trained on {card.windows['train']:,} windows until "
        f"{minute(card.train_end_ms)}: skill {verdict}; R2 against zero {skill['r2_vs_zero']:+.2%} "
        f"(one candle late {skill['r2_vs_zero_delayed']:+.2%}), against ridge "
        f"{skill['r2_vs_ridge']:+.2%}, against reversal {skill['r2_vs_reversal']:+.2%}; interval "
        f"coverage {scores['coverage']:.1%}, Winkler {skill['winkler_vs_zero']:+.2%} against EWMA"
    )


def minute(time_ms: int) -> str:
    """A time as `2026-01-31T12:00Z`."""
    return str(np.datetime64(time_ms, "ms").astype("datetime64[m]")) + "Z"
