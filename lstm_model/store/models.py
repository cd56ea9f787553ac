"""Model versions on disk, under their content address.

    root/models/<version>/weights.npz, network.keras, card.json
    root/steps/, root/lineages/, see `lstm_model.store.steps`, `lstm_model.store.lineage`

A version is written into a temporary folder, synced and renamed, so it is there whole or not at
all. Nothing is unpickled, nothing damaged is deleted: it is refused, by name.
"""

from __future__ import annotations

import logging
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lstm_model.errors import StoreError
from lstm_model.files import (
    TEMPORARY,
    sync_folder,
    write_synced,
    writing,
)
from lstm_model.store.card import (
    CARD_FILE,
    NETWORK_FILE,
    REMEDY,
    VERSION_PATTERN,
    WEIGHTS_FILE,
    ModelCard,
    Weights,
    check_weights,
    pack_card,
    pack_weights,
    parse_card,
    parse_weights,
    sha256,
    shapes,
    version_id,
)

logger = logging.getLogger(__name__)

__all__ = ["ModelCard", "ModelStore", "StoredModel", "version_id"]

_LEFTOVER_S = 3_600.0


@dataclass(frozen=True)
class StoredModel:
    """A verified model version.

    Attributes
    ----------
    weights : array name -> read-only float32 array
    network : the Keras file to fine-tune from, if one was published
    """

    card: ModelCard
    weights: Weights
    network: Path | None


def copy_learnt(source: Path, target: Path) -> None:
    """Take versions and steps of one store over into another, which finds them by their address.

    Who serves is not taken over: lineages belong to one bot each.

    Raises
    ------
    StoreError
        `source` is no store, or `target` cannot be written.
    """
    if not (source / "models").is_dir():
        raise StoreError(f"{source} holds no models: name a store, e.g. user_data/lstm")
    unfinished = shutil.ignore_patterns(f"{TEMPORARY}*")
    with writing(target):
        for name in ("models", "steps"):
            if (source / name).is_dir():
                shutil.copytree(source / name, target / name, ignore=unfinished, dirs_exist_ok=True)


