"""Reading published gold: whole versions, read-only, from any process, at any time."""

import contextlib
import re
import threading
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import duckdb
import msgspec

from tickhouse.errors import ConfigError, CorruptError
from tickhouse.transform.manifest import (
    MANIFEST,
    GoldFile,
    GoldManifest,
    GoldTable,
    read_index,
    read_manifest,
)
from tickhouse.transform.partitions import PLAN_OF
from tickhouse.transform.pruning import Range, visible_ranges

ROWS_MAX: Final = 100_000
SECONDS_MAX: Final = 30.0
ATTEMPTS: Final = 5
_INDEXES_KEPT: Final = 512
_SETTINGS: Final[dict[str, str | bool | int | float | list[str]]] = {
    "threads": 2,
    "memory_limit": "1GB",
    "temp_directory": "",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
}
_TYPE: Final = re.compile(r"^[A-Za-z0-9_(), \[\]]+$")

Row = tuple[Any, ...]


class NothingPublishedError(ConfigError):
    """No build was published in this folder yet."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"{folder}: nothing published yet; `tickhouse up` publishes its first build"
        )


class QueryResult(list[Row]):
    """Rows of a query.

    Attributes:
        columns: name of each column.
        version: version of published gold that answered.
        is_truncated: there were more rows than were asked for.
    """

    def __init__(
        self, rows: Sequence[Row], *, columns: list[str], version: int, is_truncated: bool
    ) -> None:
        super().__init__(rows)
        self.columns = columns
        self.version = version
        self.is_truncated = is_truncated

    @property
    def rows(self) -> list[Row]:
        """The rows."""
        return self


class _OutdatedError(Exception):
    """A file that the manifest names is gone."""


class PublishedGold:
    """Published gold of one folder; may be used from several threads.

    Tables are named as in the warehouse, with or without schema: `gold.bars_1m`, `bars_1m`,
    `silver.trades`, `trades`.

    Args:
        folder: where it is published; may be missing yet.
    """

    is_remote = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._lock = threading.Lock()
        self._indexes: dict[str, tuple[GoldFile, ...]] = {}

    def manifest(self) -> GoldManifest | None:
        """The current version; None before the first publish.

        Raises:
            CorruptError: it cannot be read; the next publish replaces it.
        """
        try:
            return read_manifest(self._folder)
        except msgspec.DecodeError as error:
            raise CorruptError(
                f"{self._folder / MANIFEST}: {error}. The next publish writes everything anew."
            ) from error

    def is_current(self, version: int) -> bool:
        """Whether this version is still the one that questions are answered from."""
        found = self.manifest()
        return found is not None and found.version == version

    def tables(self) -> list[str]:
        """Full names of what is published."""
        manifest = self.manifest()
        return [] if manifest is None else sorted(manifest.tables)

    def query(
        self,
        sql: str,
        parameters: Sequence[object] = (),
        *,
        rows_max: int = ROWS_MAX,
        seconds_max: float = SECONDS_MAX,
    ) -> QueryResult:
        """Answer one SELECT from the current version; `?` binds the parameters.

        It sees the published files and nothing else of this machine.

        Raises:
            NothingPublishedError: there is no version yet.
            ConfigError: not one SELECT, wrong, too slow or too big.
            CorruptError: the current version lacks a file.
        """
        for _ in range(ATTEMPTS):
            manifest = self.manifest()
            if manifest is None:
                raise NothingPublishedError(self._folder)
            try:
                return self._answer(manifest, sql, parameters, rows_max, seconds_max)
            except _OutdatedError as error:
                current = self.manifest()
                if current is not None and current.version == manifest.version:
                    raise CorruptError(
                        f"{self._folder}: version {manifest.version} lacks a file: {error}. The"
                        " next start of `tickhouse refine` publishes everything anew."
                    ) from error
        raise CorruptError(f"{self._folder}: files of {ATTEMPTS} versions were gone while reading")

    def bars(
        self,
        table: str,
        symbol: str,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        limit: int = ROWS_MAX,
    ) -> QueryResult:
        """The newest `limit` bars of a symbol that start in [start, end), oldest first.

        Args:
            table: such as "bars_1m"; only the files of that time are opened.
            symbol: any text.
            start: UTC, naive; None = open.
            end: UTC, naive; None = open.
            limit: at most this many.
        """
        plan = PLAN_OF.get(table)
        if plan is None or plan.time_column != "bar_at":
            raise ConfigError(f"{table!r} is not a table of bars")
        bounds = [("bar_at >= ?", start), ("bar_at < ?", end)]
        given = [(text, value) for text, value in bounds if value is not None]
        where = " and ".join(["symbol = ?", *(text for text, _ in given)])
        found = self.query(
            f"select * from {plan.name} where {where} order by bar_at desc limit ?",  # noqa: S608
            [symbol, *(value for _, value in given), limit],
            rows_max=limit,
        )
        found.reverse()
        return found

    # -- answering ---------------------------------------------------------------------------

    def _answer(
        self,
        manifest: GoldManifest,
        sql: str,
        parameters: Sequence[object],
        rows_max: int,
        seconds_max: float,
    ) -> QueryResult:
        with (
            contextlib.closing(duckdb.connect(":memory:", config=_SETTINGS)) as connection,
            _explained(sql, seconds_max),
        ):
            statement = _only_select(connection, sql)
            self._make_views(connection, manifest, visible_ranges(connection, sql, parameters))
            self._lock_down(connection)
            with _time_limit(connection, seconds_max):
                connection.execute(statement, list(parameters))
                columns = [column[0] for column in connection.description or ()]
                rows = connection.fetchmany(rows_max + 1)
        return QueryResult(
            rows[:rows_max],
            columns=columns,
            version=manifest.version,
            is_truncated=len(rows) > rows_max,
        )

    def _lock_down(self, connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(f"set allowed_directories = [{_quoted(f'{self._folder}/')}]")
        connection.execute("set enable_external_access = false")
        connection.execute("set lock_configuration = true")

    def _make_views(
        self,
        connection: duckdb.DuckDBPyConnection,
        manifest: GoldManifest,
        ranges: Mapping[str, Range],
    ) -> None:
        """Views of the tables that a query names, each over the files that it can see."""
        connection.execute("create schema gold; create schema silver")
        for name, (from_ms, to_ms) in ranges.items():
            table = manifest.tables.get(name)
            if table is None:
                continue
            files = [file for file in self._files(table) if file.overlaps(from_ms, to_ms)]
            connection.execute(f"create view {name} as {self._select(table, files)}")
            connection.execute(f"create view main.{PLAN_OF[name].short_name} as from {name}")

    def _files(self, table: GoldTable) -> list[GoldFile]:
        files = list(table.files)
        for name in table.groups.values():
            files += self._index(name)
        return files

    def _index(self, name: str) -> tuple[GoldFile, ...]:
        with self._lock:
            known = self._indexes.get(name)
        if known is None:
            try:
                known = read_index(self._folder, name)
            except (FileNotFoundError, msgspec.DecodeError) as error:
                raise _OutdatedError(name) from error
            with self._lock:
                while len(self._indexes) >= _INDEXES_KEPT:
                    self._indexes.pop(next(iter(self._indexes)))
                self._indexes[name] = known
        return known

    def _select(self, table: GoldTable, files: Sequence[GoldFile]) -> str:
        if files:
            paths = ", ".join(_quoted(f"{self._folder}/{file.name}") for file in files)
            return f"select * from read_parquet([{paths}])"  # noqa: S608 - names are ours
        columns = ", ".join(_null_column(name, kind) for name, kind in table.columns)
        return f"select {columns} where false"


def _null_column(name: str, kind: str) -> str:
    if _TYPE.fullmatch(kind) is None:
        raise CorruptError(f"{kind!r} is not a column's type")
    escaped = name.replace('"', '""')
    return f'cast(null as {kind}) as "{escaped}"'


def _quoted(text: str) -> str:
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def _only_select(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise ConfigError(f"only one SELECT is answered here, not: {sql[:200]}")
    return statements[0]


@contextlib.contextmanager
def _time_limit(connection: duckdb.DuckDBPyConnection, seconds: float) -> Generator[None]:
    timer = threading.Timer(seconds, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


@contextlib.contextmanager
def _explained(sql: str, seconds_max: float) -> Generator[None]:
    """DuckDB's errors as ours."""
    try:
        yield
    except duckdb.IOException as error:
        raise _OutdatedError(str(error)) from error
    except duckdb.InterruptException as error:
        raise ConfigError(f"the query took over {seconds_max} s: {sql[:200]}") from error
    except duckdb.OutOfMemoryException as error:
        raise ConfigError(f"the query needs more memory than it may have: {error}") from error
    except duckdb.Error as error:
        raise ConfigError(f"the query is refused: {error}") from error
