"""Follows the ids of one connection: which are missing, which come late, when all is known."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from tickhouse.source.binance.ids import IdRange, read_trade_id

JUMP_IDS_MAX: Final = 1_000_000_000
"""A larger jump is no gap but a broken message: years of the busiest pair."""


class Jump(msgspec.Struct, frozen=True):
    """Ids of a symbol that are missing before a message.

    Attributes:
        index: place of that message in its batch.
        symbol: as "BTCUSDT".
        ids: the missing ids.
        is_first: whether that message is the symbol's first on this connection.
    """

    index: int
    symbol: str
    ids: IdRange
    is_first: bool


class Trail:
    """The ids of one connection's trades, symbol by symbol.

    Args:
        symbols: the symbols subscribed to.
        last_ids: highest id accounted for before this connection, where known.
    """

    def __init__(self, symbols: Sequence[str], last_ids: Mapping[str, int]) -> None:
        self._symbols = frozenset(symbols)
        self._last_ids = dict(last_ids)
        self._unheard = set(symbols)
        self._is_provable = self._unheard <= set(last_ids)
        self.late: list[tuple[str, int]] = []
        """Ids lower than others before them, of the batch followed last."""

    @property
    def heard(self) -> frozenset[str]:
        """Symbols that have had a trade on this connection."""
        return self._symbols - self._unheard

    @property
    def proves_continuity(self) -> bool:
        """Whether every symbol's first id is known to follow its last one (or what is missing)."""
        return self._is_provable and not self._unheard

    def last_ids(self) -> dict[str, int]:
        """Highest id accounted for by symbol."""
        return dict(self._last_ids)

    def follow(self, payloads: Sequence[bytes]) -> Iterator[Jump]:
        """Where ids are missing in a batch, in order; messages without a trade are passed over."""
        self.late = []
        for index, payload in enumerate(payloads):
            trade = read_trade_id(payload)
            if trade is None or trade.symbol not in self._symbols:
                continue
            last = self._last_ids.get(trade.symbol)
            is_first = trade.symbol in self._unheard
            if last is None or trade.id == last + 1:
                self._last_ids[trade.symbol] = trade.id
            elif trade.id <= last:
                self.late.append((trade.symbol, trade.id))
            elif trade.id - last <= JUMP_IDS_MAX:
                self._last_ids[trade.symbol] = trade.id
                yield Jump(index, trade.symbol, IdRange(last + 1, trade.id - 1), is_first)
            self._unheard.discard(trade.symbol)
