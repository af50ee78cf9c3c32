"""DESIGN 9: the page's live candle uses the same conditions seed as gold; this holds them equal."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.bronze_rows import BronzeFrame, binance, finnhub, nanos, trade
from support.builds import builder_of, new_warehouse
from support.dashboard import MemoryLog
from tickhouse.dashboard.candles import LiveCandles
from tickhouse.dashboard.conditions import seeded_conditions
from tickhouse.dashboard.live_bars import INTERVALS_S
from tickhouse.dashboard.prints import read_trades
from tickhouse.model.frame import encode_frames

CODES = [None, [], ["1"], ["1", "12"], ["24"], ["24", "12"], ["16"], ["20"], ["9"], ["39"], ["15"],
         ["38"], ["40"], ["unknown"], ["12", "unknown"], ["1", "8"], ["3"], ["37"], ["14", "41"]]  # fmt: skip  # noqa: E501
SYMBOLS = ["AAPL", "MSFT", "BINANCE:BTCUSDT"]
DAYS = [
    datetime(2024, 8, 9, 13, 25, tzinfo=UTC),
    datetime(2024, 12, 27, 20, 55, tzinfo=UTC),
    datetime(2024, 11, 29, 17, 55, tzinfo=UTC),
    datetime(2024, 12, 25, 15, 0, tzinfo=UTC),
]
"""Just before the open in summer time, the close in winter time, that of a half day; a holiday."""


def frames(seed: int) -> list[BronzeFrame]:
    """Trades of every kind around an opening and a closing bell, late and bad ones among them."""
    chance = random.Random(seed)
    found: list[BronzeFrame] = []
    for seq in range(160):
        received = chance.choice(DAYS) + timedelta(milliseconds=seq * 4000)
        items: list[dict[str, Any]] = []
        for _ in range(chance.randint(1, 4)):
            at = received - timedelta(milliseconds=chance.choice([0, 1, 5, 900, 40_000]))
            price = round(chance.uniform(90, 110), 4)
            size = chance.choice([1, 5, 100, 0.5])
            item = trade(chance.choice(SYMBOLS), at, price, size, chance.choice(CODES))
            items.append(item | chance.choice([{}] * 12 + [{"p": None}, {"v": 0}, {"p": "101.5"}]))
        payload = finnhub(*items)
        if seq % 9 == 0:
            size = f"{chance.uniform(0.001, 2):.5f}"
            payload = binance("BTCUSDT", received, f"{chance.uniform(90, 110):.8f}", size, seq)
        found.append(
            BronzeFrame(
                payload=payload,
                seq=seq,
                source="binance.ws" if seq % 9 == 0 else "finnhub.ws",
                received_at=received,
            )
        )
    return found


@pytest.fixture
def live() -> LiveCandles:
    return LiveCandles(MemoryLog(), seeded_conditions())


def live_bars(live: LiveCandles, found: Sequence[BronzeFrame], interval: str) -> list[Any]:
    for symbol in SYMBOLS:
        live.watch(symbol, interval, gold_positions={}, read_to={})
    for offset, frame in enumerate(found):
        assert frame.payload is not None
        value = encode_frames(
            [frame.payload.encode()],
            source=frame.source,
            session=frame.session,
            first_seq=frame.seq,
            received_at_ns=nanos(frame.received_at),
        )[0]
        decoded = read_trades(value)
        if decoded is not None:
            live.take(0, offset, decoded)
    return [
        (symbol, bar.start_s, bar.open, bar.high, bar.low, bar.close, bar.volume, bar.count)
        for symbol in SYMBOLS
        for bar in live.tapes[symbol].bars[interval].newest(100_000)
    ]


def test_the_live_candle_equals_golds_bar_of_the_same_trades(
    tmp_path: Path, live: LiveCandles
) -> None:
    found = frames(seed=5)
    warehouse = new_warehouse(tmp_path)
    warehouse.load(found)
    with builder_of(warehouse) as builder:
        builder.build()

    for interval in INTERVALS_S:
        gold = warehouse.query(
            "select symbol, epoch(bar_at)::bigint, open::double, high::double, low::double,"
            f" close::double, volume::double, trade_count from gold.bars_{interval}"
        )
        mine = live_bars(live, found, interval)
        rounded = [(*bar[:6], pytest.approx(bar[6]), bar[7]) for bar in sorted(mine)]
        live.tapes.clear()

        assert len(gold) > 5
        assert rounded == sorted(gold), interval
