"""Objects as the public tutorials of this pipeline leave them behind."""

import json


def tutorial_quote(symbol: str, at: int, number: int = 0) -> bytes:
    """Finnhub's answer to `/quote` with two fields added, written by `json.dumps`."""
    cents = 26_100 + number % 97
    quote = {
        "c": cents / 100,
        "d": (cents - 25_945) / 100,
        "dp": 0.5971,
        "h": 263.31,
        "l": 260.68,
        "o": 261.07,
        "pc": 259.45,
        "t": at,
        "symbol": symbol,
        "fetched_at": at + 1,
    }
    return json.dumps(quote).encode()
