"""One load + build + publish cycle with little and with 100 times the history: the same price?

Both roads hold the same kind of trades; each is then given the same small loads, in turn, so that
the machine's drift hits both. Prints the medians and their ratio.
"""

import argparse
import statistics

from benchmarks.measuring import quiet, show
from proofs.stages import Stages, TemporaryStages
from tickhouse.source.address import open_feed
from tickhouse.source.feed import Feed

FRAMES_A_LOAD = 1_000


def feed(frames: int) -> Feed:
    """The simulator, on through the trading day with every frame, as fast as it goes."""
    return open_feed(f"sim://sp500?rate=max&date=2026-03-02&frames={frames}")


def grow(road: Stages, frames: int) -> None:
    """Give a road its history, in a few large loads."""
    step = max(frames // 4, 1)
    for upto in range(step, frames + 1, step):
        road.record(feed(upto))
        road.refine()


def measure(history: int, factor: int, cycles: int) -> dict[str, object]:
    """Medians of a cycle on both roads, alternating."""
    roads = {history: TemporaryStages(), history * factor: TemporaryStages()}
    seconds: dict[int, list[float]] = {size: [] for size in roads}
    try:
        for size, road in roads.items():
            grow(road, size)
        for cycle in range(1, cycles + 2):
            for size, road in roads.items():
                road.record(feed(size + cycle * FRAMES_A_LOAD))
                took = road.refine()
                if cycle > 1:
                    seconds[size].append(took)
    finally:
        for road in roads.values():
            road.close()
    small, large = (statistics.median(seconds[size]) for size in roads)
    return {
        "history_frames": list(roads),
        "cycle_s_median": [round(small, 3), round(large, 3)],
        "ratio": round(large / small, 3),
        "cycles": cycles,
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--history", type=int, default=2_000, help="frames of the small road")
    parser.add_argument("--factor", type=int, default=100)
    parser.add_argument("--cycles", type=int, default=9)
    arguments = parser.parse_args()
    quiet()
    show("history", measure(arguments.history, arguments.factor, arguments.cycles))


if __name__ == "__main__":
    main()
