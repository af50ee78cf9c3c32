"""Binance from the wire to silver: after disconnects, refusals and kills, every id is accounted."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from proofs.stages import Stages
from servers.binance import BinanceServer
from servers.binance.exchange import as_old_trade
from support.binance import (
    emit,
    feed_of,
    ids_filled,
    recording,
    settled,
    until,
)
from tickhouse.model.session import Mode  # noqa: TC001 - annotates an attribute
from tickhouse.source.feed import Arrivals, Delivery
from tickhouse.stream.sqlite import SqliteLog

SILVER_IDS = """
select replace(symbol, 'BINANCE:', ''), cast(trade_id as bigint) from silver.trades
"""
MISSED = """
select replace(symbols, 'BINANCE:', ''), id_from, id_to, filled_by from silver.gaps
where kind = 'missed' and id_from is not null
"""


@pytest.fixture
def stages(tmp_path: Path) -> Iterator[Stages]:
    stages = Stages(tmp_path / "data")
    yield stages
    stages.close()


def listen(stages: Stages, play: Any) -> BinanceServer:
    """Record while `play(server, feed)` runs, then take everything to gold."""

    async def run() -> BinanceServer:
        async with BinanceServer() as server:
            feed = feed_of(server)
            async with recording(feed, stages.log):
                await server.connected()
                await play(server, feed)
            return server

    server = asyncio.run(run())
    stages.lander.drain()
    stages.refine()
    return server


def silver_ids(stages: Stages) -> Counter[tuple[str, int]]:
    return Counter(stages.warehouse.query(SILVER_IDS))


def silver_missing(stages: Stages) -> Counter[tuple[str, int]]:
    """Ids in gaps of silver that nothing filled."""
    return Counter(
        (symbol, missing)
        for symbol, first, last, filled_by in stages.warehouse.query(MISSED)
        if filled_by is None
        for missing in range(first, last + 1)
    )


def all_ids(server: BinanceServer) -> set[tuple[str, int]]:
    """All ids from the first to the last one sent, by the server's own account."""
    return {
        (symbol, trade_id)
        for symbol, sent in server.sent.items()
        for trade_id in server.exchange.ids(symbol)
        if min(sent) <= trade_id <= max(sent)
    }


async def disconnect_often(server: BinanceServer, feed: Any, log: SqliteLog) -> None:
    """Drops of every kind at several places, and ids left out of the stream."""
    chance = random.Random(7)
    for how in ("close", "reset", "left out", "close", "reset", "close at once"):
        await server.emit(chance.randrange(50, 300))
        if how == "left out":
            server.is_silent = True
            await server.emit(chance.randrange(1, 80))
            server.is_silent = False
            continue
        await server.drop("reset" if how == "reset" else "close")
        await server.emit(0 if how == "close at once" else chance.randrange(1, 400))
        await server.connected()
    await emit(server, feed, log)


def test_after_disconnects_at_several_places_the_ids_in_silver_are_gapless(
    stages: Stages,
) -> None:
    async def play(server: BinanceServer, feed: Any) -> None:
        await disconnect_often(server, feed, stages.log)
        await until(lambda: len(ids_filled(stages.log)) > 0)
        await settled(feed)

    server = listen(stages, play)

    assert silver_ids(stages) == dict.fromkeys(all_ids(server), 1)
    assert silver_missing(stages) == {}
    assert {row[3] for row in stages.warehouse.query(MISSED)} == {"binance.trades"}
    audit = stages.audit()
    assert (audit.ok, audit.lost, audit.duplicated) == (True, 0, 0), audit


def test_where_the_exchange_refuses_silver_gaps_names_exactly_what_the_server_never_sent(
    stages: Stages,
) -> None:
    async def play(server: BinanceServer, feed: Any) -> None:
        server.fill = "refused"
        for _ in range(3):
            await emit(server, feed, stages.log)
            await server.drop()
            await server.emit(90)
            await server.connected()
        await emit(server, feed, stages.log)
        await until(lambda: len(server.requests) >= 3)

    server = listen(stages, play)

    never_sent = [(name, missed) for name in server.sent for missed in server.missed(name)]
    assert silver_missing(stages) == dict.fromkeys(never_sent, 1)
    assert len(never_sent) == 270
    assert silver_ids(stages) == dict.fromkeys(all_ids(server) - set(never_sent), 1)
    assert stages.audit().ok


