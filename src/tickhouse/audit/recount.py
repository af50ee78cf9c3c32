"""The recount: every frame of the lake read again in Python, with exact sums, in bounded memory."""

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

import msgspec

from tickhouse.audit.elements import read_elements
from tickhouse.audit.intervals import Intervals
from tickhouse.audit.quotes import QuoteTally
from tickhouse.audit.values import CONTEXT
from tickhouse.model.frame import Envelope, decode_envelope
from tickhouse.model.positions import Stream
from tickhouse.model.session import SESSION_SOURCE, Closed, Gap, Opened, decode_event

CARRIED: Final = (Stream.TRADES, Stream.QUOTES, Stream.REFERENCE)
"""Streams whose messages a session's `closed` counts."""


class _Line(msgspec.Struct, gc=False):
    """A bronze line; every field may be missing, so that any line of JSON decodes."""

    src: str = ""
    ses: str | None = None
    seq: int = 0
    sym: str | None = None
    raw: msgspec.Raw = msgspec.Raw()
    text: str | None = None
    b64: str | None = None
    poison_b64: str | None = None


_decode_line = msgspec.json.Decoder(_Line).decode


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame as audit reads it: `payload` is None where it is not JSON."""

    source: str
    session: str
    seq: int
    payload: bytes | None
    symbol: str | None = None


class Sums:
    """Exact totals of one symbol."""

    __slots__ = ("count", "dollars", "shares")

    def __init__(self) -> None:
        self.count = 0
        self.shares = Decimal(0)
        self.dollars = Decimal(0)

    def add(self, price: Decimal, size: Decimal) -> None:
        """Count one trade."""
        self.count += 1
        self.shares = CONTEXT.add(self.shares, size)
        self.dollars = CONTEXT.add(self.dollars, CONTEXT.multiply(price, size))


class StreamTrack:
    """Message numbers of one session in one stream."""

    def __init__(self) -> None:
        self.built = Intervals()
        self.seen = Intervals()
        self.refused = Intervals()


class SessionTrack:
    """Message numbers of one session by stream, and its own events."""

    def __init__(self) -> None:
        self.streams = {Stream.TRADES: StreamTrack()}
        self.opened: Opened | None = None
        self.closed: Closed | None = None

    def of(self, stream: Stream) -> StreamTrack:
        """The numbers of one stream."""
        return self.streams.setdefault(stream, StreamTrack())

    @property
    def built(self) -> Intervals:
        """Numbers of trades that silver has built."""
        return self.of(Stream.TRADES).built

    @property
    def seen(self) -> Intervals:
        """Numbers of trades that lake or log hold."""
        return self.of(Stream.TRADES).seen

    @property
    def refused(self) -> Intervals:
        """Numbers of trades that were refused by name."""
        return self.of(Stream.TRADES).refused


class Recount:
    """Totals over frames, each frame identity once.

    Frames whose object silver has built count in `trades` and `rejects`, or in `quotes`; every
    frame seen, in lake or log, counts in its session's track.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.repeated: Counter[Stream] = Counter()
        self.trades: dict[str, Sums] = {}
        self.rejects: Counter[str] = Counter()
        self.quotes = QuoteTally()
        self.sessions: dict[str, SessionTrack] = {}
        self._events: dict[str, Intervals] = {}

    def track(self, session: str) -> SessionTrack:
        """The track of a session."""
        track = self.sessions.get(session)
        if track is None:
            track = self.sessions[session] = SessionTrack()
        return track

    def add_lines(self, stream: Stream, lines: Iterable[bytes], *, is_built: bool) -> None:
        """Add the lines of a bronze object."""
        for line in lines:
            self.add(stream, read_line(line), is_built=is_built)

    def add_records(self, stream: Stream, values: Iterable[bytes]) -> None:
        """Add records of log or spool, which the lake has not yet."""
        for value in values:
            self.add(stream, frame_of(decode_envelope(value)), is_built=False)

    def add(self, stream: Stream, frame: Frame | None, *, is_built: bool) -> None:
        """Add one frame; None is a poison record."""
        self.frames += 1
        if frame is None:
            self._add_poison(stream, is_built=is_built)
        elif stream is Stream.SESSIONS:
            self._add_event(frame, is_built=is_built)
        elif self._is_first(stream, frame, is_built=is_built):
            if stream is Stream.TRADES:
                self._add_trades(frame)
            elif stream is Stream.QUOTES:
                self.quotes.add(frame.source.rpartition(":")[2], frame.symbol, frame.payload)

    def _add_poison(self, stream: Stream, *, is_built: bool) -> None:
        if is_built and stream is Stream.TRADES:
            self.rejects["poison_record"] += 1
        elif is_built and stream is Stream.QUOTES:
            self.quotes.rejects["poison_record"] += 1

    def _is_first(self, stream: Stream, frame: Frame, *, is_built: bool) -> bool:
        """Whether silver has built a frame that has not been counted yet."""
        track = self.track(frame.session).of(stream)
        if not is_built:
            track.seen.add(frame.seq)
            return False
        if not track.built.add(frame.seq):
            self.repeated[stream] += 1
            return False
        return True

    def _add_trades(self, frame: Frame) -> None:
        if frame.payload is None:
            self.rejects["not_json"] += 1
            return
        elements = read_elements(frame.source.rpartition(":")[2], frame.payload, frame.symbol)
        for symbol, price, size in elements.trades:
            sums = self.trades.get(symbol)
            if sums is None:
                sums = self.trades[symbol] = Sums()
            sums.add(price, size)
        for reason in elements.reasons:
            self.rejects[reason] += 1

    def _add_event(self, frame: Frame, *, is_built: bool) -> None:
        numbers = self._events.setdefault(frame.session, Intervals())
        if not numbers.add(frame.seq):
            self.repeated[Stream.SESSIONS] += is_built
            return
        if frame.source != SESSION_SOURCE or frame.payload is None:
            return
        try:
            event = decode_event(frame.payload)
        except msgspec.DecodeError:
            return
        track = self.track(frame.session)
        if isinstance(event, Opened):
            track.opened = event
        elif isinstance(event, Closed):
            track.closed = event
        elif isinstance(event, Gap):
            _add_gap(track, event)

    def finish(self) -> None:
        """Everything that was built was also seen."""
        for session in self.sessions.values():
            for track in session.streams.values():
                for start, end in track.built:
                    track.seen.add_range(start, end)


