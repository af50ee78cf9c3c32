"""A recorder that ends at any moment: the next one, from the log alone, makes it whole."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from servers.binance import BinanceServer
from support.binance import (
    WELL,
    account_of,
    emit,
    feed_of,
    ids_filled,
    ids_missing,
    ids_on_socket,
    recording,
    settled,
    until,
)
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.stream.log import Append
from tickhouse.stream.recorder import Recorder
from tickhouse.stream.sqlite import SqliteLog

ROUNDS = 2
MISSED = 60


@pytest.fixture
def puts(monkeypatch: pytest.MonkeyPatch) -> list[Append]:
    """All that recorders hand to the log, in order: every moment at which one may end."""
    handed: list[Append] = []
    put = Recorder._put

    def keep(recorder: Recorder, partition: TopicPartition, frames: Sequence[bytes]) -> None:
        handed.append(Append(partition, list(frames)))
        put(recorder, partition, list(frames))

    monkeypatch.setattr(Recorder, "_put", keep)
    return handed


def moments(puts: Sequence[Append]) -> list[int]:
    """Counts of puts to end after: beside every event and every page of the filler."""
    socket = TopicPartition(Stream.TRADES, 0)
    beside = {n + d for n, put in enumerate(puts) for d in (0, 1) if put.partition != socket}
    return sorted(beside | {0, len(puts)})


async def first_run(server: BinanceServer, folder: Path) -> None:
    """Missed ids, short pages, holes and refusals: gaps in every state that there is."""
    server.next_answers.extend(["short", "holes", "short", "refused", "short", "failing"])
    log = SqliteLog(folder / "first.db")
    async with recording(feed_of(server), log):
        for _ in range(ROUNDS):
            await server.connected()
            await emit(server, None, log)
            await server.drop()
            await server.emit(MISSED)
        await server.connected()
        await emit(server, None, log)
        server.is_silent = True
        await server.emit(MISSED)
        server.is_silent = False
        await emit(server, None, log)
        await until(lambda: len(ids_filled(log)) >= ROUNDS * MISSED)
    log.close()
    await server.disconnected()


async def go_on(server: BinanceServer, log: SqliteLog) -> dict[str, Any]:
    """A second recorder over the same exchange, which gives all that is asked for."""
    feed = feed_of(server, speed=400)
    async with recording(feed, log):
        await server.connected()
        await server.emit(40)
        last = server.exchange.messages[server.exchange.happened - 1]
        await until(lambda: (last.symbol, last.id) in ids_on_socket(log))
        await settled(feed)
    await server.disconnected()
    return {**account_of(server, log), "missing": dict(ids_missing(log))}


@pytest.mark.long
def test_a_recorder_that_ends_beside_any_event_or_page_loses_and_doubles_nothing(
    puts: list[Append], tmp_path: Path
) -> None:
    found: dict[int, dict[str, Any]] = {}

    async def play() -> None:
        async with BinanceServer() as server:
            await first_run(server, tmp_path)
            done = list(puts)
            for count in moments(done):
                log = SqliteLog(tmp_path / f"after{count}.db")
                log.append(done[:count])
                found[count] = await go_on(server, log)
                log.close()

    asyncio.run(play())

    assert found == {count: {**WELL, "missing": {}} for count in found}
    assert len(found) > 40
