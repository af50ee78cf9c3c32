"""Recorded messages cut to some symbols; the elements that are kept stay as they were."""

from collections.abc import Collection
from typing import Any, Final

import msgspec


class _Element(msgspec.Struct, gc=False):
    s: Any = None


class _Stream(msgspec.Struct, gc=False):
    stream: str


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_element = msgspec.json.Decoder(_Element).decode
_stream = msgspec.json.Decoder(_Stream).decode
_unreadable: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_TRADE: Final = b'"trade"'


def cut(
    payload: bytes, kind: str, symbols: Collection[str], *, symbol: str | None = None
) -> bytes | None:
    """A message with only the trades of some symbols; None where it holds none of theirs.

    Args:
        payload: as recorded; comes back as it is where all of it is kept.
        kind: of the payload, such as "finnhub.ws".
        symbols: as silver names them.
        symbol: the frame's own, where the payload does not name it.

    >>> cut(b'{"data":[{"p":1,"s":"A"},{"p":2,"s":"B"}],"type":"trade"}', "finnhub.ws", {"B"})
    b'{"data":[{"p":2,"s":"B"}],"type":"trade"}'
    """
    if symbol is not None:
        named = f"BINANCE:{symbol}" if kind.startswith("binance.") else symbol
        return payload if named in symbols else None
    try:
        if kind == "binance.ws":
            pair = _stream(payload).stream.partition("@")[0].upper()
            return payload if f"BINANCE:{pair}" in symbols else None
        return _cut_trades(payload, symbols)
    except _unreadable:
        return None


def _cut_trades(payload: bytes, symbols: Collection[str]) -> bytes | None:
    message = _fields(payload)
    if bytes(message.get("type", b"")) != _TRADE:
        return None
    elements = _elements(message.get("data", b"[]"))
    kept = [element for element in elements if _symbol_of(element) in symbols]
    if len(kept) == len(elements):
        return payload if kept else None
    message["data"] = msgspec.Raw(b"[" + b",".join(map(bytes, kept)) + b"]")
    return msgspec.json.encode(message) if kept else None


def _symbol_of(element: msgspec.Raw) -> str:
    try:
        symbol = _element(element).s
    except _unreadable:
        return ""
    return symbol if isinstance(symbol, str) else ""
