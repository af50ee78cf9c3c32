"""What was missed: told by the next connection, from what the log holds of the ones before."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.tiny_socket import (
    OPEN,
    PING,
    SECOND,
    Call,
    ListHistory,
    TinySocket,
    connected,
    live,
    take,
    trade,
)
from tickhouse.clock import ScaledClock
from tickhouse.model.frame import FRAME_BYTES_MAX, Envelope, decode_envelope
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.model.session import (
    Closed,
    Coverage,
    Gap,
    Opened,
    Remote,
    SessionEvent,
    decode_event,
)
from tickhouse.source.feed import Delivery
from tickhouse.stream.recorder import Recorder
from tickhouse.stream.sqlite import SqliteLog

TRADES = TopicPartition(Stream.TRADES, 0)
EVENTS = TopicPartition(Stream.SESSIONS, 0)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    log = SqliteLog(tmp_path / "log.db")
    yield log
    log.close()


async def only_listen(call: Call) -> None:
    await call.stay()


# -- gaps -------------------------------------------------------------------------------------


def opened(at: int, *, feed: str = "finnhub://AAPL,MSFT?poll=off") -> Opened:
    return Opened(at, 0, feed, "live", None, None)


def covered(at: int, *symbols: str) -> Coverage:
    return Coverage(at, "socket", list(symbols), "subscribed")


def frame(session: str, rx: int, payload: str = PING) -> Envelope:
    return Envelope(1, "finnhub.ws", session, 0, rx, raw=msgspec.Raw(payload.encode()))


def gaps_after(
    told: list[tuple[str, SessionEvent]], held: list[Envelope], rest: str = "AAPL,MSFT?poll=off"
) -> list[Gap]:
    """The gaps that a new connection tells, given what the log holds."""

    async def run() -> list[Delivery]:
        async with TinySocket(only_listen) as server:
            feed = live(server, rest)
            feed.begin(ListHistory({0: told}, {0: held}))
            async with connected(feed) as items:
                found = await take(items, 2)
                return found if isinstance(found[1], Coverage) else found + await take(items, 1)

    return [item for item in asyncio.run(run()) if isinstance(item, Gap)]


T = OPEN - 600 * SECOND


def test_the_first_connection_ever_has_missed_nothing() -> None:
    assert gaps_after([], []) == []


def test_a_killed_recorder_leaves_a_gap_from_its_last_receipt_to_the_subscription() -> None:
    told = [("s1", opened(T)), ("s1", covered(T + 1, "AAPL", "MSFT", "TSLA"))]

    (gap,) = gaps_after(told, [frame("s1", T + 5 * SECOND), frame("s1", T + 9 * SECOND)])

    assert (gap.name, gap.stream, gap.cause) == ("s1", "trades", "the recorder was killed")
    assert gap.symbols == ["AAPL", "MSFT"]
    assert gap.time_from == T + 9 * SECOND
    assert OPEN + SECOND < gap.time_to < OPEN + 60 * SECOND
    assert (gap.seq_from, gap.seq_to, gap.id_from, gap.filled_by) == (None, None, None, None)


@pytest.mark.parametrize(
    ("closed", "cause"),
    [("stopped", "the recorder was stopped"), ("silent for 151 s", "silent for 151 s")],
)
def test_a_gap_says_why_the_connection_before_ended(closed: str, cause: str) -> None:
    told = [
        ("s1", opened(T)),
        ("s1", covered(T + 1, "AAPL", "MSFT")),
        ("s1", Closed(T + 10 * SECOND, closed, {"trades": 1})),
    ]

    (gap,) = gaps_after(told, [frame("s1", T + 9 * SECOND)])

    assert gap.cause == cause


def test_connections_that_never_subscribed_belong_to_the_gap() -> None:
    told = [
        ("s1", opened(T)),
        ("s1", covered(T + 1, "AAPL", "MSFT")),
        ("s1", Closed(T + 10 * SECOND, "connection lost", {})),
        ("s2", opened(T + 11 * SECOND)),
        ("s2", Closed(T + 12 * SECOND, "cannot be reached", {})),
        ("s3", opened(T + 13 * SECOND)),
        ("s3", Remote(T + 13 * SECOND)),
        ("s3", Closed(T + 14 * SECOND, "not connected", {})),
    ]

    (gap,) = gaps_after(told, [frame("s1", T + 9 * SECOND)])

    assert (gap.name, gap.time_from) == ("s1", T + 9 * SECOND)
    assert gap.cause == "connection lost; then 2 connections failed, the last: not connected"


def test_a_connection_that_delivered_nothing_leaves_a_gap_from_its_subscription() -> None:
    told = [
        ("s1", opened(T)),
        ("s1", covered(T + 1, "AAPL", "MSFT")),
        ("s2", opened(T + 11 * SECOND)),
        ("s2", covered(T + 12 * SECOND, "AAPL", "MSFT")),
        ("s2", Coverage(T + 60 * SECOND, "socket", ["AAPL"], "trades again")),
    ]

    (gap,) = gaps_after(told, [frame("s1", T + 9 * SECOND)])

    assert (gap.name, gap.time_from) == ("s2", T + 12 * SECOND)


def test_a_connection_that_only_pinged_has_missed_what_came_after_its_last_trade() -> None:
    reason = "no trade of any symbol for 181 s while the market is open"
    told: list[tuple[str, SessionEvent]] = [
        ("s1", opened(T)),
        ("s1", covered(T + 1, "AAPL", "MSFT")),
        ("s1", Closed(T + 250 * SECOND, reason, {"trades": 3})),
    ]
    held = [
        frame("s1", T + 5 * SECOND, trade("AAPL")),
        frame("s1", T + 60 * SECOND, PING),
        frame("s1", T + 120 * SECOND, PING),
    ]

    (gap,) = gaps_after(told, held)
    (of_silence,) = gaps_after(told, held[1:])

    assert (gap.time_from, gap.cause) == (T + 5 * SECOND, reason)
    assert of_silence.time_from == T + 1


def test_symbols_asked_for_before_and_not_any_more_are_no_gap() -> None:
    told = [("s1", opened(T)), ("s1", covered(T + 1, "AAPL", "TSLA"))]

    (gap,) = gaps_after(told, [], "AAPL,MSFT?poll=off")
    none = gaps_after(told, [], "NVDA,MSFT?poll=off")

    assert gap.symbols == ["AAPL"]
    assert none == []


def test_another_feed_on_the_same_log_is_not_what_was_missed() -> None:
    told = [
        ("s1", opened(T)),
        ("s1", covered(T + 1, "AAPL", "MSFT")),
        ("s1", Closed(T + 10 * SECOND, "stopped", {})),
        ("s2", opened(T + 20 * SECOND, feed="sim://sp500")),
        ("s2", Closed(T + 30 * SECOND, "stopped", {})),
        ("s3", opened(T + 40 * SECOND, feed="binance://btcusdt")),
        ("s3", covered(T + 41 * SECOND, "BINANCE:BTCUSDT")),
    ]

    (gap,) = gaps_after(told, [frame("s2", T + 25 * SECOND)])

    assert (gap.name, gap.time_from) == ("s1", T + 1)
    assert gap.cause == "the recorder was stopped"


# -- through the recorder ---------------------------------------------------------------------


def envelopes(log: SqliteLog, partition: TopicPartition) -> list[Envelope]:
    found: list[Envelope] = []
    position = 0
    while (batch := log.read(partition, position)) is not None:
        found += [e for value in batch.values if (e := decode_envelope(value)) is not None]
        position = batch.next
    return found


def events(log: SqliteLog) -> list[tuple[str, SessionEvent]]:
    return [(e.ses, decode_event(e.raw)) for e in envelopes(log, EVENTS)]


async def record(feed: Any, log: SqliteLog, until: asyncio.Event) -> None:
    stop = asyncio.Event()
    recorder = Recorder(feed, log, commit_ms=2, clock=ScaledClock(50))
    running = asyncio.create_task(recorder.run(stop))
    async with asyncio.timeout(20):
        await until.wait()
    await asyncio.sleep(0.05)
    stop.set()
    await running


def test_drops_and_restarts_leave_one_gap_each_and_no_message_is_lost(log: SqliteLog) -> None:
    sent: list[str] = []
    clock = ScaledClock(50, start_ns=OPEN)

    async def run(*, drops: int) -> None:
        done = asyncio.Event()

        async def script(call: Call) -> None:
            await call.hear(2)
            messages = [trade("AAPL", price=len(sent) + n) for n in range(50)]
            await call.send(*messages)
            sent.extend(messages)
            if call.number == drops:
                done.set()
                await call.stay()

        async with TinySocket(script) as server:
            await record(live(server, clock=clock), log, done)

    asyncio.run(run(drops=2))
    asyncio.run(run(drops=0))

    frames = envelopes(log, TRADES)
    told = events(log)
    sessions = [session for session, event in told if isinstance(event, Opened)]
    gaps = [(session, event) for session, event in told if isinstance(event, Gap)]
    assert [bytes(frame.raw).decode() for frame in frames] == sent
    assert len(sessions) == 4
    assert [(session, gap.name) for session, gap in gaps] == list(
        zip(sessions[1:], sessions[:-1], strict=True)
    )
    for (_, gap), before in zip(gaps, sessions[:-1], strict=True):
        last = [frame.rx for frame in frames if frame.ses == before][-1]
        assert gap.time_from == last < gap.time_to
    assert [gap.cause for _, gap in gaps] == [
        "closed by the server: 1000",
        "closed by the server: 1000",
        "the recorder was stopped",
    ]


def test_a_message_too_large_for_the_log_is_a_gap_and_the_connection_goes_on(
    log: SqliteLog,
) -> None:
    async def run() -> int:
        done = asyncio.Event()

        async def script(call: Call) -> None:
            await call.hear(2)
            await call.send(trade("AAPL"), "y" * (10 << 20), trade("MSFT"))
            done.set()
            await call.stay()

        async with TinySocket(script) as server:
            await record(live(server), log, done)
            return len(server.calls)

    calls = asyncio.run(run())

    assert calls == 1
    assert [frame.seq for frame in envelopes(log, TRADES)] == [0, 2]
    (gap,) = [event for _, event in events(log) if isinstance(event, Gap)]
    assert (gap.seq_from, gap.seq_to) == (1, 1)
    assert f"over the limit of {FRAME_BYTES_MAX}" in gap.cause
