"""Published gold: after each whole build, what changed goes into Parquet files for every reader.

DuckDB lets one process in, so everyone else reads these files. A version is whole or not there:
files first, flushed to disk, then the manifest that names them is replaced atomically. Published
is whatever has a load_id above the one published for its table; everything, if the manifest names
another warehouse, another project, a later position, or files that are gone.
"""

import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from tickhouse.errors import RefusedError
from tickhouse.telemetry import failpoint, get_logger, write_json_atomically
from tickhouse.transform.exporter import CopyToParquet, Exporter, Query
from tickhouse.transform.manifest import (
    FORMAT,
    MANIFEST,
    GoldManifest,
    LedgerEnd,
    read_index,
    read_manifest,
)
from tickhouse.transform.partitions import PLANS

_VERSIONED: Final = re.compile(r"\.v(\d+)-[0-9a-f]{8}\.(parquet|json)$")
_TEMPORARY: Final = re.compile(r"^\..+\.tmp$")
_log = get_logger("publish")


class PublishResult(msgspec.Struct, frozen=True):
    """What one publish did: `version` is the current one, `files` and `rows` are what it wrote."""

    version: int
    changed: bool
    is_full: bool
    files: int
    rows: int
    seconds: float


class Retired(msgspec.Struct, frozen=True):
    """Files that no version after `version` names, since `at_s` (monotonic)."""

    version: int
    at_s: float
    names: list[str]


