"""Recorded messages cut to some symbols; the elements that are kept stay as they were."""

from collections.abc import Collection
from typing import Any

import msgspec

_message = msgspec.json.Decoder(dict[str, msgspec.Raw])
_elements = msgspec.json.Decoder(list[msgspec.Raw])
_fields = msgspec.json.Decoder(dict[str, Any])


def cut(
    payload: bytes, kind: str, symbols: Collection[str], *, symbol: str | None = None
) -> bytes | None:
    """A message with only the trades of some symbols; None where it holds none of theirs.

    Args:
        payload: as recorded.
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
        message = _message.decode(payload)
        if kind == "binance.ws":
            stream: str = msgspec.json.decode(message["stream"], type=str)
            return payload if f"BINANCE:{stream.partition('@')[0].upper()}" in symbols else None
        elements = _elements.decode(message["data"])
        kept = [element for element in elements if _fields.decode(element).get("s") in symbols]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        return None
    if not kept:
        return None
    return b'{"data":[' + b",".join(map(bytes, kept)) + b'],"type":"trade"}'
