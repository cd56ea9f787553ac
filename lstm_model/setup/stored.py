"""Whether what bots have learnt and said can be read: the store of models, the journal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lstm_model.bot import configuration
from lstm_model.errors import LstmModelError, StoreError
from lstm_model.files import refuse_unwritable
from lstm_model.settings import Settings
from lstm_model.setup.finding import Finding, good, to_do, warning
from lstm_model.setup.subject import Config
from lstm_model.store.journal import Journal
from lstm_model.store.lineage import Lineage, head_record, lineages
from lstm_model.store.models import ModelStore

_ANSWER_S = 15.0  # chosen: longer than a driver waits for a connection and for a statement
_FOLDERS = ("models", "steps", "lineages", "spool")
_LOCK_S = 2.0  # chosen: a bot holds SQLite's lock for milliseconds


def check_store(config: Config, settings: Settings) -> Iterator[Finding]:
    """The models, and what each bot has learnt; one that learns just now is not disturbed."""
    root = configuration.store_folder(config, settings)
    own, store = Lineage(root, configuration.lineage(config, settings)), ModelStore(root)
    damaged, needed, learnt = store.damaged(), set[str](), ""
    if refused := _refused(root):
        yield to_do("store", refused)
    try:
        needed = {version for version in (own.pinned, *own.champions[:1]) if version}
        learnt = _learnt(own)
    except StoreError as error:
        yield to_do("store", str(error), _restore(root))
    for version, problem in damaged.items():
        if version in needed:
            yield to_do("store", f"model {version}, which serves: {problem}", _restore(root))
        else:
            yield warning("store", f"model {version} is left out: {problem}", "")
    others = [each for each in lineages(root) if each.name != own.name]
    for other in others:
        if problem := _damage(other):
            yield warning("store", f"what another bot has learnt: {problem}", "")
    if learnt and not damaged and not refused:
        known = f"{len(store.cards())} model(s), {len(others)} other bot(s)"
        yield good("store", f"{root}: {known}, {learnt}")


def _refused(root: Path) -> str:
    try:
        for place in (root, *(root / name for name in _FOLDERS)):
            if place.exists() and not place.is_dir():
                return f"{place} is a file, where a folder is needed: move it away"
            refuse_unwritable(place.absolute())
    except StoreError as error:
        return str(error)
    return ""


def _learnt(own: Lineage) -> str:
    if own.head is None:
        return "this bot has learnt nothing yet"
    if not head_record(own):
        return "the newest step of this bot is lost and is computed again"
    return f"this bot's champion is {own.pinned or next(iter(own.champions), 'none')}"


def _restore(root: Path) -> str:
    return f"If you have a copy of {root} of before, put it back first"


def _damage(lineage: Lineage) -> str:
    try:
        head_record(lineage)
    except StoreError as error:
        return str(error)
    return ""


def check_journal(config: Config, settings: Settings) -> Iterator[Finding]:
    """Whether the journal's database answers in time and holds our tables, or may get them."""
    try:
        journal = configuration.journal_of(config, settings, read_only=True, lock_wait_s=_LOCK_S)
    except LstmModelError as error:
        yield to_do("journal", str(error), "")
        return
    problem = _unwritable(journal) if journal.is_missing else _asked(journal)
    if problem:
        yield to_do("journal", problem, "")
    elif journal.is_missing:
        yield good("journal", f"none yet at {journal.place}; a bot makes it")
    else:
        yield good("journal", f"{journal.place} answers")


def _unwritable(journal: Journal) -> str:
    try:
        journal.check_place()
    except StoreError as error:
        return str(error)
    return ""


def _asked(journal: Journal) -> str:
    """What is wrong with its answer; "" if nothing is. No database is waited for without end."""
    problems = list[str]()

    def ask() -> None:
        try:
            journal.reach()
        except StoreError as error:
            problems.append(str(error))
        finally:
            journal.close()  # here: it would wait for a connection that is being opened

    asking = threading.Thread(target=ask, daemon=True, name="doctor-journal")
    asking.start()
    asking.join(_ANSWER_S)
    if asking.is_alive():
        with suppress(StoreError):
            journal.abort()
        return f"{journal.place} has not answered in {_ANSWER_S:g} s: see that it runs"
    return "".join(problems)
