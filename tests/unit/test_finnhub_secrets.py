"""The key: in no log, error, `repr`, address or traceback."""

import asyncio
import logging
import traceback
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import pytest
import structlog

from support.tiny_http import Reply, TinyServer
from support.tiny_socket import TOKEN, Call, TinySocket, connected, live, options, take
from tickhouse.clock import ScaledClock
from tickhouse.errors import ConfigError, FeedClosedError, TickhouseError
from tickhouse.source.finnhub.feed import open_finnhub, open_finnhub_rest


@pytest.fixture(autouse=True)
def every_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever any library logs at any level must not hold the key either."""
    names = ("websockets", "websockets.client", "httpx", "httpcore", "asyncio", "tickhouse")
    for name in names:
        caplog.set_level(logging.DEBUG, logger=name)
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as captured:
        yield
    logged = [record.getMessage() for record in caplog.get_records("call")]
    assert TOKEN not in "\n".join(logged)
    assert TOKEN not in str(captured)


async def leak(call: Call) -> None:
    await call.hear(1)
    await call.send(f'{{"type":"error","msg":"bad key {TOKEN}"}}')
    await call.connection.close(1008, f"who is {TOKEN}?")


def everything_of(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error))
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return text + repr(chain) + str([vars(link) for link in chain])


async def fail(feed: Any) -> TickhouseError:
    async with connected(feed) as items:
        try:
            while True:
                await take(items, 1)
        except TickhouseError as error:
            return error


@pytest.mark.parametrize(
    "status", [None, HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY]
)
def test_no_error_of_the_socket_holds_the_key(status: HTTPStatus | None) -> None:
    async def run() -> TickhouseError:
        async with TinySocket(leak, status=status) as server:
            error = await fail(live(server, "AAPL"))
            assert TOKEN in server.paths[0]
            return error

    assert TOKEN not in everything_of(asyncio.run(run()))


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1", "wss://127.0.0.1:1", "ws://host.invalid:99"])
def test_no_error_of_a_socket_that_cannot_be_opened_holds_the_key(url: str) -> None:
    feed = open_finnhub("AAPL", options(ws_url=url), clock=ScaledClock(5))
    error = asyncio.run(fail(feed))

    assert isinstance(error, FeedClosedError | ConfigError)
    assert TOKEN not in everything_of(error)


def test_an_error_of_the_library_that_holds_the_key_is_passed_on_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(url: str, **_options: object) -> None:
        raise OSError(f"no route to {url}")

    monkeypatch.setattr("websockets.asyncio.client.connect", refuse)
    error = asyncio.run(fail(open_finnhub("AAPL", options(), clock=ScaledClock(5))))

    assert str(error) == "127.0.0.1: cannot be reached (no route to ws://127.0.0.1:9?token=***)"
    assert TOKEN not in everything_of(error)


def test_no_error_of_the_poller_holds_the_key() -> None:
    async def run() -> TickhouseError:
        said = Reply(f'{{"error":"{TOKEN}"}}'.encode(), status=401)
        async with TinyServer(lambda _request: said) as server:
            given = options(rest_url=server.url)
            return await fail(open_finnhub_rest("AAPL", given, clock=ScaledClock(5)))

    error = asyncio.run(run())

    assert TOKEN not in "".join(traceback.format_exception(error))
    assert TOKEN not in str(error)


def test_no_feed_shows_the_key() -> None:
    clock = ScaledClock(1)
    for feed in (
        open_finnhub("AAPL", options(), clock=clock),
        open_finnhub_rest("AAPL", options(), clock=clock),
    ):
        assert TOKEN not in feed.url + repr(feed) + str(feed) + repr(vars(feed))


def test_a_key_with_odd_characters_arrives_whole() -> None:
    from tickhouse.source.secret import Secret

    async def script(call: Call) -> None:
        await call.stay()

    async def run() -> list[str]:
        async with TinySocket(script) as server:
            async with connected(live(server, "AAPL", token=Secret("a&b=c#d/é"[:8]))) as items:
                await take(items, 1)
            return server.paths

    assert asyncio.run(run()) == ["/?token=a%26b%3Dc%23d%2F"]
