"""Symbols: validated before they reach a query, a path or a page."""

import re
from typing import Final

SYMBOL_PATTERN: Final = re.compile(r"^[A-Z0-9.:\-_/^= ]{1,32}$")


def is_symbol(text: str) -> bool:
    """Whether `text` may be a symbol.

    >>> is_symbol("BINANCE:BTCUSDT"), is_symbol("IC MARKETS:1"), is_symbol("x; drop table")
    (True, True, False)
    """
    return SYMBOL_PATTERN.fullmatch(text) is not None
