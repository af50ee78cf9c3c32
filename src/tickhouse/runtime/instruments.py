"""The verb `instruments refresh`: company profiles into the log, from where silver takes them."""

import argparse
import asyncio
import threading
from typing import Any

import msgspec

from tickhouse.clock import SYSTEM_CLOCK
from tickhouse.errors import BusyError, ConfigError, TransientError
from tickhouse.model.calendar import is_always_open
from tickhouse.model.symbols import is_symbol
from tickhouse.runtime import backends
from tickhouse.runtime.result import EXIT_OK, EXIT_PROBLEM, VerbResult
from tickhouse.runtime.stopping import stop_event, stopping
from tickhouse.settings import Settings
from tickhouse.source.finnhub.address import read_address
from tickhouse.source.finnhub.profiles import PROFILE_SHARD, ProfileCounts, ProfileFeed
from tickhouse.source.simulator.universe import read_universe
from tickhouse.stream.log import Log
from tickhouse.stream.recorder import Recorder
from tickhouse.telemetry import get_logger

_log = get_logger("runtime")


def instruments(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Fetch `/stock/profile2` of each symbol within the plan's budget.

    Raises:
        ConfigError: no key, a refused key, or no symbol.
        BusyError: a recorder holds the log.
        TransientError: Finnhub cannot be reached; what came is kept.
    """
    symbols = symbols_asked_for(settings, arguments.symbols)
    options = backends.finnhub_options(settings)
    feed = ProfileFeed(symbols, options, clock=SYSTEM_CLOCK, age_s_min=arguments.older_than)
    log = _open_log(settings)
    _log.info("profiles_asked", symbols=len(symbols), calls_a_minute=options.calls_per_minute)
    try:
        with stop_event(arguments) as stop:
            asyncio.run(_record(feed, log, settings, stop))
    except TransientError as error:
        raise TransientError(
            f"{error}; {feed.counts.fetched} of {len(symbols)} profiles are recorded: run it again"
            " to go on"
        ) from error
    finally:
        log.close()
    return _result(feed.counts, len(symbols))


def symbols_asked_for(settings: Settings, asked: str | None) -> list[str]:
    """Symbols of the flag, else of a Finnhub source, else the S&P 500's.

    Crypto and FX pairs of a source are left out: they have no profile.

    Raises:
        ConfigError: no symbol, or one that cannot be one.
    """
    if asked is None:
        scheme, _, rest = settings.source.partition(":")
        if scheme not in {"finnhub", "finnhub+rest"}:
            return [listing.symbol for listing in read_universe()]
        watched = read_address(scheme, rest.removeprefix("//")).symbols
        symbols = [symbol for symbol in watched if not is_always_open(symbol)]
    else:
        symbols = [name.strip().upper() for name in asked.split(",") if name.strip()]
    if not symbols:
        raise ConfigError("instruments: no stock symbol; give --symbols AAPL,MSFT")
    odd = [name for name in symbols if is_always_open(name) or not is_symbol(name)]
    if odd:
        raise ConfigError(
            f"instruments: {', '.join(map(repr, odd[:5]))}: not a stock symbol such as AAPL or"
            " BRK.B; correct --symbols"
        )
    return list(dict.fromkeys(symbols))


def _open_log(settings: Settings) -> Log:
    try:
        return backends.open_spool(settings)
    except BusyError as error:
        raise BusyError(
            f"{settings.log_url}: a recorder is running on this log, and a log has one writer. Stop"
            " `tickhouse up` (or `record`), run `tickhouse instruments refresh`, start it again;"
            " an interrupted refresh goes on where it stopped"
        ) from error


async def _record(feed: ProfileFeed, log: Log, settings: Settings, stop: threading.Event) -> None:
    recorder = Recorder(
        feed,
        log,
        commit_ms=settings.record_commit_ms,
        commit_bytes=settings.record_commit_bytes,
        buffer_bytes=settings.record_buffer_bytes,
    )
    recorder.first_shard = PROFILE_SHARD
    async with stopping(stop) as stopped:
        await recorder.run(stopped)


def _result(counts: ProfileCounts, asked: int) -> VerbResult:
    content: dict[str, Any] = {
        "ok": not counts.failed,
        "asked": asked,
        **msgspec.structs.asdict(counts),
    }
    lines = [
        f"{counts.fetched} profiles recorded, {counts.young} of {asked} were young enough already"
    ]
    left = asked - counts.young - counts.fetched - len(counts.failed)
    if left:
        lines.append(f"{left} not asked for yet: run it again to go on")
    if counts.unknown:
        lines.append(f"unknown to Finnhub (recorded all the same): {', '.join(counts.unknown)}")
    lines += [f"{symbol}: given up: {said}" for symbol, said in counts.failed.items()]
    lines.append("land, load and build (or `up`) carry them into silver.instruments")
    return VerbResult(EXIT_PROBLEM if counts.failed else EXIT_OK, content, "\n".join(lines))
