"""Units: integer times, and the precision in which prices and sizes are kept."""

from decimal import Decimal
from typing import Final, NewType

UnixNanos = NewType("UnixNanos", int)
"""Nanoseconds since 1970-01-01T00:00:00Z."""

UnixMillis = NewType("UnixMillis", int)
"""Milliseconds since 1970-01-01T00:00:00Z."""

NANOS_PER_MILLI: Final = 1_000_000
NANOS_PER_SECOND: Final = 1_000_000_000

QUANTUM: Final = Decimal("0.00000001")
"""Prices and sizes are DECIMAL(18,8): the smallest step that Binance and FX quotes use."""
