"""Units: integer times, and the precision in which prices and sizes are kept."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, NewType

UnixNanos = NewType("UnixNanos", int)
"""Nanoseconds since 1970-01-01T00:00:00Z."""

UnixMillis = NewType("UnixMillis", int)
"""Milliseconds since 1970-01-01T00:00:00Z."""

NANOS_PER_MICRO: Final = 1000
NANOS_PER_MILLI: Final = 1_000_000
NANOS_PER_SECOND: Final = 1_000_000_000
MILLIS_PER_HOUR: Final = 3_600_000

QUANTUM: Final = Decimal("0.00000001")
"""Prices and sizes are DECIMAL(18,8): the smallest step that Binance and FX quotes use."""


def read_moment(text: str) -> int:
    """A moment as UNIX nanoseconds UTC; without a zone it is UTC; exact to the microsecond.

    Raises:
        ValueError: not a moment by ISO 8601.

    >>> read_moment("2026-03-02T14:30:00Z") == read_moment("2026-03-02 09:30-05:00")
    True
    """
    moment = datetime.fromisoformat(text)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return round(moment.timestamp() * 1_000_000) * NANOS_PER_MICRO
