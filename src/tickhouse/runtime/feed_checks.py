"""What `doctor` asks live feeds: key, plan, limits, clock and calendar.

The socket is left alone: Finnhub allows one connection a key, and a second one ends the first.
"""

import asyncio
from datetime import UTC, datetime
from typing import Final

import msgspec

from tickhouse.clock import NANOS_PER_S, SYSTEM_CLOCK, Clock
from tickhouse.errors import TickhouseError
from tickhouse.model.calendar import new_york
from tickhouse.runtime import backends
from tickhouse.settings import Settings
from tickhouse.source.finnhub.rest import Answer, PlanRefusedError, RestClient, judge
from tickhouse.source.http import HttpClient
from tickhouse.source.options import FinnhubOptions

PROBE_SYMBOL: Final = "AAPL"
SAID_BYTES: Final = 120
OFFSET_S_SAID: Final = 2.0
OFFSET_S_MAX: Final = 30.0
"""A clock further off makes fresh quotes look old and late trades look early."""
CALENDAR_DAYS_MIN: Final = 60
OK: Final = 200


class Check(msgspec.Struct, frozen=True):
    """One finding of the doctor: what was found and, where it is not ok, what to do."""

    name: str
    ok: bool
    found: str


def check_feed(settings: Settings, *, clock: Clock = SYSTEM_CLOCK) -> list[Check]:
    """Findings about the live feed of `settings.source`; none for other feeds."""
    scheme = settings.source.partition(":")[0]
    if scheme in {"finnhub", "finnhub+rest"}:
        try:
            options = backends.finnhub_options(settings)
        except TickhouseError as error:
            return [Check("finnhub key", ok=False, found=str(error))]
        checks = [*asyncio.run(_ask_finnhub(options, clock)), check_calendar(clock.time_ns())]
        return [Check(each.name, each.ok, options.token.scrub(each.found)) for each in checks]
    if scheme == "binance":
        return asyncio.run(_ask_binance(settings.binance_rest_url, clock))
    return []


async def _ask_finnhub(options: FinnhubOptions, clock: Clock) -> list[Check]:
    try:
        async with RestClient(options, clock=clock) as rest:
            asked_ns = clock.time_ns()
            answer = await rest.get("/quote", symbol=PROBE_SYMBOL)
            checks = [_key(answer), _limits(answer, options)]
            if answer.server_time_ns is not None:
                server_ns = answer.server_time_ns
                span_ns = (server_ns, server_ns + NANOS_PER_S)
                checks.append(check_clock(span_ns, asked_ns, answer.received_at_ns))
            checks.append(await _plan(rest, options))
    except TickhouseError as error:
        return [Check("finnhub key", ok=False, found=str(error))]
    return checks


def _key(answer: Answer) -> Check:
    verdict = judge(answer)
    if verdict == "ok":
        return Check("finnhub key", ok=True, found="accepted")
    if verdict == "rate_limited":
        found = "accepted; over its limit at the moment: does something else use the same key?"
        return Check("finnhub key", ok=True, found=found)
    said = answer.body[:SAID_BYTES].decode(errors="replace").strip()
    found = (
        f"/quote answered {answer.status}: {said or '(nothing)'}; try again later, and check"
        " finnhub_rest_url"
    )
    return Check("finnhub key", ok=False, found=found)


def _limits(answer: Answer, options: FinnhubOptions) -> Check:
    mine, theirs = options.calls_per_minute, answer.limit
    name = "finnhub limits"
    if theirs is None:
        return Check(name, ok=True, found=f"{mine} calls a minute as set; the server does not say")
    left = "" if answer.remaining is None else f", {answer.remaining} left this minute"
    if theirs < mine:
        found = (
            f"the plan allows {theirs} calls a minute{left}, but finnhub_calls_per_minute is"
            f" {mine}; set it to {theirs}"
        )
        return Check(name, ok=False, found=found)
    more = f"; finnhub_calls_per_minute may be {theirs}" if theirs > mine else ""
    return Check(name, ok=True, found=f"{theirs} calls a minute{left}; {mine} are used{more}")


