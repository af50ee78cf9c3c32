"""The page's live view follows the rules of silver and gold; this holds them equal."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.bronze_rows import BronzeFrame, binance, finnhub, millis, nanos, quote, trade
from support.builds import builder_of, new_warehouse
from support.dashboard import MemoryLog
from tickhouse.dashboard.candles import LiveCandles
from tickhouse.dashboard.conditions import seeded_conditions
from tickhouse.dashboard.live_bars import INTERVALS_S
from tickhouse.dashboard.liveness import is_stale_quote
from tickhouse.dashboard.prints import read_trades
from tickhouse.dashboard.quotes import read_quote
from tickhouse.model.calendar import new_york
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
    return found + fills(chance, len(found))


def fills(chance: random.Random, seq: int) -> list[BronzeFrame]:
    """Pages that filled gaps, with trades of the same times."""
    at = [millis(day + timedelta(seconds=chance.randint(0, 600))) for day in DAYS]
    ticks = {
        "t": at,
        "p": [100.5, None, 99, 101],
        "v": [5, 5, 5, 5],
        "c": [["1"], [], ["24"], ["12"]],
    }
    olds = [{"id": n, "price": "95.5", "qty": "0.5", "time": time} for n, time in enumerate(at)]
    received = DAYS[-1] + timedelta(hours=1)
    return [
        BronzeFrame(
            payload=msgspec.json.encode(page).decode(),
            seq=seq + number,
            source=source,
            symbol=symbol,
            received_at=received,
        )
        for number, (page, source, symbol) in enumerate(
            [(ticks, "finnhub.tick", "AAPL"), (olds, "binance.trades", "BTCUSDT")]
        )
    ]


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
            symbol=frame.symbol,
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


def polls(seed: int) -> list[BronzeFrame]:
    """Answers of every kind around bells, midnights and holidays."""
    chance = random.Random(seed)
    moments = [
        datetime(2024, 8, 12, 13, 45, tzinfo=UTC),
        datetime(2024, 8, 12, 4, 0, tzinfo=UTC),
        datetime(2024, 8, 13, 0, 0, tzinfo=UTC),
        datetime(2024, 11, 29, 22, 0, tzinfo=UTC),
        datetime(2024, 12, 25, 15, 0, tzinfo=UTC),
        datetime(2024, 12, 26, 14, 45, tzinfo=UTC),
    ]
    ages_s = [0, 60, 899, 900, 901, 3600, 8 * 3600, 35_100, 86_400, 3 * 86_400]
    odd: list[dict[str, Any]] = [{}] * 8 + [{"c": 0}, {"t": 0}, {"c": "100.5"}, {"error": "no"}]
    found: list[BronzeFrame] = []
    for seq in range(300):
        received = chance.choice(moments) + timedelta(seconds=chance.choice([-1, 0, 1, 60]))
        quoted = received - timedelta(seconds=chance.choice(ages_s))
        payload = quote(quoted, 100 + seq / 100, **chance.choice(odd))
        found.append(
            BronzeFrame(
                payload=payload,
                seq=seq,
                source=chance.choice(["finnhub.quote"] * 9 + ["finnhub.http.429"]),
                stream="quotes",
                symbol=chance.choice(SYMBOLS),
                received_at=received,
            )
        )
    return found


def test_the_live_quote_is_taken_and_called_stale_as_in_silver(tmp_path: Path) -> None:
    found = polls(seed=11)
    warehouse = new_warehouse(tmp_path)
    warehouse.load(found)
    with builder_of(warehouse) as builder:
        builder.build()
    silver = warehouse.query(
        "select session_seq, symbol, price::double, epoch_ms(quoted_at), is_stale"
        " from silver.quotes order by session_seq"
    )

    live: list[tuple[Any, ...]] = []
    for frame in found:
        assert frame.payload is not None
        value = encode_frames(
            [frame.payload.encode()],
            source=frame.source,
            session="s1",
            first_seq=frame.seq,
            received_at_ns=nanos(frame.received_at),
            symbol=frame.symbol,
        )[0]
        taken = read_quote(value)
        if taken is not None:
            is_stale = is_stale_quote(new_york(), taken.symbol, taken.quoted_ms, taken.received_ms)
            live.append((frame.seq, taken.symbol, taken.price, taken.quoted_ms, is_stale))

    assert live == silver
    assert len(silver) > 150
    assert 20 < sum(row[4] for row in silver) < len(silver) - 20
