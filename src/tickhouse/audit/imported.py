"""The proof of an import: what was listed is in the log once, and its frames are there whole."""

from base64 import b64decode
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec

from tickhouse.model.frame import Envelope, decode_envelope
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.model.session import Imported
from tickhouse.source.importing.book import ImportBook
from tickhouse.source.importing.messages import measure
from tickhouse.stream.log import LogReader
from tickhouse.stream.session import events_backwards

PROBLEMS_MAX: Final = 100
STREAMS: Final = (Stream.TRADES, Stream.QUOTES)


class ImportProof(msgspec.Struct):
    """What the log holds of a place.

    Attributes:
        objects: named by the log's events.
        frames, bytes: of these, as read from the log again.
        trimmed: frames that retention has removed from the log, which the lake holds.
        problems: what is missing, doubled or differs; empty = proved.
    """

    objects: int = 0
    frames: int = 0
    bytes: int = 0
    trimmed: int = 0
    problems: list[str] = []

    def add(self, problem: str) -> None:
        """Add a problem."""
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)


class _Range(msgspec.Struct):
    """The frames of one event in one stream: as told, and as found."""

    first: int
    count: int
    bytes: int
    keys: str
    found: int = 0
    found_bytes: int = 0


_Ranges = dict[str, list[_Range]]


def prove_import(
    log: LogReader, book: ImportBook, *, place: str, shard: int, is_whole: bool
) -> ImportProof:
    """Read back what imports of a place have written.

    Args:
        log: where it is.
        book: what this run listed; what the log holds is noted in it anew.
        place: see `Imported.place`.
        shard: of imports.
        is_whole: the run came to its end, so that what it listed must be there.
    """
    proof = ImportProof()
    ranges: dict[Stream, _Ranges] = {stream: {} for stream in STREAMS}
    book.forget_imported()
    for session, event in events_backwards(log, shard):
        if isinstance(event, Imported) and event.place == place:
            proof.objects += len(event.objects)
            for key in book.note(event.objects):
                proof.add(f"{key}: imported twice")
            for stream in STREAMS:
                ranges[stream].setdefault(session, []).append(_range(event, stream))
    if is_whole:
        for key in islice(book.missing(), PROBLEMS_MAX):
            proof.add(f"{key}: not in the log")
    for stream, told in ranges.items():
        for each in told.values():
            each.reverse()
        _read_frames(log, TopicPartition(stream, shard), told, proof)
    return proof


def _range(event: Imported, stream: Stream) -> _Range:
    is_trades = stream is Stream.TRADES
    count = sum(each.trades if is_trades else each.quotes for each in event.objects)
    keys = f"{event.objects[0].key} to {event.objects[-1].key}"
    return _Range(event.first[stream], count, event.bytes[stream], keys)


def _read_frames(log: LogReader, place: TopicPartition, told: _Ranges, proof: ImportProof) -> None:
    """Count the frames in a partition against what events told, oldest first."""
    last: dict[str, int] = {}
    for envelope in _envelopes(log, place):
        ranges = told.get(envelope.ses)
        if ranges is None:
            continue
        if envelope.seq <= last.get(envelope.ses, -1):
            proof.add(f"{place}: frame {envelope.seq} of session {envelope.ses} comes twice")
            continue
        last[envelope.ses] = envelope.seq
        at = bisect_right(ranges, envelope.seq, key=lambda each: each.first) - 1
        ranges[at].found += 1
        ranges[at].found_bytes += measure(_payload(envelope))
    is_held = log.bounds(place).begin == 0
    for ranges in reversed(told.values()):  # in the order of the log
        for each in ranges:
            is_held = _judge(each, proof, is_held=is_held)


def _judge(told: _Range, proof: ImportProof, *, is_held: bool) -> bool:
    """Compare; whether the log holds what follows: retention removes from the beginning."""
    proof.frames += told.found
    proof.bytes += told.found_bytes
    if not told.count:
        return is_held
    if told.found < told.count and not is_held:
        proof.trimmed += told.count - told.found
        return told.found > 0
    if told.found != told.count:
        proof.add(f"{told.keys}: {told.found} of {told.count} frames are in the log")
    elif told.found_bytes != told.bytes:
        proof.add(f"{told.keys}: {told.found_bytes} bytes in the log, {told.bytes} were read")
    return True


def _envelopes(log: LogReader, place: TopicPartition) -> Iterator[Envelope]:
    position = log.bounds(place).begin
    while (batch := log.read(place, position)) is not None:
        for value in batch.values:
            envelope = decode_envelope(value)
            if envelope is not None:
                yield envelope
        position = batch.next


def _payload(envelope: Envelope) -> bytes:
    if envelope.text is not None:
        return envelope.text.encode()
    return bytes(envelope.raw) if envelope.b64 is None else b64decode(envelope.b64)
