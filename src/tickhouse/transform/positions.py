"""Where each model stands, and the pin of a build: which load_ids its models read."""

import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.resources import files
from typing import Any, Final, Protocol

import msgspec

TESTS: Final = "tests"
"""Name under which the position of the last build whose tests all passed is kept."""
BUILDS_KEPT: Final = 10_000
_TABLES: Final = {"positions", "windows", "builds", "build_lock"}
_MADE_BY: Final = re.compile(r"made by build ([0-9]+)")


class Connection(Protocol):
    """What the builder needs of a connection to a warehouse (DuckDB's own fits)."""

    @property
    def description(self) -> Sequence[Any] | None:
        """Columns of the last statement; the first item of each is its name."""
        ...

    def execute(self, query: str, parameters: Sequence[object] = ..., /) -> object:
        """Run a statement; `?` binds a parameter."""
        ...

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Rows of the last statement."""
        ...

    def close(self) -> None:
        """Release the connection."""
        ...


class Position(msgspec.Struct, frozen=True):
    """A model's rows cover bronze up to `load_id`, and were made by SQL of this fingerprint."""

    load_id: int
    fingerprint: str | None
    watermark: datetime | None
    made_by: int | None = None


class Window(msgspec.Struct, frozen=True):
    """What a model reads in one build: `load_id > after and load_id <= upto`."""

    model: str
    after: int
    upto: int
    is_full: bool
    position: Position
    fingerprint: str | None


def create_tables(connection: Connection) -> None:
    """Create schema `meta` and its tables where they are not there yet."""
    if set(_tables(connection, "meta")) >= _TABLES:
        return
    script = files("tickhouse.transform").joinpath("meta.sql").read_text()
    connection.execute(
        "select 1 from information_schema.schemata where lower(schema_name) = 'meta'"
    )
    # A role may make tables in a schema that it may not make.
    statements = script.split(";\n")[1 if connection.fetchall() else 0 :]
    for statement in statements:
        if statement.strip():
            connection.execute(statement)


def newest_load(connection: Connection) -> int:
    """The highest load_id committed; 0 where nothing was loaded."""
    connection.execute("select coalesce(max(load_id), 0) from bronze.load_ledger")
    return int(connection.fetchall()[0][0])


def bounded_load(connection: Connection, after: int, upto: int, frames_max: int) -> int:
    """The highest load_id in `(after, upto]` that keeps a build at about `frames_max` frames."""
    if after >= upto:
        return upto
    connection.execute(
        """
        select coalesce(max(case when frames <= ? then load_id end), min(load_id))
        from (
            select load_id, sum(sum(n)) over (order by load_id) as frames
            from bronze.load_ledger
            where load_id > ? and load_id <= ?
            group by load_id
        )
        """,
        [frames_max, after, upto],
    )
    found = connection.fetchall()[0][0]
    return upto if found is None else int(found)


def arrived_streams(connection: Connection, after: int, upto: int) -> set[str]:
    """Streams of which loads in `(after, upto]` brought frames."""
    connection.execute(
        "select distinct stream from bronze.load_ledger"
        " where load_id > ? and load_id <= ? and n > 0",
        [after, upto],
    )
    return {row[0] for row in connection.fetchall()}


def existing_tables(connection: Connection) -> dict[str, int | None]:
    """Tables in silver and gold, each with the build that made it, where the table tells.

    It does on Snowflake, which commits a new table before the position that goes with it.
    """
    return _tables(connection, "silver", "gold")


def _tables(connection: Connection, *schemas: str) -> dict[str, int | None]:
    marks = ", ".join("?" * len(schemas))
    connection.execute(
        "select * from information_schema.tables"  # noqa: S608
        f" where lower(table_schema) in ({marks})",
        list(schemas),
    )
    names = [str(column[0]).lower() for column in connection.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in connection.fetchall()]
    return {str(row["table_name"]).lower(): _made_by(row.get("comment")) for row in rows}


