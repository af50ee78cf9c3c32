"""What the log already holds of a Binance feed: last ids, gaps told, how far a fill got.

All of it is read from the newest record back, and no further than needed, so a start costs the
same after a day and after a year.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, TypeVar

import msgspec

from tickhouse.clock import NANOS_PER_S, Clock
from tickhouse.model.frame import Envelope
from tickhouse.model.positions import Stream
from tickhouse.model.session import Gap
from tickhouse.source.binance.gaps import GapBook, OpenGap, read_gap
from tickhouse.source.binance.ids import FILL_KIND, TRADES_KIND, read_filled_ids, read_trade_id
from tickhouse.source.binance.trail import JUMP_IDS_MAX
from tickhouse.source.feed import History
from tickhouse.telemetry import get_logger

SOCKET: Final = 0
"""Shard of the socket."""
FILLER: Final = 1
"""Shard of the filler."""
FRAMES_MAX: Final = 100_000
"""A symbol without a trade in so many frames starts anew: what it missed is not known by id."""
TAIL_FRAMES: Final = 1000
"""At least so many are read: ids may be out of order by a few."""
EVENTS_MAX: Final = 20_000
"""Gaps told before so many events are left as they are."""
CLOCK_NS: Final = 24 * 3600 * NANOS_PER_S
"""How far the machine's clock may have been wrong."""
STEP: Final = 500
"""Records read between two looks at what else there is to do."""

T = TypeVar("T")

_log = get_logger("record")


class Past(msgspec.Struct, frozen=True):
    """Where the trades of a feed end.

    Attributes:
        last_ids: highest durable id by symbol, of the symbols found.
        session: the newest session with a trade, if any.
        received_at: receipt of the newest frame, UNIX nanoseconds UTC.
    """

    last_ids: dict[str, int]
    session: str | None = None
    received_at: int = 0


class _Steps:
    """Reads a long list without keeping others from their turn."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._count = 0

    async def pause(self) -> None:
        self._count += 1
        if self._count % STEP == 0:
            await self._clock.sleep(0)


async def read_past(
    history: History, symbols: Sequence[str], clock: Clock, *, sought: Collection[str]
) -> Past:
    """The last durable id of each symbol; other feeds' frames and replays do not count.

    Args:
        history: what the log holds.
        symbols: symbols of the feed.
        clock: gives others their turn.
        sought: symbols to read far back for, because nothing else knows their last id.
    """
    last_ids: dict[str, int] = {}
    newest: Envelope | None = None
    steps = _Steps(clock)
    for count, envelope in enumerate(history.frames(Stream.TRADES, SOCKET)):
        is_enough = count >= TAIL_FRAMES and last_ids.keys() >= set(sought)
        if is_enough or count >= FRAMES_MAX:
            break
        if envelope.src != TRADES_KIND:
            continue
        newest = newest or envelope
        trade = read_trade_id(envelope.raw)
        if trade is not None and trade.symbol in symbols:
            newer = last_ids.get(trade.symbol, trade.id)
            last_ids[trade.symbol] = (
                trade.id if _is_absurd(newer, trade.id) else max(newer, trade.id)
            )
        await steps.pause()
    if newest is None:
        return Past(last_ids)
    return Past(last_ids, newest.ses, newest.rx)


def _is_absurd(newer: int, older: int) -> bool:
    """Whether the newer id is a broken message's, and not what followed the older one."""
    return abs(newer - older) > JUMP_IDS_MAX


async def load_gaps(history: History, book: GapBook, clock: Clock) -> None:
    """Take up the gaps that the log tells and does not call filled, and how far a fill got."""
    told = await _told_by_socket(history, clock)
    oldest = min((event.at for event in told), default=None)
    if oldest is None:
        return
    told += await _told_by_filler(history, oldest - CLOCK_NS, clock)
    told.sort(key=lambda event: event.at)
    book.load(told)
    for part in filter(None, map(read_gap, told)):
        _note_part(book, part)
    await _find_position(history, book, clock)


async def _told_by_socket(history: History, clock: Clock) -> list[Gap]:
    steps = _Steps(clock)
    told: list[Gap] = []
    for _, event in _first(history.events(SOCKET), EVENTS_MAX):
        if isinstance(event, Gap):
            told.append(event)
        await steps.pause()
    return told


async def _told_by_filler(history: History, since: int, clock: Clock) -> list[Gap]:
    """All that the filler told of those gaps: it cannot have told it before they were found."""
    steps = _Steps(clock)
    told: list[Gap] = []
    for _, event in history.events(FILLER):
        if event.at < since:
            break
        if isinstance(event, Gap):
            told.append(event)
        await steps.pause()
    return told


def _note_part(book: GapBook, part: OpenGap) -> None:
    """Ids of an open gap were told as a gap of their own: the open gap is without them."""
    for gap in book.gaps():
        is_part = part.symbol == gap.symbol and part.name != gap.name
        if is_part and part.ids.first in gap.ids and part.ids.last in gap.ids:
            gap.parts.append(part.ids)


async def _find_position(history: History, book: GapBook, clock: Clock) -> None:
    """Set how far the fill got that was going on; only the newest page can belong to one.

    The filler begins no gap before it has told what remains of the one before.
    """
    steps = _Steps(clock)
    for count, envelope in enumerate(history.frames(Stream.TRADES, FILLER)):
        if count >= FRAMES_MAX:
            _leave_open(book)
            return
        if envelope.src == FILL_KIND:
            _go_on_after(book, envelope)
            return
        await steps.pause()


def _go_on_after(book: GapBook, page: Envelope) -> None:
    ids = read_filled_ids(page.raw) or [-1]
    for gap in book.gaps():
        if gap.symbol == page.sym and ids[0] in gap.ids and ids[-1] in gap.ids:
            gap.next_id = max(gap.next_id, ids[-1] + 1)


def _leave_open(book: GapBook) -> None:
    """Where a fill ended cannot be told any more; rather a gap for good than trades twice."""
    for gap in book.gaps():
        book.close(gap)
        _log.warning("gap_left_open", gap=gap.name, reason="the fill's own end is too far back")


def _first(items: Iterable[T], count: int) -> Iterator[T]:
    for number, item in enumerate(items):
        if number >= count:
            return
        yield item
