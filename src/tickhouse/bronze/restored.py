"""Which chain a log continues: an older copy of a log, restored, must not go on in the newer chain.

A restored log gives out offsets again that the lake already holds, for other records. So before a
chain is continued, its last record is compared with the log's record at that offset. Where they
differ, or the log ends before the chain does, a new chain `<topic id>.<k>` takes everything that
the log holds; silver removes the repeats by frame identity. The choice follows from the lake and
the log alone, so that every lander makes the same one.
"""

import base64
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final

from tickhouse.bronze.chain import ROOT, Chain
from tickhouse.bronze.object import Manifest, unpack
from tickhouse.bronze.store import Store
from tickhouse.errors import (
    CorruptError,
    CorruptObjectError,
    ObjectMissingError,
    RefusedError,
    TransientError,
)
from tickhouse.model.positions import ChainId, TopicPartition
from tickhouse.stream.log import LogReader
from tickhouse.telemetry import get_logger

_GENERATION: Final = re.compile(r"^(?P<id>.+)\.(?P<generation>[1-9][0-9]*)$")
_LINE: Final = re.compile(rb'\{"t":"[^"]*","p":\d+,"o":(?P<offset>\d+),"lt":(?P<at>\d+),')
_POISON, _POISON_END = b'"poison_b64":"', b'"}'

Record = tuple[int, bytes]
"""A log record: its log time in milliseconds, and its value."""

_log = get_logger("land")


def choose_end(
    log: LogReader,
    store: Store,
    partition: TopicPartition,
    topic_id: str,
    *,
    is_cut: bool = False,
) -> tuple[Chain, Manifest | None]:
    """The newest chain of this life of the log that agrees with it, or the next, still empty one.

    Args:
        log: what is landed.
        store: where it is landed.
        partition: which partition of the log.
        topic_id: its life.
        is_cut: whether the log says that it has lost its tail, see `agrees`.

    Returns:
        The chain, and the manifest of its last object, if it has any.

    Raises:
        CorruptObjectError: a chain's last manifest cannot be read.
        CorruptLogError: the log's record to compare with is damaged.
    """
    newest = -1
    for generation in _generations(store, partition, topic_id):
        chain = Chain(store, _chain_id(partition, topic_id, generation))
        last = chain.last()
        if last is None:
            continue
        if _may_go_on(log, chain, partition, last[1], is_cut=is_cut):
            return chain, last[1]
        newest = max(newest, generation)
    return Chain(store, _chain_id(partition, topic_id, newest + 1)), None


def _chain_id(partition: TopicPartition, topic_id: str, generation: int) -> ChainId:
    suffix = f".{generation}" if generation else ""
    return ChainId(partition.stream, partition.topic, topic_id + suffix, partition.part)


def _generations(store: Store, partition: TopicPartition, topic_id: str) -> list[int]:
    """Chains that this life of the log may have opened, newest first."""
    found = {0}
    for folder in store.folders(f"{ROOT}/{partition.stream}"):
        topic, _, life = folder.partition("~")
        match = _GENERATION.fullmatch(life)
        if topic == partition.topic and match is not None and match["id"] == topic_id:
            found.add(int(match["generation"]))
    return sorted(found, reverse=True)


def _may_go_on(
    log: LogReader, chain: Chain, partition: TopicPartition, last: Manifest, *, is_cut: bool
) -> bool:
    """Whether the chain agrees with the log; a damaged object tells nothing against it."""
    try:
        return agrees(log, chain, partition, last, is_cut=is_cut)
    except CorruptObjectError as error:
        _log.error("last_object_damaged", error=str(error))
        return True


def agrees(
    log: LogReader,
    chain: Chain,
    partition: TopicPartition,
    manifest: Manifest,
    *,
    is_cut: bool = False,
) -> bool:
    """Whether the log holds, just below the end of one of the chain's objects, what was landed.

    The last record must be the same, and none may lie between it and the object's end. It must have
    been written under the same leader: a tail that was lost and sent again may hold it at the same
    offset, but others before it. What the log has trimmed does not count, unless it says that it
    `is_cut`: that it has lost records below the chain's end.

    Raises:
        CorruptObjectError: the object to compare with is damaged.
        CorruptLogError: the record to compare with is damaged.
    """
    bounds = log.bounds(partition)
    if bounds.end < manifest.next:
        return False
    landed = manifest if manifest.n else chain.last_with_records(manifest.start)
    line = b"" if landed is None else _last_line(chain, landed)
    offset, record = read_position(line) or (-1, None)
    position = max(offset, bounds.begin)
    if offset != position or landed is None:
        return not is_cut and _records(log, partition, position, manifest.next) in ({}, None)
    found = _records(log, partition, position, manifest.next, leader_epoch=landed.leader_epoch)
    return found == {offset: record} or (found is None and not is_cut)


