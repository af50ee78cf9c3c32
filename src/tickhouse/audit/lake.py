"""Layers log → bronze and bronze → warehouse, in one pass over the objects of the lake."""

from collections.abc import Iterable, Sequence
from typing import Final

from tickhouse.audit.chains import (
    LedgerCursor,
    LedgerRow,
    Visited,
    genesis_fault,
    log_time_ms,
    walk_chain,
)
from tickhouse.audit.logs import LogCursor, chains_of_log, position_of
from tickhouse.audit.positions import Positions, Sources
from tickhouse.audit.recount import Recount, frame_of_row
from tickhouse.audit.report import Layer, Progress
from tickhouse.audit.spool import SpoolAudit
from tickhouse.bronze.object import Manifest, unpack
from tickhouse.errors import CorruptObjectError
from tickhouse.model.positions import ChainId, Stream, TopicPartition
from tickhouse.stream.log import Bounds, LogBatch
from tickhouse.stream.newest import batches, batches_by_spool
from tickhouse.warehouse.warehouse import WarehouseReader

NAMED_MAX: Final = 5
_ROWS: Final = """
select source, session_id, session_seq, cast(to_json(payload) as varchar),
    poison is not null, symbol
from bronze.{stream} where file = ? order by log_offset
"""


class _Pending:
    """Records of a chain that the ledger has not yet, and the age of the first."""

    def __init__(self, age_s: float | None) -> None:
        self.records = 0
        self.age_s = age_s


