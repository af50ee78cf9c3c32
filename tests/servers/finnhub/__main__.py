"""`python -m tests.servers.finnhub`: prints one JSON line with its addresses, then serves.

The market is the simulator's day, which runs `--speed` times as fast as the clock, or recorded
frames. Faults: `GET /control/strike?kind=drop_reset&count=2`, `GET /control/state`.
"""

import argparse
import asyncio
import json
from datetime import date
from pathlib import Path

from tickhouse.clock import ScaledClock
from tickhouse.model.calendar import new_york
from tickhouse.source.simulator import Scenario

from . import FinnhubDouble, RecordedFrames, SimulatedDay


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until killed."""
    if arguments.frames is not None:
        clock, market = ScaledClock(arguments.speed), RecordedFrames(arguments.frames)
    else:
        session = new_york().session_on(arguments.date)
        if session is None:
            raise SystemExit(f"no session on {arguments.date}")
        clock = ScaledClock(arguments.speed, start_ns=session.open_ns)
        market = SimulatedDay(
            Scenario(
                seed=arguments.seed,
                symbols=arguments.symbols,
                rate=arguments.rate,
                market="exchange",
            ),
            arguments.date,
        )
    double = FinnhubDouble(
        market,
        clock=clock,
        token=arguments.token,
        port=arguments.port,
        is_premium=arguments.premium,
    )
    async with double:
        addresses = {"ws_url": double.ws_url, "rest_url": double.rest_url}
        print(json.dumps(addresses), flush=True)  # noqa: T201
        await asyncio.Event().wait()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 = a free one")
    parser.add_argument("--token", default="double", help="the one good key")
    parser.add_argument("--premium", action="store_true", help="the key's plan has ticks")
    parser.add_argument("--frames", type=Path, help="recorded frames, one a line")
    parser.add_argument("--date", type=date.fromisoformat, default=date(2026, 3, 2))
    parser.add_argument("--symbols", type=int, default=50)
    parser.add_argument("--rate", type=int, default=60, help="trades a second, all symbols")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--speed", type=float, default=1.0)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
