"""The embedded warehouse: one DuckDB file, owned by one process.

Rows and ledger rows commit in one transaction under a lock row, which also counts `load_id`.
Within the owning process any number of cursors, threads and connections (dbt-duckdb's too) share
the file; every other process reads published gold, or asks the owner.
"""

import contextlib
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

import duckdb
import msgspec
from duckdb import DuckDBPyConnection as Cursor

from tickhouse.errors import (
    BusyError,
    ConfigError,
    CorruptObjectError,
    RefusedError,
    TransientError,
)
from tickhouse.model.positions import ChainId, Stream
from tickhouse.telemetry import failpoint, get_logger
from tickhouse.warehouse.dialect import Dialect
from tickhouse.warehouse.duckdb_rows import (
    CANNOT_READ,
    CAREFUL,
    LINE_BYTES_MAX,
    PLAIN,
    check_rows,
    insert_rows,
)
from tickhouse.warehouse.staging import (
    Staging,
    refused_or_same,
    remove_stale,
)
from tickhouse.warehouse.warehouse import (
    NOTHING,
    BronzeObject,
    LoadResult,
    Quarantined,
    Row,
    extending,
    ledger_row,
    loaded,
)

QUERY_ROWS_MAX: Final = 1_000_000
_POLL_S: Final = 0.05
_HOLDER: Final = re.compile(r"held in (.+?) \(PID (\d+)\)")
_FULL: Final = ("No space left", "File too large", "Disk quota", "not enough disk space")
_DAMAGED: Final = (
    "not a valid DuckDB database",
    "Corrupt database",
    "checksum",
    "Could not read enough bytes",
    "WAL file",
)
_preparing = threading.Lock()
_log = get_logger("load")


class _LockTakenError(Exception):
    """Another load is running, or committed since this one looked."""


