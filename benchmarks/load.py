"""What a load costs: by pending objects, and by history, on DuckDB and on the stand-in Snowflake.

`python -m benchmarks.load pending` loads 1, 100 and 1,000 pending objects in one cycle and counts
statements and uploads; `history` gives two warehouses of each kind a history, one 100 times as
long, then the same small loads and builds in turn, so that the machine's drift hits both alike.
The stand-in is fakesnow over HTTP: its seconds say nothing of Snowflake, its counts and ratios do.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.measuring import quiet, show
from proofs.warehouse import snowflake_settings
from tests.servers.snowflake import SnowflakeServer, start_snowflake
from tests.support.lake_builder import Lake, chain_id, frames, make_object
from tickhouse.runtime import backends
from tickhouse.settings import Settings
from tickhouse.warehouse.loader import Loader

if TYPE_CHECKING:
    from tickhouse.transform.builder import Builder
    from tickhouse.warehouse.warehouse import Warehouse

PENDING: Final = (1, 100, 1_000)
ROWS: Final = 500
HISTORY: Final = 20
FACTOR: Final = 100
KINDS: Final = ("duckdb", "snowflake")


class Measured:
    """One warehouse of a kind over a lake of its own.

    Args:
        kind: "duckdb" or "snowflake".
        folder: new.
        server: the stand-in.
    """

    def __init__(self, kind: str, folder: Path, server: SnowflakeServer) -> None:
        self.lake = Lake(folder / "lake")
        database = f"BENCH_{folder.name}".upper().replace("-", "_")
        settings = _settings(folder, snowflake_settings(server, database), kind)
        self.warehouse: Warehouse = backends.open_warehouse(settings)
        self.warehouse.prepare()
        self.loader = Loader(
            self.lake.store, self.warehouse, objects_max=1_000, monotonic=lambda: next(self._ticks)
        )
        self.builder: Builder = backends.make_builder(self.warehouse, folder / "dbt")
        self._ticks: Iterator[float] = iter(float, 1.0)
        self._end = 0

    def add(self, objects: int, rows: int) -> None:
        """So many objects more, pending."""
        chain = chain_id()
        for _ in range(objects):
            self.lake.add([make_object(chain, self._end, frames(self._end, rows))])
            self._end += rows

    def load(self) -> float:
        """Seconds of one cycle that loads all that is pending."""
        started = time.perf_counter()
        self.loader.load_all()
        return time.perf_counter() - started

    def build(self) -> float:
        """Seconds of one build."""
        started = time.perf_counter()
        self.builder.build()
        return time.perf_counter() - started

    def close(self) -> None:
        """Release it."""
        self.builder.close()
        self.warehouse.close()


def _settings(folder: Path, environment: dict[str, str], kind: str) -> Settings:
    """Settings of a data folder, with the stand-in's address where it is asked for."""
    named = {name.removeprefix("TICKHOUSE_").lower(): text for name, text in environment.items()}
    return Settings(data=folder, **(named if kind == "snowflake" else {}))  # pyright: ignore[reportArgumentType]


@contextlib.contextmanager
def measured(names: Sequence[tuple[str, str]]) -> Generator[tuple[list[Measured], SnowflakeServer]]:
    """Warehouses of the kinds, each under its name, and the stand-in."""
    with tempfile.TemporaryDirectory(prefix="tickhouse-bench-") as text:
        folder = Path(text)
        with start_snowflake(folder / "server") as server:
            found = [Measured(kind, folder / name, server) for kind, name in names]
            try:
                yield found, server
            finally:
                for each in found:
                    each.close()


def pending(rows: int) -> dict[str, Any]:
    """Cycles that find 1, 100 and 1,000 objects."""
    told: dict[str, Any] = {}
    for kind in KINDS:
        with measured([(kind, f"{kind}-{count}") for count in PENDING]) as (warehouses, server):
            for count, warehouse in zip(PENDING, warehouses, strict=True):
                warehouse.add(1, rows)
                warehouse.load()
                warehouse.add(count, rows)
                server.counts()
                seconds = warehouse.load()
                facts: dict[str, Any] = {
                    "seconds": round(seconds, 3),
                    "rows_s": round(count * rows / seconds),
                }
                if kind == "snowflake":
                    counts = server.counts()
                    facts |= {
                        "uploads": counts.pop("upload", 0),
                        "statements": sum(counts.values()),
                    }
                told[f"{kind} {count}"] = facts
    return {"rows_an_object": rows, "cycles": told}


def history(cycles: int, rows: int) -> dict[str, Any]:
    """The same small loads and builds with little and with 100 times the history."""
    told: dict[str, Any] = {}
    for kind in KINDS:
        with measured([(kind, f"{kind}-small"), (kind, f"{kind}-large")]) as (warehouses, _):
            for warehouse, objects in zip(warehouses, (HISTORY, HISTORY * FACTOR), strict=True):
                warehouse.add(objects, rows)
                warehouse.load()
                warehouse.build()
            loads: list[list[float]] = [[], []]
            builds: list[list[float]] = [[], []]
            for cycle in range(cycles + 1):
                for at, warehouse in enumerate(warehouses):
                    warehouse.add(2, rows)
                    load, build = warehouse.load(), warehouse.build()
                    if cycle:
                        loads[at].append(load)
                        builds[at].append(build)
            told[kind] = {"load": _compared(loads), "build": _compared(builds)}
    return {"objects": [HISTORY, HISTORY * FACTOR], "rows_an_object": rows, "cycles": cycles} | told


def _compared(seconds: Sequence[Sequence[float]]) -> dict[str, Any]:
    small, large = (statistics.median(each) for each in seconds)
    return {"seconds": [round(small, 3), round(large, 3)], "ratio": round(large / small, 2)}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="benchmarks.load", description=__doc__)
    parser.add_argument("part", nargs="?", choices=["pending", "history"])
    parser.add_argument("--rows", type=int, default=ROWS, help="of an object")
    parser.add_argument("--cycles", type=int, default=5)
    options = parser.parse_args()
    quiet()
    if options.part != "history":
        show("load pending", pending(options.rows))
    if options.part != "pending":
        show("load history", history(options.cycles, min(options.rows, 20)))


if __name__ == "__main__":
    main()
