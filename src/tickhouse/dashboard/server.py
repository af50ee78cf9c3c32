"""Runs the `serve` stage: hub thread, event loop and web server, until told to stop."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol

import uvicorn
from typing_extensions import override

from tickhouse.dashboard.app import MESSAGE_BYTES_MAX, Dashboard
from tickhouse.dashboard.asking import GoldAsker
from tickhouse.dashboard.conditions import Conditions, seeded_conditions
from tickhouse.dashboard.fanout import Fanout
from tickhouse.dashboard.hub import Hub
from tickhouse.dashboard.queries import GoldQueries, Published
from tickhouse.errors import BusyError, ConfigError
from tickhouse.stream.log import LogReader
from tickhouse.telemetry import StageStatus

LOCAL_HOSTS: Final = frozenset({"127.0.0.1", "::1", "localhost"})
STOP_POLL_S: Final = 0.1
GRACE_S: Final = 2


class Stop(Protocol):
    """Tells when to stop (a `threading.Event` does)."""

    def is_set(self) -> bool:
        """Whether to stop."""
        ...


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs the stage, and tells when it answers."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def run_server(  # noqa: PLR0913 - all by keyword
    *,
    log: LogReader,
    published: Published,
    run_folder: Path,
    host: str,
    port: int,
    stop: Stop,
    on_ready: Callable[[str], None],
    aside: LogReader | None = None,
) -> None:
    """Serve the dashboard until `stop` is set; connections then get a moment to end.

    Args:
        log: the log whose live end is shown.
        published: gold, as readers see it; may be empty or missing yet.
        run_folder: status files of the stages; `serve.json` is written there.
        host: an address of this machine's loopback.
        port: 0 chooses a free one.
        stop: when to stop.
        on_ready: told the page's address once it answers.
        aside: the log once more; see `Hub`.

    Raises:
        ConfigError: the host is not local; BusyError: the port is taken.
    """
    serve(
        reader=log,
        published=published,
        conditions=seeded_conditions(),
        run_folder=run_folder,
        listener=listen(host, port),
        stop=stop,
        on_ready=on_ready,
        aside=aside,
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to a loopback address of this machine.

    Raises:
        ConfigError: the host is not local; BusyError: the port is taken.
    """
    if host not in LOCAL_HOSTS:
        raise ConfigError(f"host {host}: the dashboard listens on 127.0.0.1 or ::1 only")
    family = socket.AF_INET6 if host == "::1" else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise BusyError(
            f"{host}:{port}: cannot listen ({error.strerror}); choose another port with --port"
        ) from error
    return listener


def serve(  # noqa: PLR0913 - all by keyword
    *,
    reader: LogReader,
    published: Published,
    conditions: Conditions,
    run_folder: Path,
    listener: socket.socket,
    stop: Stop,
    on_ready: Callable[[str], None],
    aside: LogReader | None = None,
) -> None:
    """Serve on a bound socket until `stop` is set. See `run_server`."""

    async def run() -> None:
        stage = _Stage(reader, GoldQueries(published), conditions, run_folder, aside)
        await stage.run(listener, stop, on_ready)

    with listener:
        asyncio.run(run())


class _Stage:
    """What runs while the stage runs: hub thread, web server, status file."""

    def __init__(
        self,
        reader: LogReader,
        gold: GoldQueries,
        conditions: Conditions,
        run_folder: Path,
        aside: LogReader | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._gold_pool = ThreadPoolExecutor(1, "gold")
        asker = GoldAsker(gold, monotonic=time.monotonic, aside=self._gold_pool.submit)
        self._hub = Hub(
            reader,
            asker,
            conditions,
            send=self._send,
            is_watched=lambda: bool(self._fanout.clients),
            aside=aside,
        )
        self._fanout = Fanout(on_join=self._hub.join, on_last=self._hub.leave)
        self._dashboard = Dashboard(
            hub=self._hub, gold=gold, fanout=self._fanout, run_folder=run_folder
        )
        self._status = StageStatus(run_folder, "serve")
        self._hub_stop = threading.Event()
        self._thread = threading.Thread(target=self._hub.run, args=(self._hub_stop,), name="hub")

    def _send(self, channel: str, frame: bytes) -> None:
        with contextlib.suppress(RuntimeError):  # the loop ended before the hub's thread did
            self._loop.call_soon_threadsafe(self._fanout.send, channel, frame)

    async def run(
        self, listener: socket.socket, stop: Stop, on_ready: Callable[[str], None]
    ) -> None:
        """Serve until stopped."""
        host, port = listener.getsockname()[:2]
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        config = uvicorn.Config(
            self._dashboard.app(port=port),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            ws="websockets-sansio",
            ws_max_size=4 * MESSAGE_BYTES_MAX,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=GRACE_S,
        )
        server = _Server(config, lambda: on_ready(address))
        self._status.report("starting")
        self._thread.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                lane = tasks.create_task(self._dashboard.send_pipeline())
                tasks.create_task(self._watch(server, stop))
                await server.serve([listener])
                lane.cancel()
        finally:
            self._hub_stop.set()
            await asyncio.to_thread(self._thread.join)
            await asyncio.to_thread(self._gold_pool.shutdown)
            self._status.report("stopped")

    async def _watch(self, server: uvicorn.Server, stop: Stop) -> None:
        """Keep the status file and pass the stop on."""
        while not server.should_exit:
            server.should_exit = stop.is_set()
            facts = {"viewers": len(self._fanout.clients), **self._hub.load()}
            self._status.report("running", facts)
            await asyncio.sleep(STOP_POLL_S)
