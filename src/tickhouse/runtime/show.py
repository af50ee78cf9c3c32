"""`show`: frames as log or lake hold them, by position, session or time of receipt."""

import argparse
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

import msgspec

from tickhouse.bronze.chain import Chain
from tickhouse.bronze.reading import Line, Span, chains_of, payload_of, read_chain, read_line
from tickhouse.bronze.store import Store
from tickhouse.errors import ConfigError
from tickhouse.model.frame import splice_positions
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.model.session import Closed, decode_event
from tickhouse.model.units import NANOS_PER_MICRO, read_moment
from tickhouse.runtime import backends
from tickhouse.runtime.result import EXIT_OK, EXIT_PROBLEM, VerbResult
from tickhouse.settings import Settings
from tickhouse.stream.log import LogReader

SHORT_SESSION: Final = 8
SESSION_CHARS: Final = 36
"""Length of a whole session id."""
SLACK_NS: Final = 10**9
COLUMNS_MIN: Final = 80
SCREEN: Final = (160, 24)
"""Where there is no terminal."""


class Wanted(msgspec.Struct, frozen=True):
    """What is to be shown."""

    stream: Stream
    part: int | None
    span: Span
    session: str | None
    seq: int | None
    limit: int

    @property
    def is_open(self) -> bool:
        """Whether nothing is asked for in particular: then the newest are shown."""
        return self.span == Span() and self.session is None and self.seq is None

    def holds(self, line: Line) -> bool:
        """Whether a record is to be shown."""
        return (
            self.span.holds(line)
            and (self.session is None or line.ses.startswith(self.session))
            and (self.seq is None or line.seq == self.seq)
        )

    def some(self, lines: Iterator[Line]) -> list[Line]:
        """The first of the range, or the newest where there is none."""
        found = filter(self.holds, lines)
        return list(deque(found, self.limit) if self.is_open else islice(found, self.enough))

    @property
    def enough(self) -> int:
        """How many to look for: a number comes once in a session."""
        is_one = self.seq is not None and len(self.session or "") == SESSION_CHARS
        return 1 if is_one else self.limit


