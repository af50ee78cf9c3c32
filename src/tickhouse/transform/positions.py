"""Where each model stands, and the pin of a build: which load_ids its models read."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any, Final, Protocol

import msgspec

TESTS: Final = "tests"
"""Name under which the position of the last build whose tests all passed is kept."""
BUILDS_KEPT: Final = 10_000


class Connection(Protocol):
    """What the builder needs of a connection to the warehouse (DuckDB's own fits)."""

    @property
    def description(self) -> Sequence[Any] | None:
        """Columns of the last statement; the first item of each is its name."""
        ...

    def execute(self, query: str, parameters: object = None) -> object:
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
    connection.execute(files("tickhouse.transform").joinpath("meta.sql").read_text())


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
        select coalesce(max(load_id) filter (where frames <= ?), min(load_id))
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


def existing_tables(connection: Connection) -> set[str]:
    """Names of the tables in silver and gold."""
    connection.execute(
        "select table_name from information_schema.tables where table_schema in ('silver', 'gold')"
    )
    return {row[0] for row in connection.fetchall()}


def read_positions(connection: Connection) -> dict[str, Position]:
    """Position of every model built so far."""
    connection.execute("select model, load_id, fingerprint, watermark from meta.positions")
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
        build_id = _insert_build(connection, windows, started_at)
        connection.execute("delete from meta.windows")
        marks = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * len(windows))
        values = [value for window in windows for value in _window_row(build_id, window)]
        connection.execute(f"insert into meta.windows values {marks}", values)  # noqa: S608
        _insert_missing_positions(connection, [window.model for window in windows])
        for model in idle:
            connection.execute(
                "update meta.positions set load_id = ?, build_id = ? where model = ?",
                [windows[0].upto, build_id, model],
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
    connection.execute("select coalesce(max(build_id), 0) + 1 from meta.builds")
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
                "insert into meta.positions values (?, 0, 0, null, null, null, null)", [model]
            )


def finish(
    connection: Connection, build_id: int, *, finished_at: datetime, failure: str | None
) -> None:
    """Record how a build ended; after success the tests' position is the build's."""
    connection.execute("begin")
    try:
        connection.execute(
            "update meta.builds set finished_at = ?, failure = ? where build_id = ?",
            [finished_at, failure, build_id],
        )
        if failure is None:
            connection.execute(
                """
                update meta.positions set build_id = w.build_id, load_id = w.upto_load_id
                from meta.windows as w
                where w.model = ? and positions.model = w.model and w.build_id = ?
                """,
                [TESTS, build_id],
            )
        connection.execute("commit")
    except BaseException:
        connection.execute("rollback")
        raise


def record_seeds(connection: Connection, fingerprints: Mapping[str, str]) -> None:
    """Remember which contents of the seeds are in the warehouse."""
    _insert_missing_positions(connection, fingerprints)
    for seed, fingerprint in fingerprints.items():
        connection.execute(
            "update meta.positions set fingerprint = ? where model = ?", [fingerprint, seed]
        )