class ModelStore:
    """Model versions below one folder; several processes may share it.

    Parameters
    ----------
    root : made on the first write

    Examples
    --------
    >>> import tempfile
    >>> store = ModelStore(Path(tempfile.mkdtemp()))
    >>> store.has("0123456789abcdef"), store.cards()
    (False, [])
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._models = root / "models"
        self._reported: set[str] = set()

    def check_writable(self) -> None:
        """Write and remove a probe file, so that a bot can refuse to start.

        Raises
        ------
        StoreError
            If the folder cannot be made or written.
        """
        probe = self._models / f"{TEMPORARY}probe-{secrets.token_hex(8)}"
        with writing(self._models):
            self._models.mkdir(parents=True, exist_ok=True)
            write_synced(probe, b"")
            probe.unlink()

    def publish(self, card: ModelCard, weights: Weights, network: Path | None) -> ModelCard:
        """Store a version; a no-op if it is there intact. A damaged one is set aside, not lost.

        Returns
        -------
        ModelCard
            The card as stored, with shapes and checksums.

        Raises
        ------
        StoreError
            For weights that are not finite float32 arrays, and if the folder is not writable.
        """
        check_weights(weights, f"model {card.version}")
        content = None if network is None else _read(network)
        if self._folder(card.version).exists():
            try:
                return self._verified(card.version)
            except StoreError as error:
                self._set_aside(card.version, error)
        temporary = self._temporary(card.version)
        with writing(self._models):
            try:
                _write_version(temporary, card, weights, content)
                self._move_in(temporary, card.version)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return self._verified(card.version)

    def has(self, version: str) -> bool:
        """Whether the version is there and every checksum holds."""
        try:
            self._verified(version)
        except StoreError:
            return False
        return True

    def load(self, version: str) -> StoredModel:
        """Read a version and verify all of it.

        Raises
        ------
        StoreError
            If it is missing, truncated, changed or not ours; names the file and what to do.
        """
        card = self._verified(version)
        path = self._folder(version) / WEIGHTS_FILE
        weights = parse_weights(_read(path), path)
        if shapes(weights) != card.weights:
            raise StoreError(f"{path} holds other arrays than its card says: {REMEDY}")
        check_weights(weights, str(path))
        network = self._folder(version) / NETWORK_FILE
        return StoredModel(card, weights, network if NETWORK_FILE in card.checksums else None)

    def cards(self) -> list[ModelCard]:
        """Cards of all intact versions, oldest first. Warns once about each that is not."""
        found = [card for name in self._names() if (card := self._card_or_warn(name)) is not None]
        return sorted(found, key=_age)

    def damaged(self) -> dict[str, str]:
        """What is wrong with each version that is not intact, by name."""
        found = dict[str, str]()
        for version in self._names():
            try:
                self._verified(version)
            except StoreError as error:
                if self._folder(version).exists():  # else it was pruned just now
                    found[version] = str(error)
        return found

    def prune(self, keep: int, protected: Collection[str]) -> list[str]:
        """Remove the oldest versions, so that `keep` remain. Damaged ones are left alone.

        Protected ones are never removed and count among the `keep`: if as many are protected, all
        others go. Only cards are read. A version goes whole or not at all, by one renaming; who
        is reading it meanwhile gets the `StoreError` of a missing version.

        Returns
        -------
        list of str
            The removed versions, oldest first.

        Raises
        ------
        StoreError
            If the folder is not writable.
        """
        cards = sorted(self._readable_cards(), key=_age)
        free = [card.version for card in cards if card.version not in protected]
        kept = max(keep - (len(cards) - len(free)), 0)
        return [version for version in free[: max(len(free) - kept, 0)] if self._remove(version)]

    def remove_leftovers(self) -> list[Path]:
        """Remove what writers that crashed over an hour ago left half-written."""
        oldest_s = time.time() - _LEFTOVER_S
        stale = [
            path
            for folder in (self._models, self.root / "steps", self.root / "lineages")
            for path in sorted(folder.glob(f"{TEMPORARY}*"))
            if _modified_s(path) < oldest_s
        ]
        for path in stale:
            shutil.rmtree(path, ignore_errors=True)
            if path.is_file():
                path.unlink(missing_ok=True)
        return stale

    def _folder(self, version: str) -> Path:
        if not re.fullmatch(VERSION_PATTERN, version):
            raise StoreError(f'"{version}" is no model version: letters, digits, "-" and "_" only')
        return self._models / version

    def _names(self) -> list[str]:
        folders = sorted(self._models.glob("*")) if self._models.is_dir() else []
        return [folder.name for folder in folders if re.fullmatch(VERSION_PATTERN, folder.name)]

    def _card(self, version: str) -> ModelCard:
        folder = self._folder(version)
        if not folder.is_dir():
            raise StoreError(f"model {version} is not in {self._models}: train it first")
        card = parse_card(_read(folder / CARD_FILE), folder / CARD_FILE)
        if card.version != version:
            raise StoreError(f"{folder} holds model {card.version}, not {version}: {REMEDY}")
        return card

    def _readable_cards(self) -> Iterator[ModelCard]:
        for version in self._names():
            with suppress(StoreError):
                yield self._card(version)

    def _verified(self, version: str) -> ModelCard:
        card, folder = self._card(version), self._folder(version)
        for name in (WEIGHTS_FILE, *sorted(card.checksums.keys() & {NETWORK_FILE})):
            if sha256(_read(folder / name)) != card.checksums.get(name):
                raise StoreError(
                    f"{folder / name} is damaged or foreign (checksum differs): {REMEDY}"
                )
        return card

    def _card_or_warn(self, version: str) -> ModelCard | None:
        try:
            return self._verified(version)
        except StoreError as error:
            if self._folder(version).exists():  # else it was pruned just now
                self._warn(f"model {version} is left out: {error}")
            return None

    def _remove(self, version: str) -> bool:
        gone = self._temporary(version)
        with writing(self._models):
            try:
                self._folder(version).rename(gone)
            except FileNotFoundError:  # another process was faster
                return False
        shutil.rmtree(gone, ignore_errors=True)  # what stays is a leftover
        return True

    def _temporary(self, version: str) -> Path:
        return self._models / f"{TEMPORARY}{version}-{secrets.token_hex(8)}"

    def _warn(self, message: str) -> None:
        if message not in self._reported:
            self._reported.add(message)
            logger.warning(message)

    def _set_aside(self, version: str, error: StoreError) -> None:
        aside = self._models / f"{version}.damaged-{secrets.token_hex(4)}"
        logger.warning("%s. It is kept as %s and made anew.", error, aside)
        with writing(aside), suppress(FileNotFoundError):  # it may be pruned meanwhile
            self._folder(version).rename(aside)

    def _move_in(self, temporary: Path, version: str) -> None:
        try:
            temporary.rename(self._folder(version))
        except OSError:
            if not self.has(version):  # else another process was faster with the same content
                raise
        sync_folder(self._models)


def _write_version(folder: Path, card: ModelCard, weights: Weights, network: bytes | None) -> None:
    folder.mkdir(parents=True)
    files = {WEIGHTS_FILE: pack_weights(weights)}
    if network is not None:
        files[NETWORK_FILE] = network
    for name, content in files.items():
        write_synced(folder / name, content)
    write_synced(folder / CARD_FILE, pack_card(card, weights, files))
    sync_folder(folder)


def _age(card: ModelCard) -> tuple[int, str]:
    return card.created_ms, card.version


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}): {REMEDY}") from None


def _modified_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # its writer has just finished
        return float("inf")
