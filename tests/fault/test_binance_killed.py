"""A recorder of Binance killed (SIGKILL) at its commits while it fills a gap."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from servers.binance import BinanceServer
from servers.binance.server import SHORT_PAGE
from support.binance import (
    PATIENT,
    WELL,
    ThreadedBinance,
    account_of,
    feed_of,
    frames_of,
    ids_filled,
    ids_missing,
    recording,
    settled,
    until,
)
from support.processes import SCRIPT, run_killed
from tickhouse.clock import ScaledClock
from tickhouse.source.binance import open_binance
from tickhouse.source.options import BinanceOptions
from tickhouse.stream.recorder import Recorder
from tickhouse.stream.sqlite import SqliteLog

MISSED = 150


def record_until_killed(database: str, ws_url: str, rest_url: str) -> None:
    """Listen until a failpoint strikes."""
    log = SqliteLog(Path(database))
    feed = open_binance(PATIENT, BinanceOptions(ws_url, rest_url), clock=ScaledClock(100))
    asyncio.run(Recorder(feed, log, commit_ms=1).run(asyncio.Event()))


def miss(binance: ThreadedBinance, database: Path) -> None:
    """A log that ends before ids which nobody has told missing yet."""
    log = SqliteLog(database)

    async def play() -> None:
        server = binance.server
        async with recording(feed_of(server), log):
            await server.connected()
            await server.emit(200)
            await until(lambda: frames_of(log) >= 200)
        await server.emit(MISSED)
        server.fill = "short"

    binance.run(play())
    log.close()


def heal(binance: ThreadedBinance, database: Path) -> tuple[object, object, int]:
    """What became of each id after another recorder went on; first: ids the killed one filled."""
    log = SqliteLog(database)
    filled_before = ids_filled(log).total()

    async def play() -> None:
        server = binance.server
        feed = feed_of(server, speed=100)
        async with recording(feed, log):
            await server.connected()
            await server.emit(100)
            await until(lambda: ids_filled(log).total() >= MISSED)
            await settled(feed)

    binance.run(play())
    account, missing = account_of(binance.server, log), ids_missing(log)
    log.close()
    return account, missing, filled_before


@pytest.mark.parametrize(
    ("side", "commit"), [("before", 1), ("after", 4), ("before", 8), ("after", 16), ("before", 24)]
)
def test_kill_9_at_a_commit_loses_and_doubles_nothing(
    side: str, commit: int, tmp_path: Path
) -> None:
    database = tmp_path / "log.db"
    with ThreadedBinance() as binance:
        miss(binance, database)
        trickling = binance.start(trickle(binance.server))
        urls = (binance.server.ws_url, binance.server.rest_url)
        point = f"record.append.{side}=kill:{commit}"
        run_killed(record_until_killed, str(database), *urls, failpoints=point)
        trickling.cancel()
        account, missing, _ = heal(binance, database)

    assert account == WELL
    assert missing == {}


@pytest.mark.parametrize("pages", [3, 12])
def test_kill_9_in_the_middle_of_a_fill_loses_and_doubles_nothing(
    pages: int, tmp_path: Path
) -> None:
    database = tmp_path / "log.db"
    with ThreadedBinance() as binance:
        miss(binance, database)
        trickling = binance.start(trickle(binance.server))
        urls = (binance.server.ws_url, binance.server.rest_url)
        with start(record_until_killed, str(database), *urls) as process:
            binance.run(until(lambda: pages_served(binance.server) > pages))
            process.kill()
        trickling.cancel()
        account, missing, filled_before = heal(binance, database)

    assert account == WELL
    assert missing == {}
    assert 0 < filled_before < MISSED


def pages_served(server: BinanceServer) -> int:
    return sum(map(len, server.served.values())) // SHORT_PAGE


def start(function: Callable[..., None], *arguments: str) -> subprocess.Popen[bytes]:
    """Run a top-level function of this file in a new interpreter."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, __file__, function.__name__, *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


async def trickle(server: BinanceServer) -> None:
    """Something happens as soon as somebody listens, so that he sees what he missed."""
    await server.connected()
    while True:
        await server.emit(3)
        await asyncio.sleep(0.005)
