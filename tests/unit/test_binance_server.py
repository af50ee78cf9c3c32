"""The recorded Binance itself: what it answers is what Binance documents."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from servers.binance import BinanceServer, read_capture
from servers.binance.exchange import as_old_trade

STREAMS = "/stream?streams=btcusdt@trade/ethusdt@trade"


def with_server(script: Callable[[BinanceServer, httpx.AsyncClient], Awaitable[None]]) -> None:
    async def run() -> None:
        async with (
            BinanceServer() as server,
            httpx.AsyncClient(base_url=server.rest_url) as client,
        ):
            await script(server, client)

    asyncio.run(run())


def test_subscribers_get_the_recorded_bytes_of_their_streams_alone() -> None:
    async def script(server: BinanceServer, client: httpx.AsyncClient) -> None:
        async with connect(server.ws_url + "/stream?streams=ethusdt@trade") as connection:
            await server.connected()
            await server.emit(60)
            expected = [m.payload for m in server.exchange.messages[:60] if m.symbol == "ETHUSDT"]
            assert [await connection.recv(decode=False) for _ in expected] == expected
            assert sorted(server.sent) == ["ETHUSDT"]

    with_server(script)


def test_who_is_not_connected_or_not_sent_to_misses_what_happens() -> None:
    async def script(server: BinanceServer, client: httpx.AsyncClient) -> None:
        async with connect(server.ws_url + STREAMS, max_queue=None):
            await server.connected()
            await server.emit(50)
            server.is_silent = True
            await server.emit(10)
        await server.disconnected()
        await server.emit(15)
        assert sum(len(server.missed(symbol)) for symbol in server.exchange.symbols) == 25

    with_server(script)


@pytest.mark.parametrize(("how", "code"), [("close", 1001), ("reset", 1006)])
def test_a_drop_closes_politely_or_not(how: str, code: int) -> None:
    async def script(server: BinanceServer, client: httpx.AsyncClient) -> None:
        async with connect(server.ws_url + STREAMS) as connection:
            await server.connected()
            await server.drop(how)
            with pytest.raises(ConnectionClosed):
                await connection.recv()
            assert connection.close_code == code

    with_server(script)


def test_old_trades_are_those_that_happened_from_an_id_on() -> None:
    async def script(server: BinanceServer, client: httpx.AsyncClient) -> None:
        await server.emit(2000)
        btc = [m for m in server.exchange.messages[:2000] if m.symbol == "BTCUSDT"]
        query = {"symbol": "BTCUSDT", "fromId": btc[10].id, "limit": 5}
        answer = await client.get("/api/v3/historicalTrades", params=query)
        assert answer.json() == [as_old_trade(message) for message in btc[10:15]]
        assert set(answer.json()[0]) == {
            "id", "price", "qty", "quoteQty", "time", "isBuyerMaker", "isBestMatch"
        }  # fmt: skip
        assert int(answer.headers["X-MBX-USED-WEIGHT-1M"]) > 0
        newest = await client.get("/api/v3/historicalTrades", params={"symbol": "BTCUSDT"})
        assert [old["id"] for old in newest.json()] == [message.id for message in btc[-500:]]
        most = await client.get("/api/v3/historicalTrades?symbol=BTCUSDT&fromId=0&limit=5000")
        assert len(most.json()) == 1000

    with_server(script)


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 400, -1102),
        ("symbol=NOSUCHPAIR", 400, -1121),
        ("symbol=BTCUSDT&fromId=x", 400, -1100),
        ("symbol=BTCUSDT&limit=-1", 400, -1100),
    ],
)
def test_a_question_that_is_none_gets_binances_own_code(query: str, status: int, code: int) -> None:
    async def script(server: BinanceServer, client: httpx.AsyncClient) -> None:
        answer = await client.get(f"/api/v3/historicalTrades?{query}")
        assert (answer.status_code, answer.json()["code"]) == (status, code)

    with_server(script)


@pytest.mark.parametrize(
    ("mode", "status"),
    [("refused", 401), ("waf", 403), ("banned", 418), ("limited", 429), ("failing", 500)],
)
def test_faults_of_the_fill_are_switched_on_for_one_answer_or_for_all(
    mode: str, status: int
) -> None:
    async def script(server: BinanceServer, client: httpx.AsyncClient) -> None:
        url = "/api/v3/historicalTrades?symbol=BTCUSDT"
        server.next_answers.append(mode)
        assert (await client.get(url)).status_code == status
        assert (await client.get(url)).status_code == 200
        server.fill = mode
        answer = await client.get(url)
        assert answer.status_code == status
        assert ("Retry-After" in answer.headers) == (status in {418, 429})

    with_server(script)


def test_faults_are_switched_over_http_too() -> None:
    async def script(server: BinanceServer, client: httpx.AsyncClient) -> None:
        await client.get("/control/set?fill=refused&silent=1&refuses=503")
        assert (server.fill, server.is_silent, server.refuses) == ("refused", True, 503)
        await client.get("/control/set?silent=0&refuses=0")
        assert (server.fill, server.is_silent, server.refuses) == ("refused", False, None)
        record = (await client.get("/control/emit?count=30")).json()
        assert (record["happened"], sum(map(len, record["ids"].values()))) == (30, 30)
        assert (await client.get("/control/nonsense")).status_code == 404

    with_server(script)


def test_the_capture_is_whole_in_order_and_gapless() -> None:
    messages = read_capture()
    ids = {
        symbol: [message.id for message in messages if message.symbol == symbol]
        for symbol in ("BTCUSDT", "ETHUSDT")
    }

    assert ids["BTCUSDT"] == list(range(3735683259, 3735703163))
    assert ids["ETHUSDT"] == list(range(1520538925, 1520553440))
    assert json.loads(messages[0].payload)["data"]["t"] == messages[0].id
