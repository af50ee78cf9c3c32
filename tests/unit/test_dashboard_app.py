"""REST and WebSocket of the page, and what it refuses."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.websockets import WebSocketDisconnect

from support.client import TestClient
from support.dashboard import (
    SESSIONS,
    TRADES,
    MemoryGold,
    MemoryLog,
    Trades,
    opened,
    session_event,
    trade,
)
from tickhouse.dashboard.app import Dashboard
from tickhouse.dashboard.asking import GoldAsker
from tickhouse.dashboard.conditions import seeded_conditions
from tickhouse.dashboard.fanout import CHANNELS_A_CLIENT_MAX, CLIENTS_MAX, QUEUE_MAX, Fanout
from tickhouse.dashboard.hub import Hub
from tickhouse.dashboard.queries import GoldQueries
from tickhouse.errors import CorruptError
from tickhouse.model.session import Gap

PORT = 8787
HOME = f"http://127.0.0.1:{PORT}"
SOCKET = f"ws://127.0.0.1:{PORT}/api/v1/ws"
T0 = 1_723_213_800_000
T0_S = T0 // 1000


class House:
    """The application with a hub whose ticks the test gives."""

    def __init__(self, run_folder: Path) -> None:
        self.log = MemoryLog()
        self.gold = MemoryGold()
        self.now_ms = T0
        write = Trades()
        self.log.append(SESSIONS, [opened(at_ms=T0)], at_ms=T0)
        frame = write.frame(trade("AAPL", 100, T0), trade("BINANCE:BTCUSDT", 60_000, T0), at_ms=T0)
        self.log.append(TRADES, [frame], at_ms=T0)
        self.gold.publish(self.log, at_ms=T0)
        self.write = write
        queries = GoldQueries(self.gold)
        self.hub = Hub(
            self.log,
            GoldAsker(queries, monotonic=lambda: self.now_ms / 1000),
            seeded_conditions(),
            send=self.send,
            clock_ms=lambda: self.now_ms,
            monotonic=lambda: self.now_ms / 1000,
        )
        self.fanout = Fanout(on_join=self.hub.join, on_last=self.hub.leave)
        self.dashboard = Dashboard(
            hub=self.hub,
            gold=queries,
            fanout=self.fanout,
            run_folder=run_folder,
            clock_ms=lambda: self.now_ms,
        )
        self.client = TestClient(self.dashboard.app(port=PORT), base_url=HOME)
        self.hub.tick()

    def send(self, channel: str, frame: bytes) -> None:
        if self.fanout.clients and self.client.portal is not None:
            self.client.portal.call(self.fanout.send, channel, frame)

    def tick(self) -> None:
        self.now_ms += 1000
        self.hub.tick()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    with house.client:
        yield house
    house.gold.close()


def receive(socket: Any, wanted: str) -> dict[str, Any]:
    """The next frame of a channel or operation."""
    for _ in range(50):
        frame = socket.receive_json()
        if wanted in (frame.get("ch"), frame.get("op")):
            return frame
    raise AssertionError(wanted)


def test_health_and_snapshot_answer(house: House) -> None:
    assert house.client.get("/healthz").json() == {"status": "ok", "fault": None}
    snapshot = house.client.get("/api/v1/snapshot").json()

    assert snapshot["market"]["symbol"] == ["AAPL", "BINANCE:BTCUSDT"]
    assert snapshot["kpi"]["trades"] == 2


def test_an_unchanged_snapshot_is_not_sent_again(house: House) -> None:
    first = house.client.get("/api/v1/snapshot")
    tag = first.headers["etag"]
    second = house.client.get("/api/v1/snapshot", headers={"If-None-Match": tag})

    assert (second.status_code, second.content) == (304, b"")
    frame = house.write.frame(trade("AAPL", 105, T0 + 1), at_ms=T0)
    house.log.append(TRADES, [frame], at_ms=T0)
    house.tick()
    assert house.client.get("/api/v1/snapshot", headers={"If-None-Match": tag}).status_code == 200


def test_large_answers_are_compressed(house: House) -> None:
    for number in range(200):
        house.hub.universe.number(f"S{number}")

    response = house.client.get("/api/v1/snapshot", headers={"Accept-Encoding": "gzip"})
    assert response.headers["content-encoding"] == "gzip"


def test_candles_are_golds_bars(house: House) -> None:
    answer = house.client.get("/api/v1/candles/AAPL?interval=1m&limit=5").json()

    assert answer["rows"] == [[T0_S, 100, 100, 100, 100, 100, 1, False]]
    assert (answer["symbol"], answer["interval"], answer["version"]) == ("AAPL", "1m", 1)


@pytest.mark.parametrize("symbol", ["BINANCE:BTCUSDT", "BRK%2FB", "BRK/B", "IC%20MARKETS:1"])
def test_symbols_with_signs_of_their_own_are_found_by_their_path(house: House, symbol: str) -> None:
    assert house.client.get(f"/api/v1/candles/{symbol}").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/candles/x';drop%20table%20kpi;--",
        "/api/v1/candles/AAPL'%20or%20'1'='1",
        "/api/v1/candles/aapl",
        "/api/v1/candles/" + "A" * 33,
        "/api/v1/candles/AAPL?interval=2m",
        "/api/v1/candles/AAPL?interval=1m;drop",
        "/api/v1/candles/AAPL?limit=-1",
        "/api/v1/candles/AAPL?limit=many",
        "/api/v1/candles/AAPL?from=1e9",
        "/api/v1/candles/AAPL?to=%D9%A1",
        "/api/v1/gaps?symbol=aapl",
        "/api/v1/gaps?symbol=AAPL'%20or%20''='",
        "/api/v1/gaps?from=-1",
        "/api/v1/gaps?to=1e9",
        "/api/v1/gaps?limit=all",
        "/api/v1/gaps?from=2&to=1",
    ],
)
def test_what_is_not_a_symbol_interval_or_number_is_refused(house: House, path: str) -> None:
    response = house.client.get(path)

    assert response.status_code == 400
    assert "error" in response.json()


def test_absurd_times_and_limits_are_cut_not_crashed_on(house: House) -> None:
    path = "/api/v1/candles/AAPL?from=999999999999999999999&to=999999999999999&limit=99999999"

    assert house.client.get(path).json()["rows"] == []
    assert house.client.get("/api/v1/candles/AAPL?limit=0").status_code == 200


def test_gaps_are_golds_and_those_that_the_log_just_told_of(house: House) -> None:
    house.gold.gap(T0, T0 + 60_000, name="g1")
    event = Gap(
        at=T0, stream="trades", seq_from=None, seq_to=None, time_from=(T0 + 70_000) * 1_000_000,
        time_to=(T0 + 80_000) * 1_000_000, symbols=["AAPL"], cause="killed", name="g2",
    )  # fmt: skip
    house.log.append(SESSIONS, [session_event(event)], at_ms=T0)
    house.tick()
    house.tick()

    def names(query: str) -> list[str]:
        return [gap["name"] for gap in house.client.get(f"/api/v1/gaps{query}").json()["gaps"]]

    answer = house.client.get("/api/v1/gaps?symbol=AAPL").json()
    assert answer["symbol"] == "AAPL"
    assert answer["gaps"][0] == {
        "name": "g1", "kind": "missed", "stream": "trades", "from_ms": T0, "to_ms": T0 + 60_000,
        "symbols": [], "cause": "connection lost", "filled_by": None, "trades": None, "feed": "",
    }  # fmt: skip
    assert names("") == ["g1", "g2"]
    assert names("?symbol=BINANCE:BTCUSDT") == ["g1"]
    assert names(f"?from={T0_S + 65}") == ["g2"]
    assert names(f"?to={T0_S + 65}&limit=1") == ["g1"]
    assert names("?limit=1") == ["g2"]
    assert names("?from=999999999999999999&to=999999999999999999&limit=9999999") == []


def test_damaged_gold_is_an_answer_that_says_so(house: House) -> None:
    house.gold.fault = CorruptError("version 3 lacks a file")
    response = house.client.get("/api/v1/candles/AAPL")

    assert response.status_code == 503
    assert response.json() == {"error": "version 3 lacks a file"}
    assert house.client.get("/api/v1/gaps").status_code == 503


def test_symbols_are_searched_by_symbol_and_name(house: House) -> None:
    find = lambda text: [  # noqa: E731
        found["symbol"] for found in house.client.get(f"/api/v1/symbols?q={text}").json()["symbols"]
    ]

    assert find("btc") == ["BINANCE:BTCUSDT"]
    assert find("name of aapl") == ["AAPL"]
    assert find("zzz") == []
    assert find("") == ["AAPL", "BINANCE:BTCUSDT"]


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8787", "127.0.0.1", "127.0.0.1:80", "127.0.0.1:87870", "",
     "127.0.0.1.evil.example:8787"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/healthz", "/api/v1/snapshot", "/app.js"])
def test_a_foreign_host_is_refused_everywhere(house: House, host: str, path: str) -> None:
    response = house.client.get(path, headers={"Host": host})

    assert response.status_code == 421
    assert response.headers["content-security-policy"].startswith("default-src 'self'")


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8787", "localhost:8787", "[::1]:8787", "LOCALHOST:8787"]
)
def test_this_machines_own_names_are_answered(house: House, host: str) -> None:
    assert house.client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "https://127.0.0.1:8787", "http://127.0.0.1:80", "null"]
)
def test_a_foreign_origin_opens_no_socket_and_gets_no_answer(house: House, origin: str) -> None:
    with (
        pytest.raises(WebSocketDisconnect),
        house.client.websocket_connect(SOCKET, headers={"Origin": origin}),
    ):
        pass  # pragma: no cover
    response = house.client.get("/api/v1/snapshot", headers={"Origin": origin})

    assert response.status_code == 403
    assert not house.fanout.clients


def test_a_foreign_host_opens_no_socket(house: House) -> None:
    with (
        pytest.raises(WebSocketDisconnect),
        house.client.websocket_connect(SOCKET, headers={"Host": "evil.example:8787"}),
    ):
        pass  # pragma: no cover


@pytest.mark.parametrize("origin", [HOME, f"http://localhost:{PORT}", None])
def test_the_pages_own_origin_and_programs_without_one_are_answered(
    house: House, origin: str | None
) -> None:
    headers = {} if origin is None else {"Origin": origin}
    with house.client.websocket_connect(SOCKET, headers=headers) as socket:
        socket.send_json({"op": "ping", "t": 5})

        assert receive(socket, "pong") == {"op": "pong", "t": 5, "srv": T0}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/api/v1/snapshot", "/api/v1/candles/AAPL"])
def test_unsafe_methods_are_refused(house: House, method: str, path: str) -> None:
    assert house.client.request(method, path).status_code == 405


@pytest.mark.parametrize(
    "path", ["/", "/style.css", "/api/v1/snapshot", "/nothing-here", "/healthz"]
)
def test_every_answer_carries_the_strict_headers(house: House, path: str) -> None:
    headers = house.client.get(path).headers
    policy = headers["content-security-policy"]

    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "path", ["/../app.py", "/..%2fapp.py", "/%2e%2e/app.py", "//etc/passwd", "/static/../../app.py"]
)
def test_nothing_outside_the_static_folder_is_served(house: House, path: str) -> None:
    assert house.client.get(path).status_code in {404, 405}


def test_a_viewer_is_told_at_once_what_it_sees(house: House) -> None:
    with house.client.websocket_connect(SOCKET) as socket:
        first = socket.receive_json()

    assert (first["op"], first["badge"], first["feed"]) == ("hb", "SIMULATED", "sim://sp500")


def test_a_subscriber_gets_prices_candles_and_heartbeats(house: House) -> None:
    with house.client.websocket_connect(SOCKET) as socket:
        socket.send_json({"op": "sub", "ch": ["market", "bars:AAPL:1m"]})
        socket.send_json({"op": "ping"})
        receive(socket, "pong")
        frame = house.write.frame(trade("AAPL", 101, T0 + 1), at_ms=T0)
        house.log.append(TRADES, [frame], at_ms=T0)
        house.tick()

        assert receive(socket, "market")["p"] == [101]
        assert receive(socket, "bars:AAPL:1m")["bars"][-1][:5] == [T0_S, 100, 101, 100, 101]
        assert receive(socket, "hb")["badge"] == "SIMULATED"
        socket.send_json({"op": "unsub", "ch": ["market"]})
        socket.send_json({"op": "ping"})
        receive(socket, "pong")
        house.log.append(
            TRADES, [house.write.frame(trade("AAPL", 102, T0 + 2), at_ms=T0)], at_ms=T0
        )
        house.tick()
        seen = [socket.receive_json() for _ in range(2)]

        assert "market" not in [frame.get("ch") for frame in seen]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"op":"sub","ch":["bars:x\';--:1m"]}', '{"op":"sub","ch":["secret"]}',
     '{"op":"drop"}', '{"op":"sub","ch":5}', '{"op":"ping","t":"' + "x" * 5000 + '"}'],
)  # fmt: skip
def test_a_command_that_is_none_is_answered_with_an_error_and_the_socket_stays(
    house: House, text: str
) -> None:
    with house.client.websocket_connect(SOCKET) as socket:
        socket.send_text(text)

        assert "reason" in receive(socket, "error")
        socket.send_json({"op": "ping"})
        assert receive(socket, "pong")


def test_a_viewer_may_listen_to_a_bounded_number_of_channels(house: House) -> None:
    with house.client.websocket_connect(SOCKET) as socket:
        channels = [f"bars:S{number}:1m" for number in range(CHANNELS_A_CLIENT_MAX + 1)]
        socket.send_json({"op": "sub", "ch": channels})

        assert receive(socket, "error")["reason"] == "too many channels"


def test_leaving_viewers_are_forgotten_with_their_channels(house: House) -> None:
    with house.client.websocket_connect(SOCKET) as socket:
        socket.send_json({"op": "sub", "ch": ["bars:AAPL:1m"]})
        socket.send_json({"op": "ping"})
        receive(socket, "pong")
        assert house.fanout.has_listeners("bars:AAPL:1m")

    assert not house.fanout.clients
    assert not house.fanout.has_listeners("bars:AAPL:1m")


def test_too_many_viewers_are_asked_to_come_back(house: House) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(CLIENTS_MAX):
            house.fanout.clients.add(object())  # type: ignore[arg-type]
        socket = stack.enter_context(house.client.websocket_connect(SOCKET))
        with pytest.raises(WebSocketDisconnect) as refusal:
            socket.receive_text()

    assert refusal.value.code == 1013
    house.fanout.clients.clear()


def test_a_slow_viewer_loses_its_backlog_and_is_told_to_ask_anew() -> None:
    async def scenario() -> list[dict[str, Any]]:
        joined: list[str] = []
        fanout = Fanout(on_join=joined.append, on_last=joined.append)
        slow, quick = fanout.connect(), fanout.connect()
        assert slow is not None
        assert quick is not None
        seen: list[dict[str, Any]] = []
        for client in (slow, quick):
            fanout.subscribe(client, "market")
        for number in range(QUEUE_MAX + 3):
            fanout.send("market", msgspec.json.encode({"ch": "market", "seq": number}))
            seen.append(json.loads(await quick.take()))
        assert [frame["seq"] for frame in seen] == list(range(QUEUE_MAX + 3))
        assert slow.resyncs == 1
        return [json.loads(await slow.take()) for _ in range(4)]

    frames = asyncio.run(scenario())

    assert frames[0] == {"op": "resync", "reason": "slow"}
    assert [frame["seq"] for frame in frames[1:]] == [QUEUE_MAX, QUEUE_MAX + 1, QUEUE_MAX + 2]


def test_the_pipeline_lane_has_all_stages_and_the_last_audit(house: House) -> None:
    now = house.now_ms
    folder = house.dashboard.run_folder

    def write(name: str, content: object) -> None:
        (folder / f"{name}.json").write_text(json.dumps(content))

    write("record", {"stage": "record", "state": "running", "at_ms": now, "facts": {"frames": 5}})
    write("land", {"stage": "land", "state": "running", "at_ms": now - 60_000, "facts": {}})
    write("load", {"stage": "load", "state": "failed", "at_ms": now, "facts": {"error": "no"}})
    (folder / "build.json").write_text("{torn")
    write("audit", {"ok": False, "lost": 3, "duplicated": 0, "corrupt": ["x"], "at_ms": now - 5})
    answer = house.client.get("/api/v1/pipeline").json()

    states = {stage["name"]: stage["state"] for stage in answer["stages"]}
    assert states == {
        "record": "running",
        "land": "silent",
        "load": "failed",
        "build": "unreadable",
        "serve": "unknown",
    }
    assert answer["stages"][0]["facts"] == {"frames": 5}
    assert answer["audit"] == {
        "ok": False, "lost": 3, "duplicated": 0, "corrupt": ["x"], "age_ms": 5,
    }  # fmt: skip
    assert answer["feed"]["badge"] == "SIMULATED"
    assert answer["gold"]["lag_ms"] == 0


def test_without_an_audit_the_lane_says_so_and_not_that_all_is_well(house: House) -> None:
    assert house.client.get("/api/v1/pipeline").json()["audit"] is None


@pytest.mark.parametrize("content", ["", "[]", "null", '"ok"', "{}", '{"ok": "yes"}'])
def test_only_a_report_that_says_ok_is_shown_as_clean(house: House, content: str) -> None:
    (house.dashboard.run_folder / "audit.json").write_text(content)

    assert house.client.get("/api/v1/pipeline").json()["audit"]["ok"] is False
