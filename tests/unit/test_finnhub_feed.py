"""Socket and poller together, through the recorder into the log."""

import asyncio
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from support.tiny_http import Reply, Request, TinyServer
from support.tiny_socket import OPEN, PING, Call, TinySocket, live, trade
from tickhouse.clock import ScaledClock
from tickhouse.errors import ConfigError
from tickhouse.model.frame import Envelope, decode_envelope
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.model.session import Coverage, Opened, SessionEvent, decode_event
from tickhouse.stream.recorder import Recorder
from tickhouse.stream.sqlite import SqliteLog

QUOTE = b'{"c":261.74,"d":1.2,"dp":0.46,"h":263.3,"l":260.7,"o":261.1,"pc":259.45,"t":1795446000}'


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    log = SqliteLog(tmp_path / "log.db")
    yield log
    log.close()


def held(log: SqliteLog, stream: Stream, part: int) -> list[Envelope]:
    found: list[Envelope] = []
    position = 0
    while (batch := log.read(TopicPartition(stream, part), position)) is not None:
        found += [e for value in batch.values if (e := decode_envelope(value)) is not None]
        position = batch.next
    return found


def events(log: SqliteLog, part: int) -> list[SessionEvent]:
    return [decode_event(envelope.raw) for envelope in held(log, Stream.SESSIONS, part)]


async def record(feed: Any, log: SqliteLog, done: asyncio.Event) -> None:
    stop = asyncio.Event()
    recorder = Recorder(feed, log, commit_ms=2, clock=ScaledClock(50))
    running = asyncio.create_task(recorder.run(stop))
    waiting = asyncio.create_task(done.wait())
    async with asyncio.timeout(20):
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    await asyncio.sleep(0.05)
    stop.set()
    await running


def test_trades_quotes_and_reference_go_to_their_streams_and_coverage_is_data(
    log: SqliteLog,
) -> None:
    async def run() -> None:
        done = asyncio.Event()

        async def script(call: Call) -> None:
            await call.hear(2)
            await call.send(trade("NVDA"), PING)
            await call.stay()

        def answer(request: Request) -> Reply:
            if "AAPL" in request.target:
                done.set()
            return Reply(QUOTE)

        async with TinySocket(script) as server, TinyServer(answer) as rest:
            clock = ScaledClock(50, start_ns=OPEN)
            await record(
                live(
                    server,
                    "TSLA,NVDA,MSFT,AAPL",
                    clock=clock,
                    rest_url=rest.url,
                    symbols_max=2,
                    calls_per_minute=1200,
                ),
                log,
                done,
            )

    asyncio.run(run())

    sources = {
        (stream, part): {envelope.src for envelope in held(log, stream, part)}
        for stream in (Stream.TRADES, Stream.QUOTES, Stream.REFERENCE)
        for part in (0, 1)
    }
    assert sources == {
        (Stream.TRADES, 0): {"finnhub.ws"},
        (Stream.TRADES, 1): set(),
        (Stream.QUOTES, 0): set(),
        (Stream.QUOTES, 1): {"finnhub.quote"},
        (Stream.REFERENCE, 0): set(),
        (Stream.REFERENCE, 1): {"finnhub.market-status", "finnhub.market-holiday"},
    }
    assert [bytes(frame.raw) for frame in held(log, Stream.TRADES, 0)] == [
        trade("NVDA").encode(),
        PING.encode(),
    ]
    told = [
        (event.channel, event.symbols)
        for part in (0, 1)
        for event in events(log, part)
        if isinstance(event, Coverage)
    ]
    assert told == [("socket", ["NVDA", "AAPL"]), ("polling", ["MSFT", "TSLA"])]
    assert {
        event.feed
        for part in (0, 1)
        for event in events(log, part)[:1]
        if isinstance(event, Opened)
    } == {"finnhub://TSLA,NVDA,MSFT,AAPL"}


@pytest.mark.parametrize("refuser", ["socket", "rest"])
def test_a_refused_key_stops_the_recorder_with_a_clear_message(
    log: SqliteLog, refuser: str
) -> None:
    async def script(call: Call) -> None:
        await call.stay()

    async def run() -> None:
        status = HTTPStatus.UNAUTHORIZED if refuser == "socket" else None
        reply = Reply(QUOTE) if refuser == "socket" else Reply(b'{"error":"Invalid"}', status=401)
        async with (
            TinySocket(script, status=status) as server,
            TinyServer(lambda _request: reply) as rest,
        ):
            clock = ScaledClock(50, start_ns=OPEN)
            feed = live(server, "AAPL", clock=clock, rest_url=rest.url)
            await record(feed, log, asyncio.Event())

    with pytest.raises(ConfigError, match=r"key is refused.*TICKHOUSE_FINNHUB_TOKEN"):
        asyncio.run(run())
