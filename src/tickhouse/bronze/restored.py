"""Which chain a log continues: an older copy of a log, restored, must not go on in the newer chain.

A restored log gives out offsets again that the lake already holds, for other records. So before a
chain is continued, its last record is compared with the log's record at that offset. Where they
differ, or the log ends before the chain does, a new chain `<topic id>.<k>` takes everything that
the log holds; silver removes the repeats by frame identity.
"""

import re
from typing import Final

from tickhouse.bronze.chain import ROOT, Chain
from tickhouse.bronze.object import read_manifest, unpack
from tickhouse.bronze.store import Store
from tickhouse.model.frame import splice_positions
from tickhouse.model.positions import ChainId, TopicPartition
from tickhouse.stream.log import LogReader
from tickhouse.telemetry import get_logger

_GENERATION: Final = re.compile(r"^(?P<id>.+)\.(?P<generation>\d+)$")

_log = get_logger("land")


def choose_chain(log: LogReader, store: Store, partition: TopicPartition, topic_id: str) -> Chain:
    """The newest chain of this life of the log, or the next one if that does not agree with it."""
    generation = _newest_generation(store, partition, topic_id)
    chain = Chain(store, _chain_id(partition, topic_id, generation))
    if agrees(log, chain, partition, store):
        return chain
    successor = Chain(store, _chain_id(partition, topic_id, generation + 1))
    _log.error(
        "log_was_restored",
        partition=str(partition),
        reason="the log's records are not those that the lake holds at these offsets",
        chain=chain.id.prefix,
        new_chain=successor.id.prefix,
    )
    return successor


def _chain_id(partition: TopicPartition, topic_id: str, generation: int) -> ChainId:
    suffix = f".{generation}" if generation else ""
    return ChainId(partition.stream, partition.topic, topic_id + suffix, partition.part)


def _newest_generation(store: Store, partition: TopicPartition, topic_id: str) -> int:
    newest = 0
    for folder in store.folders(f"{ROOT}/{partition.stream}"):
        topic, _, life = folder.partition("~")
        match = _GENERATION.fullmatch(life)
        if topic == partition.topic and match is not None and match["id"] == topic_id:
            generation = int(match["generation"])
            prefix = _chain_id(partition, topic_id, generation).prefix
            if generation > newest and store.last(prefix) is not None:
                newest = generation
    return newest


def agrees(log: LogReader, chain: Chain, partition: TopicPartition, store: Store) -> bool:
    """Whether the chain's last record is the log's record at that offset."""
    tail = chain.tail()
    bounds = log.bounds(partition)
    if bounds.end < tail:
        return False
    key = chain.last_key()
    if key is None or bounds.begin >= tail:
        return True
    body = store.get(key)
    if read_manifest(body, key).n == 0:
        return True
    line = unpack(body, key).rstrip(b"\n").rpartition(b"\n")[2]
    return line == _line_at(log, chain, partition, _offset_of(line))


def _offset_of(line: bytes) -> int:
    """The offset in a bronze line, from its spliced prefix."""
    match = re.match(rb'\{"t":"[^"]*","p":\d+,"o":(\d+),', line)
    return -1 if match is None else int(match[1])


def _line_at(log: LogReader, chain: Chain, partition: TopicPartition, offset: int) -> bytes | None:
    batch = log.read(partition, offset, bytes_max=1) if offset >= 0 else None
    if batch is None or batch.trimmed:
        return None
    spliced = splice_positions(
        batch.values[:1],
        topic_id=chain.id.topic_id,
        part=partition.part,
        offsets=batch.offsets[:1],
        log_times_ms=batch.log_times_ms[:1],
    )
    return spliced.lines[0]
