"""Write `RELIABILITY.md` from the figures of a soak and of simulations.

`python -m tools.reliability_table` reads `proofs/results/soak.json` (`make soak MINUTES=30`) and,
where it is there, `proofs/results/simulation.jsonl`: the lines of `python -m tests.fault.simulate`,
those of a mutant with its name under "mutant". What was not measured is not in the page.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path("proofs/results")
PAGE: Final = Path("RELIABILITY.md")
Figures = Mapping[str, Any]

HEAD: Final = """# Reliability, measured

Written by `python -m tools.reliability_table` from what runs on real servers and simulations have
counted; nothing here is typed by hand. What is promised: a frame that `record` acknowledged is in
the lake once, byte for byte and in order, and gold is what it would be without any fault. What a
feed never delivered is a recorded gap, not a promise.
"""
SOAK: Final = """
## Soak: real Kafka, real S3, real processes

`record`, {landers} `land` and `refine` as processes of their own on Kafka {kafka} and SeaweedFS,
{minutes} minutes of faults from seed {seed}, then the topics deleted and made anew, then a drain.
A plain-Python reader compares the spool's file with the lake's objects; `audit --deep --truth`
compares every layer with the one before and with the simulator's truth; the embedded road over a
copy of the spool gives the gold to compare with.
"""
RECOVERY: Final = """
Recovery: from the strike until everything that was acknowledged at that moment is in the lake,
with all later faults going on. The group's session time-out (10 s with the classic protocol) and
hangs of the store (4 s) are in it.
"""
SIMULATION: Final = """
## Simulated schedules

Relay, landers and loader against a simulated clock, log and store; each schedule is a seed.
"""
MUTANTS: Final = """
## Mutants

The same simulation with one rule of the product broken; a mutant that no schedule catches would
mean that the simulation proves nothing.
"""


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A table in Markdown; numbers with thousands apart."""
    lines = ["", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return [*lines, *(f"| {' | '.join(map(_cell, row))} |" for row in rows)]


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return f"{value:,}" if isinstance(value, int) else str(value)


def page(soak: Figures, simulations: Sequence[Figures]) -> str:
    """The whole page."""
    return "\n".join([HEAD.rstrip(), *_soak(soak), *_simulations(simulations), ""])


def _soak(found: Figures) -> Iterator[str]:
    plan = found["plan"]
    text = SOAK.format(
        landers=plan["landers"],
        kafka=str(found["kafka"]).partition("-")[0],
        minutes=f"{plan['seconds'] / 60:g}",
        seed=plan["seed"],
    )
    yield text.rstrip()
    yield from table(["found", ""], list(_verdict(found)))
    yield from table(["what struck", "times"], list(_faults(found)))
    if found.get("skipped"):
        yield from table(["not tried on this machine", "why"], list(found["skipped"].items()))
    yield RECOVERY.rstrip()
    yield from table(["after", "times", "p50 s", "p99 s", "max s"], list(_recoveries(found)))
    yield f"\nReproduce: `{found['command']}`"


def _verdict(found: Figures) -> Iterator[tuple[str, object]]:
    oracle: Figures = found.get("oracle", {})
    if "error" in found:
        yield "**the run broke off**", found["error"]
    names = {
        "frames": "frames acknowledged (session events among them)",
        "objects": "objects in the lake",
        "lost": "**lost**",
        "duplicated": "**duplicated**",
        "corrupt": "**corrupt**",
        "reordered": "out of order",
        "breaks": "breaks of a chain",
        "repeated": "sent again to topics made anew, removed in silver",
    }
    yield from ((text, oracle[name]) for name, text in names.items() if name in oracle)
    if "audit" in found:
        yield "`audit --deep --truth` clean", bool(found["audit"]["ok"])
    if "gold_equal" in found:
        yield "gold equal to the embedded road's, row for row", bool(found["gold_equal"])


def _faults(found: Figures) -> Iterator[tuple[str, object]]:
    yield "`kill -9` of a stage", found["kills"]
    for stage, count in sorted(found["kills_by_stage"].items()):
        yield f"of these: of `{stage}`", count
    yield "zombies (stopped beyond the session time-out, then woken)", found["zombies"]
    yield "broker killed (-9) and started again", found["broker_restarts"]
    for name, count in found["other_faults"].items():
        yield name.replace("_", " "), count
    yield "S3 requests failed", found["s3_faults"]
    for kind, count in found["s3_faults_by_kind"].items():
        yield f"of these: {kind}", count
    yield "commits that the spool's disk refused", found["refused_by_disk"]


def _recoveries(found: Figures) -> Iterator[tuple[object, ...]]:
    kinds = {**found["recovery_s_by_kind"], "**any**": found["recovery_s"]}
    for kind, seconds in kinds.items():
        if seconds["n"]:
            yield kind, seconds["n"], seconds["p50"], seconds["p99"], seconds["max"]
    if "recovery_after_all_s" in found:
        last = found["recovery_after_all_s"]
        yield "the end of all faults", 1, last, last, last


def _simulations(simulations: Sequence[Figures]) -> Iterator[str]:
    sound = [found for found in simulations if not found.get("mutant")]
    broken = [found for found in simulations if found.get("mutant")]
    if sound:
        yield SIMULATION.rstrip()
        yield from table(
            ["schedules", "frames", "objects", "bad schedules", "seconds"],
            [
                (f["schedules"], f["frames"], f["objects"], len(f["failed"]), f["seconds"])
                for f in sound
            ],
        )
        kinds = {kind: 0 for found in sound for kind in found["faults"]}
        counts = {kind: sum(found["faults"].get(kind, 0) for found in sound) for kind in kinds}
        yield from table(["fault", "times"], [(k, n) for k, n in counts.items() if n])
        yield "\nReproduce: `python -m tests.fault.simulate --schedules N --jobs 2`"
    if broken:
        yield MUTANTS.rstrip()
        rows = [(f["mutant"], f["schedules"], len(f["failed"]), not f["ok"]) for f in broken]
        yield from table(["rule broken", "schedules", "that show it", "caught"], rows)
        yield "\nReproduce: `python -m tests.fault.simulate --mutant NAME`"


def _lines(path: Path) -> list[Figures]:
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def main() -> None:
    """Read the figures, write the page."""
    parser = argparse.ArgumentParser(prog="tools.reliability_table", description=__doc__)
    parser.add_argument("--soak", type=Path, default=RESULTS / "soak.json")
    parser.add_argument("--simulation", type=Path, default=RESULTS / "simulation.jsonl")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    soak = json.loads(options.soak.read_text())
    options.page.write_text(page(soak, _lines(options.simulation)))


if __name__ == "__main__":
    main()
