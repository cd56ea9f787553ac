"""What learning does, in words for the log and Telegram: one line each."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

import numpy as np

from lstm_model.errors import StoreError
from lstm_model.learning.learner import Event, Wish
from lstm_model.learning.schedule import Schedule
from lstm_model.store.card import ModelCard
from lstm_model.store.journal import DecisionRow
from lstm_model.training.job import Progress

logger = logging.getLogger(__name__)

_TELL_EVERY_S = 5.0  # chosen: the log hears of a training's progress this often
_SAY_EVERY = 0.25  # chosen: and the user at every quarter, where asked for

Say = Callable[[str], None]


class Teller:
    """Reports a training's progress to the log, and by `say` to the user, not too often."""

    def __init__(self, wish: Wish, boundary_ms: int, say: Say | None = None) -> None:
        self._title = f"{_TRAINING[wish.kind]} on candles until {minute(boundary_ms)}"
        self._say = say
        self._told_s, self._said = -_TELL_EVERY_S, -_SAY_EVERY

    def __call__(self, progress: Progress) -> None:
        if progress.stage == "waiting":  # for another, which is heard of
            return
        line, now_s = f"{self._title}: {describe(progress)}", time.monotonic()
        if self._say is not None and progress.fraction >= self._said + _SAY_EVERY:
            self._said = progress.fraction // _SAY_EVERY * _SAY_EVERY
            self._told_s = now_s
            self._say(line)
        elif now_s - self._told_s >= _TELL_EVERY_S:
            self._told_s = now_s
            logger.info("%s", line)


class WalkTeller:
    """Reports to the log how far a walk over the past is, not too often.

    Parameters
    ----------
    first_ms, last_ms : its boundaries
    """

    def __init__(self, schedule: Schedule, first_ms: int, last_ms: int) -> None:
        self._schedule, self._first_ms, self._last_ms = schedule, first_ms, last_ms
        self._trainings = schedule.trainings(first_ms, last_ms)
        self._began_s = self._told_s = time.monotonic()

    def __call__(self, boundary_ms: int, ahead: int) -> None:
        """The walk has come to a boundary, and so many networks are there that it needs later."""
        now_s = time.monotonic()
        if now_s - self._told_s < _TELL_EVERY_S or boundary_ms >= self._last_ms:
            return
        self._told_s, passed_s = now_s, now_s - self._began_s
        done = self._schedule.trainings(self._first_ms, boundary_ms) + ahead
        logger.info(
            "Learnt until %s of %s: %d of about %d trainings in %.0f s, about %.0f s left",
            minute(boundary_ms), minute(self._last_ms), done, self._trainings, passed_s,
            passed_s * max(0.0, self._trainings / max(1, done) - 1.0),
        )  # fmt: skip


_TRAINING = {"scratch": "Training a network", "finetune": "Fine-tuning"}


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


def decisions(
    events: Iterable[Event], lineage: str, card_of: Callable[[str], ModelCard]
) -> list[DecisionRow]:
    """What the learner decided, for the journal; the text is the line that the user hears."""
    return [
        DecisionRow(
            lineage=lineage, at_ms=event.at_ms, kind=event.kind, version=event.version,
            champion=event.champion, candles=event.candles, gain=event.gain, bound=event.bound,
            text=event_line(event, card_of), created_ms=time.time_ns() // 1_000_000,
        )
        for event in events
    ]  # fmt: skip


def event_line(event: Event, card_of: Callable[[str], ModelCard]) -> str:
    """What the learner decided, for a trader. `card_of` may miss a version that was pruned."""
    try:
        return _LINES[event.kind](event, card_of)
    except StoreError:
        return f"{event.kind.capitalize()}: model {event.version}, which was removed since"


def _trained(event: Event, card_of: Callable[[str], ModelCard]) -> str:
    made, champion = summary(card_of(event.version)), named(card_of(event.champion))
    return f"{made}; it competes with {champion}"


_JUDGED = {
    "promoted": "Promoted: {version} serves instead of {champion}{compared}",
    "rolled back": "Rolled back: {version} serves again instead of {champion}{compared}",
    "rejected": "Rejected: {version}, {text}{compared}; {champion} keeps serving",
}


def _judged(event: Event, card_of: Callable[[str], ModelCard]) -> str:
    version, champion = named(card_of(event.version)), named(card_of(event.champion))
    return _JUDGED[event.kind].format(
        version=version, champion=champion, text=event.text, compared=_compared(event)
    )


def _drift(event: Event, card_of: Callable[[str], ModelCard]) -> str:
    return f"Drift: {event.text}; fine-tuning early"


def _calibration(event: Event, card_of: Callable[[str], ModelCard]) -> str:
    return f"Calibration of {named(card_of(event.version))}: {event.text}"


def _failed(event: Event, card_of: Callable[[str], ModelCard]) -> str:
    return (
        f"Training failed, {named(card_of(event.champion))} keeps serving and the next step tries "
        f"again: {event.text}"
    )


def _missing(event: Event, card_of: Callable[[str], ModelCard]) -> str:
    return (
        f"Candles are missing before {minute(event.at_ms)}, and the step is taken without their "
        f"labels: {event.text}. `freqtrade download-data` fetches what the exchange has"
    )


_LINES: dict[str, Callable[[Event, Callable[[str], ModelCard]], str]] = {
    **dict.fromkeys(_JUDGED, _judged),
    "trained": _trained,
    "drift": _drift,
    "calibration": _calibration,
    "training failed": _failed,
    "candles missing": _missing,
}


def _compared(event: Event) -> str:
    """By how much a version does better or worse than the champion of that time."""
    if not event.candles or event.saved_fraction is None:
        return ""
    word = "lower" if event.saved_fraction >= 0.0 else "higher"
    share = f"{abs(event.saved_fraction):.2%} {word}"
    return f": its pinball loss was {share} over {event.candles:,} unseen candles"


def named(card: ModelCard) -> str:
    """A version as people know it."""
    if card.kind == "baseline":
        return "the baseline"
    return f"model {card.version}"


def summary(card: ModelCard) -> str:
    """A model's card in one line."""
    if card.kind == "finetune":
        return (
            f"Model {card.version}, fine-tuned from {card.parent} on {card.windows['train']:,} "
            f"recent and {card.windows['replay']:,} older windows until "
            f"{minute(card.train_end_ms)}"
        )
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
