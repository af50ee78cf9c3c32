"""The socket: everything as delivered, gaps told, silence and refusals recognised."""

import asyncio
import contextlib
import re
import socket
import ssl
import subprocess
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

import pytest

from support.tiny_socket import (
    CLOSED,
    OPEN,
    PING,
    SECOND,
    TOO_MANY,
    Call,
    FakeClock,
    TinySocket,
    connected,
    live,
    options,
    take,
    trade,
)
from tickhouse.clock import ScaledClock
from tickhouse.errors import ConfigError, FeedClosedError
from tickhouse.model.positions import Stream
from tickhouse.model.session import (
    Coverage,
    Remote,
)
from tickhouse.source import websocket
from tickhouse.source.feed import Arrivals, Delivery, Feed
from tickhouse.source.finnhub.coverage import CoverageBoard
from tickhouse.source.finnhub.feed import open_finnhub


async def nothing(_call: Call) -> None:
    """Close at once."""


async def only_listen(call: Call) -> None:
    await call.stay()


async def drained(feed: Feed) -> tuple[list[Delivery], FeedClosedError]:
    """Everything that a connection delivers until it ends."""
    items: list[Delivery] = []
    async with connected(feed) as delivered:
        try:
            while True:
                items += await take(delivered, 1)
        except FeedClosedError as error:
            return items, error


def payloads(items: Sequence[Delivery]) -> list[bytes]:
    return [p for item in items if isinstance(item, Arrivals) for p in item.payloads]


def refused_by(feed: Feed) -> FeedClosedError:
    return asyncio.run(drained(feed))[1]


# -- delivery ---------------------------------------------------------------------------------


def test_a_connection_tells_the_server_the_key_subscribes_and_says_what_it_covers() -> None:
    async def script(call: Call) -> None:
        await call.hear(2)
        await call.stay()

    async def run() -> None:
        async with TinySocket(script) as server:
            feed = live(server, "MSFT,NVDA?poll=off")
            async with connected(feed) as items:
                remote, coverage = await take(items, 2)

            assert server.paths == ["/?token=c9secret7token"]
            assert server.calls[0].asked == [
                {"type": "subscribe", "symbol": "NVDA"},
                {"type": "subscribe", "symbol": "MSFT"},
            ]
            assert isinstance(remote, Remote)
            assert remote.ray == "8f00-LHR"
            assert remote.clock_offset_ms is not None
            assert isinstance(coverage, Coverage)
            assert (coverage.channel, coverage.symbols) == ("socket", ["NVDA", "MSFT"])

    asyncio.run(run())


ODD = [
    trade("AAPL"),
    PING,
    '{"msg":"Invalid symbol","type":"error"}',
    b"\x00\xff binary",
    "not json \u00e9\n",
    '{"data":null,"type":"trade"}',
    '{"data":[{"s":7}],"type":"trade"}',
    "[" * 100_000 + "]" * 100_000,
    '{"type":"trade","data":[{"s":"AAPL","p":NaN}]}',
    "",
    "x" * (10 << 20),
    trade("AAPL", "MSFT"),
]


def test_every_message_is_delivered_byte_for_byte_in_order_whatever_it_is() -> None:
    async def script(call: Call) -> None:
        await call.hear(2)
        await call.send(*ODD)

    async def run() -> list[Delivery]:
        async with TinySocket(script) as server:
            return (await drained(live(server)))[0]

    items = asyncio.run(run())

    assert payloads(items) == [m if isinstance(m, bytes) else m.encode() for m in ODD]
    arrivals = [item for item in items if isinstance(item, Arrivals)]
    assert {(item.stream, item.symbol, item.source) for item in arrivals} == {
        (Stream.TRADES, None, None)
    }
    stamps = [item.received_at_ns for item in arrivals]
    assert stamps == sorted(stamps)
    assert OPEN < stamps[0] < OPEN + 60 * SECOND


def test_messages_that_came_together_are_handed_over_together() -> None:
    messages = [trade("AAPL", price=n) for n in range(2000)]

    async def script(call: Call) -> None:
        await call.hear(2)
        await call.send(*messages)

    async def run() -> list[Delivery]:
        async with TinySocket(script) as server:
            return (await drained(live(server)))[0]

    items = asyncio.run(run())

    assert payloads(items) == [message.encode() for message in messages]
    assert len([item for item in items if isinstance(item, Arrivals)]) < 500


def test_the_server_closing_is_said_with_its_own_words() -> None:
    async def script(call: Call) -> None:
        await call.hear(2)
        await call.connection.close(1013, "try again later")

    async def run() -> FeedClosedError:
        async with TinySocket(script) as server:
            return (await drained(live(server)))[1]

    assert asyncio.run(run()).reason == "closed by the server: 1013 (try again later)"


