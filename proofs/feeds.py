"""`make prove-feeds`: a seeded day through a double of Finnhub, with every fault there is.

The double, the live feed and the recorder share one scaled clock. Then what the double says it
sent, and what nobody got, is compared with bronze, silver and gold (`proofs/feed_check.py`).

Prints one JSON line: {"ok", "faults", "lost", "duplicated", "gaps_expected", "gaps_recorded", …}.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from typing import Final

import msgspec
import structlog

from proofs.feed_check import check
from proofs.stages import Stages, TemporaryStages
from tests.servers.finnhub import FinnhubDouble, SimulatedDay
from tests.servers.finnhub.faults import CONNECTION, KINDS
from tickhouse.clock import Clock, ScaledClock
from tickhouse.model.calendar import MarketSession, new_york
from tickhouse.source.finnhub.feed import open_finnhub
from tickhouse.source.options import FinnhubOptions
from tickhouse.source.secret import Secret
from tickhouse.source.simulator import Scenario
from tickhouse.stream.recorder import Recorder

DAY: Final = date(2026, 3, 2)
BEYOND: Final = 20
"""Symbols more than the socket takes: each is a refusal, and is polled."""
SETTLE_S: Final = 70.0
"""After a reconnect the connection is left alone for so long, which starts the backoff anew."""
ARRIVE_S: Final = 0.5
"""Real seconds for what has been sent to arrive."""


class Plan(msgspec.Struct, frozen=True):
    """What is to happen.

    Attributes:
        seed: of the market and of the order of faults.
        symbols: on the socket.
        rate: trades a second of the regular session, all symbols.
        hours: of the market, from `begins_h` after the opening bell.
        begins_h: hours after the opening bell; negative = pre-market.
        speed: scaled seconds in a second.
        times: how often each fault strikes.
        pause_s: mean pause between two faults.
    """

    seed: int = 7
    symbols: int = 20
    rate: int = 40
    hours: float = 1.2
    begins_h: float = 0.0
    speed: float = 45.0
    times: int = 1
    pause_s: float = 20.0


async def _strike_all(double: FinnhubDouble, plan: Plan, clock: Clock) -> None:
    """Every fault, as often as planned, in random order, each once the one before is over."""
    chance = random.Random(plan.seed)  # noqa: S311 - a schedule
    kinds = [kind for kind in KINDS for _ in range(plan.times)]
    chance.shuffle(kinds)
    for kind in kinds:
        await clock.sleep(chance.expovariate(1 / plan.pause_s))
        await _until(lambda: double.is_up, clock)
        before, struck = double.connected, double.faults.struck[kind]
        await double.strike(kind)
        await _until(lambda k=kind, n=struck: double.faults.struck[k] > n, clock)
        if kind in CONNECTION and kind != "delay":
            await _until(lambda n=before: double.connected > n and double.is_up, clock)
            await clock.sleep(SETTLE_S)


async def _until(condition: Callable[[], bool], clock: Clock) -> None:
    while not condition():
        await clock.sleep(1.0)


def _session() -> MarketSession:
    session = new_york().session_on(DAY)
    if session is None:
        raise LookupError(f"no session on {DAY}")
    return session


async def _run(stages: Stages, plan: Plan) -> FinnhubDouble:
    """Record the plan's day; every frame the double sent has had time to arrive."""
    session = _session()
    begins_ns = session.open_ns + int(plan.begins_h * 3600e9)
    ends_ns = min(begins_ns + int(plan.hours * 3600e9), session.post_close_ns)
    scenario = Scenario(
        seed=plan.seed, symbols=plan.symbols + BEYOND, rate=plan.rate, market="exchange"
    )
    market = SimulatedDay(scenario, DAY, end_ns=ends_ns)
    clock = ScaledClock(plan.speed, start_ns=begins_ns)
    async with FinnhubDouble(market, clock=clock, seed=plan.seed) as double:
        double.symbols_max = plan.symbols
        options = FinnhubOptions(
            token=Secret(double.token),
            ws_url=double.ws_url,
            rest_url=double.rest_url,
            symbols_max=plan.symbols + BEYOND,
        )
        feed = open_finnhub(f"sp500?symbols={plan.symbols + BEYOND}", options, clock=clock)
        stop = asyncio.Event()
        recording = asyncio.create_task(Recorder(feed, stages.log, clock=clock).run(stop))
        striking = asyncio.create_task(_strike_all(double, plan, clock))
        over = asyncio.create_task(double.is_over.wait())
        try:
            await asyncio.wait([recording, over], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(ARRIVE_S)
        finally:
            for task in (striking, over):
                task.cancel()
            done = await asyncio.gather(striking, over, return_exceptions=True)
            stop.set()
            await recording
        for result in done:
            if isinstance(result, Exception):
                raise result
        return double


def run(stages: Stages, plan: Plan) -> FinnhubDouble:
    """Record the plan's day, land, load and build it."""
    double = asyncio.run(_run(stages, plan))
    stages.lander.drain()
    stages.refine()
    return double


def prove(plan: Plan, stages: Stages) -> dict[str, object]:
    """Run the plan and compare every layer with the double's record."""
    started = time.monotonic()
    double = run(stages, plan)
    found = check(stages, double.record, tolerance_s=max(2.0, 0.1 * plan.speed))
    report = stages.audit()
    struck = Counter(double.faults.struck)
    short = {kind: struck[kind] for kind in KINDS if struck[kind] < plan.times}
    return {
        "ok": found.is_ok and report.ok and not short and struck["too_many"] >= BEYOND,
        "faults": sum(struck.values()),
        "lost": found.lost,
        "duplicated": found.duplicated,
        "gaps_expected": found.gaps_expected,
        "gaps_recorded": found.gaps_recorded,
        "bars": found.bars,
        "bars_differ": found.bars_differ,
        "trades": found.trades,
        "rejects": found.rejects,
        "audit": report.ok,
        "not_struck": short,
        "problems": found.problems[:5],
        "seed": plan.seed,
        "seconds": round(time.monotonic() - started, 1),
    }


def main() -> None:
    """Print the proof; exits 1 if it does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--speed", type=float, default=Plan().speed)
    parser.add_argument("--verbose", action="store_true", help="show the recorder's log")
    arguments = parser.parse_args()
    if not arguments.verbose:
        structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    stages = TemporaryStages()
    try:
        proof = prove(Plan(seed=arguments.seed, speed=arguments.speed), stages)
    finally:
        stages.close()
    print(json.dumps(proof))  # noqa: T201
    sys.exit(0 if proof["ok"] else 1)


if __name__ == "__main__":
    main()
