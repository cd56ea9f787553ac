"""The journal of forecasts and decisions: SQLite by default, PostgreSQL by URL. Both are facts.

What was said about a candle by a model version is written once and never changed, so neither a
promotion nor a second backtest can repaint a chart or flatter a score. So is what the learner
decided about a version, so that a step told twice, as after a restart, is written once.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    MetaData,
    Select,
    Table,
    Text,
    create_engine,
    event,
    inspect,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateTable

from lstm_model.errors import DataError, StoreError

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


@dataclass(frozen=True)
class JournalRow:
    """One forecast as it was made.

    Attributes
    ----------
    candle_ms : open of the newest candle the forecast knew
    version : model version that made it
    quantiles : (K,) log return over the horizon, rising
    volatility : log return per candle
    mean, low, high : log return; the calibrated interval is [low, high]
    reason : why it led to an entry or to none
    """

    pair: str
    timeframe: str
    candle_ms: int
    version: str
    quantiles: tuple[float, ...]
    volatility: float
    mean: float
    low: float
    high: float
    reason: str
    created_ms: int


@dataclass(frozen=True)
class DecisionRow:
    """One decision of the learner, or of a person, as it was made.

    Attributes
    ----------
    lineage : the bot whose models it is about
    at_ms : candle time of the decision
    kind : "trained", "promoted", "rejected", "rolled back", "drift", "training failed", "pinned"
    version : model version it is about; of "drift", the one that was watched
    champion : model version that serves from then on
    candles : how many the two versions were compared on
    gain, bound : the gain over the champion and its lower bound, as the gate reckoned them;
        None where nothing was compared
    text : the decision in a sentence
    """

    lineage: str
    at_ms: int
    kind: str
    version: str
    champion: str
    candles: int
    gain: float | None
    bound: float | None
    text: str
    created_ms: int


class Journal:
    """Forecasts and decisions in a database. Safe between threads.

    A forecast lies under (pair, timeframe, candle, version), a decision under (lineage, time, kind,
    version).

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
        self._insert(_FORECAST, [_values(row) for row in rows])

    def record_decisions(self, rows: Iterable[DecisionRow]) -> None:
        """Insert the decisions that are not there yet, as `record` does with forecasts.

        Raises
        ------
        DataError
            For a number that is NaN or infinite; nothing is written then.
        StoreError
            If the database is missing, broken or locked for too long.
        """
        self._insert(_DECISION, [_decision_values(row) for row in rows])

    def read(
        self, pair: str, timeframe: str, start_ms: int, end_ms: int, version: str | None = None
    ) -> list[JournalRow]:
        """Forecasts for candles that open in `[start_ms, end_ms)`, oldest candle first.

        Parameters
        ----------
        version : only this model version; None: all, in the order they were made
        """
        query = _of_pair(pair, timeframe).where(
            _FORECAST.c.candle_ms >= int(start_ms), _FORECAST.c.candle_ms < int(end_ms)
        )
        if version is not None:
            query = query.where(_FORECAST.c.version == version)
        columns = (_FORECAST.c.candle_ms, _FORECAST.c.created_ms, _FORECAST.c.version)
        return self._rows(query.order_by(*columns), _row)

    def last(self, pair: str, timeframe: str) -> JournalRow | None:
        """The forecast for the newest candle; of several, the one made last."""
        columns = (_FORECAST.c.candle_ms, _FORECAST.c.created_ms, _FORECAST.c.version)
        newest = _of_pair(pair, timeframe).order_by(*(column.desc() for column in columns))
        return next(iter(self._rows(newest.limit(1), _row)), None)

    def decisions(self, lineage: str, count: int = 50) -> list[DecisionRow]:
        """The last `count` decisions about a lineage, newest first."""
        columns = (_DECISION.c.at_ms, _DECISION.c.created_ms, _DECISION.c.kind, _DECISION.c.version)
        newest = select(_DECISION).where(_DECISION.c.lineage == lineage)
        newest = newest.order_by(*(column.desc() for column in columns)).limit(count)
        return self._rows(newest, DecisionRow)

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


def _open(url: URL) -> Engine:
    """An engine whose tables exist. Connects once, so a broken database shows here."""
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite and url.database and not url.database.startswith((":memory:", "file:")):
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    connect_args = {"timeout": _LOCK_WAIT_S} if is_sqlite else {}
    engine = create_engine(url, connect_args=connect_args, pool_pre_ping=True)
    if is_sqlite:
        event.listen(engine, "connect", _set_wal)
    try:
        for table in _METADATA.sorted_tables:
            _make_table(engine, table)
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


def _set_wal(connection: Any, _record: Any) -> None:
    """Readers in other processes do not wait for the writer, nor it for them."""
    connection.execute("PRAGMA journal_mode=WAL").close()


def _of_pair(pair: str, timeframe: str) -> Select[Any]:
    return select(_FORECAST).where(_FORECAST.c.pair == pair, _FORECAST.c.timeframe == timeframe)


def _values(row: JournalRow) -> dict[str, Any]:
    """Plain Python numbers: a driver would store NumPy's integers as blobs."""
    numbers = (row.volatility, row.mean, row.low, row.high)
    quantiles = [float(value) for value in row.quantiles]
    if not all(math.isfinite(value) for value in (*quantiles, *numbers)):
        raise DataError(
            f"{row.pair}: the forecast for candle {row.candle_ms} holds a NaN or infinite number"
        )
    texts = {name: getattr(row, name) for name in ("pair", "timeframe", "version", "reason")}
    times = {name: int(getattr(row, name)) for name in ("candle_ms", "created_ms")}
    floats = zip(("volatility", "mean", "low", "high"), map(float, numbers), strict=True)
    return {**texts, **times, **dict(floats), "quantiles": json.dumps(quantiles)}


def _decision_values(row: DecisionRow) -> dict[str, Any]:
    numbers = {name: getattr(row, name) for name in ("gain", "bound")}
    floats = {name: None if value is None else float(value) for name, value in numbers.items()}
    if not all(math.isfinite(value) for value in floats.values() if value is not None):
        raise DataError(
            f'{row.lineage}: the decision "{row.kind}" about model {row.version} at {row.at_ms} '
            "holds a NaN or infinite number; leave it out (None)"
        )
    texts = {
        name: getattr(row, name) for name in ("lineage", "kind", "version", "champion", "text")
    }
    times = {name: int(getattr(row, name)) for name in ("at_ms", "candles", "created_ms")}
    return {**texts, **times, **floats}


def _row(*found: Any) -> JournalRow:
    columns = dict(zip(_FORECAST.c.keys(), found, strict=True))
    quantiles = tuple(float(value) for value in json.loads(columns.pop("quantiles")))
    return JournalRow(quantiles=quantiles, **columns)


def _shown(url: URL) -> str:
    """Without password and query: drivers accept passwords in both."""
    return url.set(query={}).render_as_string(hide_password=True)


def _without_secrets(url: URL, text: str) -> str:
    queried = [value for name, value in url.query.items() if "pass" in name.lower()]
    secrets = [str(value) for value in (url.password, *queried) if value]
    for secret in (form for value in secrets for form in (value, quote(value), quote_plus(value))):
        text = text.replace(secret, "***")
    return text
