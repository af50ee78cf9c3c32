"""Run schedules by their seeds, and cut a failing one down to its shortest prefix."""

from collections import Counter
from collections.abc import Iterable

import msgspec

from tests.fault.simulation.oracle import check
from tests.fault.simulation.world import STEPS, Parts, World
from tickhouse.errors import CorruptError

FOUND = (AssertionError, CorruptError)
"""What tells that data is lost, doubled or broken; anything else is a mistake of the harness."""


class Failure(msgspec.Struct, frozen=True):
    """A schedule that broke a promise.

    Attributes:
        seed, steps: how to see it again; `steps` is the shortest prefix that fails.
        reason: what the oracle says.
    """

    seed: int
    steps: int
    reason: str


class Tally(msgspec.Struct):
    """What schedules have done."""

    schedules: int = 0
    on_duckdb: int = 0
    frames: int = 0
    objects: int = 0
    adopted: int = 0
    chains_reopened: int = 0
    faults: Counter[str] = msgspec.field(default_factory=Counter)
    failures: list[Failure] = msgspec.field(default_factory=list)

    def add(self, other: "Tally") -> None:
        self.schedules += other.schedules
        self.on_duckdb += other.on_duckdb
        self.frames += other.frames
        self.objects += other.objects
        self.adopted += other.adopted
        self.chains_reopened += other.chains_reopened
        self.faults.update(other.faults)
        self.failures += other.failures


def run(seed: int, parts: Parts, *, steps: int = STEPS) -> World:
    """One schedule and what must hold after it.

    Raises:
        AssertionError, CorruptError: a promise is broken; the message says which.
    """
    world = World(seed, parts)
    try:
        world.run(steps)
        check(world)
    finally:
        world.close()
    return world


def shrink(seed: int, parts: Parts) -> Failure:
    """The shortest prefix of a failing schedule that fails, too."""
    for steps in range(STEPS + 1):
        try:
            run(seed, parts, steps=steps)
        except FOUND as error:
            return Failure(seed, steps, f"{type(error).__name__}: {error}"[:600])
    raise ValueError(f"seed {seed} does not fail")


def run_all(seeds: Iterable[int], parts: Parts) -> Tally:
    """Run schedules; failing ones are shrunk and noted."""
    tally = Tally()
    for seed in seeds:
        tally.schedules += 1
        try:
            world = run(seed, parts)
        except FOUND:
            tally.failures.append(shrink(seed, parts))
            continue
        tally.frames += sum(spool.end for spool in world.spools)
        tally.objects += len(world.store.objects)
        tally.adopted += sum(process.lander.facts()["adopted"] for process in world.landers)
        tally.chains_reopened += sum(
            ".1/" in key and "GENESIS" in key for key in world.store.objects
        )
        tally.faults.update(world.chance.counts)
    return tally


def first_failure(seeds: Iterable[int], parts: Parts) -> int | None:
    """The first seed that finds what is wrong with these parts; None where all is well."""
    for seed in seeds:
        try:
            run(seed, parts)
        except FOUND:
            return seed
    return None
