"""Bronze rows and ledger straight into the fake Snowflake, and builders over them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from support.bronze_rows import T0, BronzeFrame, BronzeWarehouse, Row
from tests.servers.snowflake import SnowflakeServer
from tickhouse.transform.builder import Builder, snowflake_target
from tickhouse.warehouse.snowflake_options import SnowflakeOptions, read_snowflake_url
from tickhouse.warehouse.snowflake_session import Cursor, Session

_JSON_COLUMN = 9


class SnowflakeBronze(BronzeWarehouse):
    """A database of the fake with the bronze tables; each `load` is one load_id."""

    def __init__(self, server: SnowflakeServer, database: str) -> None:
        url = server.url(database)
        self.options: SnowflakeOptions = msgspec.structs.replace(
            read_snowflake_url(url),
            user="fake",
            authenticator="password",
            password="snow",  # noqa: S106 - the fake takes any
            is_password_allowed=True,
        )
        self.load_id = 0
        self._offsets = {}
        self.session = self.new_session()
        self.session.run(f"create database if not exists {database}")
        self.session.run(f"use database {database}")
        schema = files("tickhouse.warehouse").joinpath("snowflake.sql").read_text()
        for statement in schema.split(";\n"):
            if statement.strip():
                self.session.run(statement.replace("{warehouse_id}", "w1"))

    def new_session(self) -> Session:
        """A session of its own; the caller closes it."""
        return Session(self.options, lock_wait_s=30)

    def connect(self) -> Any:
        """A cursor of a session of its own, which is closed with it."""
        session = self.new_session()
        return Cursor(session, session.close)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        return self.session.run(sql)

    def execute(self, sql: str) -> None:
        """Run statements."""
        for statement in sql.split(";"):
            self.session.run(statement)

    def load(self, frames: Iterable[BronzeFrame], *, loaded_at: datetime = T0) -> int:
        """Insert frames as the next load; returns its load_id."""
        rows, starts = self._arrived(frames)
        self.session.run("begin")
        for stream, values in rows.items():
            if values:
                for first in range(0, len(values), 500):
                    self._insert_rows(stream, values[first : first + 500])
                ledger = self._ledger_row(stream, values, starts.get(stream, 0), loaded_at)
                marks = ", ".join("?" * len(ledger))
                self.session.run(f"insert into bronze.load_ledger values ({marks})", ledger)
        self.session.run("commit")
        return self.load_id

    def _insert_rows(self, stream: str, rows: Sequence[Row]) -> None:
        width = len(rows[0])
        columns = [f"column{n + 1}" for n in range(width)]
        columns[_JSON_COLUMN] = f"parse_json({columns[_JSON_COLUMN]})"
        marks = ", ".join(["(" + ", ".join("?" * width) + ")"] * len(rows))
        values = [value for row in rows for value in row]
        self.session.run(
            f"insert into bronze.{stream} select {', '.join(columns)} from values {marks}", values
        )


@contextmanager
def snowflake_builder(
    warehouse: SnowflakeBronze, folder: Path, **options: Any
) -> Iterator[Builder]:
    """A builder of a database of the fake; it parses for itself: a manifest names its database."""
    builder = Builder(
        connect=warehouse.connect,
        target=snowflake_target(warehouse.options),
        work_folder=folder / "dbt",
        **options,
    )
    try:
        yield builder
    finally:
        builder.close()
