"""What the learner decided reads as a sentence a trader understands, pruned models or not."""

from __future__ import annotations

import pytest

from lstm_model.errors import StoreError
from lstm_model.learning.learner import Event
from lstm_model.learning.wording import decisions, event_line
from lstm_model.store.card import ModelCard

CARDS = {
    "new0": ModelCard.model_construct(
        version="new0", kind="finetune", parent="old0", train_end_ms=1_700_000_000_000,
        windows={"train": 1_000, "replay": 1_500},
    ),
    "old0": ModelCard.model_construct(version="old0", kind="scratch"),
    "zero": ModelCard.model_construct(version="zero", kind="baseline"),
}  # fmt: skip


def card_of(version: str) -> ModelCard:
    if version not in CARDS:
        raise StoreError(f"model {version} is not in the store")
    return CARDS[version]


def event(kind: str, version: str = "new0", champion: str = "old0", text: str = "") -> Event:
    return Event(kind, 0, version, champion, text=text)


@pytest.mark.parametrize(
    ("decided", "line"),
    [
        (event("trained"), "Model new0, fine-tuned from old0 on 1,000 recent and 1,500 older "
         "windows until 2023-11-14T22:13Z; it competes with model old0"),
        (event("promoted", champion="zero"),
         "Promoted: model new0 serves instead of the baseline"),
        (event("rolled back", "zero"),
         "Rolled back: the baseline serves again instead of model old0"),
        (event("rejected", text="no better in {time}"),
         "Rejected: model new0, no better in {time}; model old0 keeps serving"),
        (event("drift", text="forecasts off to one side on ETH/USDT"),
         "Drift: forecasts off to one side on ETH/USDT; fine-tuning early"),
        (event("calibration", "zero", "zero", text="inside its widest interval were 89.9% over 9 "
         "candles"), "Calibration of the baseline: inside its widest interval were 89.9% over 9 "
         "candles"),
        (event("training failed", "", text="out of memory"), "Training failed, model old0 keeps "
         "serving and the next step tries again: out of memory"),
    ],
    ids=lambda value: value.kind if isinstance(value, Event) else "",
)  # fmt: skip
def test_every_decision_has_its_sentence(decided: Event, line: str) -> None:
    assert event_line(decided, card_of) == line


@pytest.mark.parametrize("kind", ["promoted", "rolled back", "rejected"])
@pytest.mark.parametrize(("saved", "share"), [(0.0123, "1.23% lower"), (-0.0123, "1.23% higher")])
def test_a_comparison_is_told_with_its_numbers(kind: str, saved: float, share: str) -> None:
    judged = event(kind)._replace(candles=2_003, saved_fraction=saved)
    wanted = f": its pinball loss was {share} over 2,003 unseen candles"
    assert wanted in event_line(judged, card_of)
    assert wanted not in event_line(judged._replace(candles=0), card_of)


@pytest.mark.parametrize("kind", ["trained", "promoted", "rolled back", "rejected"])
def test_a_decision_about_a_model_that_was_removed_is_still_told(kind: str) -> None:
    told = event_line(event(kind, "gone"), card_of)
    assert told == f"{kind.capitalize()}: model gone, which was removed since"


def test_the_journal_gets_the_same_words() -> None:
    events = [event("promoted"), event("drift", text="misses")]
    rows = decisions(events, "binance-spot-5m", card_of)
    assert [row.text for row in rows] == [event_line(made, card_of) for made in events]
    assert [(row.kind, row.lineage) for row in rows] == [
        ("promoted", "binance-spot-5m"), ("drift", "binance-spot-5m"),
    ]  # fmt: skip
