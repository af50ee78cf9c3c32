"""Reads the trades out of log records, fast: for the page's live values only.

Gold is built by the transform stage from the same frames; here a frame that does not fit the usual
shape takes a slower way through the same checks, and one that holds no trades gives none.
"""

from collections.abc import Callable
from typing import Any, Final, cast

import msgspec

from tickhouse.model.frame import Envelope, decode_envelope

_PREFIX: Final = b'{"v":1,"src":"'
_SOURCE_BYTES_MAX: Final = 100
BINANCE_TRADE: Final = b'@trade"'
QUANTUM_HALF: Final = 0.000000005
"""Less is rounded to nothing: gold keeps 8 decimals."""
NUMBER_MAX: Final = 1e10
VALUE_MAX: Final = 1e15
TIME_MS_MIN: Final = 946_684_800_000
TIME_MS_MAX: Final = 4_102_444_800_000


class Print(msgspec.Struct, gc=False):
    """One trade in Finnhub's letters: symbol, price, UNIX milliseconds, size, conditions."""

    s: str
    p: float
    t: int
    v: float
    c: tuple[str, ...] | None = None


class TradeFrame(msgspec.Struct, gc=False):
    """The trades of one frame with the frame's identity and receipt (see `Envelope`)."""

    src: str
    ses: str
    seq: int
    rx: int
    prints: list[Print]


class _FinnhubMessage(msgspec.Struct, gc=False):
    type: str
    data: list[Print]


class _FinnhubFrame(msgspec.Struct, gc=False):
    src: str
    ses: str
    seq: int
    rx: int
    raw: _FinnhubMessage


class _BinanceTrade(msgspec.Struct, gc=False):
    e: str
    s: str
    p: str
    q: str
    T: int


class _BinanceMessage(msgspec.Struct, gc=False):
    data: _BinanceTrade


class _BinanceFrame(msgspec.Struct, gc=False):
    src: str
    ses: str
    seq: int
    rx: int
    raw: _BinanceMessage


_finnhub_decoder = msgspec.json.Decoder(_FinnhubFrame)
_binance_decoder = msgspec.json.Decoder(_BinanceFrame)
_any_decoder = msgspec.json.Decoder()


def is_trade(trade: Print) -> bool:
    """Whether silver takes this as a trade: price, size and time within what gold can hold."""
    return (
        QUANTUM_HALF <= trade.p < NUMBER_MAX
        and QUANTUM_HALF <= trade.v < NUMBER_MAX
        and trade.p * trade.v < VALUE_MAX
        and TIME_MS_MIN <= trade.t < TIME_MS_MAX
    )


def is_ping(value: bytes) -> bool:
    """Whether a record is no more than Finnhub's sign of life."""
    return b'"type":"ping"' in value


def source_of(value: bytes) -> str:
    """`Envelope.src` of a log record, without decoding it; '' where it is not an envelope."""
    if not value.startswith(_PREFIX):
        return ""
    end = value.find(b'"', len(_PREFIX), len(_PREFIX) + _SOURCE_BYTES_MAX)
    return value[len(_PREFIX) : end].decode("ascii", "replace") if end > 0 else ""


def kind_of(source: str) -> str:
    """Payload kind of a frame's source.

    >>> kind_of("sim:finnhub.ws"), kind_of("finnhub.ws")
    ('finnhub.ws', 'finnhub.ws')
    """
    return source.rpartition(":")[2]


def read_trades(value: bytes) -> TradeFrame | None:
    """The trades of a log record; None where it holds none (poison, control messages, …)."""
    kind = kind_of(source_of(value))
    reader = _READERS.get(kind)
    return reader(value) if reader is not None else None


def _read_finnhub(value: bytes) -> TradeFrame | None:
    try:
        frame = _finnhub_decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _read_slowly(value)
    if frame.raw.type != "trade":
        return None
    return TradeFrame(frame.src, frame.ses, frame.seq, frame.rx, frame.raw.data)