class DuckDBWarehouse:
    """The warehouse for the one process that owns the file; safe to use from several threads.

    Args:
        path: the DuckDB file; made with its folder if missing.
        wait_s: how long to wait for another process to give the file back.
        lock_wait_s: how long a load waits for another one in this process.
        query_s_max: a query that takes longer is stopped.
        clock_ms: wall clock, UNIX milliseconds; data only.
        monotonic, sleep: for waiting.

    Raises:
        BusyError: another process holds the file.
        ConfigError: the file is damaged or not a warehouse.
    """

    dialect: Dialect = "duckdb"

    def __init__(
        self,
        path: Path,
        *,
        wait_s: float = 5.0,
        lock_wait_s: float = 30.0,
        query_s_max: float = 300.0,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.path = path
        self._staging_folder = path.with_name(path.name + ".load")
        self._lock_wait_s = lock_wait_s
        self._query_s_max = query_s_max
        self._clock_ms = clock_ms
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = threading.Lock()
        self._known: tuple[int, dict[ChainId, int]] = (-1, {})
        self._connection = self._open(wait_s)
        remove_stale(self._staging_folder)

    def _open(self, wait_s: float) -> Cursor:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        deadline = self._monotonic() + wait_s
        while True:
            try:
                _remove_unborn(self.path)
                connection = duckdb.connect(self.path)
            except duckdb.Error as error:
                holder = _HOLDER.search(str(error))
                if holder is None:
                    raise _opening_failed(error, self.path) from error
                if self._monotonic() >= deadline:
                    raise _busy(self.path, holder) from error
                self._sleep(_POLL_S)
            else:
                connection.execute("set global autoinstall_known_extensions = false")
                return connection

    def prepare(self) -> None:
        """Create schemas and tables that are not there yet, and the warehouse's random id."""
        schema = resources.files("tickhouse.warehouse").joinpath("duckdb.sql").read_text()
        with _preparing, self._transaction() as cursor:
            cursor.execute(schema)
            cursor.execute(
                "insert into bronze.identity select ? where not exists (from bronze.identity)",
                [secrets.token_hex(11)],
            )
            cursor.execute(
                "insert into bronze.load_lock select coalesce(max(load_id), 0)"
                " from bronze.load_ledger having not exists (from bronze.load_lock)"
            )

    def cursor(self) -> Cursor:
        """A connection of its own to the open file, for one thread; the caller closes it."""
        with self._lock:
            return self._connection.cursor()

    @contextlib.contextmanager
    def _transaction(self) -> Generator[Cursor]:
        """A cursor in a transaction that commits at the end, or rolls back."""
        cursor = self.cursor()
        try:
            cursor.begin()
            yield cursor
            cursor.commit()
        except duckdb.Error as error:
            if (ours := _translated(error, self.path)) is not None:
                raise ours from error
            raise
        finally:
            cursor.close()

    # -- questions ---------------------------------------------------------------------------

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """See `WarehouseReader.query`: one SELECT, read-only, bounded in rows and time.

        Raises:
            ConfigError: not one SELECT, wrong, more than `QUERY_ROWS_MAX` rows, or too slow.
        """
        cursor = self.cursor()
        timer = threading.Timer(self._query_s_max, _interrupt, (cursor,))
        timer.daemon = True
        try:
            statement = _only_select(cursor, sql)
            timer.start()
            cursor.execute("begin transaction read only")
            rows = cursor.execute(statement, list(parameters)).fetchmany(QUERY_ROWS_MAX + 1)
        except duckdb.InterruptException as error:
            raise ConfigError(f"a query took over {self._query_s_max} s: {sql[:200]}") from error
        except duckdb.Error as error:
            raise _query_failed(error, self.path) from error
        finally:
            timer.cancel()
            cursor.close()
        if len(rows) > QUERY_ROWS_MAX:
            raise ConfigError(f"a query has over {QUERY_ROWS_MAX} rows; add a limit: {sql[:200]}")
        return rows

    def positions(self) -> dict[ChainId, int]:
        """See `Warehouse.positions`; reads the ledger only if something else has loaded."""
        with self._transaction() as cursor:
            row = cursor.execute("select load_id from bronze.load_lock").fetchone()
            return dict(self._positions_at(cursor, row[0] if row else 0))

    def _positions_at(self, cursor: Cursor, load_id: int) -> Mapping[ChainId, int]:
        """The ledger's ends after `load_id`, which this transaction sees as the last."""
        if self._known[0] != load_id:
            rows = cursor.execute(
                "select stream, topic, topic_id, part, max(next_offset)"
                " from bronze.load_ledger group by all"
            ).fetchall()
            ends = {
                ChainId(Stream(stream), topic, topic_id, part): end
                for stream, topic, topic_id, part, end in rows
            }
            self._known = (load_id, ends)
        return self._known[1]

    # -- loading -----------------------------------------------------------------------------

    def load(self, objects: Sequence[BronzeObject]) -> LoadResult:
        """See `Warehouse.load`."""
        deadline = self._monotonic() + self._lock_wait_s
        while pending := extending(objects, self.positions()):
            try:
                with Staging(self._staging_folder, pending) as staging:
                    return self._load_staged(pending, staging)
            except _LockTakenError as error:
                if self._monotonic() >= deadline:
                    raise TransientError(f"{self.path}: another load is running") from error
                self._sleep(_POLL_S)
        return NOTHING

    def _load_staged(self, pending: list[BronzeObject], staging: Staging) -> LoadResult:
        """Load the lines as they are; where one cannot be read so, all of them with care."""
        try:
            return self._load_lines(pending, staging.plain(), PLAIN, LINE_BYTES_MAX)
        except (CorruptObjectError, *CANNOT_READ) as error:
            _log.warning("load_continued_with_care", reason=str(error)[:500])
            lines = staging.careful()
            bytes_max = max(LINE_BYTES_MAX, 2 * staging.line_bytes_max)
            return self._load_lines(pending, lines, CAREFUL, bytes_max)

    def _load_lines(
        self,
        pending: list[BronzeObject],
        lines: Mapping[Stream, Path],
        insert: str,
        bytes_max: int,
    ) -> LoadResult:
        failpoint("load.begin.before")
        cursor = self.cursor()
        try:
            load_id, positions = self._begin(cursor, pending)
            self._insert_ledger(cursor, pending, load_id)
            failpoint("load.ledger.after")
            for stream, path in lines.items():
                sql = insert.format(table=stream.value, load_id=load_id, bytes_max=bytes_max)
                objects = [item for item in pending if item.chain.stream is stream]
                insert_rows(cursor, sql, path, objects)
                check_rows(cursor, stream, load_id, objects)
            failpoint("load.rows.after")
            failpoint("load.commit.before")
            self._commit(cursor, load_id, pending[0].key)
            failpoint("load.commit.after")
        except duckdb.Error as error:
            if (ours := _translated(error, self.path)) is not None:
                raise ours from error
            raise
        finally:
            cursor.close()
        ends = {item.chain: item.manifest.next for item in pending}
        self._known = (load_id, {**positions, **ends})
        return loaded(load_id, pending)

    def _begin(
        self, cursor: Cursor, pending: list[BronzeObject]
    ) -> tuple[int, Mapping[ChainId, int]]:
        """Take the lock row, and look again: what is pending may have been loaded meanwhile."""
        cursor.begin()
        try:
            row = cursor.execute(
                "update bronze.load_lock set load_id = load_id + 1 returning load_id"
            ).fetchone()
        except duckdb.TransactionException as error:
            raise _LockTakenError from error
        if row is None:
            raise ConfigError(f"{self.path}: prepare() has not been called")
        positions = self._positions_at(cursor, row[0] - 1)
        if len(extending(pending, positions)) != len(pending):
            raise _LockTakenError
        return row[0], positions

    def _insert_ledger(self, cursor: Cursor, pending: list[BronzeObject], load_id: int) -> None:
        rows = [msgspec.structs.astuple(ledger_row(item)) for item in pending]
        columns: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)]
        cursor.execute(
            f"insert into bronze.load_ledger select {', '.join(['unnest(?)'] * len(columns))},"
            " ?, make_timestamp(? * 1000)",
            [*columns, load_id, self._clock_ms()],
        )

    def _commit(self, cursor: Cursor, load_id: int, key: str) -> None:
        """Commit; where the answer is an error, what the ledger says is the outcome."""
        try:
            cursor.commit()
        except duckdb.Error:
            found = self.query(
                "select 1 from bronze.load_ledger where load_id = ? and file = ?", (load_id, key)
            )
            if not found:
                raise

    # -- quarantine --------------------------------------------------------------------------

    def quarantine(self, key: str, reason: str) -> None:
        """See `Warehouse.quarantine`."""
        with self._transaction() as cursor:
            cursor.execute(
                "insert into bronze.quarantine select $1, $2, make_timestamp($3 * 1000)"
                " where not exists (from bronze.quarantine where file = $1)",
                [key, reason, self._clock_ms()],
            )

    def release(self, key: str) -> None:
        """See `Warehouse.release`."""
        with self._transaction() as cursor:
            cursor.execute("delete from bronze.quarantine where file = ?", [key])

    def quarantined(self) -> list[Quarantined]:
        """See `Warehouse.quarantined`."""
        rows = self.query(
            "select file, reason, epoch_ms(found_at) from bronze.quarantine order by found_at, file"
        )
        return [Quarantined(*row) for row in rows]

    # -- publishing --------------------------------------------------------------------------

    def copy_to_parquet(
        self, select_sql: str, path: Path, *, order_by: str = "", compression: str = "zstd"
    ) -> int:
        """Write the rows of a SELECT to a Parquet file, flushed to disk; returns their number.

        The file appears under its name only when complete; flushing the folder is the caller's,
        once for many files. Identifiers in the SQL are the caller's to validate.

        Raises:
            ConfigError: the query is wrong.
            RefusedError: disk full; no file is left.
        """
        temporary = path.with_name(f".{path.name}.tmp")
        target = str(temporary).replace("'", "''")
        order = f" order by {order_by}" if order_by else ""
        cursor = self.cursor()
        try:
            _only_select(cursor, select_sql)
            row = cursor.execute(
                f"copy (from ({select_sql}){order}) to '{target}'"
                f" (format parquet, compression {compression}, use_tmp_file false)"
            ).fetchone()
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        except duckdb.Error as error:
            raise _query_failed(error, self.path) from error
        except OSError as error:
            raise refused_or_same(error, path) from error
        finally:
            temporary.unlink(missing_ok=True)
            cursor.close()
        return int(row[0]) if row else 0

    def close(self) -> None:
        """Close the file; cursors still open keep it open."""
        with self._lock:
            self._connection.close()


