"""Connections to the journal's database: none waits without end, and no message holds a password.

A server that stands still acknowledges every packet and answers none, so no time-out of its own
helps: `Database.abort` makes such a call fail from another thread.
"""

from __future__ import annotations

import hashlib
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.pool import NullPool, StaticPool

from lstm_model.errors import DataError, StoreError
from lstm_model.files import refuse_unwritable

_BACKENDS = ("sqlite", "postgresql")
_STATEMENT_MS = 10_000  # chosen: far above a batch of facts, below a candle
# libpq's own. Keepalives and the TCP user time-out notice a machine that is gone in half a minute.
_LIBPQ = {
    "connect_timeout": 5, "keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5,
    "keepalives_count": 3, "tcp_user_timeout": 10_000,
}  # fmt: skip
_LIBPQ_DRIVERS = ("psycopg", "psycopg2", "psycopg2cffi")
_SQLITE_AWAY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_INTERRUPT)
_SERVER_REFUSES = ("authentication failed", "does not exist", "no pg_hba.conf entry")


class AwayError(StoreError):
    """The database is locked, cannot be reached or does not answer: that may pass by itself."""


class Database:
    """One database, opened on first use. Safe between threads.

    Parameters
    ----------
    place : a SQLite file, or a SQLAlchemy URL. A path may hold any character
    prepare : gets the engine after its first connection, e.g. to make tables
    read_only : nothing is made or changed, and the folder need not be writable
    lock_wait_s : how long another process may hold SQLite's lock before a call fails

    Raises
    ------
    StoreError
        For a URL that cannot be understood.
    """

    def __init__(
        self, place: str | Path, prepare: Callable[[Engine], None], *, read_only: bool,
        lock_wait_s: float,
    ) -> None:  # fmt: skip
        self.url = _file_url(place) if isinstance(place, Path) else _parse_url(place)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._prepare, self._read_only, self._lock_wait_s = prepare, read_only, lock_wait_s
        self._engine: Engine | None = None
        self._opening, self._open = threading.Lock(), set[Any]()

    @property
    def is_missing(self) -> bool:
        """Whether nothing was ever written here; a server is asked by the first query."""
        return self._is_file and not Path(self.url.database or "").exists()

    def check_place(self) -> None:
        """Raise a `StoreError` if a file that is missing could not be made where it belongs."""
        if self._is_file:
            refuse_unwritable(Path(self.url.database or "").absolute())

    @property
    def shown(self) -> str:
        """Where it is, without password and query: drivers accept passwords in both."""
        return self.url.set(query={}).render_as_string(hide_password=True)

    @property
    def digest(self) -> str:
        """Tells it from others, whoever asks and by whatever driver."""
        asked = [self.url.query.get(name, "") for name in ("host", "port", "service")]
        place = [self.url.get_backend_name(), self.url.host, self.url.port, *map(str, asked)]
        name = self.url.database or ""
        place.append(str(Path(name).absolute()) if self._is_file else name)
        return hashlib.sha256(repr(place).encode()).hexdigest()[:8]

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """A connection for a while.

        Raises
        ------
        AwayError
            The database is locked, cannot be reached or did not answer.
        StoreError
            It cannot be used.
        """
        try:
            with self._opening:
                self._engine = self._engine or self._opened()
            with self._engine.connect() as connection:
                yield connection
        except ImportError as error:
            raise self._error(f"no driver, {error}; install it", error) from None
        except DBAPIError as error:
            raise self._error(str(error.orig), error) from None
        except DataError as error:
            raise StoreError(f"the forecast journal {self.shown}: {error}") from None
        except (SQLAlchemyError, OSError, ValueError, TypeError, OverflowError) as error:
            raise self._error(str(error), error) from None

    def abort(self) -> None:
        """Make calls that are under way fail, from another thread."""
        engine = self._engine
        if engine is None:
            return
        closed_just_now = engine.dialect.loaded_dbapi.Error, OSError, ValueError
        for driver in tuple(self._open):
            with suppress(*closed_just_now):
                if isinstance(driver, sqlite3.Connection):
                    driver.interrupt()
                else:
                    _hang_up(driver)

    def close(self) -> None:
        """Close all connections; the next use opens them again."""
        with self._opening:
            if self._engine is not None:
                self._engine.dispose()
            self._engine = None

    @property
    def _is_file(self) -> bool:
        """Whether the database is a file of its own, and not a server or in memory."""
        name = self.url.database or ""
        return self.is_sqlite and bool(name) and not name.startswith((":memory:", "file:"))

    def _opened(self) -> Engine:
        """An engine that has connected once, so that a broken database shows here."""
        if self._read_only and self._is_file:
            return self._opened_for_reading()
        if self._is_file:
            Path(self.url.database or "").parent.mkdir(parents=True, exist_ok=True)
        return self._made(create_engine(self.url, **self._options()))

    def _opened_for_reading(self) -> Engine:
        """Of a file that may lie where nothing can be written, not even SQLite's own notes.

        Where they can, it leaves none behind, which it does if it may only read.
        """
        name = quote(str(Path(self.url.database or "").absolute()))
        *modes, last = ("mode=rw", "mode=ro", "mode=ro&immutable=1")
        for mode in modes:
            with _unwritable_is_no_error():
                return self._reader(f"file:{name}?{mode}")
        return self._reader(f"file:{name}?{last}")

    def _reader(self, uri: str) -> Engine:
        connect = partial(
            sqlite3.connect, uri, uri=True, timeout=self._lock_wait_s, check_same_thread=False
        )
        return self._made(create_engine("sqlite://", creator=connect, poolclass=NullPool))

    def _options(self) -> dict[str, Any]:
        if self._is_file:
            return {"connect_args": {"timeout": self._lock_wait_s}}
        if self.is_sqlite:  # one for all threads
            return {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
        # A connection a batch: none that has broken meanwhile, and its time-out covers the first
        # answer of a server that stands still.
        known = self.url.get_driver_name() in _LIBPQ_DRIVERS
        own = {name: value for name, value in _LIBPQ.items() if name not in self.url.query}
        return {"poolclass": NullPool, "connect_args": own if known else {}}

    def _made(self, engine: Engine) -> Engine:
        event.listen(engine, "connect", self._greet)
        event.listen(engine, "close", lambda driver, _: self._open.discard(driver))
        try:
            self._prepare(engine)
        except (SQLAlchemyError, OSError):
            engine.dispose()
            raise
        return engine

    def _greet(self, driver: Any, _record: Any) -> None:
        self._open.add(driver)
        with ExitStack() as refused:  # SQLAlchemy 2.0 leaves it open then
            refused.callback(driver.close)
            refused.callback(self._open.discard, driver)
            self._set_up(driver)
            refused.pop_all()

    def _set_up(self, driver: Any) -> None:
        if not self.is_sqlite:
            cursor = driver.cursor()
            cursor.execute(f"SET statement_timeout = {_STATEMENT_MS}")
            cursor.execute(f"SET lock_timeout = {int(1000 * self._lock_wait_s)}")
            cursor.close()
            driver.commit()
        elif self._read_only:
            driver.execute("PRAGMA query_only=ON").close()
        else:
            # Readers in other processes do not wait for the writer, nor it for them.
            driver.execute("PRAGMA journal_mode=WAL").close()

    def _error(self, problem: str, error: BaseException) -> StoreError:
        first_line = _without_secrets(self.url, problem).strip().partition("\n")[0]
        kind = AwayError if _is_away(error) else StoreError
        return kind(
            f"the forecast journal {self.shown} is unusable "
            f"({type(error).__name__}: {first_line}): make it reachable; if a file is damaged, "
            'move it away to start a new one; or set "journal_url" in the "lstm" section to '
            "another database"
        )


class Foreign:
    """A database that another program made, whose name comes from its configuration.

    Raises
    ------
    StoreError
        For a URL that cannot be understood.

    Examples
    --------
    >>> Foreign("postgresql://me:secret@host/trades?password=secret").shown
    'postgresql://me:***@host/trades'
    >>> Foreign("sqlite://").is_missing
    True
    """

    def __init__(self, url: str) -> None:
        try:
            self._url = make_url(url)
            self._url.get_dialect()
        except (ArgumentError, ValueError):  # whose text may hold the password
            raise StoreError("the URL of the database of trades names none that is known") from None
        self.shown = self._url.set(query={}).render_as_string(hide_password=True)

    @property
    def is_missing(self) -> bool:
        """Whether it is in memory, or a file that is not there; a server is asked by its use."""
        if self._url.get_backend_name() != "sqlite":
            return False
        name = (self._url.database or "").removeprefix("file:").partition("?")[0]
        return not Path(name).is_file()

    @contextmanager
    def used(self) -> Iterator[None]:
        """What fails of it in between is told in a line, without its secrets.

        Raises
        ------
        StoreError
            It cannot be used.
        """
        try:
            yield
        except (SQLAlchemyError, ImportError) as error:
            problem = str(error.orig) if isinstance(error, DBAPIError) else str(error)
            line = _without_secrets(self._url, problem).strip().partition("\n")[0]
            raise StoreError(f"the database {self.shown} cannot be used: {line}") from None


def _file_url(path: Path) -> URL:
    """Not by text: in a URL, `?` begins a query."""
    return URL.create("sqlite", database=str(path))


def _parse_url(text: str) -> URL:
    allowed = 'give "sqlite:////path/to/file.sqlite" or "postgresql+psycopg://user:...@host/name"'
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # whose text may hold the password
        raise StoreError(f'"journal_url" is no database URL: {allowed}') from None
    if url.get_backend_name() not in _BACKENDS:
        raise StoreError(f'"journal_url" names the database {url.drivername}: {allowed}')
    return url


def _is_away(error: BaseException) -> bool:
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return _sqlite_code(error) in _SQLITE_AWAY
    if isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated:
        return not any(words in str(error.orig) for words in _SERVER_REFUSES)
    return False


@contextmanager
def _unwritable_is_no_error() -> Iterator[None]:
    """Go on where SQLite misses the right to write."""
    try:
        yield
    except OperationalError as error:
        if _sqlite_code(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise


def _sqlite_code(error: DBAPIError) -> int:
    """SQLite's primary result code."""
    return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF


def _hang_up(driver: Any) -> None:
    """End a connection of libpq under the feet of who waits for its answer."""
    if hasattr(driver, "fileno"):
        with socket.fromfd(driver.fileno(), socket.AF_INET, socket.SOCK_STREAM) as line:
            line.shutdown(socket.SHUT_RDWR)


def _without_secrets(url: URL, text: str) -> str:
    queried = [value for name, value in url.query.items() if "pass" in name.lower()]
    secrets = [str(value) for value in (url.password, *queried) if value]
    for secret in (form for value in secrets for form in (value, quote(value), quote_plus(value))):
        text = text.replace(secret, "***")
    return text
