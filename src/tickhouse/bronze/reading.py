"""Records as the lake holds them, found by position or by time without reading the rest."""

import heapq
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from tickhouse.bronze.chain import find_chains, is_object
from tickhouse.bronze.object import HEAD_BYTES, read_manifest, unpack
from tickhouse.bronze.store import Store, get_many
from tickhouse.model.positions import ChainId, Stream

_BLANKS: Final = b" \t"
_RAW: Final = b'"raw":'


class Line(msgspec.Struct, frozen=True):
    """A bronze line: the position, and the envelope or the poison.

    Attributes:
        t, p, o, lt: topic id, partition, offset, log time (UNIX milliseconds UTC).
        src, ses, seq, rx, sym, raw, text, b64: see `Envelope`.
        poison_b64: a record that is no envelope.
    """

    t: str
    p: int
    o: int
    lt: int
    src: str = ""
    ses: str = ""
    seq: int = -1
    rx: int = 0
    sym: str | None = None
    raw: msgspec.Raw = msgspec.Raw()
    text: str | None = None
    b64: str | None = None
    poison_b64: str | None = None


_decode = msgspec.json.Decoder(Line).decode


def read_line(text: bytes) -> Line:
    """A bronze line, its payload byte for byte (a JSON parser leaves out the blanks around it)."""
    line = _decode(text)
    begin = text.find(_RAW) + len(_RAW)
    if text[begin : begin + 1] in _BLANKS or text[-2:-1] in _BLANKS:
        payload = text[begin:-1]
        if payload.strip(_BLANKS) == bytes(line.raw):
            return msgspec.structs.replace(line, raw=msgspec.Raw(payload))
    return line


class Span(msgspec.Struct, frozen=True):
    """What is looked for; bounds are inclusive, None = open.

    Attributes:
        offset_from, offset_to: log offsets.
        received_from, received_to: receipts, UNIX nanoseconds UTC.
    """

    offset_from: int | None = None
    offset_to: int | None = None
    received_from: int | None = None
    received_to: int | None = None

    @property
    def is_of_time(self) -> bool:
        """Whether receipts count."""
        return self.received_from is not None or self.received_to is not None

    def holds(self, line: Line) -> bool:
        """Whether a record lies within; poison has no receipt, so its log time counts."""
        at = line.rx or line.lt * 1_000_000
        return (
            (self.offset_from is None or line.o >= self.offset_from)
            and (self.offset_to is None or line.o <= self.offset_to)
            and (self.received_from is None or at >= self.received_from)
            and (self.received_to is None or at <= self.received_to)
        )


def chains_of(store: Store, stream: Stream, part: int | None = None) -> list[ChainId]:
    """A stream's chains, one partition's or all."""
    return [
        chain
        for chain in find_chains(store)
        if chain.stream is stream and part in {None, chain.part}
    ]


def read_chain(store: Store, chain: ChainId, span: Span) -> Iterator[Line]:
    """Records of a chain within a span, in order of offset.

    Objects that lie outside by their name or manifest are not read. Those there are now are read,
    whether or not they join: what is missing is for the audit to tell.

    Raises:
        CorruptObjectError: an object is damaged; names the key.
    """
    return _read_objects(store, _keys_within(store, chain, span), span)


def _keys_within(store: Store, chain: ChainId, span: Span) -> list[str]:
    """Keys of the objects that may hold offsets of the span; names tell."""
    keys = [found.key for found in store.list_objects(chain.prefix) if is_object(found.key)]
    followers = [*keys[1:], None][: len(keys)]
    first = "" if span.offset_from is None else chain.key(span.offset_from)
    last = None if span.offset_to is None else chain.key(span.offset_to)
    return [
        key
        for key, follower in zip(keys, followers, strict=True)
        if (follower is None or follower > first) and (last is None or key <= last)
    ]


def _read_objects(store: Store, keys: Sequence[str], span: Span) -> Iterator[Line]:
    for key, body in _bodies(store, keys, span):
        for text in unpack(body, key).splitlines():
            line = read_line(text)
            if span.holds(line):
                yield line


def _bodies(store: Store, keys: Sequence[str], span: Span) -> Iterator[tuple[str, bytes]]:
    """Objects that may hold what is looked for; of a time, only after a look at their heads."""
    if not span.is_of_time:
        return zip(keys, get_many(store, keys), strict=True)
    return ((key, store.get(key)) for key in keys if _may_hold(store, key, span))


def _may_hold(store: Store, key: str, span: Span) -> bool:
    """Whether an object may hold receipts of the span; one of poison alone may."""
    manifest = read_manifest(store.get_head(key, HEAD_BYTES), key)
    if manifest.rx_min is None or manifest.rx_max is None:
        return manifest.n > 0
    return (span.received_from is None or manifest.rx_max >= span.received_from) and (
        span.received_to is None or manifest.rx_min <= span.received_to
    )


def frames_by_receipt(
    store: Store, streams: Sequence[Stream], span: Span
) -> Iterator[tuple[Stream, Line]]:
    """Frames of some streams, all partitions merged by receipt; no poison, and none twice.

    A log that was restored from an older copy has its records in two chains; they are repeats.
    """
    chains = [chain for stream in streams for chain in chains_of(store, stream)]
    lives = Counter((chain.stream, chain.part) for chain in chains)
    merged = heapq.merge(
        *(_frames_of(chain, read_chain(store, chain, span)) for chain in chains),
        key=lambda frame: frame[1].rx,
    )
    seen: dict[tuple[Stream, str], Numbers] = {}
    for chain, line in merged:
        if lives[chain.stream, chain.part] > 1:
            numbers = seen.setdefault((chain.stream, line.ses), Numbers())
            if not numbers.add(line.seq):
                continue
        yield chain.stream, line


def _frames_of(chain: ChainId, lines: Iterator[Line]) -> Iterator[tuple[ChainId, Line]]:
    return ((chain, line) for line in lines if line.poison_b64 is None)


class Numbers:
    """Numbers seen, as ranges: as few as there are holes."""

    def __init__(self) -> None:
        self._ranges: list[list[int]] = []

    def add(self, number: int) -> bool:
        """Note a number; False where it was there."""
        if any(first <= number <= last for first, last in self._ranges):
            return False
        for found in self._ranges:
            if number == found[1] + 1:
                found[1] = number
                return True
        self._ranges.append([number, number])
        return True


def payload_of(line: Line) -> bytes:
    """The message of a frame, byte for byte; of poison, the record."""
    if line.text is not None:
        return line.text.encode()
    encoded = line.b64 if line.poison_b64 is None else line.poison_b64
    return b64decode(encoded) if encoded is not None else bytes(line.raw)
