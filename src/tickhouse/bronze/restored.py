"""Which chain a log continues: an older copy of a log, restored, must not go on in the newer chain.

A restored log gives out offsets again that the lake already holds, for other records. So before a
chain is continued, its last record is compared with the log's record at that offset. Where they
differ, or the log ends before the chain does, a new chain `<topic id>.<k>` takes everything that
the log holds; silver removes the repeats by frame identity. The choice follows from the lake and
the log alone, so that every lander makes the same one.
"""

import re
from collections.abc import Callable
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
from tickhouse.model.frame import splice_positions
from tickhouse.model.positions import ChainId, TopicPartition
from tickhouse.stream.log import LogReader
from tickhouse.telemetry import get_logger

_GENERATION: Final = re.compile(r"^(?P<id>.+)\.(?P<generation>[1-9][0-9]*)$")
_LINE: Final = re.compile(rb'\{"t":"[^"]*","p":\d+,"o":(\d+),')

_log = get_logger("land")


def choose_chain(log: LogReader, store: Store, partition: TopicPartition, topic_id: str) -> Chain:
    """The newest chain of this life of the log that agrees with it, or the next, still empty one.

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
        if _may_go_on(log, chain, partition, last[1]):
            return chain
        newest = max(newest, generation)
    return Chain(store, _chain_id(partition, topic_id, newest + 1))


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


def _may_go_on(log: LogReader, chain: Chain, partition: TopicPartition, last: Manifest) -> bool:
    """Whether the chain agrees with the log; a damaged object tells nothing against it."""
    try:
        return agrees(log, chain, partition, last)
    except CorruptObjectError as error:
        _log.error("last_object_damaged", error=str(error))
        return True


def agrees(log: LogReader, chain: Chain, partition: TopicPartition, manifest: Manifest) -> bool:
    """Whether the log holds, just below the end of one of the chain's objects, what was landed.

    The last record must be the same, and none may lie between it and the object's end. What the log
    has trimmed does not count.

    Raises:
        CorruptObjectError: the object to compare with is damaged.
        CorruptLogError: the record to compare with is damaged.
    """
    bounds = log.bounds(partition)
    if bounds.end < manifest.next:
        return False
    line = _last_line(chain, manifest)
    match = _LINE.match(line)
    offset = -1 if match is None else int(match[1])
    position = max(offset, bounds.begin)
    expected = {offset: line} if offset == position else {}
    return _records(log, chain, partition, position, manifest.next) in (expected, None)


def _last_line(chain: Chain, manifest: Manifest) -> bytes:
    """The last line at or before an object; empty where the chain holds no record up to there."""
    landed = manifest if manifest.n else chain.last_with_records(manifest.start)
    found = None if landed is None else chain.get(landed.start)
    if found is None:
        return b""
    return unpack(found[1], found[0]).rstrip(b"\n").rpartition(b"\n")[2]


def _records(
    log: LogReader, chain: Chain, partition: TopicPartition, start: int, end: int
) -> dict[int, bytes] | None:
    """Bronze lines of up to two records between two offsets; None where they are being trimmed."""
    lines: dict[int, bytes] = {}
    while start < end and len(lines) < 2:  # noqa: PLR2004 - one more than may be there
        batch = log.read(partition, start, bytes_max=1)
        if batch is None or batch.trimmed:
            return None
        below = [offset for offset in batch.offsets[:2] if offset < end]
        spliced = splice_positions(
            batch.values[: len(below)],
            topic_id=chain.id.topic_id,
            part=partition.part,
            offsets=below,
            log_times_ms=batch.log_times_ms[: len(below)],
        )
        lines.update(zip(below, spliced.lines, strict=True))
        start = batch.next
    return lines


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
        chain = choose_chain(log, store, partition, topic_id)
        found = chain.last()
        return (chain, found[1]) if found and agrees(log, chain, partition, found[1]) else None

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
