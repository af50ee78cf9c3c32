"""The Finnhub double itself: bodies by the Swagger, rules and faults of the socket."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from servers.finnhub import FinnhubDouble, RecordedFrames, SimulatedDay
from servers.finnhub.faults import FRAME, KINDS
from tickhouse.clock import ScaledClock
from tickhouse.model.calendar import new_york
from tickhouse.source.simulator import Scenario

HERE = Path(__file__).parents[1]
SWAGGER = json.loads((HERE / "servers" / "finnhub" / "swagger_excerpt.json").read_text())
DAY = date(2026, 3, 2)
REST_FIELDS = {
    "/quote?symbol=AAPL": {"c", "d", "dp", "h", "l", "o", "pc", "t"},
    "/stock/profile2?symbol=AAPL": {"ticker", "name", "marketCapitalization", "finnhubIndustry"},
    "/stock/market-status?exchange=US": {"isOpen", "session", "holiday", "t", "timezone"},
    "/stock/market-holiday?exchange=US": {"data", "exchange", "timezone"},
    "/stock/tick?symbol=AAPL&date=2026-03-02&limit=3&skip=1": {"p", "v", "t", "c", "total"},
    "/search?q=AAP": {"count", "result"},
}

Test = Callable[[FinnhubDouble], Awaitable[None]]


def simulated() -> tuple[SimulatedDay, ScaledClock]:
    session = new_york().session_on(DAY)
    assert session is not None
    scenario = Scenario(seed=7, symbols=5, rate=50, market="exchange")
    end_ns = session.open_ns + 3600 * 10**9
    clock = ScaledClock(40, start_ns=session.open_ns)
    return SimulatedDay(scenario, DAY, end_ns=end_ns), clock


def with_double(test: Test, **options: Any) -> None:
    async def run() -> None:
        market, clock = simulated()
        async with FinnhubDouble(market, clock=clock, **options) as double:
            await asyncio.wait_for(test(double), 30)

    asyncio.run(run())


def schema_of(path: str) -> dict[str, Any]:
    """The Swagger's schema; a field that its own sample has as null may be null."""
    call = SWAGGER["paths"][path]["get"]
    name = call["responses"]["200"]["schema"]["$ref"].rpartition("/")[2]
    definitions = json.loads(json.dumps(SWAGGER["definitions"]))
    for field, value in json.loads(call["sampleResponse"]).items():
        if value is None:
            definitions[name]["properties"][field]["type"] = ["string", "null"]
    return {"$ref": f"#/definitions/{name}", "definitions": definitions}


async def subscribe(double: FinnhubDouble, *symbols: str) -> ClientConnection:
    connection = await connect(f"{double.ws_url}?token={double.token}", compression=None)
    for symbol in symbols:
        await connection.send(json.dumps({"type": "subscribe", "symbol": symbol}))
    return connection


async def messages(connection: ClientConnection) -> AsyncIterator[str | bytes]:
    async for message in connection:
        yield message


async def drained(connection: ClientConnection) -> None:
    while True:
        await connection.recv()


async def get(double: FinnhubDouble, path: str, key: str | None = None) -> httpx.Response:
    headers = {"X-Finnhub-Token": double.token if key is None else key}
    async with httpx.AsyncClient(headers=headers) as client:
        return await client.get(double.rest_url + path)


@pytest.mark.parametrize("path", sorted(REST_FIELDS))
def test_an_answer_is_valid_by_the_swagger_and_has_the_fields_seen_live(path: str) -> None:
    async def test(double: FinnhubDouble) -> None:
        answer = await get(double, path)
        name = path.partition("?")[0]
        body = answer.json()

        assert answer.status_code == 200
        jsonschema.validate(body, schema_of(name))
        assert REST_FIELDS[path] <= set(body)
        assert answer.headers["X-Ratelimit-Limit"] == "60"
        assert answer.headers["X-Ratelimit-Remaining"] == "59"

    with_double(test, is_premium=True)


def test_every_listed_symbol_is_valid_by_the_swagger() -> None:
    async def test(double: FinnhubDouble) -> None:
        body = (await get(double, "/stock/symbol?exchange=US")).json()
        schema = {"$ref": "#/definitions/StockSymbol", "definitions": SWAGGER["definitions"]}

        assert len(body) > 400
        for item in body[:20]:
            jsonschema.validate(item, schema)

    with_double(test)


@pytest.mark.parametrize(
    ("path", "key", "status", "error"),
    [
        ("/quote?symbol=AAPL", "", 401, "Please use an API key."),
        ("/quote?symbol=AAPL", "wrong", 401, "Invalid API key."),
        ("/stock/tick?symbol=AAPL", None, 403, "You don't have access to this resource."),
    ],
)
def test_errors_are_finnhubs_own(path: str, key: str | None, status: int, error: str) -> None:
    async def test(double: FinnhubDouble) -> None:
        answer = await get(double, path, key)

        assert (answer.status_code, answer.json()) == (status, {"error": error})

    with_double(test)


