"""The journal's tables, made where they are missing, and brought up to date where they are older.

Nothing that was written is lost. Rows from before there were lineages have none ("").
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    FromClause,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    cast,
    false,
    inspect,
    literal,
    null,
    select,
    text,
)
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateColumn, CreateTable

_METADATA = MetaData()
_LINEAGE = "lineage"
_MIGRATION = 7_305_611_906  # chosen: names PostgreSQL's lock for one change of tables at a time

# The rows of a table without rowid lie in its key, which need not be written twice then. It begins
# with the bot: several may write into one journal. In this order it finds a pair's time range.
FORECAST = Table(
    "forecast",
    _METADATA,
    Column(_LINEAGE, Text, nullable=False, server_default=""),
    Column("pair", Text),
    Column("timeframe", Text),
    Column("candle_ms", BigInteger, autoincrement=False),
    Column("version", Text),
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
    PrimaryKeyConstraint(_LINEAGE, "timeframe", "pair", "candle_ms", "version"),
    sqlite_with_rowid=False,
)
DECISION = Table(
    "decision",
    _METADATA,
    Column(_LINEAGE, Text, primary_key=True),
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
VERDICT = Table(
    "verdict",
    _METADATA,
    Column(_LINEAGE, Text, nullable=False, server_default=""),
    Column("pair", Text),
    Column("timeframe", Text),
    Column("candle_ms", BigInteger, autoincrement=False),
    Column("reason", Text),
    Column("text", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    # In this order the key finds the candles of a time range, whatever the pair.
    PrimaryKeyConstraint(_LINEAGE, "timeframe", "candle_ms", "pair", "reason"),
    sqlite_with_rowid=False,
)
TABLES = _METADATA.tables  # by name


def prepare(engine: Engine) -> None:
    """Have all tables with all columns."""
    for table in _METADATA.sorted_tables:
        _make_table(engine, table)
        _add_columns(engine, table)
        _add_lineage(engine, table)


def readable(engine: Engine) -> dict[str, FromClause]:
    """By name, each table with all columns, as they are or as if they were there."""
    return {name: _completed(engine, table) for name, table in TABLES.items()}


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
    if not all(column.nullable or column.name == _LINEAGE for column in missing):
        return
    for column in (column for column in missing if column.nullable):
        added = CreateColumn(column).compile(dialect=engine.dialect)
        try:
            with engine.begin() as connection:
                connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {added}"))
        except DBAPIError:  # another process adds it just now
            if column in _missing(engine, table):
                raise


def _add_lineage(engine: Engine, table: Table) -> None:
    """Let the key of an older release's table begin with the lineage; all its rows stay."""
    change = _copy_into_new if engine.dialect.name == "sqlite" else _change_key
    if [column.name for column in _missing(engine, table)] == [_LINEAGE]:
        with engine.connect() as connection:
            change(connection, table)
            connection.commit()


def _copy_into_new(connection: Connection, table: Table) -> None:
    """SQLite cannot change a key: <https://www.sqlite.org/lang_altertable.html#otheralter>."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    if not _missing(connection, table):  # another process was quicker
        return
    before = f"{table.name}_before_lineages"
    names = ", ".join(f'"{column.name}"' for column in table.columns if column.name != _LINEAGE)
    connection.execute(text(f"ALTER TABLE {table.name} RENAME TO {before}"))
    connection.execute(CreateTable(table))
    copied = f"INSERT INTO {table.name} ({names}) SELECT {names} FROM {before}"  # noqa: S608 - ours
    connection.execute(text(copied))
    connection.execute(text(f"DROP TABLE {before}"))


def _change_key(connection: Connection, table: Table) -> None:
    """PostgreSQL can."""
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION})"))
    if not _missing(connection, table):  # another process was quicker
        return
    key = inspect(connection).get_pk_constraint(table.name)["name"]
    quoted = connection.dialect.identifier_preparer.quote(str(key))
    columns = ", ".join(table.primary_key.columns.keys())
    for change in (
        f"ADD COLUMN {_LINEAGE} TEXT NOT NULL DEFAULT ''",
        f"DROP CONSTRAINT {quoted}, ADD PRIMARY KEY ({columns})",
    ):
        connection.execute(text(f"ALTER TABLE {table.name} {change}"))


def _missing(bind: Engine | Connection, table: Table) -> list[Column[Any]]:
    there = {column["name"] for column in inspect(bind).get_columns(table.name)}
    return [column for column in table.columns if column.name not in there]


def _completed(engine: Engine, table: Table) -> FromClause:
    """The table, or a query like it where an older release has made it, or nobody yet."""
    if not inspect(engine).has_table(table.name):
        nothing = [cast(null(), column.type).label(column.name) for column in table.columns]
        return select(*nothing).where(false()).subquery()
    missing = {column.name for column in _missing(engine, table)}
    foreign = any(not table.c[name].nullable for name in missing - {_LINEAGE})
    if foreign or not missing:
        return table
    columns: list[Any] = []
    for column in table.columns:
        blank = literal("") if column.name == _LINEAGE else cast(null(), column.type)
        columns.append(blank.label(column.name) if column.name in missing else column)
    return select(*columns).subquery()