class LakeAudit:
    """Reads the lake once; every object is verified, compared with the ledger, and recounted.

    Args:
        sources: log, lake and warehouse.
        positions: not looked beyond.
        recount: where frames are counted; None: objects are hashed and not inflated.
        now_ms: wall clock, for ages.
        to_bronze: layer log → bronze.
        to_warehouse: layer bronze → warehouse.
        progress: told after each object.
        spools: told which records of a spool each object holds.
    """

    def __init__(  # noqa: PLR0913 - all by keyword
        self,
        *,
        sources: Sources,
        positions: Positions,
        recount: Recount | None,
        now_ms: int,
        to_bronze: Layer,
        to_warehouse: Layer,
        progress: Progress,
        spools: SpoolAudit,
    ) -> None:
        self._log = sources.log
        self._read = batches if sources.spool is None else batches_by_spool
        self._store = sources.store
        self._warehouse = sources.warehouse
        self._positions = positions
        self._recount = recount
        self._now_ms = now_ms
        self._bronze = to_bronze
        self._loaded = to_warehouse
        self._progress = progress
        self._spools = spools
        self._landed_in = chains_of_log(positions.log, positions.chains)
        self._pending: dict[ChainId, _Pending] = {}
        self._corrupt: set[str] = set()

    def run(self) -> None:
        """Every chain, then what the log has beyond."""
        cursors = self._log_cursors()
        ends: dict[ChainId, int] = {}
        for chain in self._positions.chains:
            ends[chain] = self._chain(chain, cursors.get(chain))
        for place, chain in self._landed_in.items():
            end = 0 if chain is None else ends[chain]
            cursor = None if chain is None else cursors[chain]
            self._beyond(place, chain, end, cursor or self._cursor(place))
        self._name_quarantined()

    def _log_cursors(self) -> dict[ChainId, LogCursor]:
        return {
            chain: self._cursor(place)
            for place, chain in self._landed_in.items()
            if chain is not None
        }

    def _cursor(self, place: TopicPartition) -> LogCursor:
        return LogCursor(self._log, place, self._positions.log[place][1], self._bronze)

    def _name_quarantined(self) -> None:
        """Objects that the loader set aside, unless they are named already."""
        if self._positions.loaded:
            for key, reason in self._warehouse.query("select file, reason from bronze.quarantine"):
                if key not in self._corrupt:
                    self._loaded.find("note", key, f"set aside by the loader: {reason}")

    # -- one chain ---------------------------------------------------------------------------

    def _chain(self, chain: ChainId, cursor: LogCursor | None) -> int:
        """Check one chain; returns where it ends."""
        if chain in self._positions.lake and (fault := genesis_fault(self._store, chain)):
            self._bronze.find("corrupt", chain.genesis_key, fault, 1)
        ledger = LedgerCursor(self._warehouse, chain, self._positions.loaded)
        end: int | None = 0
        for found in walk_chain(self._store, chain, self._positions.lake.get(chain)):
            missing = ledger.before(found.start)
            self._joint(chain, end, found, missing)
            rows = ledger.take(found.start)
            end = self._object(chain, found, rows, cursor)
        rest = ledger.before(None)
        loaded_end = self._positions.loaded_ends.get(chain, 0)
        if end is not None and end < loaded_end:
            self._spools.add_damage(chain)
            self._lost(chain, end, loaded_end, rest)
        self._recount_rows(chain, rest)
        if chain in self._pending:
            waiting = self._pending[chain]
            self._loaded.add_in_flight(chain.prefix, waiting.records, waiting.age_s)
        return loaded_end if end is None else max(end, loaded_end)

    def _joint(
        self, chain: ChainId, end: int | None, found: Visited, missing: list[LedgerRow]
    ) -> None:
        """Where an object begins, compared with where the one before it ends."""
        if end is not None and found.start > end:
            self._spools.add_damage(chain)
            self._lost(chain, end, found.start, missing)
        elif end is not None and found.start < end:
            text = f"begins at {found.start}; the object before it goes on to {end - 1}"
            self._bronze.find("duplicated", found.key, text, end - found.start)
        self._recount_rows(chain, missing)

    def _lost(self, chain: ChainId, start: int, end: int, missing: Sequence[LedgerRow]) -> None:
        names = ", ".join(row.file for row in missing[:NAMED_MAX]) or chain.key(start)
        more = f" and {len(missing) - NAMED_MAX} more" if len(missing) > NAMED_MAX else ""
        text = f"offsets {start}..{end - 1} are in no object; missing: {names}{more}"
        covered = sum(row.next - row.start for row in missing)
        records = sum(row.n for row in missing) if covered == end - start else end - start
        self._bronze.find("lost", chain.key(start), text, records)

    def _object(
        self, chain: ChainId, found: Visited, rows: list[LedgerRow], cursor: LogCursor | None
    ) -> int | None:
        """Check one object; returns its end, None where that is not known."""
        if len(rows) > 1:
            count = sum(row.n for row in rows[1:])
            self._loaded.find("duplicated", found.key, f"{len(rows)} ledger rows", count)
        if found.manifest is None:
            end = rows[0].next if rows else None
            upto = "" if end is None else f"..{end - 1}"
            text = f"offsets {found.start}{upto}: {found.fault}"
            self._found_corrupt(found.key, text)
            self._spools.add_damage(chain)
            self._recount_rows(chain, rows[:1])
            return end
        self._bronze.checked += found.manifest.n
        self._spools.add_object(chain, found.key, found.manifest)
        if found.manifest.gap:
            text = f"offsets {found.start}..{found.manifest.next - 1}: removed before landing"
            self._bronze.find("note", found.key, f"a recorded gap: {text}")
        self._compare_ledger(chain, found, found.manifest, rows)
        self._read_object(chain, found, rows, cursor)
        self._progress("bronze", self._bronze.checked, None)
        return found.manifest.next

    def _found_corrupt(self, key: str, text: str) -> None:
        self._corrupt.add(key)
        self._bronze.find("corrupt", key, text, 1)

    def _compare_ledger(
        self, chain: ChainId, found: Visited, manifest: Manifest, rows: list[LedgerRow]
    ) -> None:
        if rows:
            self._loaded.checked += manifest.n
            if difference := rows[0].difference(manifest):
                self._loaded.find("differs", found.key, difference)
        elif found.start < self._positions.loaded_ends.get(chain, 0):
            text = f"offsets {found.start}..{manifest.next - 1} are not in the ledger"
            self._loaded.find("lost", found.key, text, manifest.n)
        else:
            if chain not in self._pending:
                self._pending[chain] = _Pending(self._age_s(found))
            self._pending[chain].records += manifest.n

    # -- in flight ---------------------------------------------------------------------------

    def _age_s(self, found: Visited) -> float | None:
        try:
            at_ms = log_time_ms(unpack(found.body, found.key))
        except CorruptObjectError:
            at_ms = None
        return None if at_ms is None else (self._now_ms - at_ms) / 1000

    def _beyond(
        self, place: TopicPartition, chain: ChainId | None, end: int, cursor: LogCursor
    ) -> None:
        """What the log has that the lake has not."""
        bounds = self._positions.log[place][1]
        if bounds.end < end:
            text = f"the log ends at {bounds.end}, the lake at {end}: is it an older copy?"
            self._bronze.find("note", str(place), text)
            return
        walked = place if chain is None else chain
        if bounds.begin > end:
            self._spools.add_removed(walked)
        records, first_ms = self._see_rest(walked, bounds, cursor.rest(end, self._read))
        age_s = None if first_ms is None else max(0, self._now_ms - first_ms) / 1000
        self._bronze.add_in_flight(str(place), records, age_s)
        if bounds.begin > end and not self._spools.knows(walked):
            text = f"offsets {end}..{bounds.begin - 1}: removed from the log before landing"
            self._bronze.find("lost", str(place), text, bounds.begin - end)

    def _see_rest(
        self, walked: ChainId | TopicPartition, bounds: Bounds, batches: Iterable[LogBatch]
    ) -> tuple[int, int | None]:
        """Number of records that wait to be landed, and the log time of the first."""
        records, first_ms = 0, None
        for batch in batches:
            if not batch.values:
                continue
            first_ms = batch.log_times_ms[0] if first_ms is None else first_ms
            self._spools.add_batch(walked, batch)
            if self._recount is None and batch.spool is None:
                return records + bounds.end - batch.offsets[0], first_ms
            records += sum(offset < bounds.end for offset in batch.offsets)
            if self._recount is not None:
                self._recount.add_records(walked.stream, batch.values)
        return records, first_ms

    # -- reading the lines -------------------------------------------------------------------

    def _is_built(self, rows: Sequence[LedgerRow]) -> bool:
        return bool(rows) and rows[0].load_id <= self._positions.built

    def _read_object(
        self, chain: ChainId, found: Visited, rows: list[LedgerRow], cursor: LogCursor | None
    ) -> None:
        if self._recount is None or found.manifest is None or not found.manifest.n:
            return
        try:
            lines = unpack(found.body, found.key)[:-1].split(b"\n")
            self._check_lines(chain, found.key, found.manifest, lines, cursor)
        except CorruptObjectError as error:
            self._found_corrupt(found.key, error.reason)
            self._recount_rows(chain, rows[:1])
            return
        self._recount.add_lines(chain.stream, lines, is_built=self._is_built(rows))

    def _check_lines(
        self,
        chain: ChainId,
        key: str,
        manifest: Manifest,
        lines: Sequence[bytes],
        cursor: LogCursor | None,
    ) -> None:
        """Offsets rise within the object's range; what the log still holds is the same."""
        place = (chain.topic_id.encode(), chain.part)
        last = manifest.start - 1
        for number, line in enumerate(lines, 1):
            position = position_of(line)
            if position is None or (position.topic_id, position.part) != place:
                raise CorruptObjectError(key, f"line {number} is not at {chain.prefix}")
            if not last < position.offset < manifest.next:
                raise CorruptObjectError(
                    key, f"line {number}: offset {position.offset} after {last}"
                )
            last = position.offset
            if cursor is not None and not cursor.compare(last, line, position.begins):
                self._bronze.find("differs", key, f"offset {last} is not the log's record")
                cursor = None

    def _recount_rows(self, chain: ChainId, rows: Sequence[LedgerRow]) -> None:
        """Count frames from the warehouse's own rows: the lake's object is gone or corrupt."""
        if self._recount is None:
            return
        for row in rows:
            sql = _ROWS.format(stream=str(chain.stream))
            for cells in self._warehouse.query(sql, (row.file,)):
                self._recount.add(chain.stream, frame_of_row(cells), is_built=self._is_built([row]))


