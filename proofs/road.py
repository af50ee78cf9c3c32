"""`make prove-road`: recorded real trades, 20 random kills, then audit and rebuild.

Prints one JSON line: {"ok", "kills", "lost", "duplicated", "rebuild_identical", "ids_gapless", …}.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from proofs.kills import Road, kill_at_random

CAPTURE = Path(__file__).parents[1] / "tests" / "data" / "binance_ws_2024"
SPEED = 12
KILLS = 20
DRAIN_S_MAX = 120
IDS = {
    "BINANCE:BTCUSDT": (3735683259, 3735703162),
    "BINANCE:ETHUSDT": (1520538925, 1520553439),
}
"""First and last trade id that the exchange gave out in the capture."""
QUERY = """
select symbol, count(*), count(distinct trade_id), min(trade_id::bigint), max(trade_id::bigint)
from silver.trades group by symbol order by symbol
"""


def ids_gapless(rows: list[list[object]]) -> bool:
    """Whether silver holds every id from the first to the last exactly once."""
    expected = [
        [symbol, last - first + 1, last - first + 1, first, last]
        for symbol, (first, last) in sorted(IDS.items())
    ]
    return rows == expected


def prove(kills: int, seed: int) -> dict[str, object]:
    """Run the proof in a temporary folder."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tickhouse-proof-") as folder:
        road = Road(Path(folder) / "data", f"replay:{CAPTURE}?speed={SPEED}")
        try:
            kill_at_random(road, kills, seed=seed)
            road.environment["TICKHOUSE_SOURCE"] = f"replay:{CAPTURE}?speed=max"
            road.start("--once")
            road.wait(DRAIN_S_MAX)
        finally:
            road.stop()
        audit = road.ask("audit", "--deep")
        rebuilt = road.ask("rebuild", "--to", f"{folder}/rebuilt", "--compare")
        rows = road.ask("query", QUERY)["rows"]
    gapless = ids_gapless(rows)
    return {
        "ok": bool(audit["ok"] and rebuilt["identical"] and gapless),
        "kills": len(road.killed),
        "lost": audit["lost"],
        "duplicated": audit["duplicated"],
        "corrupt": audit["corrupt"],
        "rebuild_identical": rebuilt["identical"],
        "ids_gapless": gapless,
        "trades": sum(int(row[1]) for row in rows),
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
    }


def main() -> None:
    """Print the proof; exits 1 if it does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    arguments = parser.parse_args()
    proof = prove(arguments.kills, arguments.seed)
    print(json.dumps(proof))  # noqa: T201
    sys.exit(0 if proof["ok"] else 1)


if __name__ == "__main__":
    main()