async def _plan(rest: RestClient, options: FinnhubOptions) -> Check:
    """Whether the plan gives what `finnhub_plan` says; the free plan is not probed."""
    name = "finnhub plan"
    if not options.can_fetch_ticks:
        found = f"free: {options.symbols_max} symbols on the socket; gaps stay gaps"
        return Check(name, ok=True, found=found)
    day = datetime.now(UTC).date().isoformat()
    try:
        answer = await rest.get("/stock/tick", symbol=PROBE_SYMBOL, date=day, limit="1", skip="0")
    except PlanRefusedError:
        found = "finnhub_plan is premium, but this key may not ask /stock/tick; set it to free"
        return Check(name, ok=False, found=found)
    if judge(answer) != "ok":
        found = f"/stock/tick answered {answer.status}; run doctor again later"
        return Check(name, ok=False, found=found)
    return Check(name, ok=True, found="premium: gaps are filled from /stock/tick")


def check_clock(server_ns: tuple[int, int], asked_ns: int, answered_ns: int) -> Check:
    """This machine's clock against a server's.

    Args:
        server_ns: earliest and latest time that the server may have meant, UNIX nanoseconds UTC.
        asked_ns: this clock before the call.
        answered_ns: this clock after it.
    """
    low, high = server_ns[0] - answered_ns, server_ns[1] - asked_ns
    offset_ns = low if low > 0 else min(high, 0)
    offset_s = offset_ns / NANOS_PER_S
    if abs(offset_s) <= OFFSET_S_SAID:
        found = f"within {OFFSET_S_SAID:g} s of the server's"
        return Check("clock", ok=True, found=found)
    way = "behind" if offset_s > 0 else "ahead of"
    found = f"this machine's clock is {abs(offset_s):.0f} s {way} the server's"
    if abs(offset_s) <= OFFSET_S_MAX:
        return Check("clock", ok=True, found=f"{found}; set it by NTP")
    fix = "set it (NTP: timedatectl set-ntp true) before recording; receipts carry its time"
    return Check("clock", ok=False, found=f"{found}; {fix}")


def check_calendar(now_ns: int) -> Check:
    """Whether the exchange calendar reaches far enough: after its end every day looks closed."""
    last_day = new_york().last_day
    left = (last_day - datetime.fromtimestamp(now_ns / NANOS_PER_S, UTC).date()).days
    found = f"known until {last_day}"
    if left < CALENDAR_DAYS_MIN:
        found += (
            f", {max(left, 0)} days ahead; update tickhouse (or make the seed anew:"
            " tools/calendar_seed.py)"
        )
    return Check("calendar", ok=left >= CALENDAR_DAYS_MIN, found=found)


class _ServerTime(msgspec.Struct):
    """Body of Binance's `/api/v3/time`: UNIX milliseconds UTC."""

    serverTime: int  # noqa: N815 - the exchange's name


async def _ask_binance(url: str, clock: Clock) -> list[Check]:
    name = "binance"
    try:
        async with HttpClient(url, clock=clock, setting="binance_rest_url") as client:
            asked_ns = clock.time_ns()
            answer = await client.get("/api/v3/time", {})
        if answer.status != OK:
            found = f"{url} answered {answer.status}; check binance_rest_url, or your network's"
            return [Check(name, ok=False, found=f"{found} access to Binance")]
        said = msgspec.json.decode(answer.body, type=_ServerTime)
    except msgspec.DecodeError:
        found = f"{url} does not tell the time as Binance does; check binance_rest_url"
        return [Check(name, ok=False, found=found)]
    except TickhouseError as error:
        return [Check(name, ok=False, found=str(error))]
    server_ns = said.serverTime * 1_000_000
    return [
        Check(name, ok=True, found=f"{url} answers"),
        check_clock((server_ns, server_ns), asked_ns, answer.received_at_ns),
    ]