def test_a_message_beyond_all_measure_ends_the_connection_and_says_so() -> None:
    async def script(call: Call) -> None:
        await call.hear(2)
        await call.send(trade("AAPL"), "z" * (17 << 20))
        await call.stay()

    async def run() -> tuple[list[Delivery], FeedClosedError]:
        async with TinySocket(script) as server:
            return await drained(live(server))

    items, error = asyncio.run(run())

    assert payloads(items) == [trade("AAPL").encode()]
    assert error.reason == (
        "connection lost: frame with 17825792 bytes exceeds limit of 16777216 bytes"
    )


# -- the cap ----------------------------------------------------------------------------------


def test_symbols_that_the_server_refuses_are_polled_and_not_asked_for_again() -> None:
    async def script(call: Call) -> None:
        asked = await call.hear(3 if call.number == 0 else 2)
        if call.number == 0:
            assert asked == ["NVDA", "AAPL", "MSFT"]
            await call.send(TOO_MANY)
            assert await call.hear(1, "unsubscribe") == ["MSFT"]
        await call.send(trade("AAPL"))

    async def run() -> tuple[list[Delivery], TinySocket]:
        async with TinySocket(script) as server:
            feed = live(server, "AAPL,MSFT,NVDA")
            items, _ = await drained(feed)
            await drained(feed)
            return items, server

    items, server = asyncio.run(run())

    told = [item for item in items if isinstance(item, Coverage)]
    assert [(event.channel, event.symbols) for event in told] == [
        ("socket", ["NVDA", "AAPL", "MSFT"]),
        ("polling", ["MSFT"]),
    ]
    assert told[1].reason == "the socket refused more than 2 symbols"
    assert payloads(items)[0] == TOO_MANY.encode()
    assert server.calls[1].symbols() == ["NVDA", "AAPL"]


def test_only_as_many_as_the_plan_allows_are_subscribed() -> None:
    async def script(call: Call) -> None:
        await call.hear(2)

    async def run() -> TinySocket:
        async with TinySocket(script) as server:
            await drained(live(server, "sp500?symbols=5", symbols_max=2))
            return server

    assert asyncio.run(run()).calls[0].symbols() == ["NVDA", "AAPL"]


def test_a_plan_without_socket_symbols_opens_no_connection() -> None:
    async def run() -> tuple[list[Delivery], TinySocket]:
        async with TinySocket(only_listen) as server, connected(live(server, symbols_max=0)) as got:
            return [item async for item in got], server

    items, server = asyncio.run(run())

    assert items == []
    assert server.paths == []


# -- silence ----------------------------------------------------------------------------------


def silence(start_ns: int, rest: str, *, speed: float = 500.0) -> tuple[str, float]:
    """Why a connection without a word ends, and after how many seconds."""

    async def run() -> tuple[str, float]:
        clock = ScaledClock(speed, start_ns=start_ns)
        async with TinySocket(only_listen) as server:
            feed = live(server, rest, clock=clock)
            async with connected(feed) as items:
                await take(items, 2)
                subscribed_at = clock.monotonic()
                with pytest.raises(FeedClosedError) as raised:
                    await take(items, 1)
                return raised.value.reason, clock.monotonic() - subscribed_at

    return asyncio.run(run())


def test_a_connection_silent_while_the_market_is_open_is_dead() -> None:
    reason, after_s = silence(OPEN, "AAPL?poll=off")

    assert reason.endswith("s while the market is open")
    assert 150 < after_s < 600


def test_crypto_makes_silence_suspicious_on_a_saturday_too() -> None:
    assert silence(CLOSED, "AAPL,BINANCE:BTCUSDT?poll=off")[1] < 600


def test_silence_is_borne_longer_while_nothing_can_trade() -> None:
    reason, after_s = silence(CLOSED, "AAPL?poll=off")

    assert reason.endswith("without a ping")
    assert after_s > 600


def test_a_ping_is_a_sign_of_life() -> None:
    async def script(call: Call) -> None:
        await call.hear(1)
        for _ in range(12):
            await call.send(PING)
            await asyncio.sleep(0.1)

    async def run() -> tuple[list[Delivery], str]:
        clock = ScaledClock(300, start_ns=OPEN)
        async with TinySocket(script) as server:
            items, error = await drained(live(server, "AAPL?poll=off", clock=clock))
            return items, error.reason

    items, reason = asyncio.run(run())

    assert payloads(items) == [PING.encode()] * 12
    assert reason == "closed by the server: 1000"


