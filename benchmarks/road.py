"""How fast the road is on this machine.

`absorb`     frames of 10 trades, made beforehand, at 1,000,000 trades/s for 10 s into log and
             bronze, in two processes as in production; then: was anything lost, how long to level?
`sustained`  the simulator as fast as it goes, the whole road to published gold (`tickhouse up`).
`latency`    10,000 trades/s for a minute: from the log's commit to published gold, per record.
"""

import argparse
import asyncio
import json
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from pathlib import Path
from typing import Any

from benchmarks.measuring import FramesFeed, quiet, show, simulated_frames
from proofs.kills import Road
from tickhouse.bronze.chain import Chain, find_chains
from tickhouse.bronze.local import LocalStore
from tickhouse.bronze.object import unpack, verify
from tickhouse.model.positions import Stream
from tickhouse.stream.recorder import Recorder
from tickhouse.stream.sqlite import SqliteLog

BATCH = 10


def absorb(trades_a_second: int, seconds: int) -> dict[str, Any]:
    """Log and bronze under a burst."""
    total = trades_a_second * seconds // BATCH
    frames = simulated_frames(20_000, batch=BATCH)
    with tempfile.TemporaryDirectory(prefix="tickhouse-bench-") as folder:
        data = Path(folder)
        (data / "log").mkdir()
        lander = subprocess.Popen(
            [sys.executable, "-m", "tickhouse", "land", "--supervised"],
            env=Road(data, "sim://sp500").environment,
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        log = SqliteLog(data / "log" / "log.db")
        started = time.monotonic()
        feed = FramesFeed(frames, total, trades_a_second / BATCH)
        asyncio.run(Recorder(feed, log).run(asyncio.Event()))
        recorded_s = time.monotonic() - started
        log.close()
        assert lander.stdin is not None
        lander.stdin.close()
        lander.wait()
        level_s = time.monotonic() - started
        landed = count_landed(LocalStore(data / "lake"))
    return {
        "trades": total * BATCH,
        "recorded_s": round(recorded_s, 2),
        "recorded_trades_s": round(total * BATCH / recorded_s),
        "catch_up_s": round(level_s - recorded_s, 2),
        "frames_lost": total - landed,
    }


def count_landed(store: LocalStore) -> int:
    """Trade frames in the lake, every object verified and inflated."""
    count = 0
    for chain_id in find_chains(store):
        if chain_id.stream is Stream.TRADES:
            for key, _ in Chain(store, chain_id).walk():
                body = store.get(key)
                verify(body, key, chain_id)
                count += unpack(body, key).count(b"\n")
    return count


def sustained(trades: int) -> dict[str, Any]:
    """`tickhouse up --once` on the simulator at full speed."""
    source = f"sim://sp500?symbols=100&rate=max&batch={BATCH}&frames={trades // BATCH}"
    with tempfile.TemporaryDirectory(prefix="tickhouse-bench-") as folder:
        road = Road(Path(folder) / "data", source)
        road.start("--once")
        watch = Watch(road.data)
        road.wait(900)
        timeline = watch.stop()
        batches = read_batches(road.data)
        audit = road.ask("audit")
    first_ms, last_ms = batches[0][1], batches[-1][1]
    level_ms = max(at_ms for _, at_ms in timeline)
    return {
        "trades": trades,
        "recorded_trades_s": round(trades / max((last_ms - first_ms) / 1000, 0.001)),
        "to_gold_s": round((level_ms - first_ms) / 1000, 2),
        "to_gold_trades_s": round(trades / ((level_ms - first_ms) / 1000)),
        "lost": audit["lost"],
        "duplicated": audit["duplicated"],
    }


def latency(rate: int, seconds: int, warm_s: int = 25) -> dict[str, Any]:
    """From commit in the log to published gold, per record, after a warm-up."""
    with tempfile.TemporaryDirectory(prefix="tickhouse-bench-") as folder:
        road = Road(Path(folder) / "data", f"sim://sp500?symbols=100&rate={rate}")
        road.start("--for", f"{seconds + warm_s}s")
        watch = Watch(road.data)
        road.wait(900)
        timeline = watch.stop()
        batches = read_batches(road.data)
    ends = [end for end, _ in timeline]
    begin_ms = batches[0][1] + warm_s * 1000
    samples: list[int] = []
    for end, at_ms, count in batches:
        place = bisect_right(ends, end - 1)
        if at_ms >= begin_ms and place < len(timeline):
            samples += [timeline[place][1] - at_ms] * count
    samples.sort()
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    percentiles = {name: samples[int(len(samples) * share)] for name, share in shares.items()}
    return {
        "trades_s": rate,
        "frames": len(samples),
        "log_to_gold_ms": {**percentiles, "max": samples[-1]},
    }


class Watch:
    """Notes each version of published gold: trade offset covered, and when it was published."""

    def __init__(self, data: Path) -> None:
        self._manifest = data / "gold" / "manifest.json"
        self._timeline: list[tuple[int, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            self._note()

    def _note(self) -> None:
        try:
            manifest = json.loads(self._manifest.read_bytes())
        except FileNotFoundError:
            return
        ends = [item["next"] for item in manifest["ledger"] if item["stream"] == "trades"]
        end = max(ends, default=0)
        if not self._timeline or end > self._timeline[-1][0]:
            self._timeline.append((end, manifest["published_at_ms"]))

    def stop(self) -> list[tuple[int, int]]:
        """The versions seen."""
        self._stop.set()
        self._thread.join()
        self._note()
        return self._timeline


def read_batches(data: Path) -> list[tuple[int, int, int]]:
    """End offset, time of commit and number of records of each batch of trades in the log."""
    connection = sqlite3.connect(data / "log" / "log.db")
    try:
        return connection.execute(
            "select base + n, at_ms, n from batches where stream = 'trades' order by base"
        ).fetchall()
    finally:
        connection.close()


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["absorb", "sustained", "latency"])
    parser.add_argument("--trades", type=int, default=5_000_000, help="of `sustained`")
    arguments = parser.parse_args()
    quiet()
    if "absorb" in arguments.parts:
        show("road.absorb", absorb(1_000_000, 10))
    if "sustained" in arguments.parts:
        show("road.sustained", sustained(arguments.trades))
    if "latency" in arguments.parts:
        show("road.latency", latency(10_000, 60))


if __name__ == "__main__":
    main()
