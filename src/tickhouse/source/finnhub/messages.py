"""As much of Finnhub's socket messages as the connection itself must know.

Frames are recorded as delivered; nothing here decides what is kept.
"""

from typing import Final, Literal

import msgspec

TRADE_END: Final = b'"type":"trade"}'
"""How a trade message ends as Finnhub writes it; what ends so need not be looked into."""
TOO_MANY: Final = "too many symbols"


class _Print(msgspec.Struct):
    s: str = ""


class Message(msgspec.Struct):
    """A message: `type` is "trade", "ping" or "error" (with `msg`)."""

    type: str = ""
    msg: str = ""
    data: list[_Print] | None = None

    @property
    def symbols(self) -> set[str]:
        """Symbols of its trades."""
        return {trade.s for trade in self.data or ()}

    @property
    def is_too_many(self) -> bool:
        """Whether a subscription was refused because there are too many."""
        return self.type == "error" and TOO_MANY in self.msg.lower()


_decoder = msgspec.json.Decoder(Message)


def read_message(payload: bytes) -> Message | None:
    """A message's facts; None for what is no message of a known shape. Never raises."""
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def ask(verb: Literal["subscribe", "unsubscribe"], symbol: str) -> str:
    """The message that asks for a symbol, or no longer.

    >>> ask("subscribe", "AAPL")
    '{"type":"subscribe","symbol":"AAPL"}'
    """
    return msgspec.json.encode({"type": verb, "symbol": symbol}).decode()
