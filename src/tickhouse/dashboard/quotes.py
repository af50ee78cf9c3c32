"""Reads polled quotes out of log records, by the rules by which silver takes them."""

from typing import Any, Final

import msgspec

from tickhouse.dashboard.prints import NUMBER_MAX, QUANTUM_HALF, TIME_MS_MAX, TIME_MS_MIN, kind_of

KIND: Final = "finnhub.quote"


class Quote(msgspec.Struct, frozen=True, gc=False):
    """A symbol's last price as the source told it when asked.

    Attributes:
        symbol: as the feed writes it.
        price: last price.
        quoted_ms: its time by the source, UNIX milliseconds (whole seconds).
        received_ms: receipt, UNIX milliseconds.
        source: mode and payload kind.
    """

    symbol: str
    price: float
    quoted_ms: int
    received_ms: int
    source: str


class _Answer(msgspec.Struct, gc=False):
    c: float
    t: int
    error: Any = None


class _Frame(msgspec.Struct, gc=False):
    src: str
    rx: int
    sym: str
    raw: _Answer


_decoder = msgspec.json.Decoder(_Frame, strict=False)


def read_quote(value: bytes) -> Quote | None:
    """The quote of a log record; None where it holds none (an error, no data, an odd number)."""
    try:
        frame = _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    answer = frame.raw
    quoted_ms = answer.t * 1000
    is_quote = (
        kind_of(frame.src) == KIND
        and answer.error is None
        and QUANTUM_HALF <= answer.c < NUMBER_MAX
        and TIME_MS_MIN <= quoted_ms < TIME_MS_MAX
    )
    if not is_quote:
        return None
    return Quote(frame.sym, answer.c, quoted_ms, frame.rx // 1_000_000, frame.src)
