"""How a stage is told to stop: a signal, the supervisor's pipe, or the end of its time."""

import argparse
import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncGenerator, Generator

from tickhouse.runtime.supervisor import stop_when_pipe_closes


@contextlib.contextmanager
def stop_event(arguments: argparse.Namespace) -> Generator[threading.Event]:
    """An event that is set when the stage has to stop.

    SIGTERM and SIGINT set it (a supervised child leaves SIGINT to its supervisor), so do the end of
    `--for` and, in a child, the closing of the supervisor's pipe.
    """
    stop = threading.Event()

    def on_signal(_number: int, _frame: object) -> None:
        stop.set()

    supervised = getattr(arguments, "supervised", False)
    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, on_signal),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN if supervised else on_signal),
    }
    if supervised:
        stop_when_pipe_closes(stop.set)
    timer = threading.Timer(arguments.for_s, stop.set) if arguments.for_s else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield stop
    finally:
        if timer is not None:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.asynccontextmanager
async def stopping(stop: threading.Event) -> AsyncGenerator[asyncio.Event]:
    """An event of the running loop that follows `stop`, which is set at the end."""
    stopped = asyncio.Event()
    watch = asyncio.create_task(asyncio.to_thread(stop.wait))
    watch.add_done_callback(lambda _watch: stopped.set())
    try:
        yield stopped
    finally:
        stop.set()
        await watch
