"""Fills time gaps from `/stock/tick`, where the plan has it.

Ticks carry no id, so a gap is filled by event time: the recorded pages hold exactly the ticks
between the two receipts that bound the gap. What was under way at its edges (about 0.1 s) may be
missing or there twice. Not tried against the live service.
"""

from collections.abc import AsyncGenerator, Callable, Iterator
from datetime import date
from typing import Final

import msgspec

from tickhouse.clock import NANOS_PER_S, Clock
from tickhouse.errors import TransientError
from tickhouse.model.calendar import Calendar, MarketSession, is_always_open
from tickhouse.model.frame import Envelope
from tickhouse.model.positions import Stream
from tickhouse.model.session import Gap
from tickhouse.source.feed import Arrivals, Delivery, History
from tickhouse.source.finnhub.rest import Answer, PlanRefusedError, RestClient, judge
from tickhouse.telemetry import get_logger

KIND: Final = "finnhub.tick"
PAGE_TICKS: Final = 5000
"""At most 25,000 are given; a frame holds at most 1 MB."""
AGAIN_S: Final = 3600.0
IDLE_S: Final = 60.0
OLD_S: Final = 7 * 86_400.0
"""A gap that is still open after so long stays one."""

_log = get_logger("record")


class Ticks(msgspec.Struct):
    """An answer of `/stock/tick`, as far as needed: times (UNIX ms) and their place in the day."""

    t: list[int]
    skip: int
    count: int
    total: int


class Interval(msgspec.Struct, frozen=True):
    """Ticks of one symbol and day with `after_ms < t < before_ms` (UNIX ms UTC)."""

    symbol: str
    day: date
    after_ms: int
    before_ms: int

    def holds(self, ticks: Ticks) -> bool:
        """Whether all of these lie in it."""
        return bool(ticks.t) and all(self.after_ms < t < self.before_ms for t in ticks.t)


class _NotThereError(Exception):
    """The ticks are not published yet, or change while they are read."""