class Publisher:
    """Writes published gold for one warehouse; only the process that owns it may.

    Args:
        folder: published gold; made if missing.
        query: rows of a SELECT in the warehouse.
        copy_to_parquet: writes rows of a SELECT to a file, flushed to disk.
        clock_ms: wall clock, UNIX milliseconds; data only.
        monotonic: for the age of old versions.
        keep_versions, keep_minutes: a file stays for so many versions and for so long after the
            last version that names it; a slow reader has as much time.
    """

    def __init__(
        self,
        folder: Path,
        *,
        query: Query,
        copy_to_parquet: CopyToParquet,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
        keep_versions: int = 3,
        keep_minutes: float = 2.0,
    ) -> None:
        self._folder = folder
        self._query = query
        self._copy_to_parquet = copy_to_parquet
        self._clock_ms = clock_ms
        self._monotonic = monotonic
        self._keep_versions = keep_versions
        self._keep_s = keep_minutes * 60
        self._run = secrets.token_hex(4)
        self._retired: deque[Retired] = deque()
        self._is_checked = False

    def publish(self, load_id: int) -> PublishResult:
        """Publish what silver and gold hold, which is everything up to `load_id`.

        Raises:
            RefusedError: disk full; the current version stays.
        """
        started = self._monotonic()
        before = self._before(load_id)
        if before is not None and before.load_id == load_id:
            self._remove_retired(before.version)
            return PublishResult(before.version, False, False, 0, 0, 0.0)
        version = self._next_version(before)
        exporter = self._exporter(version, load_id)
        try:
            manifest = self._write(exporter, version, load_id, before)
            self._flip(manifest)
        except BaseException:
            if not self._is_current(version):
                exporter.discard()
            raise
        self._retire(manifest, exporter.superseded, is_full=before is None)
        result = PublishResult(
            version=version,
            changed=True,
            is_full=before is None,
            files=len(exporter.written),
            rows=exporter.rows,
            seconds=round(self._monotonic() - started, 4),
        )
        _log.debug("gold_published", load_id=load_id, **msgspec.structs.asdict(result))
        return result

    # -- what is there -----------------------------------------------------------------------

    def _before(self, load_id: int) -> GoldManifest | None:
        """The version to extend; None where everything is to be published."""
        try:
            before = read_manifest(self._folder)
        except msgspec.DecodeError as error:
            _log.error("gold_published_anew", reason=f"{self._folder / MANIFEST}: {error}")
            return None
        if before is None:
            return None
        reason = self._misfit(before, load_id)
        if reason is not None:
            _log.warning("gold_published_anew", reason=reason)
            return None
        self._is_checked = True
        return before

    def _misfit(self, before: GoldManifest, load_id: int) -> str | None:
        if before.warehouse_id != self._warehouse_id():
            return f"version {before.version} is of another warehouse, {before.warehouse_id}"
        if before.fingerprint != self._fingerprint():
            return "models or seeds have changed"
        if before.load_id > load_id:
            return f"version {before.version} is at load {before.load_id}, ahead of {load_id}"
        return None if self._is_checked else self._missing(before)

    def _missing(self, before: GoldManifest) -> str | None:
        """What a version names that is not there; looked at once a process."""
        try:
            named = set(self._names(before))
        except (FileNotFoundError, msgspec.DecodeError) as error:
            return f"version {before.version} lacks an index: {error}"
        found = dict(self._found())
        gone = sorted(named - found.keys())
        if gone:
            return f"version {before.version} lacks {len(gone)} files, such as {gone[0]}"
        strays = sorted(found.keys() - named)
        self._retired.append(Retired(before.version, self._monotonic(), strays))
        return None

    def _names(self, manifest: GoldManifest) -> Iterator[str]:
        """Every file that a version needs."""
        for table in manifest.tables.values():
            yield from (file.name for file in table.files)
            for index in table.groups.values():
                yield index
                yield from (file.name for file in read_index(self._folder, index))

    def _found(self) -> Iterator[tuple[str, int]]:
        """Files of ours in the folder with their version; temporary ones have version 0."""
        for path in self._folder.rglob("*"):
            match = _VERSIONED.search(path.name)
            if match is not None and not path.name.startswith("."):
                yield str(path.relative_to(self._folder)), int(match[1])
            elif _TEMPORARY.search(path.name):
                yield str(path.relative_to(self._folder)), 0

    def _next_version(self, before: GoldManifest | None) -> int:
        if before is not None:
            return before.version + 1
        return max((version for _, version in self._found()), default=0) + 1

    def _warehouse_id(self) -> str:
        return str(self._query("select warehouse_id from bronze.identity")[0][0])

    def _fingerprint(self) -> str:
        rows = self._query(
            "select md5(string_agg(model || ':' || coalesce(fingerprint, ''), ',' order by model))"
            " from meta.positions"
        )
        return str(rows[0][0])

    # -- a new version -----------------------------------------------------------------------

    def _exporter(self, version: int, load_id: int) -> Exporter:
        return Exporter(
            self._folder,
            query=self._query,
            copy_to_parquet=self._copy_to_parquet,
            suffix=f"v{version}-{self._run}",
            load_id=load_id,
            publish_day=f"{datetime.fromtimestamp(self._clock_ms() / 1000, UTC):%Y-%m-%d}",
        )

    def _write(
        self, exporter: Exporter, version: int, load_id: int, before: GoldManifest | None
    ) -> GoldManifest:
        """Write all files of the new version, durable when this returns."""
        known = {} if before is None else before.tables
        columns = {name: table.columns for name, table in known.items()} or self._columns()
        tables = {
            plan.name: exporter.table(plan, columns[plan.name], known.get(plan.name))
            for plan in PLANS
            if plan.name in columns
        }
        exporter.sync()
        return GoldManifest(
            format=FORMAT,
            version=version,
            run=self._run,
            warehouse_id=self._warehouse_id(),
            fingerprint=self._fingerprint(),
            load_id=load_id,
            published_at_ms=self._clock_ms(),
            watermark_ms=self._watermark_ms(),
            ledger=self._ledger(load_id, before),
            tables=tables,
        )

    def _columns(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """Columns of every table that is built."""
        rows = self._query(
            "select schema_name || '.' || table_name, column_name, data_type"
            " from duckdb_columns() where schema_name in ('silver', 'gold') and not internal"
            " order by table_oid, column_index"
        )
        found: dict[str, list[tuple[str, str]]] = {}
        for table, column, kind in rows:
            found.setdefault(table, []).append((column, kind))
        return {table: tuple(columns) for table, columns in found.items()}

    def _watermark_ms(self) -> int | None:
        rows = self._query("select epoch_ms(max(watermark)) from meta.positions")
        return rows[0][0]

    def _ledger(self, load_id: int, before: GoldManifest | None) -> tuple[LedgerEnd, ...]:
        """End of every chain; of the ledger only what was loaded since is read."""
        published = 0 if before is None else before.load_id
        rows = self._query(
            "select stream, topic, topic_id, part, max(next_offset) from bronze.load_ledger"  # noqa: S608 - names are ours
            f" where load_id > {published} and load_id <= {load_id} group by all"
        )
        known = () if before is None else before.ledger
        ends = {(end.stream, end.topic, end.topic_id, end.part): end.next for end in known}
        ends |= {tuple(row[:4]): row[4] for row in rows}
        return tuple(LedgerEnd(*chain, end) for chain, end in sorted(ends.items()))

    def _flip(self, manifest: GoldManifest) -> None:
        failpoint("publish.flip.before")
        try:
            write_json_atomically(self._folder / MANIFEST, manifest, durable=True)
        except OSError as error:
            if not self._is_current(manifest.version):
                raise RefusedError(f"{self._folder / MANIFEST}: {error}") from error
        failpoint("publish.flip.after")

    def _is_current(self, version: int) -> bool:
        """Whether the flip took place, whatever its answer was."""
        try:
            found = read_manifest(self._folder)
        except msgspec.DecodeError:
            return False
        return found is not None and (found.version, found.run) == (version, self._run)

    # -- old versions ------------------------------------------------------------------------

    def _retire(self, manifest: GoldManifest, superseded: list[str], *, is_full: bool) -> None:
        names = superseded
        if is_full:
            found = {name for name, _ in self._found()}
            names = sorted(found - set(self._names(manifest)))
            self._retired.clear()
            self._is_checked = True
        self._retired.append(Retired(manifest.version - 1, self._monotonic(), names))
        self._remove_retired(manifest.version)

    def _remove_retired(self, version: int) -> None:
        oldest = self._monotonic() - self._keep_s
        while self._retired and (
            self._retired[0].at_s <= oldest
            and self._retired[0].version <= version - self._keep_versions
        ):
            for name in self._retired.popleft().names:
                (self._folder / name).unlink(missing_ok=True)
