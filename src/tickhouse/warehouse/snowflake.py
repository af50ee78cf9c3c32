"""Snowflake as the warehouse: any number of loaders, a lock row, COPY, one transaction a load.

Nobody owns it: load and build may run anywhere and twice at once. A second load waits at the lock
row, then sees what the first one committed. What a killed loader left open, Snowflake rolls back;
so it may for one that only slept while another waited for the lock. Such a load wakes up outside
its transaction: its session does not commit by itself, and before and after the commit it looks
whether the ledger holds its rows.
"""

import contextlib
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Final

import msgspec
from snowflake.connector import errors

from tickhouse.errors import ConfigError, CorruptObjectError, RefusedError, TransientError
from tickhouse.model.positions import ChainId, Stream
from tickhouse.telemetry import failpoint, get_logger
from tickhouse.warehouse.dialect import Dialect
from tickhouse.warehouse.snowflake_copy import (
    INTERNAL_STAGE,
    LinesOf,
    Source,
    careful_lines,
    copy_statements,
    counts_statement,
    external_files,
    found_rows,
    plain_lines,
    stage_files,
)
from tickhouse.warehouse.snowflake_ledger import IN_LEDGER, INSERT_LEDGER, OURS, schema_statements
from tickhouse.warehouse.snowflake_options import SnowflakeOptions
from tickhouse.warehouse.snowflake_session import FAILURES, Cursor, Session, Sessions, translated
from tickhouse.warehouse.warehouse import (
    NOTHING,
    BronzeObject,
    LoadResult,
    Quarantined,
    Row,
    check_counts,
    extending,
    ledger_row,
    loaded,
)

QUERY_ROWS_MAX: Final = 1_000_000
ANSWER_S_MAX: Final = 30.0
STALE_AFTER_S: Final = 6 * 3600
"""Staged files this old are of a load that was killed."""
_POLL_S: Final = 0.05
_TABLES: Final = frozenset(
    {*(stream.value for stream in Stream), "load_ledger", "load_lock", "quarantine", "identity"}
)
_DATA_ERRORS: Final = range(100_000, 101_000)
"""What COPY raises at a line that is not JSON, or whose numbers are not numbers."""
_NO_FILE: Final = 91016
_QUOTED: Final = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|\$\$.*?\$\$|--[^\n]*|/\*.*?\*/", re.DOTALL)
_SELECT: Final = re.compile(
    r"[\s(]*(?:select\b|with\b(?!\s+\S+\s+as\s+procedure\b))", re.IGNORECASE
)

_log = get_logger("load")


class _OvertakenError(Exception):
    """Another load committed since this one looked."""


class _UnreadableError(Exception):
    """COPY cannot read a line as it is."""


