"""Layer spool → log: what `record` acknowledged is in Kafka, or in the lake, or on its way.

Offsets of a log that a relay writes have holes: markers of transactions take some. But each record
came from a spool, whose offsets are dense, and objects and log batches tell which of them they
hold. So continuity is exact: of one spool, every offset once, whatever the log's offsets are.
"""

from bisect import bisect_left
from typing import Final

import msgspec

from tickhouse.audit.intervals import Intervals
from tickhouse.audit.logs import LogCursor, chains_of_log, read_batches
from tickhouse.audit.positions import Positions, Sources
from tickhouse.audit.recount import Recount
from tickhouse.audit.report import Layer
from tickhouse.bronze.object import Manifest
from tickhouse.model.positions import ChainId, Stream, TopicPartition
from tickhouse.stream.log import Bounds, LogBatch, LogReader, SpoolRange
from tickhouse.stream.newest import batches_by_spool

NAMED_MAX: Final = 20

Shard = tuple[Stream, int]


class _Last(msgspec.Struct):
    """Where a spool's records ended in a chain, and what the chain had met by then."""

    offset: int
    where: str
    gaps: int
    damaged: int
    foreign: int


class _Hole(msgspec.Struct, frozen=True):
    """Spool offsets `start .. end - 1` that lie between two neighbours of a chain, in neither."""

    start: int
    end: int
    before: str
    after: str


class _Spool:
    """Offsets of one spool's partition, wherever they were found.

    Attributes:
        held: in lake or log.
        in_gap: between neighbours of a gap object: retention removed them, and that is recorded.
        excused: told elsewhere (an object is missing or corrupt), or held by objects that hold
            foreign records as well.
        floor: lowest offset that has to be there; None: the lowest that was found.
        holes: for their names.
    """

    def __init__(self) -> None:
        self.held = Intervals()
        self.in_gap = Intervals()
        self.excused = Intervals()
        self.floor: int | None = None
        self.holes: list[_Hole] = []

    def missing(self) -> list[tuple[int, int]]:
        """Ranges below the greatest offset that are nowhere."""
        found = Intervals()
        for ranges in (self.held, self.in_gap, self.excused):
            for start, end in ranges:
                found.add_range(start, end)
        floor = self.held.begin if self.floor is None else self.floor
        holes = found.holes(self.held.end)
        return [(max(start, floor), end) for start, end in holes if end > floor]

    def name(self, start: int, end: int) -> str:
        """The neighbours of a range that is missing."""
        for hole in self.holes:
            if hole.start < end and start < hole.end:
                return f", between {hole.before} and {hole.after}"
        return ""


class _Walk:
    """One chain, walked from its begin and on into the log."""

    def __init__(self) -> None:
        self.last: dict[str, _Last] = {}
        self.held: dict[str, Intervals] = {}
        self.gaps = 0
        self.damaged = 0
        self.foreign = 0
        self.is_cut = False


