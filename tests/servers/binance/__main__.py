"""`python -m tests.servers.binance`: prints one JSON line with its addresses, then plays."""

import argparse
import asyncio
import json
from pathlib import Path

from . import CAPTURE, BinanceServer, read_capture


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until killed."""
    async with BinanceServer(read_capture(arguments.capture), port=arguments.port) as server:
        addresses = {"ws_url": server.ws_url, "rest_url": server.rest_url}
        print(json.dumps(addresses), flush=True)  # noqa: T201
        await server.connected()
        if arguments.speed > 0:
            server.play(arguments.speed)
        await asyncio.Event().wait()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 = a free one")
    parser.add_argument("--speed", type=float, default=1.0, help="of the capture; 0 = by /control")
    parser.add_argument("--capture", type=Path, default=CAPTURE, help="folder of .gz captures")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
