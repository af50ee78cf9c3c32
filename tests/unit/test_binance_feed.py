"""`binance://`: its address, its connection and what is recorded of it."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.binance import HEAD, BinanceServer, read_capture
from support.binance import (
    PAIRS,
    SPEED,
    WELL,
    account_of,
    emit,
    events_of,
    feed_of,
    frames_of,
    gaps_of,
    ids_missing,
    recorded,
    recording,
    run,
    settled,
    until,
)
from tickhouse.clock import ScaledClock
from tickhouse.errors import ConfigError
from tickhouse.model.positions import Stream
from tickhouse.model.session import Closed, Coverage, Gap, Opened, Remote
from tickhouse.source.address import FeedOptions, open_feed
from tickhouse.source.binance import BinanceFeed, open_binance
from tickhouse.source.options import BinanceOptions
from tickhouse.stream.history import LogHistory
from tickhouse.stream.recorder import Recorder
from tickhouse.stream.sqlite import SqliteLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    log = SqliteLog(tmp_path / "log.db")
    yield log
    log.close()


# -- the socket --------------------------------------------------------------------------------


def test_frames_are_recorded_byte_for_byte_in_order(log: SqliteLog) -> None:
    server = run(log, emit)

    frames = list(LogHistory(log).frames(Stream.TRADES, 0))[::-1]
    assert [bytes(frame.raw) for frame in frames] == [
        message.payload for message in server.exchange.messages[:200]
    ]
    assert {(frame.src, frame.sym) for frame in frames} == {("binance.ws", None)}
    assert gaps_of(log) == []


def test_a_session_says_what_the_server_said_and_what_is_covered(log: SqliteLog) -> None:
    run(log, emit)

    opened, remote, coverage, closed = events_of(log, 0)
    assert isinstance(opened, Opened)
    assert (opened.feed, opened.mode, opened.cursor) == ("binance://btcusdt,ethusdt", "live", None)
    assert isinstance(remote, Remote)
    assert isinstance(coverage, Coverage)
    assert (coverage.channel, coverage.symbols) == (
        "socket",
        ["BINANCE:BTCUSDT", "BINANCE:ETHUSDT"],
    )
    assert isinstance(closed, Closed)
    assert closed.messages == {"trades": 200}


def test_the_exchanges_clock_is_asked_for(log: SqliteLog) -> None:
    async def script(server: BinanceServer, feed: BinanceFeed, log: SqliteLog) -> None:
        await until(lambda: any(isinstance(event, Remote) for event in events_of(log, 1)))

    run(log, script)

    ((_, remote, _),) = [events_of(log, 1)]
    assert isinstance(remote, Remote)
    assert remote.clock_offset_ms is not None


def test_messages_without_trades_pass_and_those_that_wait_share_a_receipt(log: SqliteLog) -> None:
    messages = read_capture(HEAD)

    async def play() -> None:
        async with BinanceServer(messages) as server, recording(feed_of(server, "btcusdt"), log):
            await server.connected()
            for message in messages:
                await server.send(message.payload)
            await until(lambda: frames_of(log) == 300)

    asyncio.run(play())

    frames = list(LogHistory(log).frames(Stream.TRADES, 0))[::-1]
    assert [bytes(frame.raw) for frame in frames] == [message.payload for message in messages]
    assert len({frame.rx for frame in frames}) < 300
    assert gaps_of(log) == []


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 100_000,
        b'{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":9223372036854775808}}',
        b'{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":-1}}',
        b'{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":4611686018427387903}}',
        b'{"stream":"btcusdt@trade","data":{"e":"trade","s":"OTHER","t":5}}',
        b'{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT"}}',
        b'{"stream":"btcusdt@trade","data":[1]}',
        b"\xff\xfe",
        b"",
        b"null",
    ],
)
def test_odd_messages_are_kept_and_break_neither_the_connection_nor_the_count_of_ids(
    payload: bytes, log: SqliteLog
) -> None:
    async def script(server: BinanceServer, feed: BinanceFeed, log: SqliteLog) -> None:
        await server.emit(50)
        await server.send(payload)
        await server.emit(50)
        await until(lambda: frames_of(log) == 101)

    server = run(log, script)

    assert server.connections == 1
    assert gaps_of(log) == []
    assert account_of(server, log)["nowhere"] == []


def test_a_message_over_the_limit_of_a_frame_is_refused_by_number_and_the_connection_goes_on(
    log: SqliteLog,
) -> None:
    async def script(server: BinanceServer, feed: BinanceFeed, log: SqliteLog) -> None:
        await server.emit(50)
        await server.send(b'"' + b"x" * 10_000_000 + b'"')
        await server.emit(50)
        await until(lambda: frames_of(log) == 100)

    server = run(log, script)

    assert server.connections == 1
    (refused,) = [event for event in events_of(log, 0) if isinstance(event, Gap)]
    assert (refused.seq_from, refused.seq_to) == (50, 50)
    assert account_of(server, log) == WELL


def test_a_connection_that_stays_silent_is_dead_and_opened_anew(log: SqliteLog) -> None:
    async def script(server: BinanceServer, feed: BinanceFeed, log: SqliteLog) -> None:
        await server.emit(20)
        server.is_silent = True
        await server.emit(20)
        await until(lambda: server.connections == 2)
        server.is_silent = False
        await server.emit(20)
        await recorded(server, log)
        await settled(feed)

    server = run(log, script, rest=f"{PAIRS}?silence=20")

    closed = [event for event in events_of(log, 0) if isinstance(event, Closed)]
    assert closed[0].reason.startswith("silent for 2")
    assert account_of(server, log) == WELL
    assert ids_missing(log) == {}


def test_a_refused_connection_is_tried_again(log: SqliteLog) -> None:
    async def play() -> BinanceServer:
        async with BinanceServer() as server:
            server.refuses = 503
            feed = feed_of(server)
            async with recording(feed, log):
                await until(lambda: len(events_of(log, 0)) >= 2)
                server.refuses = None
                await server.connected()
                await server.emit(10)
                await recorded(server, log)
            return server

    asyncio.run(play())

    closed = [event for event in events_of(log, 0) if isinstance(event, Closed)]
    assert closed[0].reason.endswith("refused the connection with HTTP 503")
    assert frames_of(log) == 10


def test_an_unreachable_host_is_said_and_tried_again(log: SqliteLog) -> None:
    async def play() -> None:
        options = BinanceOptions("ws://127.0.0.1:9", "http://127.0.0.1:9")
        feed = open_binance("btcusdt", options, clock=ScaledClock(SPEED))
        async with recording(feed, log):
            await until(lambda: len(events_of(log, 0)) >= 4)

    asyncio.run(play())

    closed = [event for event in events_of(log, 0) if isinstance(event, Closed)]
    assert "127.0.0.1:9: cannot be reached" in closed[0].reason


# -- the address -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("", "no pair; give some"),
        (",", "no pair; give some"),
        ("BTCUSDT", "'BTCUSDT' is no pair; give lower-case letters"),
        ("btc-usdt", "is no pair"),
        ("btcu", "is no pair"),
        ("btcusdt,btcusdt", "given twice"),
        ("btcusdt?speed=2", "unknown parameter speed='2'; known: silence"),
        ("btcusdt?silence=soon", "silence='soon'; give a number above 0"),
        (",".join(f"pair{n:03d}" for n in range(201)), "201 pairs; one connection takes 200"),
    ],
)
def test_an_address_that_is_none_is_refused_with_what_to_give(rest: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        open_binance(rest, BinanceOptions())


def test_an_address_opens_the_feed_with_its_options() -> None:
    feed = open_feed("binance://btcusdt,ethusdt?silence=300", FeedOptions())

    assert isinstance(feed, BinanceFeed)
    assert (feed.url, feed.source, feed.mode) == ("binance://btcusdt,ethusdt", "binance.ws", "live")
    assert (feed.shards, feed.endless, feed.resumes) == (2, True, False)
    assert (feed.waits(0), feed.waits(1)) == (False, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (BinanceOptions(ws_url="no address"), "binance_ws_url: "),
        (BinanceOptions(rest_url="ftp://x"), "binance_rest_url: "),
    ],
)
def test_a_base_address_that_is_none_stops_the_recorder_and_names_the_setting(
    options: BinanceOptions, message: str, log: SqliteLog
) -> None:
    feed = open_binance("btcusdt", options, clock=ScaledClock(SPEED))

    with pytest.raises(ConfigError, match=message):
        asyncio.run(Recorder(feed, log).run(asyncio.Event()))


def test_a_pair_that_binance_does_not_know_is_said_and_the_others_go_on(log: SqliteLog) -> None:
    async def script(server: BinanceServer, feed: BinanceFeed, log: SqliteLog) -> None:
        await server.emit(50)
        await until(lambda: len(covered("none")) == 1)
        await server.drop()
        await server.connected()
        await server.emit(50)
        await recorded(server, log)

    def covered(channel: str) -> list[Coverage]:
        told = [*events_of(log, 0), *events_of(log, 1)]
        return [event for event in told if isinstance(event, Coverage) and event.channel == channel]

    server = run(log, script, rest="btcusdt,nosuchpair,ethusdt")

    (none,) = covered("none")
    assert (none.symbols, none.reason) == (["BINANCE:NOSUCHPAIR"], "Binance knows no such pair")
    assert covered("socket")[-1].symbols == ["BINANCE:BTCUSDT", "BINANCE:ETHUSDT"]
    assert account_of(server, log) == WELL


def test_a_feed_of_unknown_pairs_alone_is_refused(log: SqliteLog) -> None:
    async def play() -> None:
        async with BinanceServer() as server:
            feed = feed_of(server, "nosuchpair")
            async with recording(feed, log) as task:
                await until(task.done)

    with pytest.raises(ConfigError, match="knows no pair of these: nosuchpair"):
        asyncio.run(play())
