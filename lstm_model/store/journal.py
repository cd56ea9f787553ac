"""The journal of forecasts, decisions and verdicts: SQLite by default, PostgreSQL by URL.

All are facts. What was said about a candle by a model version is written once and never changed, so
neither a promotion nor a second backtest can repaint a chart or flatter a score. So is what the
learner decided about a version, and what became of a candle: told twice, as after a restart, it is
written once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Double,
    MetaData,
    PrimaryKeyConstraint,
    Select,
    Table,
    Text,
    and_,
    create_engine,
    event,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateColumn, CreateTable

from lstm_model.errors import StoreError
from lstm_model.store.journal_rows import (
    DecisionRow,
    JournalRow,
    VerdictRow,
    decision_values,
    forecast_row,
    forecast_values,
    verdict_values,
)

__all__ = ["DecisionRow", "Journal", "JournalRow", "VerdictRow"]

Row = TypeVar("Row")
_INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_LOCK_WAIT_S = 30.0  # chosen: far above one batch of a backtest, below a candle

_METADATA = MetaData()
_FORECAST = Table(
    "forecast",
    _METADATA,
    Column("pair", Text, primary_key=True),
    Column("timeframe", Text, primary_key=True),
    Column("candle_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("version", Text, primary_key=True),
    Column("quantiles", Text, nullable=False),
    Column("volatility", Double, nullable=False),
    Column("mean", Double, nullable=False),
    Column("low", Double, nullable=False),
    Column("high", Double, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("mean_error", Double, nullable=True),
    Column("lowest", Double, nullable=True),
    Column("highest", Double, nullable=True),
    Column("far", Text, nullable=True),
)
_DECISION = Table(
    "decision",
    _METADATA,
    Column("lineage", Text, primary_key=True),
    Column("at_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("champion", Text, nullable=False),
    Column("candles", BigInteger, nullable=False),
    Column("gain", Double, nullable=True),
    Column("bound", Double, nullable=True),
    Column("text", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
_VERDICT = Table(
    "verdict",
    _METADATA,
    Column("pair", Text),
    Column("timeframe", Text),
    Column("candle_ms", BigInteger, autoincrement=False),
    Column("reason", Text),
    Column("text", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    # In this order the key finds the candles of a time range, whatever the pair.
    PrimaryKeyConstraint("timeframe", "candle_ms", "pair", "reason"),
)


class Journal:
    """Forecasts, decisions and verdicts in a database. Safe between threads.

    A forecast lies under (pair, timeframe, candle, version), a decision under (lineage, time, kind,
    version), a verdict under (pair, timeframe, candle, reason).

    Parameters
    ----------
    url : SQLAlchemy URL; a SQLite file is made on first use. The driver for PostgreSQL is yours.

    Raises
    ------
    StoreError
        For a URL that cannot be understood. No message ever contains the password.

    Examples
    --------
    >>> journal = Journal("sqlite://")
    >>> row = JournalRow("BTC/USDT", "5m", 0, "1f", (-0.1, 0.0, 0.1), 0.01, 0.0, -0.1, 0.1, "", 1)
    >>> journal.record([row, row])
    >>> journal.last("BTC/USDT", "5m") == row
    True
    >>> journal.close()
    """

    def __init__(self, url: str) -> None:
        self._url = _parse_url(url)
        self._engine: Engine | None = None
        self._lock = threading.Lock()

    def record(self, rows: Iterable[JournalRow]) -> None:
        """Insert what is not there yet, in one transaction; what is there stays as it is.

        Raises
        ------
        DataError
            For a number that is NaN or infinite; nothing is written then.
        StoreError
            If the database is missing, broken or locked for too long.
        """
        self._insert(_FORECAST, [forecast_values(row) for row in rows])

    def record_decisions(self, rows: Iterable[DecisionRow]) -> None:
        """Insert the decisions that are not there yet. Raises as `record`."""
        self._insert(_DECISION, [decision_values(row) for row in rows])

    def record_verdicts(self, rows: Iterable[VerdictRow]) -> None:
        """Insert the verdicts that are not there yet. Raises as `record`."""
        self._insert(_VERDICT, [verdict_values(row) for row in rows])

    def check_exists(self) -> None:
        """For who only reads: say so where nothing was ever written, instead of making a file.

        Raises
        ------
        StoreError
            The database file is not there. A server is asked by the first query.
        """
        if _is_file(self._url) and not Path(self._url.database or "").exists():
            raise StoreError(
                f"there is no journal at {_shown(self._url)} yet: a bot writes it in a dry run or "
                "live (backtests do not); if yours does, name its configuration and --userdir"
            )

    def read(
        self, pair: str, timeframe: str, start_ms: int, end_ms: int, version: str | None = None
    ) -> list[JournalRow]:
        """Forecasts for candles that open in `[start_ms, end_ms)`, oldest candle first.

        Parameters
        ----------
        version : only this model version; None: all, in the order they were made
        """
        query = _of_pair(pair, timeframe).where(_within(_FORECAST, start_ms, end_ms))
        if version is not None:
            query = query.where(_FORECAST.c.version == version)
        columns = (_FORECAST.c.candle_ms, _FORECAST.c.created_ms, _FORECAST.c.version)
        return self._rows(query.order_by(*columns), _row)

    def last(self, pair: str, timeframe: str) -> JournalRow | None:
        """The forecast for the newest candle; of several, the one made last."""
        columns = (_FORECAST.c.candle_ms, _FORECAST.c.created_ms, _FORECAST.c.version)
        newest = _of_pair(pair, timeframe).order_by(*(column.desc() for column in columns))
        return next(iter(self._rows(newest.limit(1), _row)), None)

    def pairs(self, timeframe: str, start_ms: int, end_ms: int) -> list[str]:
        """Pairs with forecasts for candles that open in `[start_ms, end_ms)`, by name."""
        found = (
            select(_FORECAST.c.pair)
            .distinct()
            .where(_FORECAST.c.timeframe == timeframe, _within(_FORECAST, start_ms, end_ms))
        )
        return sorted(self._rows(found, str))

    def decisions(self, lineage: str, count: int = 50) -> list[DecisionRow]:
        """The last `count` decisions about a lineage, newest first."""
        columns = (_DECISION.c.at_ms, _DECISION.c.created_ms, _DECISION.c.kind, _DECISION.c.version)
        newest = select(_DECISION).where(_DECISION.c.lineage == lineage)
        newest = newest.order_by(*(column.desc() for column in columns)).limit(count)
        return self._rows(newest, DecisionRow)

    def verdicts(
        self, timeframe: str, start_ms: int, end_ms: int, pair: str | None = None
    ) -> list[VerdictRow]:
        """Verdicts on candles that open in `[start_ms, end_ms)`, in the order they were made.

        Parameters
        ----------
        pair : only this one; None: all
        """
        query = select(_VERDICT).where(_VERDICT.c.timeframe == timeframe)
        query = query.where(_within(_VERDICT, start_ms, end_ms))
        if pair is not None:
            query = query.where(_VERDICT.c.pair == pair)
        columns = (_VERDICT.c.candle_ms, _VERDICT.c.created_ms, _VERDICT.c.pair, _VERDICT.c.reason)
        return self._rows(query.order_by(*columns), VerdictRow)

    def count_verdicts(
        self, timeframe: str, start_ms: int, end_ms: int
    ) -> dict[tuple[str, str], int]:
        """(pair, reason) -> how many candles in `[start_ms, end_ms)` ended in it.

        Each candle of a pair counts once, under what was said of it last: an entry signal whose
        stake came out as 0 counts as too small.
        """
        mine = _VERDICT.c
        order = (mine.created_ms.desc(), mine.reason.desc())
        place = func.row_number().over(partition_by=(mine.candle_ms, mine.pair), order_by=order)
        said = (
            select(mine.pair, mine.reason, place.label("place"))
            .where(mine.timeframe == timeframe, _within(_VERDICT, start_ms, end_ms))
            .subquery()
        )
        last = select(said.c.pair, said.c.reason, func.count()).where(said.c.place == 1)
        last = last.group_by(said.c.pair, said.c.reason)
        return {(pair, reason): count for pair, reason, count in self._rows(last, _as_it_is)}

    def close(self) -> None:
        """Close all connections; the next use opens them again."""
        with self._lock:
            if self._engine is not None:
                self._engine.dispose()
            self._engine = None

    def _insert(self, table: Table, values: Sequence[dict[str, Any]]) -> None:
        if not values:
            return
        insert = _INSERT[self._url.get_backend_name()](table).on_conflict_do_nothing()
        with self._connected() as connection, connection.begin():
            connection.execute(insert, values)

    def _rows(self, query: Select[Any], build: Callable[..., Row]) -> list[Row]:
        with self._connected() as connection:
            return [build(*found) for found in connection.execute(query)]

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        try:
            with self._lock:
                self._engine = self._engine or _open(self._url)
            with self._engine.connect() as connection:
                yield connection
        except ImportError as error:
            raise self._error(f"no driver, {error}; install it", error) from None
        except DBAPIError as error:
            raise self._error(str(error.orig), error) from None
        except (SQLAlchemyError, OSError, ValueError, TypeError) as error:
            raise self._error(str(error), error) from None

    def _error(self, problem: str, error: BaseException) -> StoreError:
        first_line = _without_secrets(self._url, problem).strip().partition("\n")[0]
        return StoreError(
            f"the forecast journal {_shown(self._url)} is unusable "
            f"({type(error).__name__}: {first_line}): make it reachable; if a file is damaged, "
            'move it away to start a new one; or set "journal_url" in the "lstm" section to '
            "another database"
        )


def _parse_url(text: str) -> URL:
    allowed = 'give "sqlite:////path/to/file.sqlite" or "postgresql+psycopg://user:...@host/name"'
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # whose text may hold the password
        raise StoreError(f'"journal_url" is no database URL: {allowed}') from None
    if url.get_backend_name() not in _INSERT:
        raise StoreError(f'"journal_url" names the database {url.drivername}: {allowed}')
    return url


def _is_file(url: URL) -> bool:
    """Whether the database is a file of its own, and not a server or in memory."""
    name = url.database or ""
    in_memory = not name or name.startswith((":memory:", "file:"))
    return url.get_backend_name() == "sqlite" and not in_memory


def _open(url: URL) -> Engine:
    """An engine whose tables exist. Connects once, so a broken database shows here."""
    is_sqlite = url.get_backend_name() == "sqlite"
    if _is_file(url):
        Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
    connect_args = {"timeout": _LOCK_WAIT_S} if is_sqlite else {}
    engine = create_engine(url, connect_args=connect_args, pool_pre_ping=True)
    if is_sqlite:
        event.listen(engine, "connect", _set_wal)
    try:
        for table in _METADATA.sorted_tables:
            _make_table(engine, table)
            _add_columns(engine, table)
    except (SQLAlchemyError, OSError):
        engine.dispose()
        raise
    return engine


def _make_table(engine: Engine, table: Table) -> None:
    try:
        with engine.begin() as connection:
            connection.execute(CreateTable(table, if_not_exists=True))
    except DBAPIError:  # PostgreSQL: another process makes it just now, or we may only read
        if not inspect(engine).has_table(table.name):
            raise


def _add_columns(engine: Engine, table: Table) -> None:
    """Give the table of an older release the columns that came later; they hold NULL there.

    A table that lacks others is not ours and stays as it is: the first query says what is wrong.
    """
    missing = _missing(engine, table)
    if not all(column.nullable for column in missing):
        return
    for column in missing:
        added = CreateColumn(column).compile(dialect=engine.dialect)
        try:
            with engine.begin() as connection:
                connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {added}"))
        except DBAPIError:  # another process adds it just now
            if column in _missing(engine, table):
                raise


def _missing(engine: Engine, table: Table) -> list[Column[Any]]:
    there = {column["name"] for column in inspect(engine).get_columns(table.name)}
    return [column for column in table.columns if column.name not in there]


def _set_wal(connection: Any, _record: Any) -> None:
    """Readers in other processes do not wait for the writer, nor it for them."""
    connection.execute("PRAGMA journal_mode=WAL").close()


def _of_pair(pair: str, timeframe: str) -> Select[Any]:
    return select(_FORECAST).where(_FORECAST.c.pair == pair, _FORECAST.c.timeframe == timeframe)


def _within(table: Table, start_ms: int, end_ms: int) -> ColumnElement[bool]:
    candle_ms = table.c.candle_ms
    return and_(candle_ms >= int(start_ms), candle_ms < int(end_ms))


def _row(*found: Any) -> JournalRow:
    return forecast_row(dict(zip(_FORECAST.c.keys(), found, strict=True)))


def _as_it_is(*found: Any) -> tuple[Any, ...]:
    return found


def _shown(url: URL) -> str:
    """Without password and query: drivers accept passwords in both."""
    return url.set(query={}).render_as_string(hide_password=True)


def _without_secrets(url: URL, text: str) -> str:
    queried = [value for name, value in url.query.items() if "pass" in name.lower()]
    secrets = [str(value) for value in (url.password, *queried) if value]
    for secret in (form for value in secrets for form in (value, quote(value), quote_plus(value))):
        text = text.replace(secret, "***")
    return text
