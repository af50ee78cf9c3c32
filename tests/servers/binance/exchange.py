"""The exchange itself: recorded trades that happen one after another, and are remembered by id."""

import gzip
import heapq
import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

DATA = Path(__file__).parents[2] / "data"
CAPTURE = DATA / "binance_ws_2024"
"""34,419 trades of BTCUSDT and ETHUSDT, ids without a gap, over midnight UTC."""
HEAD = DATA / "binance_ws_head"
"""300 messages of BTCUSDT with order book messages between the trades."""


class RecordedTrade(NamedTuple):
    """A message of the capture; `id` is None where it holds no trade."""

    recorded_ns: int
    stream: str
    symbol: str
    id: int | None
    payload: bytes


def read_capture(folder: Path = CAPTURE) -> list[RecordedTrade]:
    """Messages of all streams in the order in which they were recorded."""
    return list(heapq.merge(*map(_read_file, sorted(folder.glob("*.gz")))))


def _read_file(file: Path) -> Iterator[RecordedTrade]:
    with gzip.open(file, "rb") as lines:
        for line in lines:
            recorded, _, payload = line.rstrip(b"\n").partition(b" ")
            message = json.loads(payload)
            stream, data = message.get("stream", ""), message.get("data", {})
            is_trade = data.get("e") == "trade"
            yield RecordedTrade(
                int(recorded), stream, data.get("s", ""), data["t"] if is_trade else None, payload
            )


def as_old_trade(trade: RecordedTrade) -> dict[str, Any]:
    """The trade as `/api/v3/historicalTrades` writes it."""
    data = json.loads(trade.payload)["data"]
    worth = (Decimal(data["p"]) * Decimal(data["q"])).quantize(Decimal("0.00000001"))
    return {
        "id": data["t"],
        "price": data["p"],
        "qty": data["q"],
        "quoteQty": str(worth),
        "time": data["T"],
        "isBuyerMaker": data["m"],
        "isBestMatch": data["M"],
    }


class Exchange:
    """What has happened so far.

    Args:
        messages: everything that will happen, in order.
    """

    def __init__(self, messages: Sequence[RecordedTrade]) -> None:
        self.messages = list(messages)
        self.happened = 0
        self._trades: dict[str, dict[int, RecordedTrade]] = {}
        self.symbols = frozenset(message.symbol for message in messages if message.id is not None)

    def advance(self, count: int) -> list[RecordedTrade]:
        """The next `count` messages happen."""
        news = self.messages[self.happened : self.happened + count]
        self.happened += len(news)
        for message in news:
            if message.id is not None:
                self._trades.setdefault(message.symbol, {})[message.id] = message
        return news

    def ids(self, symbol: str) -> set[int]:
        """Ids of all trades so far."""
        return set(self._trades.get(symbol, {}))

    def old_trades(self, symbol: str, first_id: int | None, limit: int) -> list[dict[str, Any]]:
        """Trades from an id on (None: the newest ones), rising, at most `limit`."""
        trades = self._trades.get(symbol, {})
        ids = sorted(trades)
        if first_id is None:
            ids = ids[-limit:]
        else:
            ids = [trade_id for trade_id in ids if trade_id >= first_id][:limit]
        return [as_old_trade(trades[trade_id]) for trade_id in ids]
