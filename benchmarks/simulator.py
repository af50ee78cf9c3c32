"""The simulator alone: frames made in memory, no socket, no log. `python -m benchmarks.simulator`.

CPU time of one core. Each figure stands beside that of a msgspec encoder writing the same trades
from ready objects, which is what writing frames costs at least without a simulation.
"""

import time
from datetime import date
from typing import Any

import msgspec

from benchmarks.measuring import show
from tickhouse.source.address import open_feed
from tickhouse.source.simulator import Scenario, Simulator
from tickhouse.source.simulator.sessions import ExchangeMarket

STEP = 400
FEEDS = {
    "open market": "sim://sp500?date=2026-03-02&rate=max",
    "exchange day": "sim://sp500?speed=max&days=1",
    "exchange day, busy": "sim://sp500?speed=max&rate=2000",
    "exchange day, 503 symbols": "sim://sp500?speed=max&symbols=503&rate=1000",
    "exchange day, all faults": "sim://sp500?speed=max&days=1&faults=all",
}
FRAMES_MAX = 300_000


class _Trade(msgspec.Struct):
    c: list[str] | None
    p: float | None
    s: str
    t: int
    v: int


class _Message(msgspec.Struct):
    data: list[_Trade]
    type: str


def measure(name: str, url: str) -> dict[str, Any]:
    """Trades a second of one feed, and of an encoder of the same trades."""
    feed = open_feed(url)
    assert isinstance(feed, Simulator)
    frames: list[bytes] = []
    started = time.process_time()
    while len(frames) < FRAMES_MAX and (made := feed.frames(0, len(frames), len(frames) + STEP)):
        frames += made
    simulated_s = time.process_time() - started
    sample = msgspec.json.Decoder(_Message)
    messages = [sample.decode(frame) for frame in frames[-FRAMES_MAX // 10 :]]
    encoder = msgspec.json.Encoder()
    started = time.process_time()
    for message in messages:
        encoder.encode(message)
    encoded_s = time.process_time() - started
    trades = sum(frame.count(b'"s":') for frame in frames)
    rate = trades / simulated_s
    bare = sum(len(message.data) for message in messages) / encoded_s
    return {
        "feed": name,
        "url": url,
        "trades": trades,
        "trades_per_s": round(rate),
        "encoder_trades_per_s": round(bare),
        "ratio": round(rate / bare, 2),
    }


def measure_seek() -> dict[str, Any]:
    """Finding the first frame of the second day: what a restart costs for each day before it."""
    scenario = Scenario(market="exchange", rate=100)
    market = ExchangeMarket(scenario, 0, day=date(2026, 3, 2), days=1)
    started = time.process_time()
    end = market.block_of(2**60)
    assert end is None
    return {"rate": scenario.rate, "seek_s_per_day": round(time.process_time() - started, 2)}


def main() -> None:
    """All figures."""
    for name, url in FEEDS.items():
        show("simulator", measure(name, url))
    show("simulator_seek", measure_seek())


if __name__ == "__main__":
    main()