@pytest.mark.parametrize(("traded", "least_s", "most_s"), [(5, 180, 900), (0, 900, 2000)])
def test_pings_without_any_trade_in_regular_hours_do_not_pass_for_life(
    traded: int, least_s: float, most_s: float
) -> None:
    async def script(call: Call) -> None:
        symbols = await call.hear(5)
        await call.send(*(trade(symbol) for symbol in symbols[:traded]))
        while True:
            await call.send(PING)
            await asyncio.sleep(0.01)

    async def run() -> FeedClosedError:
        clock = ScaledClock(500, start_ns=OPEN)
        async with TinySocket(script) as server:
            return (await drained(live(server, "sp500?symbols=5", clock=clock)))[1]

    reason = asyncio.run(run()).reason

    match = re.fullmatch(r"no trade of any symbol for (\d+) s while the market is open", reason)
    assert match is not None
    assert least_s <= float(match[1]) < most_s


def test_a_silent_symbol_is_told_to_be_polled_and_told_again_when_it_trades() -> None:
    async def run() -> list[Coverage]:
        fallen = asyncio.Event()

        async def script(call: Call) -> None:
            await call.hear(2)
            while not fallen.is_set():
                await call.send(trade("AAPL"))
                await asyncio.sleep(0.01)
            await call.send(trade("AAPL", "MSFT"))
            await call.stay()

        told: list[Coverage] = []
        clock = ScaledClock(1500, start_ns=OPEN)
        async with TinySocket(script) as server:
            feed = live(server, "AAPL,MSFT", clock=clock, silence_s=1e6)
            async with connected(feed) as items:
                while len(told) < 3:
                    told += [item for item in await take(items, 1) if isinstance(item, Coverage)]
                    if len(told) == 2:
                        fallen.set()
        return told

    told = asyncio.run(run())

    assert [(event.channel, event.symbols, event.reason) for event in told] == [
        ("socket", ["AAPL", "MSFT"], "subscribed"),
        ("polling", ["MSFT"], "silent for 900 s"),
        ("socket", ["MSFT"], "trades again"),
    ]


def test_a_busy_recorder_holds_the_server_back_and_is_not_taken_for_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websocket, "WAITING_BYTES_MAX", 1)
    messages = [trade("AAPL", price=n) for n in range(300)]

    async def script(call: Call) -> None:
        await call.hear(1)
        await call.send(*messages)
        await asyncio.sleep(0.6)

    async def run() -> list[Delivery]:
        clock = ScaledClock(400, start_ns=OPEN)
        async with TinySocket(script) as server:
            feed = live(server, "AAPL?poll=off", clock=clock)
            async with connected(feed) as delivered:
                items = await take(delivered, 3)
                await asyncio.sleep(0.4)
                with contextlib.suppress(FeedClosedError):
                    while True:
                        items += await take(delivered, 1)
                return items

    assert payloads(asyncio.run(run())) == [message.encode() for message in messages]


def test_the_time_of_a_busy_recorder_does_not_count_as_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websocket, "WAITING_BYTES_MAX", 1)

    async def script(call: Call) -> None:
        await call.hear(1)
        await call.send(PING)
        await call.stay()

    async def run() -> str:
        clock = ScaledClock(1000, start_ns=OPEN)
        async with TinySocket(script) as server:
            feed = live(server, "AAPL?poll=off", clock=clock)
            async with connected(feed) as delivered:
                await take(delivered, 2)
                await asyncio.sleep(3.0)
                with pytest.raises(FeedClosedError) as raised:
                    await take(delivered, 2)
                return raised.value.reason

    match = re.fullmatch(r"silent for (\d+) s while the market is open", asyncio.run(run()))
    assert match is not None
    assert int(match[1]) < 2_800


def test_a_watch_that_fails_is_not_silent_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_board: CoverageBoard) -> bool:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(CoverageBoard, "is_expecting", property(fail))

    async def run() -> None:
        async with TinySocket(only_listen) as server:
            await drained(live(server, clock=ScaledClock(1000, start_ns=OPEN)))

    with pytest.raises(RuntimeError, match="a mistake of ours"):
        asyncio.run(run())


# -- refusals ---------------------------------------------------------------------------------


def test_a_connection_dropped_at_once_again_and_again_is_a_key_in_use() -> None:
    async def run() -> list[str]:
        async with TinySocket(nothing) as server:
            feed = live(server)
            return [(await drained(feed))[1].reason for _ in range(4)]

    reasons = asyncio.run(run())

    assert reasons[:2] == ["closed by the server: 1000"] * 2
    assert reasons[2] == (
        "closed by the server: 1000; dropped 3 times as soon as it was open: the key seems to be"
        " in use elsewhere: one connection a key"
    )
    assert "dropped 4 times" in reasons[3]


