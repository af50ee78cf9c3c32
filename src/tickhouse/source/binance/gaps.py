"""The gaps of a Binance feed: which ids are missing, told as events, shared by socket and filler.

Every id between the first and the last one seen is in exactly one place: in a recorded frame, or in
one gap that no event calls filled. To keep it so, a gap is never changed: what fills or divides it
tells gaps for the ids that remain (of names of their own) before it calls the old one filled.
"""

import re
from collections.abc import Iterable
from typing import Final

from tickhouse.model.positions import Stream
from tickhouse.model.session import Gap
from tickhouse.source.binance.ids import FILL_KIND, TRADES_KIND, VENUE, IdRange

_NAME: Final = re.compile(r"([A-Z0-9]{1,32}):(\d+)-(\d+)")


class OpenGap:
    """Ids of one symbol that are missing and that nothing has filled yet.

    Attributes:
        symbol: as Binance writes it, such as "BTCUSDT".
        ids: the missing ids.
        time_from, time_to: receipts before and after the gap, UNIX nanoseconds UTC.
        cause: why.
        next_id: the filler's position: all ids before it are filled or gaps of their own.
        parts: ids from there on that were told as gaps of their own already.
        retry_at: when the filler may ask (again), monotonic seconds.
        attempts: how often the exchange gave nothing.
    """

    def __init__(
        self, symbol: str, ids: IdRange, *, time_from: int, time_to: int, cause: str
    ) -> None:
        self.symbol = symbol
        self.ids = ids
        self.time_from = time_from
        self.time_to = time_to
        self.cause = cause
        self.next_id = ids.first
        self.parts: list[IdRange] = []
        self.retry_at = 0.0
        self.attempts = 0

    @property
    def name(self) -> str:
        """The gap's name in events, such as "BTCUSDT:101-149"."""
        return f"{self.symbol}:{self.ids.first}-{self.ids.last}"

    @property
    def rest(self) -> list[IdRange]:
        """What is neither filled nor a gap of its own, lowest first; empty at the end."""
        start = self.next_id
        rest: list[IdRange] = []
        for part in sorted(self.parts):
            if part.first > start:
                rest.append(IdRange(start, part.first - 1))
            start = max(start, part.last + 1)
        if start <= self.ids.last:
            rest.append(IdRange(start, self.ids.last))
        return rest

    @property
    def is_whole(self) -> bool:
        """Whether nothing of it was filled or told as a gap of its own."""
        return self.next_id == self.ids.first and not self.parts

    def part(self, ids: IdRange, cause: str) -> "OpenGap":
        """A gap of some of these ids."""
        return OpenGap(
            self.symbol, ids, time_from=self.time_from, time_to=self.time_to, cause=cause
        )

    def event(self, at: int, *, filled_by: str | None = None) -> Gap:
        """The event that tells this gap, or what filled it.

        Args:
            at: UNIX nanoseconds UTC.
            filled_by: payload kind of the frames that hold the ids now.
        """
        return Gap(
            at=at,
            stream=Stream.TRADES,
            seq_from=None,
            seq_to=None,
            time_from=self.time_from,
            time_to=self.time_to,
            symbols=[VENUE + self.symbol],
            cause=self.cause,
            filled_by=filled_by,
            name=self.name,
            id_from=self.ids.first,
            id_to=self.ids.last,
        )


def read_gap(event: Gap) -> OpenGap | None:
    """The gap that an event of a Binance feed tells; None for any other event."""
    match = _NAME.fullmatch(event.name or "")
    if match is None or event.symbols != [VENUE + match[1]]:
        return None
    ids = IdRange(int(match[2]), int(match[3]))
    if (event.id_from, event.id_to) != (ids.first, ids.last) or len(ids) < 1:
        return None
    return OpenGap(
        match[1],
        ids,
        time_from=event.time_from,
        time_to=event.time_to,
        cause=event.cause,
    )


class GapBook:
    """Gaps told and not filled, in the order in which they were told."""

    def __init__(self) -> None:
        self._open: dict[str, OpenGap] = {}
        self._told_to: dict[str, int] = {}

    def load(self, told: Iterable[Gap]) -> None:
        """Take up what session events of the log tell, in any order."""
        filled: set[str] = set()
        found: list[OpenGap] = []
        for event in told:
            gap = read_gap(event)
            if gap is None:
                continue
            self._told_to[gap.symbol] = max(self.told_to(gap.symbol), gap.ids.last)
            if event.filled_by is None:
                found.append(gap)
            else:
                filled.add(gap.name)
        for gap in found:
            if gap.name not in filled:
                self._open.setdefault(gap.name, gap)

    def add(self, gap: OpenGap) -> None:
        """A gap has been told."""
        self._open.setdefault(gap.name, gap)
        self._told_to[gap.symbol] = max(self.told_to(gap.symbol), gap.ids.last)

    def close(self, gap: OpenGap) -> None:
        """A gap has been told to be filled."""
        self._open.pop(gap.name, None)

    def is_open(self, gap: OpenGap) -> bool:
        """Whether this very gap is still open."""
        return self._open.get(gap.name) is gap

    def told_to(self, symbol: str) -> int:
        """The highest id of a symbol that any gap named, open or filled; -1 = none."""
        return self._told_to.get(symbol, -1)

    def gaps(self) -> list[OpenGap]:
        """All open gaps, in the order told."""
        return list(self._open.values())

    def due(self, now: float) -> OpenGap | None:
        """The gap to fill next; one begun before all others.

        Args:
            now: monotonic seconds.
        """
        waiting = [gap for gap in self._open.values() if gap.retry_at <= now]
        begun = [gap for gap in waiting if not gap.is_whole]
        return next(iter(begun or waiting), None)

    def arrived_late(self, symbol: str, ids: Iterable[int], at: int) -> list[Gap]:
        """Ids came on the socket after they were told missing: events that say what remains.

        Ids that the filler has been given already came twice from the exchange; both are kept.
        """
        late = set(ids)
        events: list[Gap] = []
        for gap in self.gaps():
            rest = gap.rest
            arrived = {trade_id for trade_id in late for ids in rest if trade_id in ids}
            if gap.symbol != symbol or not arrived:
                continue
            for part in (
                gap.part(left, gap.cause) for ids in rest for left in ids.without(arrived)
            ):
                self.add(part)
                events.append(part.event(at))
            self.close(gap)
            filled_by = TRADES_KIND if gap.is_whole else FILL_KIND
            events.append(gap.event(at, filled_by=filled_by))
        return events
