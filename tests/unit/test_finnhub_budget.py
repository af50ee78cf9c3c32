"""The REST budget: what a plan allows, counted and paced."""

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from tickhouse.clock import Clock
from tickhouse.source.finnhub.budget import Budget

MINUTE_NS = 60 * 1_000_000_000


class SteppingClock(Clock):
    """Moves only by sleeping."""

    def __init__(self, start_ns: int = 1_700_000_000 * 1_000_000_000) -> None:
        self._start_ns = start_ns
        self.now = 0.0

    @override
    def monotonic(self) -> float:
        return self.now

    @override
    def time_ns(self) -> int:
        return self._start_ns + int(self.now * 1e9)

    @override
    async def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 1e-6)
        await asyncio.sleep(0)


def calls(budget: Budget, clock: SteppingClock, count: int, *, idle_s: float = 0.0) -> list[float]:
    async def run() -> list[float]:
        times: list[float] = []
        for _ in range(count):
            clock.now += idle_s
            await budget.turn()
            times.append(clock.now)
        return times

    return asyncio.run(run())


def busiest(times: list[float], window_s: float) -> int:
    return max(
        sum(1 for other in times[index:] if other < start + window_s - 1e-9)
        for index, start in enumerate(times)
    )


@settings(max_examples=60, deadline=None)
@given(
    rate=st.sampled_from([1, 5, 60, 300, 1800]),
    idle_s=st.lists(st.floats(0, 90), min_size=1, max_size=6),
)
def test_no_minute_holds_more_calls_than_the_plan_and_no_second_more_than_30(
    rate: int, idle_s: list[float]
) -> None:
    clock = SteppingClock()
    budget = Budget(rate, clock=clock)
    times: list[float] = []
    for idle in idle_s:
        clock.now += idle
        times += calls(budget, clock, min(150, rate + 20))

    assert busiest(times, 60.0) <= rate
    assert busiest(times, 1.0) <= 30


def test_an_idle_client_may_burst_and_then_goes_on_evenly() -> None:
    clock = SteppingClock()
    times = calls(Budget(60, clock=clock), clock, 200)
    steps = [after - before for before, after in itertools.pairwise(times[80:])]

    assert times[9] < 0.001, "ten at once"
    assert min(steps) > 0.99, "then one a second"
    assert max(steps) < 1.01


def test_the_plan_is_used_to_the_full() -> None:
    clock = SteppingClock()
    times = calls(Budget(300, clock=clock), clock, 3000)

    assert times[-1] == pytest.approx(600, abs=15)


def test_a_pause_holds_every_call_and_is_followed_by_no_burst() -> None:
    clock = SteppingClock()
    budget = Budget(60, clock=clock)
    budget.pause(20)
    budget.pause(5)
    times = calls(budget, clock, 3)

    assert times == pytest.approx([20, 21, 22], abs=0.01)


@pytest.mark.parametrize("jitter", [0.0, 2.0])
def test_over_the_limit_waits_for_the_servers_next_minute_and_a_little_longer(
    jitter: float,
) -> None:
    clock = SteppingClock()
    budget = Budget(60, clock=clock, chance=lambda low, _high: low + jitter)
    budget.pause_to_next_minute(1000 * MINUTE_NS + 45 * 1_000_000_000)
    times = calls(budget, clock, 1)

    assert times == pytest.approx([15 + jitter], abs=0.01)


def test_the_servers_own_count_is_honoured() -> None:
    clock = SteppingClock()
    budget = Budget(60, clock=clock, chance=lambda low, _high: low)
    budget.learn(2, 1000 * MINUTE_NS)
    few = calls(budget, clock, 3)
    budget.learn(0, 1000 * MINUTE_NS + 50 * 1_000_000_000)
    none_left = calls(budget, clock, 1)

    assert few == pytest.approx([0, 0, 1], abs=0.01)
    assert none_left == pytest.approx([11], abs=0.01)


def test_turns_are_given_in_the_order_asked_for() -> None:
    async def run() -> list[int]:
        clock = SteppingClock()
        budget = Budget(60, clock=clock)
        served: list[int] = []

        async def ask(number: int) -> None:
            await budget.turn()
            served.append(number)

        await asyncio.gather(*(ask(number) for number in range(30)))
        return served

    assert asyncio.run(run()) == list(range(30))
