"""The `serve` stage as it runs: binds this machine only, answers, stops when told."""

import asyncio
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from support.dashboard import (
    SESSIONS,
    TRADES,
    MemoryGold,
    MemoryLog,
    Trades,
    opened,
    serving,
    trade,
)
from tickhouse.dashboard.server import listen, run_server
from tickhouse.errors import BusyError, ConfigError
from tickhouse.transform.published import PublishedGold


def test_the_page_answers_follows_the_log_and_stops(tmp_path: Path) -> None:
    log, gold, write = MemoryLog(), MemoryGold(), Trades()
    now = time.time_ns() // 1_000_000
    log.append(SESSIONS, [opened(at_ms=now)], at_ms=now)

    async def follow(url: str) -> dict[str, Any]:
        async with websockets.connect(url.replace("http", "ws") + "/api/v1/ws") as viewer:
            await viewer.send(json.dumps({"op": "sub", "ch": ["market", "bars:AAPL:1s"]}))
            log.append(TRADES, [write.frame(trade("AAPL", 7, now), at_ms=now)], at_ms=now)
            found: dict[str, Any] = {}
            while len(found) < 3 or not found["hb"]["badge"]:
                frame = json.loads(await asyncio.wait_for(viewer.recv(), 10))
                if frame.get("bars") == []:
                    continue
                found[frame.get("ch") or frame["op"]] = frame
            return found

    with serving(log, gold, tmp_path) as url:
        assert httpx.get(url + "/healthz").json()["status"] == "ok"
        frames = asyncio.run(follow(url))
    status = json.loads((tmp_path / "serve.json").read_text())

    assert frames["market"]["p"] == [7]
    assert frames["bars:AAPL:1s"]["bars"][-1][4] == 7
    assert frames["hb"]["badge"] == "SIMULATED"
    assert status["state"] == "stopped"
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + "/healthz")
    gold.close()


def test_it_stops_with_viewers_connected(tmp_path: Path) -> None:
    log, gold = MemoryLog(), MemoryGold()

    async def stay(url: str, left: threading.Event) -> int:
        async with websockets.connect(url.replace("http", "ws") + "/api/v1/ws") as viewer:
            await viewer.send('{"op":"ping"}')
            await viewer.recv()
            left.set()
            await viewer.wait_closed()
            return viewer.close_code or 0

    codes: list[int] = []
    connected = threading.Event()
    with serving(log, gold, tmp_path) as url:
        viewer = threading.Thread(target=lambda: codes.append(asyncio.run(stay(url, connected))))
        viewer.start()
        assert connected.wait(10)
    viewer.join(10)

    assert codes == [1012]
    gold.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "example.com", ""])  # noqa: S104
def test_it_listens_on_this_machine_only(host: str) -> None:
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1"):
        listen(host, 0)


def test_a_taken_port_is_named_with_what_to_do() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]

        with pytest.raises(BusyError, match=rf"127\.0\.0\.1:{port}.*--port"):
            listen("127.0.0.1", port)


def test_without_any_gold_or_log_the_page_still_answers(tmp_path: Path) -> None:
    stop, addresses = threading.Event(), []

    def ready(url: str) -> None:
        addresses.append(url)
        assert_answers(url)
        stop.set()

    def assert_answers(url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 5):
            pass

    run_server(
        log=MemoryLog(),
        published=PublishedGold(tmp_path / "no" / "gold"),
        run_folder=tmp_path / "run",
        host="127.0.0.1",
        port=0,
        stop=stop,
        on_ready=ready,
    )

    assert len(addresses) == 1
