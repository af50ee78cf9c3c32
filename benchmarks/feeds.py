"""From the socket to the durable log: `python -m benchmarks.feeds [throughput|cpu|latency]`.

A server of its own process pushes the same frames, made beforehand, to the bare client of the
`websockets` library and to `record` (Finnhub feed, recorder, SQLite log on this disk); both in
turn, in one run.
"""

import argparse
import asyncio
import base64
import hashlib
import multiprocessing
import re
import statistics
import struct
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from websockets.asyncio.client import connect

from benchmarks.measuring import quiet, show, simulated_frames
from tickhouse.clock import SYSTEM_CLOCK
from tickhouse.model.positions import Stream
from tickhouse.source.finnhub.feed import open_finnhub
from tickhouse.source.options import FinnhubOptions
from tickhouse.source.secret import Secret
from tickhouse.stream.log import Append
from tickhouse.stream.recorder import Recorder
from tickhouse.stream.sqlite import SqliteLog

MAGIC: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
SHORT: Final = 126
FRAMES: Final = 20_000
FRAME_TRADES: Final = 3
LIVE_FRAME_TRADES: Final = 7
"""Trades a frame of a live stream: the 8 consecutive ones recorded of AAPL hold 61."""
TICK_S: Final = 0.005
RECEIVED: Final = re.compile(rb'"rx":(\d+)')


def wire(payload: bytes) -> bytes:
    """A text message as it goes over the wire, from a server."""
    size = len(payload)
    head = struct.pack("!BB", 0x81, size) if size < SHORT else struct.pack("!BBH", 0x81, 126, size)
    return head + payload


