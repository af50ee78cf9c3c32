"""An independent reading of payloads: which trades and rejects a frame holds, from its bytes.

Shares nothing with the SQL that makes silver, so that a mistake there shows as a difference here.
"""

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final, Literal, cast

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
from tickhouse.model.units import QUANTUM

PLAIN_END: Final = Decimal(10**7)
"""Below this, of at most 8 decimals, a number is read exactly by every JSON parser."""
VALUE_END: Final = 1e15
"""No print is worth as much; silver refuses it for its size."""
TIME_START_MS: Final = 946_684_800_000
TIME_END_MS: Final = 4_102_444_800_000
CONTROL: Final = frozenset({"ping", "pong", "error", "subscribe", "unsubscribe"})

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


_finnhub = msgspec.json.Decoder(_FinnhubMessage).decode


def _names_once(payload: bytes, elements: int) -> bool:
    """Whether no name that counts is written twice in an object, or in an unusual way."""
    return (
        b"\\" not in payload
        and payload.count(b'"data"') == payload.count(b'"type"') == 1
        and all(payload.count(name) == elements for name in (b'"s"', b'"p"', b'"v"', b'"t"'))
    )


class Elements:
    """What one payload holds: trades, and a reason for each element that is none."""

    __slots__ = ("reasons", "trades")

    def __init__(self, trades: list[Trade], reasons: list[str]) -> None:
        self.trades = trades
        self.reasons = reasons


def read_elements(kind: str, payload: bytes, symbol: str | None = None) -> Elements:
    """Trades and rejects of a payload of valid JSON.

    Args:
        kind: payload kind, such as "finnhub.ws".
        payload: the message.
        symbol: the frame's, where the payload does not name it.
    """
    if kind == "finnhub.ws":
        return _finnhub_elements(payload)
    if kind == "binance.ws":
        return _binance_elements(payload)
    if kind == "binance.trades":
        return _binance_page_elements(payload, symbol)
    if kind == "finnhub.tick":
        return _finnhub_page_elements(payload, symbol)
    return Elements([], ["unknown_shape"])


def _finnhub_elements(payload: bytes) -> Elements:
    """The usual message at once; whatever is odd in any way, slowly."""
    try:
        data = _finnhub(payload).data
        is_usual = b"_" not in payload and _names_once(payload, len(data))
        if is_usual and all(map(_is_plain, data)):
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
    message = read_json(payload)
    fields = json_fields(message)
    data = fields.get("data")
    if fields.get("type") == "trade" and isinstance(data, list):
        return _judge_all(_finnhub_fields(item) for item in cast("list[Any]", data))
    is_control = json_text(fields.get("type")) in CONTROL
    return Elements([], [] if is_control else ["unknown_shape"])


def _finnhub_fields(item: object) -> tuple[Any, ...]:
    fields = json_fields(item)
    return tuple(fields.get(name) for name in "spvt")


def _binance_elements(payload: bytes) -> Elements:
    message = read_json(payload)
    fields = json_fields(message)
    data = fields.get("data")
    data = json_fields(data)
    stream = json_text(fields.get("stream"))
    if stream is None:
        is_answer = any(json_text(fields.get(name)) is not None for name in ("id", "lastUpdateId"))
        return Elements([], [] if is_answer else ["unknown_shape"])
    if not stream.endswith("@trade"):
        return Elements([], [] if "@" in stream else ["unknown_shape"])
    if json_text(data.get("e")) != "trade":
        return Elements([], ["unknown_shape"])
    symbol = json_text(data.get("s"))
    full = None if symbol is None else f"BINANCE:{symbol}"
    return _judge_all([(full, data.get("p"), data.get("q"), data.get("T"))])


def _binance_page_elements(payload: bytes, symbol: str | None) -> Elements:
    """A page of old trades, which does not name its symbol."""
    page = read_json(payload)
    if not isinstance(page, list):
        return Elements([], ["unknown_shape"])
    full = None if symbol is None else f"BINANCE:{symbol}"
    return _judge_all(_old_trade_fields(item, full) for item in cast("list[Any]", page))


def _old_trade_fields(item: object, symbol: str | None) -> tuple[Any, ...]:
    fields = json_fields(item)
    told = tuple(fields.get(name) for name in ("price", "qty", "time"))
    return (None if told == (None, None, None) else symbol, *told)


def _finnhub_page_elements(payload: bytes, symbol: str | None) -> Elements:
    """A page of ticks, one column a figure, which its frame names the symbol of."""
    fields = json_fields(read_json(payload))
    columns = [fields.get(name) for name in "pvt"]
    lists = [cast("list[Any]", column) for column in columns if isinstance(column, list)]
    conditions = fields.get("c")
    lengths = {len(column) for column in lists}
    if isinstance(conditions, list):
        lengths.add(len(cast("list[Any]", conditions)))
    if len(lists) != len(columns) or len(lengths) != 1:
        return Elements([], ["unknown_shape"])
    ticks = zip(*lists, strict=True)
    return _judge_all((None if tick == (None,) * 3 else symbol, *tick) for tick in ticks)


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
    name, price_text, size_text, time_text = map(json_text, (symbol, price, size, time))
    if name is None and price_text is None and size_text is None and time_text is None:
        return "unknown_shape"
    exact_price, exact_size = kept_decimal(price), kept_decimal(size)
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
    at = json_integer(value)
    return at is not None and TIME_START_MS <= at < TIME_END_MS
