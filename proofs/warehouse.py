"""`make prove-warehouse`: the same lake into DuckDB and Snowflake (the stand-in), loaders killed.

Prints one JSON line: {"ok", "kills", "zombies", "lost", "duplicated", "tables_compared",
"tables_equal", …}.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import snowflake.connector

from proofs.kills import Road
from proofs.loaders import LoaderLives
from tests.servers.snowflake import SnowflakeServer, start_snowflake
from tests.support.lake_builder import Lake, pack_lines
from tickhouse.bronze.chain import Chain, find_chains
from tickhouse.bronze.local import LocalStore
from tickhouse.bronze.object import unpack
from tickhouse.bronze.store import Store

LINES: Final = 4
"""Of an object in the lake that is loaded."""
FRAMES_A_KILL: Final = 400
"""More than two loaders get through in a life: every strike must meet one that has work."""
KILLS: Final = 8
ZOMBIES: Final = 2
DATABASE: Final = "PROOF"
SETTINGS: Final = {
    "TICKHOUSE_LOAD_OBJECTS": "1",
    "TICKHOUSE_BUILD_INTERVAL_S": "0",
}


class Side:
    """One warehouse over the lake, loaded by processes that are struck.

    Args:
        name: of the warehouse.
        lake: the road that recorded and landed it.
        folder: for this warehouse's own files.
        settings: environment that names it.
    """

    def __init__(self, name: str, lake: Road, folder: Path, settings: Mapping[str, str]) -> None:
        self.name = name
        self.road = Road(folder, lake.environment["TICKHOUSE_SOURCE"])
        folder.mkdir()
        self.road.environment |= SETTINGS | {
            "TICKHOUSE_LOG": f"sqlite:///{lake.data}/log/log.db",
            "TICKHOUSE_LAKE": f"file:///{lake.data}/lake",
            **settings,
        }
        self.lives = LoaderLives(self.road)

    def prove(self, *, kills: int, zombies: int, seed: int, truth: Path) -> dict[str, Any]:
        """Strike, then load and build to the end; what audit and rebuild say."""
        self.lives.strike(kills, zombies, seed=seed)
        self.road.environment["TICKHOUSE_LOAD_OBJECTS"] = "1000"
        left = self._ask("load", "--once")
        self.lives.kill_build(seed=seed)
        self._ask("build", "--once")
        audit = self.road.ask("audit", "--deep", "--truth", str(truth))
        rebuilt = self._rebuilt()
        tables = rebuilt["tables"]
        return {
            "kills": self.lives.kills,
            "zombies": self.lives.zombies,
            "rows": audit["layers"][1]["checked"],
            "left_after_kills": left["rows"],
            "audit": audit["ok"],
            "lost": audit["lost"],
            "duplicated": audit["duplicated"],
            "corrupt": audit["corrupt"],
            "tables_compared": len(tables),
            "tables_equal": sum(table["identical"] for table in tables),
        }

    def _ask(self, *verb: str) -> dict[str, Any]:
        found = self.road.ask(*verb)
        if not found["ok"]:
            raise RuntimeError(f"{self.name}: {verb}: {found}")
        return found

    def _rebuilt(self) -> dict[str, Any]:
        """Derived from the lake alone into DuckDB, and compared with this warehouse."""
        with tempfile.TemporaryDirectory(prefix="tickhouse-rebuilt-") as folder:
            return self.road.ask("rebuild", "--to", f"{folder}/rebuilt", "--compare")


def make_lake(folder: Path, frames: int, seed: int) -> Road:
    """A simulated hour, recorded and landed, and cut into objects of a few lines."""
    road = Road(folder, f"sim://sp500?rate=max&symbols=40&frames={frames}&seed={seed}")
    for verb in ("record", "land"):
        found = road.ask(verb, "--once")
        if not found["ok"]:
            raise RuntimeError(f"{verb}: {found}")
    (folder / "lake").rename(folder / "landed")
    cut(LocalStore(folder / "landed"), Lake(folder / "lake"))
    return road


def cut(landed: Store, lake: Lake) -> None:
    """The same chains in objects of `LINES` lines; the offsets must be dense, as a file's are."""
    for chain in find_chains(landed):
        lines: list[bytes] = []
        for key, _ in Chain(landed, chain).walk():
            lines += unpack(landed.get(key), key).splitlines()
        for start in range(0, len(lines), LINES):
            lake.add([pack_lines(chain, start, lines[start : start + LINES])])


def snowflake_settings(server: SnowflakeServer, database: str) -> dict[str, str]:
    """A new database of the stand-in, as the environment names it."""
    arguments = server.connect_arguments(database) | {"database": None}
    with snowflake.connector.connect(**arguments) as connection:
        connection.cursor().execute(f"create database if not exists {database}")
    return {"TICKHOUSE_WAREHOUSE": server.url(database), **server.credentials}


def prove(kills: int, zombies: int, seed: int) -> dict[str, Any]:
    """Run the proof in a temporary folder; what was started has ended then."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tickhouse-proof-") as name:
        folder = Path(name)
        lake = make_lake(folder / "lake", kills * FRAMES_A_KILL, seed)
        with start_snowflake(folder / "server") as server:
            sides = [
                Side("duckdb", lake, folder / "duckdb", {}),
                Side("snowflake", lake, folder / "snowflake", snowflake_settings(server, DATABASE)),
            ]
            truth = lake.data / "truth.json"
            found = {
                side.name: side.prove(kills=kills, zombies=zombies, seed=seed, truth=truth)
                for side in sides
            }
    return {**summed(found), "seed": seed, "seconds": round(time.monotonic() - started, 1)}


def summed(found: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The verdict over both warehouses, and what each of them found."""
    sides = list(found.values())
    total = {
        name: sum(side[name] for side in sides)
        for name in ("kills", "zombies", "lost", "duplicated", "corrupt")
    }
    tables = {
        name: sum(side[name] for side in sides) for name in ("tables_compared", "tables_equal")
    }
    ok = (
        total["lost"] == total["duplicated"] == total["corrupt"] == 0
        and tables["tables_compared"] == tables["tables_equal"] > 0
        and all(side["audit"] and 0 < side["left_after_kills"] < side["rows"] for side in sides)
    )
    return {"ok": ok, **total, **tables, "warehouses": found}


def main() -> None:
    """Print the proof; exits 1 if it does not hold."""
    parser = argparse.ArgumentParser(prog="proofs.warehouse", description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS, help="of loaders, each warehouse")
    parser.add_argument("--zombies", type=int, default=ZOMBIES, help="of these: asleep before")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    proof = prove(options.kills, options.zombies, options.seed)
    print(json.dumps(proof))  # noqa: T201
    sys.exit(0 if proof["ok"] else 1)


if __name__ == "__main__":
    main()
