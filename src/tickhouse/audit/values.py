"""JSON values as they count: texts, numbers and kept decimals, read apart from the SQL."""

import json
import math
import re
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, Final, cast

from tickhouse.model.units import QUANTUM

CONTEXT: Final = Context(prec=60, rounding=ROUND_HALF_UP)
"""Wide enough for sums of prices times sizes without rounding."""
KEPT_END: Final = Decimal(10**10)
"""DECIMAL(18,8) holds less than this."""

DIGITS_MAX: Final = 4000
"""Python reads no whole number that is much longer."""

_NUMBER: Final = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)


class _Unquoted(str):
    """A JSON number with a fraction or an exponent, as it was written."""

    __slots__ = ()


def _first_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose repeated names keep their first value, as in the warehouse."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        fields.setdefault(name, value)
    return fields


def _whole(text: str) -> int | _Unquoted:
    return int(text) if len(text) <= DIGITS_MAX else _Unquoted(text)


_slow_decoder = json.JSONDecoder(
    object_pairs_hook=_first_of, parse_float=_Unquoted, parse_int=_whole
)


def read_json(payload: bytes) -> object:
    """Decode JSON so that numbers keep what was written."""
    return _slow_decoder.decode(payload.decode())


def json_fields(message: object) -> dict[str, Any]:
    """An object's fields; none where it is no object."""
    return cast("dict[str, Any]", message) if isinstance(message, dict) else {}


def json_text(value: object) -> str | None:
    """A JSON value as text, as the warehouse writes it; null is no text."""
    if isinstance(value, _Unquoted):
        number = float(value)
        return repr(number) if math.isfinite(number) else str(value)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def json_number(value: object) -> Decimal | None:
    """A JSON number, or text that is one.

    Numbers without quotes have been through a double in every common parser: 17 digits survive.
    """
    text = json_text(value)
    if text is None or isinstance(value, bool) or _NUMBER.fullmatch(text) is None:
        return None
    if isinstance(value, _Unquoted):
        return Decimal(repr(float(value)))
    return Decimal(text.strip())


def json_integer(value: object) -> Decimal | None:
    """A number rounded half up to a whole one."""
    number = json_number(value)
    if number is None or not number.is_finite():
        return None
    return number.to_integral_value(ROUND_HALF_UP, CONTEXT)


def kept_decimal(value: object) -> Decimal | None:
    """A price or size as it is kept, in DECIMAL(18,8); None where it is not one."""
    number = json_number(value)
    if number is None or not number.is_finite() or abs(number) >= KEPT_END:
        return None
    kept = number.quantize(QUANTUM, context=CONTEXT)
    return kept if abs(kept) < KEPT_END else None
