"""The journal of forecasts, decisions and verdicts: SQLite by default, PostgreSQL by URL.

All are facts. What was said about a candle by a model version is written once and never changed, so
neither a promotion nor a second backtest can repaint a chart or flatter a score. So is what the
learner decided about a version, and what became of a candle: told twice, as after a restart, it is
written once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Table,
    and_,
    delete,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine

from lstm_model.errors import DataError, StoreError
from lstm_model.store import journal_tables
from lstm_model.store.database import AwayError, Database
from lstm_model.store.journal_rows import (
    DecisionRow,
    Fact,
    JournalRow,
    VerdictRow,
    as_text,
    decision_row,
    decision_values,
    forecast_row,
    forecast_values,
    verdict_row,
    verdict_values,
)
from lstm_model.store.journal_tables import DECISION, FORECAST, TABLES, VERDICT

__all__ = ["AwayError", "DecisionRow", "Journal", "JournalRow", "VerdictRow"]

Row = TypeVar("Row")
Ours = Callable[..., ColumnElement[bool]]  # rows of the bot in question, see `_within`
_INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_FOREVER_MS = 2**62
_WAIT_S = 30.0  # chosen: far above one batch of a bot, below a candle
_FORECAST_COLUMNS = tuple(column.name for column in FORECAST.c)[1:]  # without the lineage
_MADE = ("candle_ms", "created_ms", "version")  # the order of forecasts
_DECISION_COLUMNS = tuple(column.name for column in DECISION.c)
_VERDICT_COLUMNS = tuple(column.name for column in VERDICT.c)[1:]
_NAMING = ("pair", "candle_ms", "at_ms", "version", "reason")  # which row it is, for a human


class Journal:
    """Forecasts, decisions and verdicts in a database. Safe between threads.

    A forecast lies under (lineage, pair, timeframe, candle, version), a decision under (lineage,
    time, kind, version), a verdict under (lineage, pair, timeframe, candle, reason).

    Parameters
    ----------
    place : a SQLite file, made on first use, or a SQLAlchemy URL. The driver for PostgreSQL is
        yours
    lineage : of the bot whose facts these are: it names exchange, market, timeframe and settings.
        Those of other bots are not seen, those of older releases, which wrote none, are
    read_only : nothing is made or changed, and the folder need not be writable
    whole_market : also see those of bots with other settings on the same exchange, market and
        timeframe, as this one was before an option was changed
    lock_wait_s : how long another process may hold the lock before a call fails

    Raises
    ------
    StoreError
        For a URL that cannot be understood. No message ever contains the password.

    Examples
    --------
    >>> journal = Journal("sqlite://", "binance-spot-5m-1f2e3d4c")
    >>> row = JournalRow("BTC/USDT", "5m", 0, "1f", (-0.1, 0.0, 0.1), 0.01, 0.0, -0.1, 0.1, "", 1)
    >>> journal.record([row, row])
    >>> journal.last("BTC/USDT", "5m") == row
    True
    >>> journal.close()
    """

    def __init__(
        self, place: str | Path, lineage: str = "", *, read_only: bool = False,
        whole_market: bool = False, lock_wait_s: float = _WAIT_S,
    ) -> None:  # fmt: skip
        self.lineage, self._read_only, self._whole_market = lineage, read_only, whole_market
        self._tables: dict[str, FromClause] = {**TABLES}
        self._database = Database(
            place, self._prepare, read_only=read_only, lock_wait_s=lock_wait_s
        )

    def record(self, rows: Iterable[JournalRow]) -> None:
        """Insert what is not there yet, in one transaction; what is there stays as it is.

        Raises
        ------
        DataError
            For a number that is NaN or infinite; nothing is written then.
        StoreError
            If the database is missing, broken or locked for too long.
        """
        self.write(self.forecasts(rows))

    def record_decisions(self, rows: Iterable[DecisionRow]) -> None:
        """Insert the decisions that are not there yet. Raises as `record`."""
        self.write(self.decided(rows))

    def record_verdicts(self, rows: Iterable[VerdictRow]) -> None:
        """Insert the verdicts that are not there yet. Raises as `record`."""
        self.write(self.judged(rows))

    def forecasts(self, rows: Iterable[JournalRow]) -> list[Fact]:
        """As they are written. Raises `DataError` for a number that is NaN or infinite."""
        return [Fact(FORECAST.name, self._ours(forecast_values(row))) for row in rows]

    def decided(self, rows: Iterable[DecisionRow]) -> list[Fact]:
        """The same of decisions, which name their lineage."""
        return [Fact(DECISION.name, decision_values(row)) for row in rows]

    def judged(self, rows: Iterable[VerdictRow]) -> list[Fact]:
        """The same of verdicts."""
        return [Fact(VERDICT.name, self._ours(verdict_values(row))) for row in rows]

    def write(self, facts: Iterable[Fact]) -> None:
        """Insert facts that are not there yet, of whatever lineage. Raises as `record`."""
        by_kind = defaultdict[str, list[dict[str, Any]]](list)
        for fact in facts:
            columns = TABLES[fact.kind].c.keys()
            by_kind[fact.kind].append({name: fact.values.get(name) for name in columns})
        if not by_kind:
            return
        insert = _INSERT[self._database.url.get_backend_name()]
        with self._database.connected() as connection, connection.begin():
            for kind, values in by_kind.items():
                connection.execute(insert(TABLES[kind]).on_conflict_do_nothing(), values)

    def reach(self) -> None:
        """Open the database, make its tables and ask it something. Raises as `record`."""
        self.last("", "")

    def check_exists(self) -> None:
        """For who only reads: say so where nothing was ever written.

        Raises
        ------
        StoreError
            The database file is not there. A server is asked by the first query.
        """
        if self.is_missing:
            raise StoreError(
                f"there is no journal at {self.place} yet: a bot writes it in a dry run "
                "or live (backtests do not); if yours does, name its configuration and --userdir"
            )

    def check_place(self) -> None:
        """Raise a `StoreError` if a file that is missing could not be made where it belongs."""
        self._database.check_place()

    @property
    def is_missing(self) -> bool:
        """Whether nothing was ever written here; a server is asked by the first query."""
        return self._database.is_missing

    @property
    def place(self) -> str:
        """Where it is, without what a URL may hold of secrets."""
        return self._database.shown

    @property
    def database(self) -> str:
        """Tells the database from others; holds neither a user nor a password."""
        return self._database.digest

    def read(
        self, pair: str, timeframe: str, start_ms: int, end_ms: int, version: str | None = None,
        lineage: str | None = None,
    ) -> list[JournalRow]:  # fmt: skip
        """Forecasts for candles that open in `[start_ms, end_ms)`, oldest candle first.

        Parameters
        ----------
        version : only this model version; None: all, in the order they were made
        lineage : only this bot's, "" those of older releases; None: all that are seen
        """
        chosen = {"version": version, "lineage": lineage}
        where = {name: value for name, value in chosen.items() if value is not None}
        where |= {"pair": pair, "timeframe": timeframe}

        def query(said: Any, ours: Ours) -> Any:
            found = select(*_columns(said, _FORECAST_COLUMNS))
            found = found.where(ours(start_ms, end_ms, **where))
            return found.order_by(*_columns(said, _MADE))

        return self._rows(FORECAST, query, _built(forecast_row, _FORECAST_COLUMNS))

    def last(self, pair: str, timeframe: str) -> JournalRow | None:
        """The forecast for the newest candle; of several, the one made last."""

        def query(said: Any, ours: Ours) -> Any:
            found = select(*_columns(said, _FORECAST_COLUMNS))
            found = found.where(ours(0, _FOREVER_MS, pair=pair, timeframe=timeframe))
            return found.order_by(*(column.desc() for column in _columns(said, _MADE))).limit(1)

        found = self._rows(FORECAST, query, _built(forecast_row, _FORECAST_COLUMNS))
        return next(iter(found), None)

    def pairs(self, timeframe: str, start_ms: int, end_ms: int) -> list[str]:
        """Pairs with forecasts for candles that open in `[start_ms, end_ms)`, by name."""

        def query(said: Any, ours: Ours) -> Any:
            found = select(said.c.pair).distinct()
            return found.where(ours(start_ms, end_ms, timeframe=timeframe))

        return sorted(self._rows(FORECAST, query, lambda pair: _text(pair, FORECAST, "pair")))

    def decisions(self, lineage: str, count: int = 50) -> list[DecisionRow]:
        """The last `count` decisions about a lineage, newest first."""

        def query(made: Any, _: Ours) -> Any:
            order = _columns(made, ("at_ms", "created_ms", "kind", "version"))
            found = select(*_columns(made, _DECISION_COLUMNS)).where(made.c.lineage == lineage)
            return found.order_by(*(column.desc() for column in order)).limit(count)

        return self._rows(DECISION, query, _built(decision_row, _DECISION_COLUMNS))

    def verdicts(
        self, timeframe: str, start_ms: int, end_ms: int, pair: str | None = None
    ) -> list[VerdictRow]:
        """Verdicts on candles that open in `[start_ms, end_ms)`, in the order they were made.

        Parameters
        ----------
        pair : only this one; None: all
        """
        where = {"timeframe": timeframe} | ({} if pair is None else {"pair": pair})

        def query(said: Any, ours: Ours) -> Any:
            found = select(*_columns(said, _VERDICT_COLUMNS))
            found = found.where(ours(start_ms, end_ms, **where))
            return found.order_by(*_columns(said, ("candle_ms", "created_ms", "pair", "reason")))

        return self._rows(VERDICT, query, _built(verdict_row, _VERDICT_COLUMNS))

    def count_verdicts(
        self, timeframe: str, start_ms: int, end_ms: int
    ) -> dict[tuple[str, str], int]:
        """(pair, reason) -> how many candles in `[start_ms, end_ms)` ended in it.

        Each candle of a pair counts once, under what was said of it last: an entry signal whose
        stake came out as 0 counts as too small.
        """

        def query(told: Any, ours: Ours) -> Any:
            mine = told.c
            order = (mine.created_ms.desc(), mine.reason.desc())
            place = func.row_number().over(partition_by=(mine.candle_ms, mine.pair), order_by=order)
            words = select(mine.pair, mine.reason, place.label("place"))
            said = words.where(ours(start_ms, end_ms, timeframe=timeframe)).subquery().c
            last = select(said.pair, said.reason, func.count()).where(said.place == 1)
            return last.group_by(said.pair, said.reason)

        def counted(pair: Any, reason: Any, count: int) -> tuple[tuple[str, str], int]:
            return (_text(pair, VERDICT, "pair"), _text(reason, VERDICT, "reason")), count

        return dict(self._rows(VERDICT, query, counted))

    def prune(self, timeframe: str, before_ms: int, most: int) -> int:
        """Remove at most about so many rows on older candles; how many, 0 when there is no more.

        Those of bots with other settings on the same exchange, market and timeframe go too, and
        those that older releases wrote for the timeframe. Decisions stay.
        """
        with self._database.connected() as connection:
            known = _each(connection, FORECAST.c.lineage)
            for lineage in sorted({"", self.lineage, *self._of_market(known)}):
                where = [FORECAST.c.lineage == lineage, FORECAST.c.timeframe == timeframe]
                for pair in _each(connection, FORECAST.c.pair, *where):
                    mine = [*where, FORECAST.c.pair == pair]
                    if gone := _cut(connection, FORECAST, mine, before_ms, most):
                        return gone
                where = [VERDICT.c.lineage == lineage, VERDICT.c.timeframe == timeframe]
                if gone := _cut(connection, VERDICT, where, before_ms, most):
                    return gone
        return 0

    def abort(self) -> None:
        """Make calls that are under way fail, from another thread."""
        self._database.abort()

    def close(self) -> None:
        """Close all connections; the next use opens them again."""
        self._database.close()

    def _prepare(self, engine: Engine) -> None:
        if self._read_only:
            self._tables = {**journal_tables.readable(engine)}
        else:
            journal_tables.prepare(engine)

    def _ours(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"lineage": self.lineage, **values}

    def _rows(
        self, table: Table, query: Callable[[Any, Ours], Any], build: Callable[..., Row]
    ) -> list[Row]:
        with self._database.connected() as connection:
            source: Any = self._tables[table.name]  # known when the database is open
            lineages = {self.lineage, ""}
            if self._whole_market:
                lineages |= self._of_market(_each(connection, source.c.lineage))
            found = connection.execute(query(source, partial(_within, source, lineages)))
            return [build(*row) for row in found]

    def _of_market(self, lineages: Iterable[str]) -> set[str]:
        market = _market_of(self.lineage)
        texts = (name for name in lineages if isinstance(name, str))  # SQLite takes anything
        return {name for name in texts if market and _market_of(name) == market}


def _within(
    source: Any, lineages: set[str], start_ms: int, end_ms: int, **where: str
) -> ColumnElement[bool]:
    """Which rows are of these bots, about candles that open in `[start_ms, end_ms)`."""
    mine, candle_ms = source.c, source.c.candle_ms
    wanted = [mine[name] == value for name, value in where.items()]
    span = candle_ms >= int(start_ms), candle_ms < int(end_ms)
    return and_(mine.lineage.in_(lineages), *wanted, *span)


def _market_of(lineage: str) -> str:
    """Exchange, market and timeframe of "binance-spot-5m-1f2e3d4c"."""
    return lineage.rpartition("-")[0]


def _each(connection: Connection, column: Any, *where: ColumnElement[bool]) -> Iterator[str]:
    """The different values of a column of the key, each found by the key without a scan."""
    found = connection.scalar(select(func.min(column)).where(*where))
    while found is not None:
        yield found
        found = connection.scalar(select(func.min(column)).where(*where, column > found))


def _cut(
    connection: Connection, table: Table, where: list[ColumnElement[bool]], before_ms: int,
    most: int,
) -> int:  # fmt: skip
    """Delete the oldest rows, at most about so many."""
    candle_ms = table.c.candle_ms
    oldest = select(candle_ms).where(*where).order_by(candle_ms).offset(most).limit(1)
    until_ms = min(before_ms, connection.scalar(oldest) or before_ms)
    gone = connection.execute(delete(table).where(*where, candle_ms < until_ms)).rowcount
    connection.commit()
    return int(gone)


def _built(build: Callable[[dict[str, Any]], Row], names: Sequence[str]) -> Callable[..., Row]:
    """Makes a row of what a query found, in the order of these columns."""

    def made(*found: Any) -> Row:
        values = dict(zip(names, found, strict=True))
        try:
            return build(values)
        except DataError as error:
            key = ", ".join(f"{name} {values[name]}" for name in _NAMING if name in values)
            raise DataError(f"{error}, in the row of {key}: correct or delete that row") from None

    return made


def _text(value: Any, table: Any, column: str) -> str:
    """A value of which it is not known in how many rows it stands."""
    try:
        return as_text(value, f"column {column} of table {table.name} holds")
    except DataError as error:
        raise DataError(f"{error}: correct or delete the rows with it") from None


def _columns(source: Any, names: Sequence[str]) -> list[Any]:
    return [source.c[name] for name in names]