def test_a_connection_that_lived_breaks_the_series_of_drops() -> None:
    clock = FakeClock()

    async def script(call: Call) -> None:
        await call.hear(1)
        if call.number == 2:
            clock.elapsed_s += 3.0

    async def run() -> list[str]:
        async with TinySocket(script) as server:
            feed = live(server, "AAPL?poll=off", clock=_StillClock(clock))
            return [(await drained(feed))[1].reason for _ in range(5)]

    assert [reason for reason in asyncio.run(run()) if "in use" in reason] == []


class _StillClock(FakeClock):
    """A clock that only the test moves."""

    def __init__(self, other: FakeClock) -> None:
        super().__init__()
        self.other = other

    def monotonic(self) -> float:
        return self.other.elapsed_s

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("status", [HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN])
def test_a_refused_key_is_for_an_operator_to_act_on(status: HTTPStatus) -> None:
    async def run() -> None:
        async with (
            TinySocket(nothing, status=status) as server,
            connected(live(server)) as items,
        ):
            await take(items, 1)

    with pytest.raises(ConfigError) as raised:
        asyncio.run(run())

    assert str(raised.value) == (
        f"127.0.0.1: HTTP {status.value} at the handshake (no, not with ***): the API key is"
        " refused; set TICKHOUSE_FINNHUB_TOKEN or finnhub_token_file to the key on your Finnhub"
        " dashboard (a free key: https://finnhub.io/register)"
    )


@pytest.mark.parametrize(
    ("status", "retry_after_s", "said"),
    [
        (HTTPStatus.TOO_MANY_REQUESTS, 30.0, "too many connections"),
        (HTTPStatus.BAD_GATEWAY, 1.0, "HTTP 502 at the handshake"),
        (HTTPStatus.NOT_FOUND, 1.0, "check finnhub_ws_url"),
    ],
)
def test_what_may_pass_is_tried_again(status: HTTPStatus, retry_after_s: float, said: str) -> None:
    async def run() -> FeedClosedError:
        async with TinySocket(nothing, status=status) as server:
            return (await drained(live(server)))[1]

    error = asyncio.run(run())

    assert said in error.reason
    assert error.retry_after_s == retry_after_s


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_an_unreachable_host_is_said() -> None:
    more = options(ws_url=f"ws://127.0.0.1:{free_port()}")
    error = refused_by(open_finnhub("AAPL?poll=off", more, clock=ScaledClock(1)))

    assert error.reason.startswith("127.0.0.1: cannot be reached (")


def test_a_host_that_never_answers_the_handshake_is_given_up() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        writer.close()

    async def run() -> FeedClosedError:
        async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            more = options(ws_url=f"ws://127.0.0.1:{port}")
            error = (await drained(open_finnhub("AAPL", more, clock=ScaledClock(200))))[1]
            await asyncio.sleep(0.05)
            return error

    assert asyncio.run(run()).reason == "127.0.0.1: not connected within 20 s"


def certificate(folder: Path, *, days: int) -> ssl.SSLContext:
    """A server's certificate for 127.0.0.1, its own authority; of -1 days: it has expired."""
    request, key, cert = (str(folder / name) for name in ("request.pem", "key.pem", "cert.pem"))
    extension = folder / "extension"
    extension.write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:TRUE\n")
    ask = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"]
    sign = ["x509", "-req", "-signkey", key, "-days", str(days), "-extfile", str(extension)]
    for command in ([*ask, "-keyout", key, "-out", request], [*sign, "-in", request, "-out", cert]):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


def test_an_expired_certificate_is_said_and_the_key_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = certificate(tmp_path, days=-1)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))

    async def run() -> tuple[FeedClosedError, TinySocket]:
        async with TinySocket(nothing, tls=tls) as server:
            return (await drained(live(server)))[1], server

    error, server = asyncio.run(run())

    assert error.reason == (
        "127.0.0.1: its certificate has expired; check this machine's clock, and finnhub_ws_url"
    )
    assert server.paths == []


def test_tls_spoken_to_a_server_that_does_not_is_said() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async def run() -> FeedClosedError:
        async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            more = options(ws_url=f"wss://127.0.0.1:{port}")
            return (await drained(open_finnhub("AAPL", more, clock=ScaledClock(1))))[1]

    assert "no TLS connection" in asyncio.run(run()).reason
