"""Every id between the first and the last is a frame's, a page's or a gap's, and that once."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.binance import HEAD, BinanceServer, read_capture
from support.binance import (
    WELL,
    account_of,
    emit,
    events_of,
    feed_of,
    frames_of,
    gaps_of,
    ids_filled,
    ids_missing,
    recording,
    run,
    settled,
    until,
)
from support.feeds import ListFeed
from tickhouse.model.positions import Stream
from tickhouse.model.session import Gap
from tickhouse.source.binance import BinanceFeed
from tickhouse.stream.history import LogHistory
from tickhouse.stream.recorder import Recorder
from tickhouse.stream.sqlite import SqliteLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    log = SqliteLog(tmp_path / "log.db")
    yield log
    log.close()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_ids_missed_between_two_connections_are_a_gap_and_are_filled(
    how: str, log: SqliteLog
) -> None:
    async def script(server: BinanceServer, feed: BinanceFeed, log: SqliteLog) -> None:
        await server.emit(200)
        await server.drop(how)
        await server.emit(150)
        await server.connected()
        await server.emit(200)
        await until(lambda: frames_of(log, 1) >= 2)
        await settled(feed)

    server = run(log, script)

    assert account_of(server, log) == WELL
    assert ids_missing(log) == {}
    assert len(ids_filled(log)) >= 150
    told = gaps_of(log)
    assert {event.filled_by for event in told} == {None, "binance.trades"}
    for event in told:
        assert event.name == f"{event.symbols[0][8:]}:{event.id_from}-{event.id_to}"
        assert (event.seq_from, event.seq_to) == (None, None)
        assert 0 < event.time_from < event.time_to
        assert event.cause.startswith("disconnected: ")
    frames = list(LogHistory(log).frames(Stream.TRADES, 0))
    last_before, first_after = frames[200], frames[199]
    assert last_before.ses != first_after.ses
    assert {event.time_from for event in told} == {last_before.rx}
    assert all(event.time_to <= first_after.rx for event in told)


def test_a_page_holds_the_ids_of_its_gap_and_no_others(log: SqliteLog) -> None:
    async def script(server: BinanceServer, feed: BinanceFeed, log: SqliteLog) -> None:
        await emit(server, feed, log)
        await server.drop()
        await server.emit(5000)
        await server.connected()
        await emit(server, feed, log)
        await settled(feed)

    server = run(log, script)

    pages = [
        (page.sym, json.loads(bytes(page.raw))) for page in LogHistory(log).frames(Stream.TRADES, 1)
    ]
    assert max(len(page) for _, page in pages) == 1000
    told = {event.symbols[0]: event for event in gaps_of(log)}
    for symbol, event in told.items():
        ids = sorted(trade["id"] for name, page in pages if symbol[8:] == name for trade in page)
        assert ids == list(range(event.id_from or 0, (event.id_to or 0) + 1))
    assert sum(len(page) for _, page in pages) == 5000
    assert account_of(server, log) == WELL


def test_ids_that_the_stream_leaves_out_are_a_gap_and_are_filled(log: SqliteLog) -> None:
    async def script(server: BinanceServer, feed: BinanceFeed, log: SqliteLog) -> None:
        await emit(server, feed, log)
        server.is_silent = True
        await server.emit(40)
        server.is_silent = False
        await emit(server, feed, log)
        await settled(feed)

    server = run(log, script)

    assert server.connections == 1
    assert {event.cause for event in gaps_of(log)} == {"left out of the stream"}
    assert len(ids_filled(log)) == 40
    assert account_of(server, log) == WELL


def test_repeated_and_older_ids_are_kept_and_are_no_gaps(log: SqliteLog) -> None:
    async def script(server: BinanceServer, feed: BinanceFeed, log: SqliteLog) -> None:
        await emit(server, feed, log)
        for message in server.exchange.messages[150:200][::-1]:
            await server.send(message.payload)
        await emit(server, feed, log)
        await until(lambda: frames_of(log) == 450)

    server = run(log, script)

    assert gaps_of(log) == []
    assert account_of(server, log)["nowhere"] == []


def test_ids_that_come_after_they_were_told_missing_are_not_fetched(log: SqliteLog) -> None:
    async def script(server: BinanceServer, feed: BinanceFeed, log: SqliteLog) -> None:
        server.fill = "hang"
        await emit(server, feed, log)
        late = server.exchange.messages[200:260]
        server.is_silent = True
        await server.emit(60)
        server.is_silent = False
        await emit(server, feed, log)
        for message in late[:20] + late[30:]:
            await server.send(message.payload)
        await until(lambda: frames_of(log) == 450)
        server.fill = "ok"
        await until(lambda: len(ids_filled(log)) == 10)
        await settled(feed)

    server = run(log, script)

    assert account_of(server, log) == WELL
    assert ids_missing(log) == {}
    filled_by = {event.filled_by for event in gaps_of(log)}
    assert filled_by == {None, "binance.ws", "binance.trades"}


def test_a_silence_in_which_nothing_was_traded_is_told_as_filled(log: SqliteLog) -> None:
    async def script(server: BinanceServer, feed: BinanceFeed, log: SqliteLog) -> None:
        await emit(server, feed, log)
        await server.drop()
        await server.connected()
        await emit(server, feed, log)

    run(log, script)

    (told,) = [event for event in events_of(log, 0) if isinstance(event, Gap)]
    newest_first = list(LogHistory(log).frames(Stream.TRADES, 0))
    assert (told.name, told.filled_by) == (newest_first[-1].ses, "ids")
    assert (told.symbols, told.id_from, told.id_to) == ([], None, None)
    assert newest_first[200].rx == told.time_from
    assert told.time_from < told.time_to


def test_a_restarted_recorder_finds_and_fills_the_gap_from_the_log_alone(log: SqliteLog) -> None:
    async def again(server: BinanceServer, feed: BinanceFeed, log: SqliteLog) -> None:
        await emit(server, feed, log)
        await settled(feed)

    server = run(log, emit, again, again, between=300)

    assert account_of(server, log) == WELL
    assert ids_missing(log) == {}
    assert len(ids_filled(log)) == 600
    assert {event.cause for event in gaps_of(log)} == {"not connected"}


def test_frames_of_replays_and_of_other_feeds_do_not_count_as_seen(log: SqliteLog) -> None:
    feed = ListFeed([message.payload for message in read_capture(HEAD)[:50]])
    feed.source = "replay:binance.ws"
    asyncio.run(Recorder(feed, log).run(asyncio.Event()))

    async def script(server: BinanceServer, feed: BinanceFeed, log: SqliteLog) -> None:
        await emit(server, feed, log)
        await settled(feed)

    async def play() -> None:
        async with BinanceServer() as server:
            await server.emit(5000)
            feed = feed_of(server)
            async with recording(feed, log):
                await server.connected()
                await script(server, feed, log)

    asyncio.run(play())

    assert gaps_of(log) == []


@pytest.mark.parametrize(
    "fill", ["refused", "waf", "banned", "failing", "garbage", "empty", "hang"]
)
def test_where_nothing_is_filled_the_gaps_name_exactly_the_missing_ids(
    fill: str, log: SqliteLog
) -> None:
    async def script(server: BinanceServer, feed: BinanceFeed, log: SqliteLog) -> None:
        server.fill = fill
        await emit(server, feed, log)
        for _ in range(2):
            await server.drop()
            await server.emit(70)
            await server.connected()
            await emit(server, feed, log)
        await until(lambda: len(server.requests) >= 2)

    server = run(log, script)

    assert account_of(server, log) == WELL
    assert ids_missing(log) == {
        (symbol, missed): 1 for symbol in server.sent for missed in server.missed(symbol)
    }
    assert len(ids_missing(log)) == 140


@pytest.mark.parametrize(
    "answers",
    [
        ["failing", "failing"],
        ["limited", "banned"],
        ["garbage", "hang"],
        ["short"] * 9,
        ["excess"] * 4,
        ["empty", "refused"],
        ["short", "refused", "short", "failing", "garbage", "empty"],
    ],
)
def test_a_gap_is_filled_in_the_end_whatever_the_exchange_answers_at_first(
    answers: list[str], log: SqliteLog
) -> None:
    async def script(server: BinanceServer, feed: BinanceFeed, log: SqliteLog) -> None:
        await emit(server, feed, log)
        server.next_answers.extend(answers)
        await server.drop()
        await server.emit(100)
        await server.connected()
        await emit(server, feed, log)
        await until(lambda: len(ids_filled(log)) == 100 and not ids_missing(log))

    server = run(log, script)

    assert account_of(server, log) == WELL
    assert ids_missing(log) == {}


def test_ids_that_the_exchange_leaves_out_stay_gaps_of_names_of_their_own(log: SqliteLog) -> None:
    async def script(server: BinanceServer, feed: BinanceFeed, log: SqliteLog) -> None:
        server.fill = "holes"
        await emit(server, feed, log)
        await server.drop()
        await server.emit(300)
        await server.connected()
        await emit(server, feed, log)
        await until(lambda: len(ids_filled(log)) == 300 - len(tens_of(server)))
        await settled(feed)

    server = run(log, script)

    assert account_of(server, log) == WELL
    assert ids_missing(log) == dict.fromkeys(tens_of(server), 1)
    assert len(ids_missing(log)) > 20


def tens_of(server: BinanceServer) -> list[tuple[str, int]]:
    """Missed ids that a server of `holes` leaves out."""
    return [
        (symbol, missed)
        for symbol in server.sent
        for missed in server.missed(symbol)
        if missed % 10 == 0
    ]


def test_what_was_refused_before_is_asked_for_again_after_a_restart(log: SqliteLog) -> None:
    async def refused(server: BinanceServer, feed: BinanceFeed, log: SqliteLog) -> None:
        server.fill = "refused"
        await emit(server, feed, log)
        await server.drop()
        await server.emit(100)
        await server.connected()
        await emit(server, feed, log)
        await until(lambda: len(server.requests) >= 2)

    async def given(server: BinanceServer, feed: BinanceFeed, log: SqliteLog) -> None:
        server.fill = "ok"
        await until(lambda: len(ids_filled(log)) == 100)
        await settled(feed)

    server = run(log, refused, given)

    assert account_of(server, log) == WELL
    assert ids_missing(log) == {}