def show(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Print frames; code 1 where nothing is found, with what is there."""
    wanted = _read(arguments)
    if arguments.place == "log":
        log = backends.open_log_reader(settings)
        try:
            lines, there = _of_log(log, wanted)
        finally:
            log.close()
    else:
        lines, there = _of_lake(backends.open_store(settings), wanted)
    content = {
        "ok": bool(lines),
        "place": arguments.place,
        "stream": wanted.stream,
        "there": there,
        "frames": [_facts(line) for line in lines],
    }
    width = None if arguments.full else max(COLUMNS_MIN, shutil.get_terminal_size(SCREEN).columns)
    text = "\n".join(_row(line, width) for line in lines)
    if not lines:
        text = f"no such frame in {wanted.stream} of the {arguments.place}; there: {_say(there)}"
    return VerbResult(EXIT_OK if lines else EXIT_PROBLEM, content, text)


def _read(arguments: argparse.Namespace) -> Wanted:
    return Wanted(
        stream=Stream(arguments.stream),
        part=arguments.part,
        span=Span(
            arguments.from_offset if arguments.at is None else arguments.at,
            arguments.to_offset if arguments.at is None else arguments.at,
            moment("--from", arguments.from_time),
            moment("--to", arguments.to_time),
        ),
        session=arguments.session,
        seq=arguments.seq,
        limit=max(1, arguments.limit),
    )


def moment(flag: str, text: str | None) -> int | None:
    """A flag's time as UNIX nanoseconds UTC; `--to` includes its microsecond.

    Raises:
        ConfigError: it is no moment.
    """
    if text is None:
        return None
    try:
        return read_moment(text) + (NANOS_PER_MICRO - 1 if flag == "--to" else 0)
    except ValueError:
        raise ConfigError(f"{flag} {text!r}: give a moment such as 2026-03-02T14:30:00Z") from None


# -- the log ---------------------------------------------------------------------------------


def _of_log(log: LogReader, wanted: Wanted) -> tuple[list[Line], dict[str, list[int]]]:
    places = [
        place
        for place in log.partitions()
        if place.stream is wanted.stream and wanted.part in {None, place.part}
    ]
    there = {str(place): [log.bounds(place).begin, log.bounds(place).end] for place in places}
    lines: list[Line] = []
    for place in places:
        begin, end = there[str(place)]
        if wanted.is_open:
            lines += _newest(lambda span, at=place: _read_log(log, at, span), begin, end, wanted)
        else:
            lines += wanted.some(_read_log(log, place, wanted.span))
    return _limited(lines, wanted), there


def _newest(
    read: Callable[[Span], Iterator[Line]], begin: int, end: int, wanted: Wanted
) -> list[Line]:
    """The newest records; looks back further where offsets hold none."""
    reach = wanted.limit
    while True:
        start = max(begin, end - reach)
        lines = wanted.some(read(Span(offset_from=start)))
        if len(lines) >= wanted.limit or start <= begin:
            return lines
        reach *= 4


def _read_log(log: LogReader, place: TopicPartition, span: Span) -> Iterator[Line]:
    bounds = log.bounds(place)
    position = max(bounds.begin, span.offset_from or 0)
    last = bounds.end - 1 if span.offset_to is None else span.offset_to
    while position <= last and (batch := log.read(place, position)) is not None:
        texts = splice_positions(
            batch.values,
            topic_id=batch.topic_id,
            part=place.part,
            offsets=batch.offsets,
            log_times_ms=batch.log_times_ms,
        )
        yield from map(read_line, texts.lines)
        position = batch.next


# -- the lake --------------------------------------------------------------------------------


def _of_lake(store: Store, wanted: Wanted) -> tuple[list[Line], dict[str, list[int]]]:
    chains = chains_of(store, wanted.stream, wanted.part)
    there = {chain.prefix: [0, Chain(store, chain).tail()] for chain in chains}
    lines: list[Line] = []
    if wanted.session is not None and (found := _find_session(store, wanted.session)) is not None:
        part, span = found
        for chain in chains_of(store, wanted.stream, part):
            lines += wanted.some(read_chain(store, chain, _narrowed(wanted.span, span)))
    for chain in chains if not lines else []:
        span = wanted.span
        if wanted.is_open:
            begin, end = there[chain.prefix]
            lines += _newest(lambda near, at=chain: read_chain(store, at, near), begin, end, wanted)
            continue
        if wanted.session is not None:
            span = _narrowed(span, Span(received_from=_began(wanted.session)))
        lines += wanted.some(read_chain(store, chain, span))
    return _limited(lines, wanted), there


def _find_session(store: Store, session: str) -> tuple[int, Span] | None:
    """Partition and time of a session, by its events; None where they do not tell."""
    if len(session) != SESSION_CHARS:
        return None
    for chain in chains_of(store, Stream.SESSIONS):
        began: int | None = None
        for line in read_chain(store, chain, Span(received_from=_began(session))):
            if line.ses == session:
                began = line.rx if began is None else began
            if began is not None and (line.ses != session or _is_end(line)):
                return chain.part, Span(
                    received_from=began - SLACK_NS, received_to=line.rx + SLACK_NS
                )
        if began is not None:
            return chain.part, Span(received_from=began - SLACK_NS)
    return None


def _is_end(line: Line) -> bool:
    return line.poison_b64 is None and isinstance(decode_event(line.raw), Closed)


def _narrowed(span: Span, other: Span) -> Span:
    """A span with the other's receipts, where it has none of its own."""
    return msgspec.structs.replace(
        span,
        received_from=other.received_from if span.received_from is None else span.received_from,
        received_to=other.received_to if span.received_to is None else span.received_to,
    )


def _began(session: str) -> int | None:
    """When a session was made: a UUIDv7 begins with its time; None where too little is given."""
    digits = session.replace("-", "")[:12]
    if len(digits) < 12:  # noqa: PLR2004 - 48 bits of milliseconds
        return None
    try:
        return (int(digits, 16) - 1000) * 1_000_000
    except ValueError:
        return None


# -- as text ---------------------------------------------------------------------------------


def _limited(lines: list[Line], wanted: Wanted) -> list[Line]:
    """Those of all partitions in order of receipt."""
    lines.sort(key=lambda line: (line.rx or line.lt * 1_000_000, line.p, line.o))
    return lines[-wanted.limit :] if wanted.is_open else lines[: wanted.limit]


def _facts(line: Line) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "topic_id": line.t,
        "part": line.p,
        "offset": line.o,
        "log_time_ms": line.lt,
    }
    if line.poison_b64 is not None:
        return {**facts, "poison": line.poison_b64}
    facts |= {"received_at_ns": line.rx, "source": line.src}
    facts |= {"session": line.ses, "seq": line.seq, "symbol": line.sym}
    if line.b64 is not None:
        return {**facts, "payload_b64": line.b64}
    return {**facts, "payload": line.text if line.text is not None else line.raw}


def _row(line: Line, width: int | None) -> str:
    name = "POISON" if line.poison_b64 is not None else line.src
    place = f"{line.p}@{line.o}"
    session = f"{line.ses[-SHORT_SESSION:]}#{line.seq}" if line.ses else "-"
    symbol = f" {line.sym}" if line.sym else ""
    payload = payload_of(line).decode(errors="backslashreplace")
    moment = _say_moment(line.rx or line.lt * 1_000_000)
    text = _printable(f"{moment}  {place:>10}  {session}  {name}{symbol}  {payload}")
    return text if width is None or len(text) <= width else f"{text[: width - 1]}…"


def _say_moment(at_ns: int) -> str:
    micros = at_ns // NANOS_PER_MICRO
    try:
        second = datetime.fromtimestamp(micros // 1_000_000, tz=UTC)
    except (OverflowError, OSError, ValueError):
        return f"{at_ns} ns"
    return f"{second:%Y-%m-%d %H:%M:%S}.{micros % 1_000_000:06d}"


def _printable(text: str) -> str:
    """One line that leaves a terminal alone, whatever a feed sent."""
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


def _say(there: dict[str, list[int]]) -> str:
    if not there:
        return "nothing"
    return ", ".join(f"{place} {begin}..{end - 1}" for place, (begin, end) in there.items())
