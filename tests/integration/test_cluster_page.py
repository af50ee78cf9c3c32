"""The page over real Kafka: a trade shows up live, whatever holes transactions leave."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import websockets

from support.dashboard import SESSIONS, TRADES, Trades, opened, trade
from support.transactions import Transactions
from tests.servers.kafka import KafkaServer
from tickhouse.dashboard.tail import LogTail
from tickhouse.stream.kafka import KafkaReader
from tickhouse.stream.kafka_options import KafkaOptions
from tickhouse.stream.newest import newest_batch, relayed_end
from tickhouse.stream.topics import Topics

SHOWN_S_MAX = 60.0
SHOWN_MS_MAX = 2_000
"""Median from a trade to the page, the transaction's commit included, on a machine that is busy."""
HOUR_MS = 3600 * 1000


@pytest.fixture
def options(kafka: KafkaServer, topics: str) -> KafkaOptions:
    found = KafkaOptions(bootstrap=kafka.bootstrap, prefix=topics)
    Topics(found).ensure(partitions=1, replication=1, retention_ms=HOUR_MS)
    return found


@pytest.fixture
def log(options: KafkaOptions) -> Iterator[KafkaReader]:
    reader = KafkaReader(options)
    yield reader
    reader.close()


@pytest.fixture
def write(kafka: KafkaServer, topics: str) -> Transactions:
    return Transactions(kafka, topics)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def shown(viewer: Any, is_it: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async with asyncio.timeout(SHOWN_S_MAX):
        while not is_it(frame := json.loads(await viewer.recv())):
            pass
    return frame


@contextmanager
def serving(options: KafkaOptions, data: Path) -> Iterator[str]:
    """`tickhouse serve` in a process of its own; its address."""
    environment = {
        **os.environ,
        "TICKHOUSE_DATA": str(data),
        "TICKHOUSE_LOG": options.url,
        "TICKHOUSE_PORT": "0",
    }
    address = data / "run" / "page.address"
    process = subprocess.Popen([sys.executable, "-m", "tickhouse", "serve"], env=environment)
    try:
        deadline = time.monotonic() + SHOWN_S_MAX
        while not address.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline, "the page did not come up"
            time.sleep(0.05)
        yield json.loads(address.read_bytes())["url"]
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(SHOWN_S_MAX)


def test_a_trade_is_shown_live(tmp_path: Path, options: KafkaOptions, write: Transactions) -> None:
    trades = Trades()
    write.write(SESSIONS, [opened(at_ms=now_ms())])
    write.write(TRADES, [trades.frame(trade("AAPL", 5, now_ms()), at_ms=now_ms())])
    waited_ms: list[int] = []

    async def follow(url: str) -> None:
        async with websockets.connect(url.replace("http", "ws") + "/api/v1/ws") as viewer:
            await viewer.send(json.dumps({"op": "sub", "ch": ["market"]}))
            await shown(viewer, lambda frame: frame.get("p") == [5])
            for price in range(6, 26):
                sent = now_ms()
                value = trades.frame(trade("AAPL", price, sent), at_ms=sent)
                await asyncio.to_thread(write.write, TRADES, [value])
                await shown(viewer, lambda frame, price=price: frame.get("p") == [price])
                waited_ms.append(now_ms() - sent)
            heard = await shown(viewer, lambda frame: frame.get("op") == "hb")
            assert (heard["skipped"], heard["fault"]) == (0, None)

    with serving(options, tmp_path / "data") as url:
        asyncio.run(follow(url))

    assert sorted(waited_ms)[len(waited_ms) // 2] < SHOWN_MS_MAX


def test_markers_and_aborted_records_are_passed_and_not_told_as_skipped(
    log: KafkaReader, write: Transactions
) -> None:
    for number in range(3):
        write.write(TRADES, [b"%d" % number])
        write.write(TRADES, [b"no"] * 5, is_aborted=True)
    tail = LogTail(log, clock_ms=now_ms)
    tail.discover(lambda place: log.bounds(place).begin)

    values = [value for chunk in tail.read(lambda: False) for value in chunk.values]

    assert values == [b"0", b"1", b"2"]
    assert tail.skipped_records == 0
    assert log.bounds(TRADES).end - 3 >= 18


def test_the_newest_record_is_found_behind_markers_and_foreign_records(
    kafka: KafkaServer,
    topics: str,
    log: KafkaReader,
    write: Transactions,
) -> None:
    write.write(TRADES, [b"%d" % number for number in range(40)])
    Transactions(kafka, topics, epoch=None).write(TRADES, [b"foreign"] * 30)
    write.write(TRADES, [b"no"] * 50, is_aborted=True)
    newest = newest_batch(log, TRADES)

    assert newest is not None
    assert newest.values[-1] == b"foreign"
    assert relayed_end(log, TRADES, "s1") == 40
    assert relayed_end(log, TRADES, "another") == 0