_COUNTS: Final = """
with ledger as (
    select file, cast(sum(n) as bigint) as n, min(start_offset) as first, max(next_offset) as next,
        min(topic_id) as topic_id, min(part) as part
    from bronze.load_ledger where stream = '{stream}' and load_id <= {loaded} group by file
),
counted as (
    select file, count(*) as n, count(distinct log_offset) as distinct_offsets,
        min(log_offset) as first, max(log_offset) as last,
        min(topic_id) as topic_id, max(topic_id) as topic_id_max,
        min(part) as part, max(part) as part_max
    from bronze.{stream} where load_id <= {loaded} group by file
)
select coalesce(l.file, c.file), coalesce(l.n, 0), coalesce(c.n, 0),
    coalesce(c.distinct_offsets, 0), c.first, c.last
from ledger as l full join counted as c on l.file = c.file
where coalesce(l.n, 0) <> coalesce(c.n, 0) or c.n <> c.distinct_offsets or c.first < l.first
    or c.last >= l.next or c.topic_id <> l.topic_id or c.topic_id_max <> l.topic_id
    or c.part <> l.part or c.part_max <> l.part
order by 1
"""


def audit_rows(warehouse: WarehouseReader, positions: Positions, layer: Layer) -> None:
    """Rows of each file equal its ledger row: their number, and each offset once."""
    if not positions.loaded:
        return
    for stream in Stream:
        sql = _COUNTS.format(stream=str(stream), loaded=positions.loaded)
        for file, expected, found, distinct, first, last in warehouse.query(sql):
            where = f"bronze.{stream} of {file}"
            layer.compare(where, "offsets", expected, distinct)
            if found > distinct:
                text = f"{found} rows hold {distinct} offsets"
                layer.find("duplicated", where, text, found - distinct)
            if found == distinct == expected:
                layer.find("differs", where, f"offsets {first}..{last} are not the ledger's")
        counted = warehouse.query(
            f"select count(*) from bronze.{stream} where load_id <= {positions.loaded}"  # noqa: S608
        )
        layer.sums[f"rows_{stream}"] = str(counted[0][0])