def _last_line(chain: Chain, manifest: Manifest) -> bytes:
    """The last line of an object that holds records; empty where it is gone."""
    found = chain.get(manifest.start)
    if found is None:
        return b""
    return unpack(found[1], found[0]).rstrip(b"\n").rpartition(b"\n")[2]


def read_position(line: bytes) -> tuple[int, Record] | None:
    """Offset and record that a bronze line was made of; None where it is no such line."""
    match = _LINE.match(line)
    if match is None:
        return None
    at_ms, rest = int(match["at"]), line[match.end() :]
    if not rest.startswith(_POISON):
        return int(match["offset"]), (at_ms, b"{" + rest)
    try:
        value = base64.b64decode(rest[len(_POISON) : -len(_POISON_END)])
    except ValueError:
        return None
    return int(match["offset"]), (at_ms, value)


def _records(
    log: LogReader,
    partition: TopicPartition,
    start: int,
    end: int,
    *,
    leader_epoch: int | None = None,
) -> dict[int, Record] | None:
    """Up to two records between two offsets; None where none can be had: they are being trimmed.

    There are none if the first was written under another leader epoch than one that is given.
    """
    records: dict[int, Record] = {}
    while start < end and len(records) < 2:  # noqa: PLR2004 - one more than may be there
        batch = log.read(partition, start, bytes_max=1)
        if batch is None or batch.trimmed:
            return records or None
        if not records and len({leader_epoch, batch.leader_epoch} - {None}) > 1:
            return {}
        found = zip(batch.log_times_ms[:2], batch.values[:2], strict=True)
        records.update(
            (offset, record)
            for offset, record in zip(batch.offsets[:2], found, strict=True)
            if offset < end
        )
        start = batch.next
    return records


def holds_records(log: LogReader, partition: TopicPartition, start: int, end: int) -> bool:
    """Whether the log holds a record in `start .. end`, and not only markers of transactions.

    A chain whose tail is `start` is level with a log that ends at `end` if there is none: markers
    alone are not landed at once.

    Raises:
        CorruptLogError: a stored batch is damaged.
    """
    while start < end:
        batch = log.read(partition, start, bytes_max=1)
        if batch is None:
            return False
        if batch.trimmed or (len(batch.offsets) and batch.offsets[0] < end):
            return True
        start = batch.next
    return False


def count_foreign(
    log: LogReader, partition: TopicPartition, records: Sequence[tuple[int, Record]]
) -> int:
    """How many records, the first of some read from a partition, are not what it holds there now.

    A topic that was deleted and made again is read on as if nothing had happened. So the first
    records are of the old topic, and from some offset on all are of the new one.
    """
    if not records or not _is_held(log, partition, *records[-1]):
        return len(records)
    return bisect_left(records, True, key=lambda found: _is_held(log, partition, *found))


def _is_held(log: LogReader, partition: TopicPartition, offset: int, record: Record) -> bool:
    held = _records(log, partition, offset, offset + 1)
    return held is not None and held.get(offset) == record


def held_offsets(log: LogReader, store: Store) -> Callable[[TopicPartition], int]:
    """Tells below which offset of a partition the lake holds everything (for retention).

    Goes on from what it found the time before, so that asking costs what was landed since. Where
    the lake cannot tell, it holds nothing: nothing is trimmed on a guess.
    """
    known: dict[tuple[TopicPartition, str], tuple[Chain, Manifest]] = {}

    def find(partition: TopicPartition, topic_id: str) -> tuple[Chain, Manifest] | None:
        chain, last = known.pop((partition, topic_id), (None, None))
        if chain is not None and last is not None:
            last = chain.follow(last)
            if last is not None and agrees(log, chain, partition, last):
                return chain, last
        chain, last = choose_end(log, store, partition, topic_id)
        return (chain, last) if last and agrees(log, chain, partition, last) else None

    def held(partition: TopicPartition) -> int:
        topic_id = log.topic_id(partition)
        try:
            found = find(partition, topic_id)
        except (TransientError, RefusedError, CorruptError, ObjectMissingError) as error:
            _log.warning("lake_not_readable", partition=str(partition), error=str(error))
            return 0
        if found is None:
            return 0
        known[partition, topic_id] = found
        return found[1].next

    return held