def _add_gap(track: SessionTrack, event: Gap) -> None:
    if event.stream in CARRIED and event.seq_from is not None and event.seq_to is not None:
        track.of(Stream(event.stream)).refused.add_range(event.seq_from, event.seq_to + 1)


def read_line(line: bytes) -> Frame | None:
    """The frame in a bronze line; None for a poison record, or a line that is none of ours."""
    try:
        found = _decode_line(line)
    except (msgspec.DecodeError, RecursionError):
        return None
    if found.poison_b64 is not None or found.ses is None:
        return None
    return Frame(found.src, found.ses, found.seq, _payload(found.raw), found.sym)


def _payload(raw: msgspec.Raw) -> bytes | None:
    """The JSON payload; bronze keeps a JSON null as no payload."""
    payload = bytes(raw)
    return payload if payload and payload != b"null" else None


def frame_of(envelope: Envelope | None) -> Frame | None:
    """The frame of a log record's envelope; None where the record is poison."""
    if envelope is None:
        return None
    return Frame(envelope.src, envelope.ses, envelope.seq, _payload(envelope.raw), envelope.sym)


def frame_of_row(row: tuple[Any, ...]) -> Frame | None:
    """The frame of a bronze row: source, session_id, session_seq, payload, is_poison, symbol."""
    source, session, seq, payload, is_poison, symbol = row
    if is_poison or session is None:
        return None
    return Frame(source, session, seq, None if payload is None else payload.encode(), symbol)
