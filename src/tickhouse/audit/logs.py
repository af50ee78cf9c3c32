"""The records that the log still holds, beside the lines of the lake."""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from tickhouse.audit.report import Layer
from tickhouse.errors import CorruptLogError
from tickhouse.model.positions import ChainId, TopicPartition
from tickhouse.stream.log import Bounds, LogBatch, LogReader
from tickhouse.stream.newest import Batches, batches

_POSITION: Final = re.compile(rb'\{"t":"([^"]*)","p":(\d+),"o":(\d+),"lt":(\d+),')
_GENERATION: Final = re.compile(r"^(?P<id>.+?)(\.(?P<generation>\d+))?$")


class LinePosition(msgspec.Struct, frozen=True, gc=False):
    """The position in front of a bronze line, and where the record's own bytes begin."""

    topic_id: bytes
    part: int
    offset: int
    begins: int


def position_of(line: bytes) -> LinePosition | None:
    """The position that the lander put in front; None where there is none."""
    match = _POSITION.match(line)
    if match is None:
        return None
    return LinePosition(match[1], int(match[2]), int(match[3]), match.end())


def newest_chain(place: TopicPartition, topic_id: str, chains: Iterable[ChainId]) -> ChainId | None:
    """The chain that a partition of this life of the log is landed in.

    A log that was restored from an older copy goes on in a chain `<topic id>.<number>`.
    """
    found: dict[int, ChainId] = {}
    for chain in chains:
        match = _GENERATION.fullmatch(chain.topic_id)
        is_same = (chain.stream, chain.part) == (place.stream, place.part)
        if is_same and chain.topic_id == topic_id:
            found.setdefault(0, chain)
        elif is_same and match is not None and match["id"] == topic_id and match["generation"]:
            found[int(match["generation"])] = chain
    return found[max(found)] if found else None


def read_batches(
    log: LogReader,
    place: TopicPartition,
    bounds: Bounds,
    layer: Layer,
    *,
    read: Batches = batches,
) -> Iterator[LogBatch]:
    """Batches within bounds; damage is told to the layer and ends them."""
    try:
        yield from read(log, place, bounds.begin, bounds.end)
    except CorruptLogError as error:
        text = f"{error.reason}; offsets from {error.offset} on were not compared"
        layer.find("corrupt", f"{place}@{error.offset}", text, 1)


class LogCursor:
    """One partition of the log, read along with the chain that holds its records.

    Args:
        log: the log.
        place: which partition.
        bounds: the offsets held when positions were taken.
        layer: where damage and differences are reported.
    """

    def __init__(self, log: LogReader, place: TopicPartition, bounds: Bounds, layer: Layer) -> None:
        self._log = log
        self._place = place
        self._bounds = bounds
        self._layer = layer
        self._records: Iterator[tuple[int, int, bytes]] | None = None
        self._ahead: tuple[int, int, bytes] | None = None

    def _read(self, start: int) -> Iterator[tuple[int, int, bytes]]:
        """(offset, log time, record) from `start` to the end that was noted."""
        bounds = Bounds(start, self._bounds.end)
        for batch in read_batches(self._log, self._place, bounds, self._layer):
            for record in zip(batch.offsets, batch.log_times_ms, batch.values, strict=True):
                if record[0] < self._bounds.end:
                    yield record

    def compare(self, offset: int, line: bytes, begins: int) -> bool:
        """Whether the log's record at `offset` is what the lake's line holds; unknown is yes."""
        value = self._value(offset)
        held = line[begins:]
        return (
            value is None
            or held == value[1:]
            or held == b'"poison_b64":"%b"}' % base64.b64encode(value)
        )

    def holds(self, offset: int, value: bytes) -> bool:
        """Whether the log's record at `offset` is a value; unknown is yes."""
        return self._value(offset) in {None, value}

    def _value(self, offset: int) -> bytes | None:
        """The log's record; None where it holds none. Asked in order: earlier ones are passed."""
        if offset < self._bounds.begin:
            return None
        if self._records is None:
            self._records = self._read(offset)
            self._ahead = next(self._records, None)
        while self._ahead is not None and self._ahead[0] < offset:
            self._ahead = next(self._records, None)
        return self._ahead[2] if self._ahead is not None and self._ahead[0] == offset else None

    def rest(self, start: int, read: Batches) -> Iterator[LogBatch]:
        """What the log holds from `start` on, which the lake has not yet."""
        bounds = Bounds(max(start, self._bounds.begin), self._bounds.end)
        return read_batches(self._log, self._place, bounds, self._layer, read=read)


def chains_of_log(
    log: Mapping[TopicPartition, tuple[str, Bounds]], chains: Iterable[ChainId]
) -> dict[TopicPartition, ChainId | None]:
    """The chain of each partition of the log; None where nothing was landed yet."""
    known = list(chains)
    return {place: newest_chain(place, topic_id, known) for place, (topic_id, _) in log.items()}