class FinnhubFiller:
    """One gap at a time, oldest first, one symbol and day after the other.

    The position is the last page in its own partition, read back by `read`.

    Args:
        rest: makes the client.
        clock: of waits.
        calendar: which days a gap touches, and when their ticks may be there.
    """

    def __init__(self, rest: Callable[[], RestClient], *, clock: Clock, calendar: Calendar) -> None:
        self._rest = rest
        self._clock = clock
        self._calendar = calendar
        self._gaps: dict[str, Gap] = {}
        self._filled: set[str] = set()
        self._written: dict[Interval, int] = {}

    @staticmethod
    def may_fill(symbol: str) -> bool:
        """Whether there may be ticks of a symbol: stocks only."""
        return not is_always_open(symbol)

    def tell(self, gap: Gap) -> None:
        """A gap has been told."""
        if gap.name is None or not gap.symbols:
            return
        if all(self.may_fill(symbol) for symbol in gap.symbols):
            self._gaps.setdefault(gap.name, gap)

    def read(self, history: History, *, told: int, own: int) -> None:
        """Take up what the log holds: gaps told, gaps filled, pages written.

        Args:
            history: what the log holds.
            told: shard whose events tell gaps.
            own: shard of the filler.
        """
        since = self._clock.time_ns() - int(OLD_S * NANOS_PER_S)
        for event in _gaps_since(history, own, since):
            if event.filled_by is not None and event.name is not None:
                self._filled.add(event.name)
        for event in _gaps_since(history, told, since):
            if event.filled_by is None and event.stream == Stream.TRADES:
                self.tell(event)
        self._written = {}
        intervals = [interval for gap in self._open() for interval in self._intervals(gap)]
        for envelope in history.frames(Stream.TRADES, own):
            interval, end = _place_of(envelope, intervals)
            if interval is None:
                return  # Older pages belong to gaps that are filled.
            self._written[interval] = max(end, self._written.get(interval, 0))

    async def deliver(self) -> AsyncGenerator[Delivery]:
        """Fill what is told, as soon as its ticks are published; for ever.

        Ends where the plan does not have them.

        Raises:
            KeyRefusedError: the key is refused (401).
        """
        async with self._rest() as rest:
            while True:
                gap = self._next()
                if gap is None:
                    await self._clock.sleep(IDLE_S)
                    continue
                try:
                    for interval in self._intervals(gap):
                        async for page in self._fill(rest, interval):
                            yield page
                except PlanRefusedError as error:
                    _log.warning("gaps_not_filled", error=str(error))
                    return
                except (TransientError, _NotThereError) as error:
                    _log.info("gap_not_filled_yet", gap=gap.name, error=str(error))
                    await self._clock.sleep(getattr(error, "retry_after_s", AGAIN_S))
                    continue
                self._filled.add(gap.name or "")
                at = self._clock.time_ns()
                yield msgspec.structs.replace(gap, at=at, filled_by=KIND)

    # -- which gap, which intervals -----------------------------------------------------------

    def _open(self) -> list[Gap]:
        """Gaps to fill, oldest first."""
        since = self._clock.time_ns() - int(OLD_S * NANOS_PER_S)
        gaps = [
            gap for name, gap in self._gaps.items() if name not in self._filled and gap.at > since
        ]
        return sorted(gaps, key=lambda gap: gap.time_from)

    def _next(self) -> Gap | None:
        """The oldest open gap, once all its days are over: ticks are an end-of-day product."""
        now = self._clock.time_ns()
        for gap in self._open():
            if all(session.post_close_ns < now for session in self._sessions(gap)):
                return gap
        return None

    def _sessions(self, gap: Gap) -> list[MarketSession]:
        """Trading days that a gap touches."""
        found: list[MarketSession] = []
        session = self._calendar.latest(gap.time_to)
        while session is not None and session.post_close_ns > gap.time_from:
            found.append(session)
            session = self._calendar.latest(session.pre_open_ns - 1)
        return found[::-1]

    def _intervals(self, gap: Gap) -> list[Interval]:
        """Symbol by symbol and day by day; what an older gap covers is that one's."""
        return [
            Interval(
                symbol,
                session.day,
                max(self._start(gap, symbol), session.pre_open_ns - 1) // 1_000_000,
                -(-gap.time_to // 1_000_000),
            )
            for symbol in gap.symbols
            for session in self._sessions(gap)
        ]

    def _start(self, gap: Gap, symbol: str) -> int:
        older = [
            other.time_to
            for other in self._gaps.values()
            if symbol in other.symbols and other.time_from < gap.time_from
        ]
        return max([gap.time_from, *older])

    # -- ticks --------------------------------------------------------------------------------

    async def _fill(self, rest: RestClient, interval: Interval) -> AsyncGenerator[Delivery]:
        """Pages of an interval from where its last one ended."""
        total = (await self._page(rest, interval, 0, 1))[0].total
        if total == 0:
            raise _NotThereError(f"no ticks of {interval.symbol} on {interval.day} yet")
        first = await self._find(rest, interval, total, interval.after_ms + 1)
        end = await self._find(rest, interval, total, interval.before_ms)
        place = max(first, self._written.get(interval, 0))
        while place < end:
            count = min(PAGE_TICKS, end - place)
            ticks, answer = await self._page(rest, interval, place, count)
            if len(ticks.t) != count or not interval.holds(ticks):
                raise _NotThereError(f"the ticks of {interval.symbol} are not in order")
            place += count
            self._written[interval] = place
            yield Arrivals(
                [answer.body], answer.received_at_ns, symbol=interval.symbol, source=KIND
            )

    async def _find(self, rest: RestClient, interval: Interval, total: int, from_ms: int) -> int:
        """Place of the day's first tick with `t >= from_ms`; `total` where there is none."""
        low, high = 0, total
        while low < high:
            middle = (low + high) // 2
            ticks, _ = await self._page(rest, interval, middle, 1)
            if not ticks.t:
                raise _NotThereError(f"the ticks of {interval.symbol} became fewer")
            if ticks.t[0] < from_ms:
                low = middle + 1
            else:
                high = middle
        return low

    @staticmethod
    async def _page(
        rest: RestClient, interval: Interval, skip: int, limit: int
    ) -> tuple[Ticks, Answer]:
        answer = await rest.get(
            "/stock/tick",
            symbol=interval.symbol,
            date=interval.day.isoformat(),
            skip=str(skip),
            limit=str(limit),
            format="json",
        )
        if judge(answer) != "ok":
            raise TransientError(f"/stock/tick: HTTP {answer.status}", retry_after_s=IDLE_S)
        try:
            return msgspec.json.decode(answer.body, type=Ticks), answer
        except msgspec.ValidationError as error:
            raise TransientError(f"/stock/tick: {error}", retry_after_s=AGAIN_S) from error


def _gaps_since(history: History, shard: int, since: int) -> Iterator[Gap]:
    for _, event in history.events(shard):
        if event.at < since:
            return
        if isinstance(event, Gap):
            yield event


def _place_of(envelope: Envelope, intervals: list[Interval]) -> tuple[Interval | None, int]:
    """The interval that a recorded page belongs to, and the place in the day after the page."""
    try:
        ticks = msgspec.json.decode(envelope.raw, type=Ticks)
    except msgspec.DecodeError:
        return None, 0
    for interval in intervals:
        if interval.symbol == envelope.sym and interval.holds(ticks):
            return interval, ticks.skip + ticks.count
    return None, 0
