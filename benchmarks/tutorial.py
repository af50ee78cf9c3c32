"""The pipeline of the usual tutorials beside ours, on the same stream.

Tutorial: one object a message; each cycle lists the bucket (one page of 1,000 keys, as S3 answers),
reads everything listed again, replaces the table, and aggregates all of it into candles. Both give
1-minute candles in DuckDB on local disk. Prints rows kept and seconds a cycle.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.measuring import FramesFeed, quiet, show, simulated_frames
from proofs.stages import TemporaryStages

KEYS_A_PAGE = 1_000
CANDLES = """
create or replace table candles as
select
    symbol, time_bucket(interval 1 minute, traded_at) as bar_at,
    first(price order by traded_at) as open, max(price) as high, min(price) as low,
    last(price order by traded_at) as close, sum(size) as volume
from ticks group by all
"""


class Tutorial:
    """One object a message, the whole bucket every cycle.

    Args:
        pages: list pages read; 1 is what the tutorials do, None reads all.
    """

    def __init__(self, pages: int | None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tickhouse-tutorial-"))
        self._pages = pages
        self._written = 0
        self._database = duckdb.connect(str(self.folder / "tutorial.duckdb"))

    def write(self, frames: list[bytes]) -> None:
        """A file for each message."""
        for frame in frames:
            (self.folder / f"tick_{self._written:09d}.json").write_bytes(frame)
            self._written += 1

    def cycle(self) -> float:
        """List, read, replace, aggregate; seconds."""
        started = time.perf_counter()
        names = sorted(path.name for path in self.folder.glob("tick_*.json"))
        if self._pages is not None:
            names = names[: self._pages * KEYS_A_PAGE]
        rows = [
            (trade["s"], trade["t"], trade["p"], trade["v"])
            for name in names
            for trade in json.loads((self.folder / name).read_bytes())["data"]
        ]
        columns = [list(column) for column in zip(*rows, strict=True)]
        self._database.execute(
            "create or replace table ticks as select unnest($1::varchar[]) as symbol,"
            " make_timestamp_ms(unnest($2::bigint[])) as traded_at, unnest($3::double[]) as price,"
            " unnest($4::double[]) as size",
            columns,
        )
        self._database.execute(CANDLES)
        return time.perf_counter() - started

    def trades(self) -> int:
        """Rows in the warehouse."""
        row = self._database.execute("select count(*) from ticks").fetchone()
        return 0 if row is None else int(row[0])

    def close(self) -> None:
        """Remove everything."""
        self._database.close()
        shutil.rmtree(self.folder)


def measure(messages: int, steps: int) -> dict[str, Any]:
    """Feed all the same messages in equal steps, one cycle after each."""
    frames = simulated_frames(messages)
    step = messages // steps
    ours, tutorials = (
        TemporaryStages(),
        {"tutorial": Tutorial(pages=1), "all_pages": Tutorial(pages=None)},
    )
    seconds: dict[str, list[float]] = {"ours": [], **{name: [] for name in tutorials}}
    try:
        for upto in range(step, messages + 1, step):
            ours.record(FramesFeed(frames, upto, None))
            seconds["ours"].append(ours.refine())
            for name, pipeline in tutorials.items():
                pipeline.write(frames[upto - step : upto])
                seconds[name].append(pipeline.cycle())
        kept = {name: pipeline.trades() for name, pipeline in tutorials.items()}
        kept["ours"] = ours.warehouse.query("select count(*) from silver.trades")[0][0]
        objects = sum(1 for _ in ours.store.list_objects("bronze/v1"))
    finally:
        ours.close()
        for pipeline in tutorials.values():
            pipeline.close()
    cycles = {name: [round(took[1], 2), round(took[-1], 2)] for name, took in seconds.items()}
    return {
        "trades_sent": step * steps * 10,
        "trades_kept": kept,
        "cycle_s_second_and_last": cycles,
        "growth": {name: round(took[1] / took[0], 2) for name, took in cycles.items()},
        "objects": {"ours": objects, "tutorial": step * steps},
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=30_000)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    quiet()
    show("tutorial", measure(arguments.messages, arguments.steps))


if __name__ == "__main__":
    main()