def _read_slowly(value: bytes) -> TradeFrame | None:
    """Keeps the good trades of a Finnhub message in which some are odd."""
    envelope = decode_envelope(value)
    if envelope is None or not bytes(envelope.raw):
        return None
    message = _any_decoder.decode(envelope.raw)
    if not isinstance(message, dict) or cast("dict[str, object]", message).get("type") != "trade":
        return None
    data = cast("dict[str, object]", message).get("data")
    if not isinstance(data, list):
        return None
    items = map(_lenient, cast("list[object]", data))
    prints = [item for item in items if item is not None]
    return TradeFrame(envelope.src, envelope.ses, envelope.seq, envelope.rx, prints)


def _lenient(item: object) -> Print | None:
    """A trade whose numbers may be written as text, as silver takes them too."""
    if not isinstance(item, dict):
        return None
    fields = cast("dict[str, Any]", item)
    codes = fields.get("c")
    if isinstance(codes, list):
        fields = {**fields, "c": [code for code in cast("list[Any]", codes) if code is not None]}
    try:
        return msgspec.convert(fields, Print, strict=False)
    except msgspec.ValidationError:
        return None


def _read_binance(value: bytes) -> TradeFrame | None:
    if BINANCE_TRADE not in value:
        return None
    try:
        frame = _binance_decoder.decode(value)
        trade = frame.raw.data
        price, size = float(trade.p), float(trade.q)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None
    symbol = BINANCE_PREFIX + trade.s
    return TradeFrame(
        frame.src, frame.ses, frame.seq, frame.rx, [Print(symbol, price, trade.T, size)]
    )


def _read_binance_page(value: bytes) -> TradeFrame | None:
    """Old trades that fill a gap: `[{"price":"61837.64","qty":"0.004","time":…}, …]`."""
    envelope = decode_envelope(value)
    page = _decoded(envelope)
    if envelope is None or envelope.sym is None or not isinstance(page, list):
        return None
    symbol = BINANCE_PREFIX + envelope.sym
    fields = [
        cast("dict[str, object]", item) if isinstance(item, dict) else {}
        for item in cast("list[object]", page)
    ]
    return _page_frame(
        envelope,
        [
            {"s": symbol, "p": item.get("price"), "t": item.get("time"), "v": item.get("qty")}
            for item in fields
        ],
    )


def _read_finnhub_page(value: bytes) -> TradeFrame | None:
    """Ticks that fill a gap, column by column: `{"t":[…],"p":[…],"v":[…],"c":[["1"],…]}`."""
    envelope = decode_envelope(value)
    page = _decoded(envelope)
    if envelope is None or envelope.sym is None or not isinstance(page, dict):
        return None
    columns = cast("dict[str, object]", page)
    rows = [columns.get(name) for name in ("t", "p", "v", "c")]
    times, prices, sizes, codes = (
        cast("list[object]", row) if isinstance(row, list) else None for row in rows
    )
    if times is None or prices is None or sizes is None:
        return None
    codes = [None] * len(times) if codes is None else codes
    if {len(prices), len(sizes), len(codes)} != {len(times)} and times:
        return None
    return _page_frame(
        envelope,
        [
            {"s": envelope.sym, "t": at, "p": price, "v": size, "c": code}
            for at, price, size, code in zip(times, prices, sizes, codes, strict=False)
        ],
    )


def _decoded(envelope: Envelope | None) -> object:
    if envelope is None or not bytes(envelope.raw):
        return None
    return _any_decoder.decode(envelope.raw)


def _page_frame(envelope: Envelope, items: list[dict[str, object]]) -> TradeFrame:
    prints = [found for found in map(_lenient, items) if found is not None]
    return TradeFrame(envelope.src, envelope.ses, envelope.seq, envelope.rx, prints)


BINANCE_PREFIX: Final = "BINANCE:"

_READERS: Final[dict[str, Callable[[bytes], TradeFrame | None]]] = {
    "finnhub.ws": _read_finnhub,
    "binance.ws": _read_binance,
    "binance.trades": _read_binance_page,
    "finnhub.tick": _read_finnhub_page,
}