class Pusher:
    """Sends prebuilt messages to whoever connects; `total` in all, `rate` a second.

    Args:
        messages: on the wire, sent over and over.
        total: how many to send.
        rate: messages a second; None = as fast as they are taken.
    """

    def __init__(self, messages: Sequence[bytes], total: int, rate: float | None) -> None:
        self.messages, self.total, self.rate = messages, total, rate

    async def serve(self, pipe: Connection) -> None:
        """Tell the port and serve until the process is ended."""
        server = await asyncio.start_server(self._push, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    async def _push(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = next(
            line for line in head.split("\r\n") if line.lower().startswith("sec-websocket-k")
        )
        digest = hashlib.sha1((key.split(": ")[1] + MAGIC).encode()).digest()  # noqa: S324
        accept = base64.b64encode(digest).decode()
        writer.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        await reader.read(1)
        drain = asyncio.create_task(reader.read(-1))
        started, sent = time.monotonic(), 0
        while sent < self.total and not drain.done():
            due = self.total
            if self.rate is not None:
                due = min(due, int((time.monotonic() - started) * self.rate))
            count = min(due - sent, 500)
            if count > 0:
                at = sent % len(self.messages)
                block = self.messages[at : at + count]
                writer.write(b"".join(block))
                sent += len(block)
                await writer.drain()
            else:
                await asyncio.sleep(TICK_S)
        await drain
        writer.close()


def _run_pusher(pusher: Pusher, pipe: Connection) -> None:
    asyncio.run(pusher.serve(pipe))


@contextmanager
def serving(messages: Sequence[bytes], total: int, rate: float | None) -> Generator[str]:
    """A pusher in a process of its own; its address."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_run_pusher, args=(Pusher(messages, total, rate), theirs), daemon=True
    )
    process.start()
    try:
        yield f"ws://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


async def bare(url: str, total: int) -> float:
    """Messages a second that the library's client receives and drops."""
    async with connect(url, compression=None, ping_interval=None, max_size=None) as connection:
        await connection.send("go")
        await connection.recv(decode=False)
        started = time.perf_counter()
        for _ in range(total - 1):
            await connection.recv(decode=False)
        return (total - 1) / (time.perf_counter() - started)


class TimedLog(SqliteLog):
    """A log that notes, for each trade frame, how long after its receipt it became durable."""

    delays_ms: list[float]
    first_at: float | None = None

    def append(self, appends: Sequence[Append]) -> list[int]:
        """As `SqliteLog.append`."""
        offsets = super().append(appends)
        now = time.time_ns()
        for append in appends:
            if append.partition.stream is Stream.TRADES:
                self.first_at = self.first_at or time.perf_counter()
                self.delays_ms += [
                    (now - int(match[1])) / 1e6
                    for match in map(RECEIVED.search, append.values)
                    if match is not None
                ]
        return offsets


async def record(url: str, log: SqliteLog, total: int, seconds: float | None = None) -> float:
    """Record until `total` frames are durable, or for so long; frames a second since the first."""
    options = FinnhubOptions(token=Secret("benchmark"), ws_url=url)
    feed = open_finnhub("AAPL?poll=off", options, clock=SYSTEM_CLOCK)
    recorder = Recorder(feed, log)
    stop = asyncio.Event()
    running = asyncio.create_task(recorder.run(stop))
    started: float | None = None
    before = 0
    ends = None if seconds is None else time.perf_counter() + seconds
    while recorder.frames < total and (ends is None or time.perf_counter() < ends):
        await asyncio.sleep(0.002 if seconds is None else 0.5)
        if started is None and recorder.frames:
            started, before = time.perf_counter(), recorder.frames
    elapsed = time.perf_counter() - (started or 0)
    rate = (recorder.frames - before) / elapsed if started is not None else 0.0
    stop.set()
    await running
    return rate


def throughput(total: int, rounds: int) -> None:
    """Frames a second, in turn; the ratio of medians."""
    messages = [wire(frame) for frame in simulated_frames(FRAMES, batch=FRAME_TRADES)]
    bares, ours = list[float](), list[float]()
    for _ in range(rounds):
        with serving(messages, total, None) as url:
            bares.append(asyncio.run(bare(url, total)))
        with serving(messages, total, None) as url, tempfile.TemporaryDirectory() as folder:
            log = SqliteLog(Path(folder) / "log.db")
            ours.append(asyncio.run(record(url, log, total)))
            log.close()
    show(
        "feeds throughput",
        {
            "frames": total,
            "trades_a_frame": FRAME_TRADES,
            "bare_frames_s": [round(rate) for rate in bares],
            "recorded_frames_s": [round(rate) for rate in ours],
            "ratio_each_round": [round(own / its, 2) for own, its in zip(ours, bares, strict=True)],
            "ratio": round(statistics.median(ours) / statistics.median(bares), 2),
        },
    )


def cpu(trades_s: float, seconds: float) -> None:
    """Share of a core that recording takes at a rate, socket and log included."""
    messages = [wire(frame) for frame in simulated_frames(FRAMES, batch=LIVE_FRAME_TRADES)]
    total = int(trades_s / LIVE_FRAME_TRADES * (seconds + 5))
    with (
        serving(messages, total, trades_s / LIVE_FRAME_TRADES) as url,
        tempfile.TemporaryDirectory() as folder,
    ):
        log = SqliteLog(Path(folder) / "log.db")
        asyncio.run(record(url, log, total, 1.0))
        before, started = time.process_time(), time.perf_counter()
        asyncio.run(record(url, log, total, seconds))
        share = (time.process_time() - before) / (time.perf_counter() - started)
        log.close()
    show("feeds cpu", {"trades_s": trades_s, "percent_of_a_core": round(100 * share, 2)})


def latency(trades_s: float, seconds: float) -> None:
    """From a frame's receipt to its commit, at a rate."""
    messages = [wire(frame) for frame in simulated_frames(FRAMES, batch=LIVE_FRAME_TRADES)]
    total = int(trades_s / LIVE_FRAME_TRADES * (seconds + 5))
    with (
        serving(messages, total, trades_s / LIVE_FRAME_TRADES) as url,
        tempfile.TemporaryDirectory() as folder,
    ):
        log = TimedLog(Path(folder) / "log.db")
        log.delays_ms = []
        asyncio.run(record(url, log, total, seconds))
        log.close()
    delays = sorted(log.delays_ms)
    percentiles = {
        f"p{percent}_ms": round(delays[len(delays) * percent // 100], 1) for percent in (50, 95, 99)
    }
    show("feeds latency", {"trades_s": trades_s, "frames": len(delays), **percentiles})


def main() -> None:
    """Measure all, or one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=["throughput", "cpu", "latency"])
    parser.add_argument("--frames", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15)
    arguments = parser.parse_args()
    quiet()
    if arguments.part in {None, "throughput"}:
        throughput(arguments.frames, arguments.rounds)
    if arguments.part in {None, "cpu"}:
        for trades_s in (57, 10_000):
            cpu(trades_s, arguments.seconds)
    if arguments.part in {None, "latency"}:
        for trades_s in (57, 10_000):
            latency(trades_s, arguments.seconds)


if __name__ == "__main__":
    main()