def _made_by(comment: object) -> int | None:
    found = _MADE_BY.search(str(comment or ""))
    return int(found[1]) if found else None


def read_positions(connection: Connection) -> dict[str, Position]:
    """Position of every model built so far."""
    connection.execute("select model, load_id, fingerprint, watermark, made_by from meta.positions")
    return {row[0]: Position(*row[1:]) for row in connection.fetchall()}


def pin(
    connection: Connection,
    windows: Sequence[Window],
    *,
    started_at: datetime,
    idle: Iterable[str] = (),
) -> int:
    """Record a build and what each of its models reads, in one transaction; returns its id.

    Models that are `idle` find nothing in their window: they stand at its end at once.
    """
    connection.execute("begin")
    try:
        stands = {window.model: window.position.load_id for window in windows}
        build_id = _insert_build(connection, windows, started_at)
        connection.execute("delete from meta.windows")
        marks = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * len(windows))
        values = [value for window in windows for value in _window_row(build_id, window)]
        connection.execute(f"insert into meta.windows values {marks}", values)  # noqa: S608
        _insert_missing_positions(connection, [window.model for window in windows])
        for model in idle:
            connection.execute(
                "update meta.positions set load_id = ?, build_id = ?"
                " where model = ? and load_id = ?",
                [windows[0].upto, build_id, model, stands[model]],
            )
        connection.execute("commit")
    except BaseException:
        connection.execute("rollback")
        raise
    return build_id


def _window_row(build_id: int, window: Window) -> list[object]:
    at = window.position
    pinned = [window.model, build_id, window.after, window.upto, window.is_full]
    return [*pinned, at.load_id, at.watermark, window.fingerprint]


def _insert_build(connection: Connection, windows: Sequence[Window], started_at: datetime) -> int:
    connection.execute("update meta.build_lock set build_id = build_id + 1")
    connection.execute("select build_id from meta.build_lock")
    build_id = int(connection.fetchall()[0][0])
    if build_id % BUILDS_KEPT == 0:
        connection.execute("delete from meta.builds where build_id < ?", [build_id - BUILDS_KEPT])
    connection.execute(
        "insert into meta.builds values (?, ?, ?, ?, null, null)",
        [build_id, min(w.after for w in windows), max(w.upto for w in windows), started_at],
    )
    return build_id


def _insert_missing_positions(connection: Connection, models: Iterable[str]) -> None:
    known = read_positions(connection)
    for model in models:
        if model not in known:
            connection.execute(
                "insert into meta.positions (model, load_id, build_id) values (?, 0, 0)", [model]
            )


def finish(
    connection: Connection,
    build_id: int,
    windows: Iterable[Window],
    *,
    finished_at: datetime,
    failure: str | None,
) -> None:
    """Record how a build ended; after success the tests' position is the build's."""
    connection.execute("begin")
    try:
        connection.execute(
            "update meta.builds set finished_at = ?, failure = ? where build_id = ?",
            [finished_at, failure, build_id],
        )
        for window in windows:
            if window.model == TESTS and failure is None:
                connection.execute(
                    "update meta.positions set build_id = ?, load_id = ?"
                    " where model = ? and load_id = ?",
                    [build_id, window.upto, TESTS, window.position.load_id],
                )
        connection.execute("commit")
    except BaseException:
        connection.execute("rollback")
        raise


@contextmanager
def build_lock(connection: Connection) -> Generator[None]:
    """One transaction, within which no other build is pinned and none loads seeds."""
    connection.execute("begin")
    try:
        connection.execute("update meta.build_lock set build_id = build_id")
        yield
        connection.execute("commit")
    except BaseException:
        connection.execute("rollback")
        raise


def record_seeds(connection: Connection, fingerprints: Mapping[str, str | None]) -> None:
    """Remember which contents of the seeds are in the warehouse; None = nobody knows."""
    _insert_missing_positions(connection, fingerprints)
    for seed, fingerprint in fingerprints.items():
        connection.execute(
            "update meta.positions set fingerprint = ? where model = ?", [fingerprint, seed]
        )
