"""What the log holds of each shard, newest first: how a live feed finds what it missed."""

from collections.abc import Iterator
from typing import Final

from typing_extensions import override

from tickhouse.model.frame import Envelope, decode_envelope
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.model.session import SessionEvent
from tickhouse.source.feed import History
from tickhouse.stream.log import LogReader
from tickhouse.stream.session import events_backwards

STEP: Final = 512
"""Records read at once."""
BYTES: Final = 1 << 16
"""A read from the log takes little more than that, however much follows."""


class LogHistory(History):
    """The history in a log, read as it is asked for."""

    def __init__(self, log: LogReader) -> None:
        self._log = log

    @override
    def frames(self, stream: Stream, shard: int) -> Iterator[Envelope]:
        place = TopicPartition(stream, shard)
        bounds = self._log.bounds(place)
        offset = bounds.end
        while offset > bounds.begin:
            start = max(bounds.begin, offset - STEP)
            yield from self._backwards(place, start, offset)
            offset = start

    def _backwards(self, place: TopicPartition, start: int, end: int) -> Iterator[Envelope]:
        values: list[bytes] = []
        while start + len(values) < end:
            batch = self._log.read(place, start + len(values), bytes_max=BYTES)
            if batch is None or batch.values == []:
                break
            values += batch.values
        for value in reversed(values[: end - start]):
            envelope = decode_envelope(value)
            if envelope is not None:
                yield envelope

    @override
    def events(self, shard: int) -> Iterator[tuple[str, SessionEvent]]:
        return events_backwards(self._log, shard)
