"""An independent reading of quotes: what one frame of the stream holds, and the sums over all."""

import re
from collections import Counter
from decimal import Decimal
from typing import Any, Final

import msgspec

from tickhouse.audit.values import (
    CONTEXT,
    json_fields,
    json_integer,
    json_text,
    kept_decimal,
    read_json,
)
from tickhouse.model.symbols import is_symbol

TIME_START_S: Final = 946_684_800
TIME_END_S: Final = 4_102_444_800
WEIGHTS: Final = {
    "c": Decimal(1),
    "d": Decimal(2),
    "dp": Decimal(3),
    "o": Decimal(5),
    "h": Decimal(7),
    "l": Decimal(11),
    "pc": Decimal(13),
}
"""Figures in the sum of a quote, each with its own weight, so that none stands for another."""
SIGNED: Final = frozenset({"d", "dp"})
"""Figures that may be negative; of the others, what is not positive is none."""
_FAILED: Final = re.compile(r"finnhub\.http\.([0-9]{3})", re.ASCII)


class Quote(msgspec.Struct, frozen=True):
    """A quote as it must be in silver: time in UNIX seconds, figures weighted and summed."""

    symbol: str
    quoted_s: int
    total: Decimal


class QuoteSums:
    """Exact totals of one symbol's quotes."""

    __slots__ = ("count", "seconds", "total")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0
        self.total = Decimal(0)

    def add(self, quote: Quote) -> None:
        """Count one quote."""
        self.count += 1
        self.seconds += quote.quoted_s
        self.total = CONTEXT.add(self.total, quote.total)


class QuoteTally:
    """Quotes and rejects of every frame that was counted."""

    def __init__(self) -> None:
        self.symbols: dict[str, QuoteSums] = {}
        self.rejects: Counter[str] = Counter()

    def add(self, kind: str, symbol: str | None, payload: bytes | None) -> None:
        """Count one frame; see `read_quote`."""
        found = read_quote(kind, symbol, payload)
        if isinstance(found, str):
            self.rejects[found] += 1
        else:
            self.symbols.setdefault(found.symbol, QuoteSums()).add(found)


def read_quote(kind: str, symbol: str | None, payload: bytes | None) -> Quote | str:
    """The quote in a frame, or the reason why it holds none.

    Args:
        kind: payload kind, such as "finnhub.quote" or "finnhub.http.429".
        symbol: the frame's.
        payload: the body; None where it is not JSON.
    """
    if (failed := _FAILED.fullmatch(kind)) is not None:
        return f"http_{failed[1]}"
    if payload is None:
        return "not_json"
    fields = json_fields(read_json(payload)) if kind == "finnhub.quote" else {}
    return _judge(symbol or "", fields)


def _judge(symbol: str, fields: dict[str, Any]) -> Quote | str:
    """The quote, or why it is none; the first reason counts."""
    price, seconds = kept_decimal(fields.get("c")), json_integer(fields.get("t"))
    is_told = any(json_text(fields.get(name)) is not None for name in "ct")
    reasons = (
        (json_text(fields.get("error")) is not None, "error_answer"),
        (not is_told, "unknown_shape"),
        (not is_symbol(symbol), "bad_symbol"),
        ((price is not None and price <= 0) or seconds == 0, "no_data"),
        (price is None, "bad_price"),
        (seconds is None or not TIME_START_S <= seconds < TIME_END_S, "bad_time"),
    )
    for applies, reason in reasons:
        if applies:
            return reason
    return Quote(symbol, int(seconds or 0), _total(fields))


def _total(fields: dict[str, Any]) -> Decimal:
    total = Decimal(0)
    for name, weight in WEIGHTS.items():
        figure = kept_decimal(fields.get(name))
        if figure is not None and (name in SIGNED or figure > 0):
            total = CONTEXT.add(total, CONTEXT.multiply(figure, weight))
    return total