def test_filled_trades_are_those_of_the_exchange_and_make_the_same_bars(stages: Stages) -> None:
    async def play(server: BinanceServer, feed: Any) -> None:
        await emit(server, feed, stages.log)
        await server.drop()
        await server.emit(3000)
        await server.connected()
        await emit(server, feed, stages.log)
        await settled(feed)

    server = listen(stages, play)

    expected = [
        (message.symbol, old["id"], old["time"], Decimal(old["price"]), Decimal(old["qty"]))
        for message in server.exchange.messages[: server.exchange.happened]
        for old in [as_old_trade(message)]
    ]
    assert sorted(expected) == stages.warehouse.query(
        "select replace(symbol, 'BINANCE:', ''), cast(trade_id as bigint), epoch_ms(event_at),"
        " price, trade_size from silver.trades order by 1, 2"
    )
    bars = stages.warehouse.query(
        "select replace(symbol, 'BINANCE:', ''), sum(trade_count), sum(volume),"
        " arg_min(open, bar_at), arg_max(close, bar_at), max(high), min(low)"
        " from gold.bars_1s group by 1 order by 1"
    )
    for symbol, count, volume, opened, closed, high, low in bars:
        trades = [row for row in expected if row[0] == symbol]
        prices = [row[3] for row in trades]
        assert (count, volume) == (len(trades), sum(row[4] for row in trades))
        assert (opened, closed, high, low) == (prices[0], prices[-1], max(prices), min(prices))
    assert len(bars) == 2


# -- pages that are odd ------------------------------------------------------------------------


class PageFeed:
    """Delivers bodies as if fetched for a gap."""

    def __init__(self, pages: list[tuple[str | None, bytes]]) -> None:
        self.url, self.source, self.shards = "binance://btcusdt", "binance.ws", 1
        self.mode: Mode = "live"
        self.endless = self.resumes = False
        self._pages = pages

    def begin(self, history: object) -> None: ...
    def waits(self, shard: int) -> bool:
        return True

    async def connect(self, shard: int, cursor: int) -> AsyncIterator[Delivery]:
        for symbol, page in self._pages:
            yield Arrivals(
                [page], 1_723_161_255_000_000_000, symbol=symbol, source="binance.trades"
            )

    def acknowledge(self, shard: int, cursor: int) -> None: ...
    def close(self) -> None: ...


def test_odd_pages_give_trades_and_rejects_as_the_independent_reading_finds_them(
    stages: Stages,
) -> None:
    good = {"id": 1, "price": "5.5", "qty": "2", "quoteQty": "11", "time": 1723161255342}
    odd: list[Any] = [
        [good, {**good, "id": 2}],
        [],
        {"code": -1121, "msg": "Invalid symbol."},
        "text",
        5,
        [None, 5, "x", [], {}, good],
        [{**good, "price": value} for value in (None, 0, "-1", "abc", 7.25, "1e2", "1_000", [1])],
        [{**good, "qty": value} for value in (None, 0, "-1", "abc", 7.25, "1e12")],
        [{**good, "time": value} for value in (None, 0, "soon", "1723161255342", 10**20)],
        [{**good, "id": value} for value in (None, "x", 2**70, "7")],
    ]
    pages: list[tuple[str | None, bytes]] = [
        (symbol, json.dumps(page).encode())
        for page in odd
        for symbol in ("BTCUSDT", None, "no symbol!")
    ]
    stages.record(PageFeed([*pages, ("BTCUSDT", b'[{"id":1'), ("BTCUSDT", b"\xff")]))
    stages.refine()
    audit = stages.audit()

    assert (audit.ok, audit.lost, audit.duplicated) == (True, 0, 0), audit
    reasons = dict(
        stages.warehouse.query("select reason, count(*) from silver.rejected_trades group by 1")
    )
    assert reasons["not_json"] == 2
    assert {"unknown_shape", "missing_symbol", "bad_symbol", "bad_price", "bad_time"} <= set(
        reasons
    )
    ((payload,),) = stages.warehouse.query(
        "select distinct payload from silver.rejected_trades where reason = 'zero_size'"
        " and symbol = 'BINANCE:BTCUSDT'"
    )
    assert json.loads(payload) == {**good, "qty": 0}