def _only_select(cursor: Cursor, sql: str) -> duckdb.Statement:
    statements = cursor.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise ConfigError(f"only one SELECT is answered here, not: {sql[:200]}")
    return statements[0]


def _interrupt(cursor: Cursor) -> None:
    with contextlib.suppress(duckdb.Error):
        cursor.interrupt()


def _remove_unborn(path: Path) -> None:
    """Remove an empty file that a process left which was killed while making it."""
    wal = path.with_name(path.name + ".wal")
    if path.exists() and path.stat().st_size == 0 and not wal.exists():
        path.unlink()


def _busy(path: Path, holder: re.Match[str]) -> BusyError:
    program, pid = holder.groups()
    return BusyError(
        f"{path}: process {pid} ({program}) has the warehouse open, and DuckDB lets one process"
        " in. A running `tickhouse up` or `tickhouse refine` answers for others; stop any other."
    )


def _opening_failed(error: duckdb.Error, path: Path) -> Exception:
    ours = _translated(error, path)
    return ours if isinstance(ours, RefusedError | ConfigError) else _damaged(error, path)


def _query_failed(error: duckdb.Error, path: Path) -> Exception:
    return _translated(error, path) or ConfigError(f"the query is refused: {error}")


def _damaged(error: duckdb.Error, path: Path) -> ConfigError:
    return ConfigError(
        f"{path}: {error}. The warehouse file is damaged. The lake holds everything: move this"
        " file (and its .wal) away and run `tickhouse load` and `tickhouse build` again."
    )


def _translated(error: duckdb.Error, path: Path) -> Exception | None:
    """Our class of error; None where it is our own mistake, or fatal: the process must restart."""
    text = str(error)
    if any(words in text for words in _FULL):
        return RefusedError(f"{path}: {text}. Make room; loading goes on by itself.")
    if isinstance(error, duckdb.IOException | duckdb.SerializationException) and any(
        words in text for words in _DAMAGED
    ):
        return _damaged(error, path)
    if isinstance(error, duckdb.OperationalError):
        return TransientError(f"{path}: {text}")
    return None
