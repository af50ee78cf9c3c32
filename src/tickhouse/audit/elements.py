"""An independent reading of payloads: which trades and rejects a frame holds, from its bytes.

Shares nothing with the SQL that makes silver, so that a mistake there shows as a difference here.
"""

import re
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final, Literal, cast

import msgspec

from tickhouse.model.symbols import is_symbol
from tickhouse.model.units import QUANTUM

CONTEXT: Final = Context(prec=60, rounding=ROUND_HALF_UP)
"""Wide enough for sums of prices times sizes without rounding."""
PRICE_END: Final = Decimal(10**10)
"""DECIMAL(18,8) holds less than this."""
PLAIN_END: Final = Decimal(10**7)
"""Below this, of at most 8 decimals, a number is read exactly by every JSON parser."""
VALUE_END: Final = 1e15
"""No print is worth as much; silver refuses it for its size."""
TIME_START_MS: Final = 946_684_800_000
TIME_END_MS: Final = 4_102_444_800_000
CONTROL: Final = frozenset({"ping", "pong", "error", "subscribe", "unsubscribe"})

_NUMBER: Final = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)

Trade = tuple[str, Decimal, Decimal]
"""Symbol, price, size."""


class _FinnhubTrade(msgspec.Struct, gc=False):
    s: str
    p: Decimal
    v: Decimal
    t: int


class _FinnhubMessage(msgspec.Struct, gc=False):
    type: Literal["trade"]
    data: list[_FinnhubTrade]


class _Unquoted(str):
    """A JSON number with a fraction or an exponent, as it was written."""

    __slots__ = ()


_finnhub = msgspec.json.Decoder(_FinnhubMessage).decode
_generic = msgspec.json.Decoder(float_hook=_Unquoted).decode


class Elements:
    """What one payload holds: trades, and a reason for each element that is none."""

    __slots__ = ("reasons", "trades")

    def __init__(self, trades: list[Trade], reasons: list[str]) -> None:
        self.trades = trades
        self.reasons = reasons


def read_elements(kind: str, payload: bytes) -> Elements:
    """Trades and rejects of a payload of valid JSON.

    Args:
        kind: payload kind, such as "finnhub.ws".
        payload: the message.
    """
    if kind == "finnhub.ws":
        return _finnhub_elements(payload)
    if kind == "binance.ws":
        return _binance_elements(payload)
    return Elements([], ["unknown_shape"])


def _finnhub_elements(payload: bytes) -> Elements:
    """The usual message at once; whatever is odd in any way, slowly."""
    try:
        data = _finnhub(payload).data
        if b"_" not in payload and all(map(_is_plain, data)):
            return Elements([(item.s, item.p, item.v) for item in data], [])
    except (msgspec.DecodeError, InvalidOperation):
        pass
    return _finnhub_slowly(payload)


def _is_plain(item: _FinnhubTrade) -> bool:
    price, size = item.p, item.v
    return (
        0 < price < PLAIN_END
        and 0 < size < PLAIN_END
        and TIME_START_MS <= item.t < TIME_END_MS
        and _is_known_symbol(item.s)
        and price == price.quantize(QUANTUM, context=CONTEXT)
        and size == size.quantize(QUANTUM, context=CONTEXT)
    )


_is_known_symbol = lru_cache(maxsize=10_000)(is_symbol)


def _finnhub_slowly(payload: bytes) -> Elements:
    message = _generic(payload)
    fields = cast("dict[str, Any]", message) if isinstance(message, dict) else {}
    data = fields.get("data")
    if fields.get("type") == "trade" and isinstance(data, list):
        return _judge_all(_finnhub_fields(item) for item in cast("list[Any]", data))
    is_control = fields.get("type") in CONTROL
    return Elements([], [] if is_control else ["unknown_shape"])


def _finnhub_fields(item: object) -> tuple[Any, ...]:
    fields = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
    return tuple(fields.get(name) for name in "spvt")


def _binance_elements(payload: bytes) -> Elements:
    message = _generic(payload)
    fields = cast("dict[str, Any]", message) if isinstance(message, dict) else {}
    data = fields.get("data")
    data = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    stream = _text(fields.get("stream"))
    if stream is None:
        is_answer = any(_text(fields.get(name)) is not None for name in ("id", "lastUpdateId"))
        return Elements([], [] if is_answer else ["unknown_shape"])
    if not stream.endswith("@trade"):
        return Elements([], [] if "@" in stream else ["unknown_shape"])
    if _text(data.get("e")) != "trade":
        return Elements([], ["unknown_shape"])
    symbol = _text(data.get("s"))
    full = None if symbol is None else f"BINANCE:{symbol}"
    return _judge_all([(full, data.get("p"), data.get("q"), data.get("T"))])


def _judge_all(items: Iterable[tuple[Any, ...]]) -> Elements:
    found = Elements([], [])
    for item in items:
        judged = _judge(*item)
        if isinstance(judged, str):
            found.reasons.append(judged)
        else:
            found.trades.append(judged)
    return found


def _judge(symbol: object, price: object, size: object, time: object) -> Trade | str:
    """The trade, or why it is none; the first reason counts."""
    name, price_text, size_text, time_text = map(_text, (symbol, price, size, time))
    if name is None and price_text is None and size_text is None and time_text is None:
        return "unknown_shape"
    exact_price, exact_size = _decimal(price), _decimal(size)
    reasons = (
        (not name, "missing_symbol"),
        (not is_symbol(name or ""), "bad_symbol"),
        (price_text is None, "missing_price"),
        (exact_price is None or exact_price <= 0, "bad_price"),
        (size_text is None, "missing_size"),
        (exact_size == 0, "zero_size"),
        (exact_size is None or exact_size < 0, "bad_size"),
        (_is_too_much(exact_price, exact_size), "bad_size"),
        (time_text is None, "missing_time"),
        (not _is_time(time), "bad_time"),
    )
    for applies, reason in reasons:
        if applies:
            return reason
    return name or "", exact_price or QUANTUM, exact_size or QUANTUM


def _is_too_much(price: Decimal | None, size: Decimal | None) -> bool:
    return price is not None and size is not None and float(price) * float(size) >= VALUE_END


def _is_time(value: object) -> bool:
    at = _number(value)
    if at is None:
        return False
    return TIME_START_MS <= at.to_integral_value(ROUND_HALF_UP, CONTEXT) < TIME_END_MS


def _text(value: object) -> str | None:
    """A JSON value as text; null is no text."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _number(value: object) -> Decimal | None:
    """A JSON number, or text that is one.

    Numbers without quotes have been through a double in every common parser: 17 digits survive.
    """
    text = _text(value)
    if text is None or isinstance(value, bool) or _NUMBER.fullmatch(text) is None:
        return None
    if isinstance(value, _Unquoted):
        return Decimal(repr(float(value)))
    return Decimal(text.strip())


def _decimal(value: object) -> Decimal | None:
    """A price or size as it is kept, in DECIMAL(18,8); None where it is not one."""
    number = _number(value)
    if number is None or not number.is_finite() or abs(number) >= PRICE_END:
        return None
    kept = number.quantize(QUANTUM, context=CONTEXT)
    return kept if abs(kept) < PRICE_END else None