class SnowflakeWarehouse:
    """Bronze and the load ledger in a Snowflake database; safe to use from several threads.

    Args:
        options: the database, and who we are.
        lock_wait_s: how long a load waits for another one.
        query_s_max: a query that takes longer is stopped.
        clock_ms: wall clock, UNIX milliseconds; data only.
        monotonic, sleep: for waiting.
    """

    dialect: Dialect = "snowflake"

    def __init__(
        self,
        options: SnowflakeOptions,
        *,
        lock_wait_s: float = 30.0,
        query_s_max: float = 300.0,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.options = options
        self._sessions = Sessions(options, lock_wait_s=lock_wait_s)
        self._loads = Sessions(options, lock_wait_s=lock_wait_s, autocommit=False)
        self._lock_wait_s = lock_wait_s
        self._query_s_max = query_s_max
        self._clock_ms = clock_ms
        self._monotonic = monotonic
        self._sleep = sleep
        self._loading = threading.Lock()
        self._known: tuple[int, dict[ChainId, int]] = (-1, {})
        self._prefix: str | None = None

    def prepare(self) -> None:
        """Create what is not there yet; remove what killed loads left in the stage.

        A role that may create nothing passes where an administrator has made everything.
        """
        with self._sessions.session() as session:
            there = session.run(
                "select lower(table_name) from information_schema.tables"
                " where table_schema = 'BRONZE'"
            )
            if not {name for (name,) in there} >= _TABLES:
                # A role may make tables in a schema that it may not make.
                for statement in schema_statements()[1 if self._has_schema(session) else 0 :]:
                    session.run(statement)
            if self._has_stage(session):
                self._remove_stale(session)
            else:
                self._make_stage(session)

    @staticmethod
    def _has_schema(session: Session) -> bool:
        sql = "select 1 from information_schema.schemata where schema_name = 'BRONZE'"
        return bool(session.run(sql))

    @staticmethod
    def _has_stage(session: Session) -> bool:
        """Whether this role sees it; a role that only builds does not, and needs none."""
        return bool(session.run("show stages like 'LOAD_STAGE' in schema bronze"))

    def _make_stage(self, session: Session) -> None:
        try:
            session.run("create stage if not exists bronze.load_stage")
        except ConfigError as error:
            _log.info("stage_not_made", reason=str(error)[:500])

    def _remove_stale(self, session: Session) -> None:
        oldest = self._clock_ms() - STALE_AFTER_S * 1000
        names = [str(row[0]).split("/") for row in session.run(f"list {INTERNAL_STAGE}")]
        folders = {parts[1] for parts in names if len(parts) > 2}  # noqa: PLR2004 - stage/folder/file
        for folder in sorted(folders):
            made_at_ms = folder.partition("-")[0]
            if made_at_ms.isdigit() and int(made_at_ms) < oldest:
                session.run(f"remove {INTERNAL_STAGE}/{folder}/")
                _log.info("stale_files_removed", folder=folder)

    def cursor(self) -> Cursor:
        """A session of its own, for one thread; the caller closes it."""
        session = self._sessions.take()
        return Cursor(session, session.close)

    # -- questions ---------------------------------------------------------------------------

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """See `WarehouseReader.query`: one SELECT, bounded in rows and time.

        Raises:
            ConfigError: not one SELECT, wrong, more than `QUERY_ROWS_MAX` rows, or too slow.
            TransientError: Snowflake cannot be reached.
        """
        _, rows = self._ask(sql, parameters, QUERY_ROWS_MAX, self._query_s_max)
        if len(rows) > QUERY_ROWS_MAX:
            raise ConfigError(f"a query has over {QUERY_ROWS_MAX} rows; add a limit: {sql[:200]}")
        return rows

    def answer(
        self, sql: str, *, rows_max: int, seconds_max: float = ANSWER_S_MAX
    ) -> tuple[list[str], list[Row]]:
        """Columns and the first rows of one SELECT that a person asks.

        Raises:
            ConfigError: not one SELECT, wrong, or too slow.
            TransientError: Snowflake cannot be reached.
        """
        columns, rows = self._ask(sql, (), rows_max, seconds_max)
        return columns, rows[:rows_max]

    def _ask(
        self, sql: str, parameters: Sequence[object], rows_max: int, seconds_max: float
    ) -> tuple[list[str], list[Row]]:
        """Columns and at most one row more than `rows_max`."""
        _check_select(sql)

        def ask(session: Session) -> tuple[list[str], list[Row]]:
            try:
                return session.table(sql, parameters, timeout_s=seconds_max, rows_max=rows_max + 1)
            except FAILURES as error:
                raise self._query_failed(error, sql, seconds_max) from error

        return self._sessions.retried(ask)

    def _query_failed(self, error: Exception, sql: str, seconds_max: float) -> Exception:
        if isinstance(error, errors.ProgrammingError) and error.errno == 604:  # noqa: PLR2004
            return ConfigError(f"a query took over {seconds_max} s: {sql[:200]}")
        ours = translated(error, self.options)
        return ours or ConfigError(f"the query is refused: {error}")

    def positions(self) -> dict[ChainId, int]:
        """See `Warehouse.positions`; reads the ledger only if something else has loaded."""
        return dict(self._sessions.retried(self._positions))

    def _positions(self, session: Session) -> Mapping[ChainId, int]:
        return self._positions_at(session, self._last_load(session))

    def _last_load(self, session: Session) -> int:
        rows = session.run("select load_id from bronze.load_lock")
        if len(rows) != 1:
            raise ConfigError(
                f"{self.options.url}: bronze.load_lock holds {len(rows)} rows instead of 1; with"
                " none, drop it and run `tickhouse init`"
            )
        return rows[0][0]

    def _positions_at(self, session: Session, load_id: int) -> Mapping[ChainId, int]:
        """The ledger's ends after `load_id`, which this session sees as the last."""
        known_id, ends = self._known
        if known_id != load_id:
            rows = session.run(
                "select stream, topic, topic_id, part, max(next_offset) from bronze.load_ledger"
                " where load_id <= ? group by stream, topic, topic_id, part",
                (load_id,),
            )
            ends = {ChainId(Stream(row[0]), *row[1:4]): row[4] for row in rows}
            self._known = (load_id, ends)
        return ends

    # -- loading -----------------------------------------------------------------------------

    def load(self, objects: Sequence[BronzeObject]) -> LoadResult:
        """See `Warehouse.load`."""
        deadline = self._monotonic() + self._lock_wait_s
        with self._loading:
            while pending := extending(objects, self.positions()):
                try:
                    return self._load_staged(pending)
                except _OvertakenError as error:
                    if self._monotonic() >= deadline:
                        raise TransientError(
                            f"{self.options.url}: other loads come first"
                        ) from error
                    self._sleep(_POLL_S)
        return NOTHING

    def _load_staged(self, pending: list[BronzeObject]) -> LoadResult:
        """Load the lines as they are; where one cannot be read so, all of them with care."""
        try:
            return self._load_lines(pending, plain_lines)
        except (CorruptObjectError, _UnreadableError) as error:
            _log.warning("load_continued_with_care", reason=str(error)[:500])
            try:
                return self._load_lines(pending, careful_lines)
            except _UnreadableError as again:
                raise ConfigError(
                    f"{again}. A table is not as tickhouse made it (a column added or changed by"
                    " hand?): compare it with snowflake.sql. Nothing was loaded."
                ) from again

    def _load_lines(self, pending: list[BronzeObject], lines_of: LinesOf) -> LoadResult:
        failpoint("load.begin.before")
        with self._loads.session() as session, self._staged(session, pending, lines_of) as found:
            load_id, positions = self._begin(session, pending)
            loaded_at_ms = self._insert_ledger(session, pending, load_id)
            failpoint("load.ledger.after")
            for statement in copy_statements(found, load_id):
                self._copy(session, statement)
            self._check_begun(session, load_id, loaded_at_ms, len(pending))
            self._check(session, pending, found, load_id)
            failpoint("load.rows.after")
            failpoint("load.commit.before")
            self._commit(session, load_id, loaded_at_ms)
            failpoint("load.commit.after")
        ends = {item.chain: item.manifest.next for item in pending}
        self._known = (load_id, {**positions, **ends})
        return loaded(load_id, pending)

    @contextlib.contextmanager
    def _staged(
        self, session: Session, pending: list[BronzeObject], lines_of: LinesOf
    ) -> Generator[Source]:
        """Where the lines are: uploaded before the lock is taken, removed afterwards."""
        if self.options.stage and lines_of is plain_lines:
            yield external_files(self.options.stage, self._stage_prefix(session), pending)
            return
        folder = f"{self._clock_ms()}-{os.getpid()}-{secrets.token_hex(6)}"
        found = Source(INTERNAL_STAGE, "null", {})
        try:
            found = stage_files(session, folder, pending, lines_of)
            failpoint("load.staged.after")
            yield found
        finally:
            if any(item.manifest.n for item in pending):
                self._remove_staged(folder)

    def _remove_staged(self, folder: str) -> None:
        """In a session of its own: the load's may be broken. What stays goes when it is stale."""
        try:
            with self._sessions.session() as session:
                session.run(f"remove {INTERNAL_STAGE}/{folder}/")
        except (ConfigError, RefusedError, TransientError) as error:
            _log.warning("staged_files_left", folder=folder, reason=str(error)[:500])

    def _stage_prefix(self, session: Session) -> str:
        """The folder in the external stage's URL, which METADATA$FILENAME begins with."""
        if self._prefix is None:
            schema, _, name = self.options.stage.upper().rpartition(".")
            with session.translating(), session.connection.cursor() as cursor:
                cursor.execute(f"show stages like '{name}' in schema {schema or 'bronze'}")
                names = [column[0].lower() for column in cursor.description]
                stages = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            urls = [str(each["url"]) for each in stages if each["name"] == name and each["url"]]
            if not urls:
                raise ConfigError(
                    f"{self.options.url}: {self.options.stage} is no external stage that this role"
                    " sees; deploy/snowflake makes one, or leave out stage= to upload lines"
                )
            path = urls[0].partition("://")[2].partition("/")[2].strip("/")
            self._prefix = f"{path}/" if path else ""
        return self._prefix

    def _begin(
        self, session: Session, pending: list[BronzeObject]
    ) -> tuple[int, Mapping[ChainId, int]]:
        """Take the lock row, and look again: what is pending may have been loaded meanwhile."""
        session.run("begin")
        session.run("update bronze.load_lock set load_id = load_id + 1")
        load_id = self._last_load(session)
        positions = self._positions_at(session, load_id - 1)
        if len(extending(pending, positions)) != len(pending):
            session.run("rollback")
            raise _OvertakenError
        return load_id, positions

    def _insert_ledger(self, session: Session, pending: list[BronzeObject], load_id: int) -> int:
        """One statement, however many objects: an array in one bind; when, by our clock (ms)."""
        rows = msgspec.json.encode([ledger_row(item) for item in pending]).decode()
        loaded_at_ms = self._clock_ms()
        session.run(INSERT_LEDGER, (load_id, loaded_at_ms, rows))
        return loaded_at_ms

    def _copy(self, session: Session, statement: str) -> None:
        try:
            session.fetch(statement)
        except FAILURES as error:
            number = error.errno if isinstance(error, errors.Error) else None
            if number in _DATA_ERRORS:
                raise _UnreadableError(f"{self.options.url}: {error}") from error
            if number == _NO_FILE and INTERNAL_STAGE not in statement:
                raise RefusedError(
                    f"{self.options.url}: {error}. Is {self.options.stage} the stage of this lake,"
                    " and may its integration read there? deploy/snowflake/04_s3_stage.sql"
                ) from error
            if (ours := translated(error, self.options)) is not None:
                raise ours from error
            raise

    def _check(
        self, session: Session, pending: list[BronzeObject], found: Source, load_id: int
    ) -> None:
        rows = session.run(counts_statement(found.files, load_id)) if found.files else []
        check_counts(pending, found_rows(rows, pending))

    def _check_begun(self, session: Session, load_id: int, loaded_at_ms: int, objects: int) -> None:
        """Whether the lock is ours since `_begin`; taken once more, so that it stays ours."""
        session.run("update bronze.load_lock set load_id = load_id where load_id = ?", (load_id,))
        found = session.run(OURS, (load_id, loaded_at_ms, load_id))
        if found != [(1, objects, objects)]:
            raise TransientError(f"{self.options.url}: Snowflake ended this load: {found}")

    def _commit(self, session: Session, load_id: int, loaded_at_ms: int) -> None:
        """Commit; whatever the answer is, what the ledger says is the outcome.

        Another load can have our id only if ours was rolled back, and then a later time. Not there
        may still mean "not yet": the next load waits at the lock row until Snowflake has ended this
        transaction, and then looks again.
        """
        failure = TransientError(f"{self.options.url}: Snowflake ended this load before its commit")
        try:
            session.run("commit")
        except TransientError as error:
            failure = error
        if not self.query(IN_LEDGER, (load_id, loaded_at_ms)):
            raise failure

    # -- quarantine --------------------------------------------------------------------------

    def quarantine(self, key: str, reason: str) -> None:
        """See `Warehouse.quarantine`."""
        self._sessions.retried(
            lambda session: session.run(
                "insert into bronze.quarantine (file, reason, found_at)"
                " select ?, ?, to_timestamp_ntz(?, 3)"
                " where not exists (select 1 from bronze.quarantine where file = ?)",
                (key, reason, self._clock_ms(), key),
            )
        )

    def release(self, key: str) -> None:
        """See `Warehouse.release`."""
        self._sessions.retried(
            lambda session: session.run("delete from bronze.quarantine where file = ?", (key,))
        )

    def quarantined(self) -> list[Quarantined]:
        """See `Warehouse.quarantined`."""
        rows = self.query(
            "select file, min(reason), date_part(epoch_millisecond, min(found_at)) as at_ms"
            " from bronze.quarantine group by file order by at_ms, file"
        )
        return [Quarantined(file, reason, int(at_ms)) for file, reason, at_ms in rows]

    def close(self) -> None:
        """End the sessions."""
        self._loads.close()
        self._sessions.close()


def _check_select(sql: str) -> None:
    bare = _QUOTED.sub(" ", sql)
    if not _SELECT.match(bare) or ";" in bare.rstrip().removesuffix(";"):
        raise ConfigError(f"only one SELECT is answered here, not: {sql[:200]}")
