"""Records as the lake holds them, found by position or by time without reading the rest."""

import heapq
from base64 import b64decode
from collections.abc import Iterator

import msgspec

from tickhouse.bronze.chain import Chain, find_chains
from tickhouse.bronze.object import unpack
from tickhouse.bronze.store import Store
from tickhouse.model.positions import ChainId, Stream


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


decode_line = msgspec.json.Decoder(Line).decode


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


def read_chain(store: Store, chain_id: ChainId, span: Span) -> Iterator[Line]:
    """Records of a chain within a span, in order of offset.

    Objects that their manifest says lie outside are not read.

    Raises:
        CorruptObjectError: an object is damaged; names the key.
    """
    chain = Chain(store, chain_id)
    for key, manifest in chain.walk(_first_start(store, chain_id, span)):
        if span.offset_to is not None and manifest.start > span.offset_to:
            return
        is_before = span.offset_from is not None and manifest.next <= span.offset_from
        if manifest.gap or is_before or not _may_hold(manifest.rx_min, manifest.rx_max, span):
            continue
        for text in unpack(store.get(key), key).splitlines():
            line = decode_line(text)
            if span.holds(line):
                yield line


def frames_by_receipt(store: Store, stream: Stream, span: Span) -> Iterator[tuple[Line, bytes]]:
    """Frames of a stream with their payloads, all partitions merged by receipt; no poison."""
    chains = [_frames(read_chain(store, chain, span)) for chain in chains_of(store, stream)]
    return heapq.merge(*chains, key=lambda frame: frame[0].rx)


def _frames(lines: Iterator[Line]) -> Iterator[tuple[Line, bytes]]:
    return ((line, payload_of(line)) for line in lines if line.poison_b64 is None)


def payload_of(line: Line) -> bytes:
    """The message of a frame, byte for byte; of poison, the record."""
    if line.text is not None:
        return line.text.encode()
    encoded = line.b64 if line.poison_b64 is None else line.poison_b64
    return b64decode(encoded) if encoded is not None else bytes(line.raw)


def _first_start(store: Store, chain_id: ChainId, span: Span) -> int:
    """Start of the object that holds the first offset looked for; names tell."""
    if span.offset_from is None:
        return 0
    names = (found.key.rpartition("/")[2] for found in store.list_objects(chain_id.prefix))
    starts = [int(name.partition(".")[0]) for name in names if name[:1].isdigit()]
    return max((start for start in starts if start <= span.offset_from), default=0)


def _may_hold(rx_min: int | None, rx_max: int | None, span: Span) -> bool:
    """Whether an object may hold receipts of the span; one of poison alone may."""
    if rx_min is None or rx_max is None:
        return True
    return (span.received_from is None or rx_max >= span.received_from) and (
        span.received_to is None or rx_min <= span.received_to
    )