class SpoolAudit:
    """Adds up which spool offsets lake, log and spool hold.

    Args:
        layer: where findings go.
        sources: its log tells the spool offsets of objects that do not.
        positions: what the log still holds. What was sent again behind records that its retention
            has removed is a repeat, not a mistake: the relay could not see them.
    """

    def __init__(self, layer: Layer, sources: Sources, positions: Positions) -> None:
        self.layer = layer
        self._log = None if sources.spool is None else sources.log
        landed_in = chains_of_log(positions.log, positions.chains)
        self._held = {
            chain: (place, positions.log[place][1].begin)
            for place, chain in landed_in.items()
            if chain is not None
        }
        self._spools: dict[tuple[Shard, str], _Spool] = {}
        self._walks: dict[ChainId | TopicPartition, _Walk] = {}
        self._repeats = 0
        self._foreign = 0

    @property
    def is_relayed(self) -> bool:
        """Whether a relay has written any of what was seen."""
        return any(walk.last for walk in self._walks.values())

    def knows(self, chain: ChainId | TopicPartition) -> bool:
        """Whether a chain's records tell their spool offsets."""
        return bool(self._walk(chain).last)

    def _walk(self, chain: ChainId | TopicPartition) -> _Walk:
        return self._walks.setdefault(chain, _Walk())

    def _spool(self, chain: ChainId | TopicPartition, epoch: str) -> _Spool:
        return self._spools.setdefault(((chain.stream, chain.part), epoch), _Spool())

    # -- a chain, and the log behind it ------------------------------------------------------

    def add_object(self, chain: ChainId, key: str, manifest: Manifest) -> None:
        """Add the next object of a chain."""
        walk = self._walk(chain)
        if manifest.gap:
            walk.gaps += 1
        elif manifest.spool is not None:
            self._add(chain, key, manifest.spool, manifest.n, manifest.start)
        elif manifest.n and not self._add_as_logged(chain, manifest):
            walk.foreign += manifest.n
            self._spool(chain, chain.topic_id).held.add_range(manifest.start, manifest.next)

    def _add_as_logged(self, chain: ChainId, manifest: Manifest) -> bool:
        """Add an object of records of several origins as the log tells them, if it still can."""
        place, begin = self._held.get(chain, (None, 0))
        if self._log is None or place is None or begin > manifest.start:
            return False
        for batch in batches_by_spool(self._log, place, manifest.start, manifest.next):
            self.add_batch(chain, _cut(batch, manifest.next))
        return True

    def add_damage(self, chain: ChainId) -> None:
        """An object is missing or corrupt here, and was told as such."""
        self._walk(chain).damaged += 1

    def add_removed(self, chain: ChainId | TopicPartition) -> None:
        """The log's retention removed offsets behind the chain: whether records, is to be seen."""
        self._walk(chain).is_cut = True

    def add_batch(self, chain: ChainId | TopicPartition, batch: LogBatch) -> None:
        """Add records of the log that the chain has not yet."""
        if batch.spool is not None and batch.values:
            where = f"{batch.partition}@{batch.offsets[0]}"
            self._add(chain, where, batch.spool, len(batch.values), batch.offsets[0])
        else:
            self._walk(chain).foreign += len(batch.values)

    def _add(
        self, chain: ChainId | TopicPartition, where: str, found: SpoolRange, n: int, at: int
    ) -> None:
        start, end = found.first, found.last + 1
        self.layer.checked += n
        if n != end - start:
            text = f"records of spool offsets {start}..{found.last}"
            self.layer.compare(where, text, end - start, n)
        walk, spool = self._walk(chain), self._spool(chain, found.epoch)
        self._join(walk, spool, found, where)
        held = walk.held.setdefault(found.epoch, Intervals())
        self._count_repeats(chain, held, found, where, at)
        self._repeats += spool.held.overlap(start, end) - held.overlap(start, end)
        held.add_range(start, end)
        spool.held.add_range(start, end)
        walk.last[found.epoch] = _Last(found.last, where, walk.gaps, walk.damaged, walk.foreign)

    @staticmethod
    def _join(walk: _Walk, spool: _Spool, found: SpoolRange, where: str) -> None:
        """What lies between a piece and the one before it."""
        last = walk.last.get(found.epoch)
        if last is None:
            if walk.gaps:
                spool.in_gap.add_range(0, found.first)
            elif walk.is_cut:
                spool.floor = 0
            return
        start, end = last.offset + 1, found.first
        if start >= end:
            return
        spool.holes.append(_Hole(start, end, last.where, where))
        if walk.damaged > last.damaged:
            spool.excused.add_range(start, end)
        elif walk.gaps > last.gaps:
            spool.in_gap.add_range(start, end)
        else:
            # An object that also holds foreign records does not tell its spool offsets.
            spool.excused.add_range(start, min(end, start + walk.foreign - last.foreign))

    def _count_repeats(
        self,
        chain: ChainId | TopicPartition,
        held: Intervals,
        found: SpoolRange,
        where: str,
        at: int,
    ) -> None:
        again = held.overlap(found.first, found.last + 1)
        if not again:
            return
        text = f"spool offsets {found.first}..{found.last}: {again} are in this chain already"
        _, begin = self._held.get(chain, (None, at)) if isinstance(chain, ChainId) else (None, 0)
        is_excused = begin >= at
        self.layer.find("note" if is_excused else "duplicated", where, text, again)
        self._repeats += again

    # -- the spool ---------------------------------------------------------------------------

    def add_spool(self, place: TopicPartition, epoch: str, bounds: Bounds) -> int:
        """Add what a spool holds; gives the offset from which on the log has nothing of it."""
        spool = self._spool(place, epoch)
        held = spool.held
        if not len(held):
            return bounds.begin
        spool.floor = min(held.begin if spool.floor is None else spool.floor, bounds.begin)
        if held.end < bounds.begin:
            text = f"spool offsets {held.end}..{bounds.begin - 1} were trimmed, and nobody has them"
            self.layer.find("lost", f"spool {place}", text, bounds.begin - held.end)
        return max(held.end, bounds.begin)

    def finish(self) -> None:
        """Tell what is missing of each spool."""
        for ((stream, part), epoch), spool in sorted(self._spools.items()):
            where = f"{stream}[{part}] of spool {epoch}"
            missing = spool.missing()
            for start, end in missing[:NAMED_MAX]:
                text = f"spool offsets {start}..{end - 1} are in neither log nor lake"
                self.layer.find("lost", where, text + spool.name(start, end), end - start)
            rest = sum(end - start for start, end in missing[NAMED_MAX:])
            if rest:
                text = f"{len(missing) - NAMED_MAX} more ranges are in neither log nor lake"
                self.layer.find("lost", where, text, rest)
            in_gap = len(spool.in_gap) - sum(
                spool.held.overlap(start, end) for start, end in spool.in_gap
            )
            if in_gap:
                self.layer.find("note", where, f"{in_gap} records lie in recorded gaps", in_gap)
        self.layer.sums["sent_again"] = str(self._repeats)
        foreign = sum(walk.foreign for walk in self._walks.values() if walk.last)
        self.layer.sums["foreign"] = str(foreign)
        if foreign:
            text = f"{foreign} records of a foreign producer, landed as they are"
            self.layer.find("note", "log", text, foreign)


