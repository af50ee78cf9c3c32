"""The verb `serve`."""

import argparse
import contextlib
import os
from collections.abc import Generator

from tickhouse.dashboard.polled_gold import PolledGold
from tickhouse.dashboard.queries import Published
from tickhouse.dashboard.server import run_server
from tickhouse.runtime import backends
from tickhouse.runtime.gold import open_gold
from tickhouse.runtime.owner import HOST
from tickhouse.runtime.result import EXIT_OK, VerbResult
from tickhouse.runtime.stopping import stop_event
from tickhouse.settings import Settings
from tickhouse.telemetry import get_logger, write_json_atomically
from tickhouse.transform.published import PublishedGold

_log = get_logger("serve")


@contextlib.contextmanager
def _gold_for_the_page(settings: Settings) -> Generator[Published]:
    """Files are looked at whenever somebody asks; Snowflake by one thread, for all viewers."""
    with open_gold(settings) as gold:
        if isinstance(gold, PublishedGold):
            yield gold
            return
        with contextlib.closing(PolledGold(gold)) as polled:
            yield polled


def serve(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Stage 5."""
    log = backends.open_log_reader(settings)
    aside = backends.open_log_reader(settings) if settings.is_log_kafka else None
    address = settings.run_folder / "page.address"

    def ready(url: str) -> None:
        write_json_atomically(address, {"url": url, "pid": os.getpid()})
        _log.info("page_ready", url=url)
        if arguments.once:
            stop.set()

    try:
        with _gold_for_the_page(settings) as gold, stop_event(arguments) as stop:
            run_server(
                log=log,
                published=gold,
                run_folder=settings.run_folder,
                host=HOST,
                port=settings.port,
                stop=stop,
                on_ready=ready,
                aside=aside,
            )
    finally:
        log.close()
        if aside is not None:
            aside.close()
        address.unlink(missing_ok=True)
    return VerbResult(EXIT_OK, {"ok": True})
