"""Run simulated schedules: `python -m tests.fault.simulate --schedules 100000 --jobs 2`.

Prints one JSON line. A failing schedule is named by its seed and the fewest steps that show it;
`--seed N` runs it again, with `--steps` for a prefix of it. `--mutant NAME` breaks one rule.
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from tests.fault.simulation.chance import KINDS
from tests.fault.simulation.mutants import MUTANTS
from tests.fault.simulation.real_warehouse import CrashingDuckDB
from tests.fault.simulation.running import FOUND, Tally, run, run_all
from tests.fault.simulation.world import STEPS, Parts
from tickhouse.telemetry import configure_logging

CHUNK = 250


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.fault.simulate", description=__doc__)
    parser.add_argument("--schedules", type=int, default=5_000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument(
        "--duckdb-every", type=int, default=500, help="use a real DuckDB in every n-th schedule"
    )
    parser.add_argument("--mutant", choices=sorted(MUTANTS), default="")
    parser.add_argument("--seed", type=int, help="run one schedule, and tell what breaks")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args(arguments)
    configure_logging(level=50)
    if options.seed is not None:
        return _run_one(options.seed, options.steps, options.mutant)
    started = time.perf_counter()
    work = partial(_run_chunk, mutant=options.mutant, duckdb_every=options.duckdb_every)
    tally = _run_chunks(options.first_seed, options.schedules, options.jobs, work)
    seconds = time.perf_counter() - started
    result = _result(tally, seconds, options.jobs)
    if options.mutant:
        result["mutant"] = options.mutant
    print(json.dumps(result))  # noqa: T201
    for failure in tally.failures:
        sys.stderr.write(
            f"seed {failure.seed} after {failure.steps} steps: {failure.reason}\n"
            f"  python -m tests.fault.simulate --seed {failure.seed} --steps {failure.steps}\n"
        )
    return 1 if tally.failures else 0


def _parts(mutant: str) -> Parts:
    return MUTANTS[mutant] if mutant else Parts()


def _run_one(seed: int, steps: int, mutant: str) -> int:
    try:
        run(seed, _parts(mutant), steps=steps)
    except FOUND as error:
        print(json.dumps({"ok": False, "seed": seed, "steps": steps, "reason": str(error)}))  # noqa: T201
        return 1
    print(json.dumps({"ok": True, "seed": seed, "steps": steps}))  # noqa: T201
    return 0


def _run_chunks(first: int, count: int, jobs: int, work: Callable[[range], Tally]) -> Tally:
    ends = [*range(first, first + count, CHUNK), first + count]
    chunks = [range(start, end) for start, end in pairwise(ends)]
    total = Tally()
    if jobs == 1:
        for chunk in chunks:
            total.add(work(chunk))
        return total
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for tally in pool.imap_unordered(work, chunks):
            total.add(tally)
    return total


def _run_chunk(seeds: range, *, mutant: str, duckdb_every: int) -> Tally:
    configure_logging(level=50)
    if mutant:
        return run_all(seeds, MUTANTS[mutant])
    real = [seed for seed in seeds if seed % duckdb_every == 0]
    tally = run_all(real, Parts(warehouse=CrashingDuckDB))
    tally.on_duckdb = len(real)
    tally.add(run_all([seed for seed in seeds if seed % duckdb_every], Parts()))
    return tally


def _result(tally: Tally, seconds: float, jobs: int) -> dict[str, object]:
    return {
        "ok": not tally.failures,
        "schedules": tally.schedules,
        "seconds": round(seconds, 1),
        "ms_per_schedule": round(1_000 * seconds * jobs / max(1, tally.schedules), 2),
        "on_duckdb": tally.on_duckdb,
        "frames": tally.frames,
        "objects": tally.objects,
        "adopted": tally.adopted,
        "chains_reopened": tally.chains_reopened,
        "faults": {kind: tally.faults[kind] for kind in KINDS},
        "failed": [{"seed": f.seed, "steps": f.steps} for f in tally.failures],
    }


if __name__ == "__main__":
    raise SystemExit(main())