def _cut(batch: LogBatch, end: int) -> LogBatch:
    """The records of a batch below an offset."""
    count = bisect_left(batch.offsets, end)
    if count == len(batch.values) or batch.spool is None:
        return batch
    last = batch.spool.first + count - 1
    return msgspec.structs.replace(
        batch,
        next=end,
        offsets=batch.offsets[:count],
        values=batch.values[:count],
        spool=msgspec.structs.replace(batch.spool, last=last),
    )


def audit_spool(
    sources: Sources,
    positions: Positions,
    spools: SpoolAudit,
    recount: Recount | None,
    *,
    now_ms: int,
) -> None:
    """What the spool holds and the log has not is on its way; what neither has nor lake, is lost.

    Frames that wait in the spool count as seen: their session's other stream may be ahead of them.
    """
    if sources.spool is None:
        spools.finish()
        return
    for place, (epoch, bounds) in positions.spool.items():
        start = spools.add_spool(place, epoch, bounds)
        first_ms: int | None = None
        for batch in read_batches(sources.spool, place, Bounds(start, bounds.end), spools.layer):
            if first_ms is None and batch.log_times_ms:
                first_ms = batch.log_times_ms[0]
            if recount is None:
                break
            recount.add_records(place.stream, batch.values)
        age_s = None if first_ms is None else max(0, now_ms - first_ms) / 1000
        spools.layer.add_in_flight(f"spool {place}", max(0, bounds.end - start), age_s)
        if recount is not None and place in positions.log:
            _compare(sources.log, sources.spool, place, positions, spools.layer)
    spools.finish()


def _compare(
    log: LogReader, spool: LogReader, place: TopicPartition, positions: Positions, layer: Layer
) -> None:
    """Every record that spool and log both hold is the same: an older copy of a spool is not."""
    epoch, bounds = positions.spool[place]
    cursor = LogCursor(spool, place, bounds, layer)
    held = positions.log[place][1]
    for batch in read_batches(log, place, held, layer, read=batches_by_spool):
        found = batch.spool
        if found is None or found.epoch != epoch or found.last - found.first >= len(batch.values):
            continue
        for offset, value in enumerate(batch.values, found.first):
            if not cursor.holds(offset, value):
                where = f"{place}@{batch.offsets[offset - found.first]}"
                layer.find("differs", where, f"is not what the spool holds at {offset}")
                return
