"""Thousands of simulated schedules, and mutants that they must find (tests/fault/README.md)."""

from collections import Counter
from collections.abc import Iterator

import pytest
import structlog

from tests.fault.simulation.chance import KINDS
from tests.fault.simulation.mutants import MUTANTS
from tests.fault.simulation.real_warehouse import CrashingDuckDB
from tests.fault.simulation.running import Tally, first_failure, run, run_all, shrink
from tests.fault.simulation.world import Parts
from tickhouse.telemetry import configure_logging

SEEDS = 1_500
MUTANT_SEEDS = 3_000


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    before = structlog.get_config()
    configure_logging(level=50)
    yield
    structlog.configure(**before)


def describe(tally: Tally) -> str:
    return "\n".join(
        f"python -m tests.fault.simulate --seed {failure.seed} --steps {failure.steps}:"
        f" {failure.reason}"
        for failure in tally.failures
    )


@pytest.fixture(scope="module")
def tally() -> Tally:
    return run_all(range(SEEDS), Parts())


def test_whatever_strikes_every_acknowledged_frame_is_in_the_lake_and_once_in_the_warehouse(
    tally: Tally,
) -> None:
    assert not tally.failures, describe(tally)


def test_it_is_so_with_the_transactions_of_duckdb() -> None:
    tally = run_all(range(3_000, 3_015), Parts(warehouse=CrashingDuckDB))

    assert not tally.failures, describe(tally)
    assert tally.faults["kill_loader"] > 3


def test_every_kind_of_fault_struck(tally: Tally) -> None:
    struck = Counter(tally.faults)

    assert {kind for kind in KINDS if struck[kind] == 0} == set()
    assert tally.adopted > SEEDS / 20, "the schedules hardly ever made two landers meet"
    assert tally.chains_reopened > SEEDS / 100, "no chain was left for another"


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_road_with_one_rule_broken_is_found(mutant: str) -> None:
    assert first_failure(range(MUTANT_SEEDS), MUTANTS[mutant]) is not None, mutant


@pytest.mark.parametrize("seed", [103_985, 104_692, 106_660])
def test_a_tail_sent_again_whose_last_record_lies_where_it_lay_is_another_chain(seed: int) -> None:
    """Only the leader epoch tells it from the tail that the broker lost."""
    world = run(seed, Parts())

    assert world.lost_tails


def test_what_a_broker_lost_of_a_partition_that_retention_emptied_is_sent_again() -> None:
    """The relay had noted that Kafka held it; so notes of positions are not trusted."""
    world = run(59_497, Parts())

    assert world.lost_tails
    assert world.resent


def test_a_failing_schedule_is_cut_to_its_shortest_prefix() -> None:
    parts = MUTANTS["plain put"]
    seed = first_failure(range(MUTANT_SEEDS), parts)
    assert seed is not None
    failure = shrink(seed, parts)

    run(seed, parts, steps=failure.steps - 1)
    with pytest.raises(AssertionError):
        run(seed, parts, steps=failure.steps)


def test_a_seed_is_the_same_schedule_every_time() -> None:
    first, second = run(7, Parts()), run(7, Parts())

    assert first.chance.counts == second.chance.counts
    assert first.store.objects == second.store.objects


@pytest.mark.long
def test_many_more_schedules() -> None:
    tally = run_all(range(100_000, 104_000), Parts())

    assert not tally.failures, describe(tally)
