"""Trade ids: dense per symbol, so what is missing between two of them is known exactly."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final

import msgspec

TRADES_KIND: Final = "binance.ws"
FILL_KIND: Final = "binance.trades"
VENUE: Final = "BINANCE:"
"""Prefix of a symbol as silver names it."""
ID_END: Final = 1 << 62

_unreadable = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class TradeId(msgspec.Struct, frozen=True):
    """A trade of one symbol, by the number the exchange gave it."""

    symbol: str
    id: int


class IdRange(msgspec.Struct, frozen=True, order=True):
    """Ids `first .. last`, both inclusive; empty (and false) where `last < first`.

    >>> len(IdRange(101, 149)), 149 in IdRange(101, 149)
    (49, True)
    """

    first: int
    last: int

    def __len__(self) -> int:
        """How many ids."""
        return max(0, self.last - self.first + 1)

    def __contains__(self, trade_id: int) -> bool:
        """Whether an id is one of them."""
        return self.first <= trade_id <= self.last

    def without(self, ids: Iterable[int]) -> Iterator["IdRange"]:
        """What is left of the range without some ids, lowest first.

        >>> list(IdRange(1, 9).without([4, 1, 5]))
        [IdRange(first=2, last=3), IdRange(first=6, last=9)]
        """
        start = self.first
        for trade_id in sorted(set(ids)):
            if trade_id not in self:
                continue
            if trade_id > start:
                yield IdRange(start, trade_id - 1)
            start = trade_id + 1
        if start <= self.last:
            yield IdRange(start, self.last)


class _Data(msgspec.Struct, gc=False):
    e: str = ""
    s: str = ""
    t: int = -1


class _Message(msgspec.Struct, gc=False):
    data: _Data | None = None


class _Filled(msgspec.Struct, gc=False):
    id: int


_decode_message = msgspec.json.Decoder(_Message).decode
_decode_filled = msgspec.json.Decoder(list[_Filled]).decode


def read_trade_id(payload: bytes | msgspec.Raw) -> TradeId | None:
    """The trade in a message of the combined stream; None where it holds none.

    >>> read_trade_id(b'{"stream":"x@trade","data":{"e":"trade","s":"BTCUSDT","t":7}}')
    TradeId(symbol='BTCUSDT', id=7)
    >>> read_trade_id(b'{"result":null,"id":1}')
    """
    try:
        data = _decode_message(payload).data
    except _unreadable:
        return None
    if data is None or data.e != "trade" or not data.s or not 0 <= data.t < ID_END:
        return None
    return TradeId(data.s, data.t)


def read_filled_ids(body: bytes | msgspec.Raw) -> list[int] | None:
    """Ids of a body of `/api/v3/historicalTrades`; None where it is not one, in rising order.

    >>> read_filled_ids(b'[{"id":7,"price":"1"},{"id":8}]'), read_filled_ids(b'[{"id":7},{"id":7}]')
    ([7, 8], None)
    """
    try:
        ids = [trade.id for trade in _decode_filled(body)]
    except _unreadable:
        return None
    is_rising = all(low < high for low, high in pairwise(ids))
    return ids if is_rising and all(0 <= trade_id < ID_END for trade_id in ids) else None