def test_the_61st_call_of_a_minute_is_refused() -> None:
    async def test(double: FinnhubDouble) -> None:
        double.rest.calls_per_minute = 5
        statuses = [
            (await double.rest.answer("/quote?symbol=AAPL", double.token))[0] for _ in range(7)
        ]

        assert statuses == [200] * 5 + [429] * 2

    with_double(test)


def test_an_unknown_symbol_has_a_quote_of_zeros() -> None:
    async def test(double: FinnhubDouble) -> None:
        body = (await get(double, "/quote?symbol=NONE")).json()

        assert body == dict.fromkeys(("c", "h", "l", "o", "pc", "t"), 0) | {"d": None, "dp": None}

    with_double(test)


def test_only_subscribed_symbols_come_ten_trades_a_message_at_most() -> None:
    async def test(double: FinnhubDouble) -> None:
        connection = await subscribe(double, "AAPL", "MSFT")
        seen: set[str] = set()
        async for message in messages(connection):
            trades = json.loads(message).get("data", [])
            seen |= {trade["s"] for trade in trades}
            assert len(trades) <= 10
            if len(seen) == 2:
                break
        await connection.close()

        assert seen == {"AAPL", "MSFT"}

    with_double(test)


def test_a_symbol_over_the_limit_is_refused_and_unsubscribing_frees_its_place() -> None:
    async def test(double: FinnhubDouble) -> None:
        double.symbols_max = 1
        connection = await subscribe(double, "AAPL", "MSFT")
        async for message in messages(connection):
            if json.loads(message)["type"] == "error":
                break
        await connection.send('{"type":"unsubscribe","symbol":"AAPL"}')
        await connection.send('{"type":"subscribe","symbol":"MSFT"}')
        async for message in messages(connection):
            if "MSFT" in str(message):
                break
        await connection.close()

        assert double.faults.struck["too_many"] == 1

    with_double(test)


def test_a_second_connection_of_the_key_drops_both() -> None:
    async def test(double: FinnhubDouble) -> None:
        first = await subscribe(double, "AAPL")
        second = await subscribe(double)
        for connection in (first, second):
            with pytest.raises(ConnectionClosed):
                await drained(connection)

    with_double(test)


@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_wrong_key_is_refused_at_the_handshake(token: str) -> None:
    async def test(double: FinnhubDouble) -> None:
        with pytest.raises(InvalidStatus) as refusal:
            await connect(f"{double.ws_url}?token={token}")

        assert refusal.value.response.status_code == 401

    with_double(test)


def test_a_silent_connection_stays_open_and_delivers_nothing() -> None:
    async def test(double: FinnhubDouble) -> None:
        connection = await subscribe(double, "AAPL", "MSFT")
        await connection.recv()
        await double.strike("silence")
        while True:
            try:
                await asyncio.wait_for(connection.recv(), 0.5)
            except TimeoutError:
                break
        outages = double.record.outages
        await connection.close()

        assert outages
        assert outages[0].cause == "silence"
        assert outages[0].frames

    with_double(test)


@pytest.mark.parametrize("kind", FRAME)
def test_a_spoilt_frame_is_noted_as_it_was_sent(kind: str) -> None:
    async def test(double: FinnhubDouble) -> None:
        await double.strike(kind)
        connection = await connect(
            f"{double.ws_url}?token={double.token}", compression=None, max_size=None
        )
        await connection.send('{"type":"subscribe","symbol":"AAPL"}')
        received: list[bytes] = []
        while len(received) < 3:
            message = await connection.recv()
            received.append(message if isinstance(message, bytes) else message.encode())
        sent = double.record.connections["ray-1"].messages[:3]
        await connection.close()

        assert received == sent
        assert double.faults.struck[kind] == 1

    with_double(test)


def test_faults_are_switched_on_over_the_control_api() -> None:
    async def test(double: FinnhubDouble) -> None:
        base = double.rest_url.removesuffix("/api/v1")
        async with httpx.AsyncClient() as client:
            await client.get(f"{base}/control/strike?kind=rest_429_text&count=2")
        answers = [await get(double, "/quote?symbol=AAPL") for _ in range(3)]
        async with httpx.AsyncClient() as client:
            state = (await client.get(f"{base}/control/state")).json()

        assert [answer.status_code for answer in answers] == [429, 429, 200]
        assert answers[0].text == "API limit reached. Please try again later."
        assert state["struck"] == {"rest_429_text": 2}
        assert state["kinds"] == list(KINDS)

    with_double(test)


@pytest.mark.parametrize(
    "name", ["ws_trade_AAPL_20230331_regular.jsonl", "ws_trade_TSLA_AAPL_20221229_afterhours.jsonl"]
)
def test_recorded_frames_are_served_byte_for_byte(name: str) -> None:
    path = HERE / "data" / "finnhub" / name

    async def run() -> list[bytes]:
        market = RecordedFrames(path, every_ns=3 * 10**8)
        received: list[bytes] = []
        async with FinnhubDouble(market) as double:
            connection = await subscribe(double, "AAPL")
            while len(received) < 1:
                received.append(await connection.recv(decode=False))
            await connection.close()
        return received

    assert asyncio.run(run())[0] in path.read_bytes().splitlines()
