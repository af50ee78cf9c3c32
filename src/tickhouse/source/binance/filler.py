"""The filler: ids that the socket missed, fetched over REST and recorded as they were sent.

Its position is its own output. One gap at a time, pages in rising order, so the newest page in the
log tells how far it got; what remains of a gap that cannot be finished is told as gaps of their own
before the gap is called filled and another one is begun (see `gaps`).
"""

from typing import TYPE_CHECKING, Final

from tickhouse.clock import Clock
from tickhouse.errors import TransientError
from tickhouse.model.positions import Stream
from tickhouse.model.session import Gap
from tickhouse.source.binance.gaps import GapBook, OpenGap
from tickhouse.source.binance.ids import FILL_KIND, IdRange, read_filled_ids
from tickhouse.source.binance.rest import PAGE_IDS, BinanceRest, Page, Refusal
from tickhouse.source.feed import Arrivals
from tickhouse.telemetry import get_logger

if TYPE_CHECKING:
    from tickhouse.source.feed import Delivery

SETTLE_S: Final = 1.0
"""A gap is asked for after so long: the exchange's own store lags a little, and so may frames."""
RETRY_S: Final = 5.0
RETRY_S_MAX: Final = 3600.0
FILL_IDS_MAX: Final = 2_000_000
"""A gap of more ids (hours of the busiest pair) is not fetched; it stays a gap."""

_log = get_logger("record")


class Filler:
    """Fills the open gaps of a book.

    Args:
        book: the gaps; the socket adds to it.
        rest: where missing trades are asked for.
        clock: of waits and events.
    """

    def __init__(self, book: GapBook, rest: BinanceRest, clock: Clock) -> None:
        self._book = book
        self._rest = rest
        self._clock = clock

    async def step(self) -> "list[Delivery]":
        """Ask for the next piece of the gap that is due, if any: what came, and events of it.

        Raises:
            TransientError: ask again after `retry_after_s`; no gap has changed.
        """
        gap = self._book.due(self._clock.monotonic())
        if gap is None:
            return []
        given = await self._ask(gap) if gap.rest else []
        if self._book.is_open(gap) and not gap.rest:
            self._book.close(gap)
            _log.info("gap_filled", gap=gap.name, ids=len(gap.ids))
            given.append(gap.event(self._clock.time_ns(), filled_by=FILL_KIND))
        return given

    async def _ask(self, gap: OpenGap) -> "list[Delivery]":
        if sum(map(len, gap.rest)) > FILL_IDS_MAX:
            gap.retry_at = float("inf")
            _log.warning("gap_not_filled", gap=gap.name, reason=f"over {FILL_IDS_MAX} ids")
            return []
        piece = gap.rest[0]
        given = await self._fetch(gap, piece)
        if not self._book.is_open(gap) or gap.rest[0] != piece:
            return []
        if isinstance(given, Refusal):
            return [*self._set_aside(gap, given.reason)]
        page, ids = given
        left_out = IdRange(piece.first, ids.first - 1)
        told = [self._tell_part(gap, left_out, "left out by the exchange")] if left_out else []
        gap.next_id = ids.last + 1
        arrivals = Arrivals(
            [page.body], page.received_at_ns, Stream.TRADES, symbol=gap.symbol, source=FILL_KIND
        )
        return [*told, arrivals]

    async def _fetch(self, gap: OpenGap, piece: IdRange) -> tuple[Page, IdRange] | Refusal:
        """The next trades of a piece of a gap, dense, and none beyond it; a body is never cut.

        Where ids are left out in the middle, only those before are taken: so the position after a
        page says of every id before it where it is.
        """
        count = min(PAGE_IDS, len(piece))
        for _ in range(2):
            page = await self._rest.trades(gap.symbol, piece.first, count)
            if isinstance(page, Refusal):
                return page
            ids = read_filled_ids(page.body)
            if ids is None or (ids and ids[0] < piece.first):
                raise TransientError(f"{gap.name}: no trades from {piece.first} on in the answer")
            dense = sum(
                trade_id <= piece.last and trade_id - ids[0] == place
                for place, trade_id in enumerate(ids)
            )
            if dense == 0:
                return Refusal("the exchange has no such trades")
            if dense == len(ids):
                return page, IdRange(ids[0], ids[-1])
            count = dense
        raise TransientError(f"{gap.name}: the exchange gave other trades than asked for")

    def _tell_part(self, gap: OpenGap, ids: IdRange, why: str) -> Gap:
        part = gap.part(ids, f"{gap.cause}; {why}")
        self._postpone(part)
        self._book.add(part)
        return part.event(self._clock.time_ns())

    def _set_aside(self, gap: OpenGap, reason: str) -> list[Gap]:
        """Give up for the moment; what was filled so far is told, so that another may begin."""
        _log.warning("gap_not_filled", gap=gap.name, rest=len(gap.rest), reason=reason)
        if gap.is_whole:
            self._postpone(gap)
            return []
        told = [self._tell_part(gap, ids, f"not filled: {reason}") for ids in gap.rest]
        self._book.close(gap)
        return [*told, gap.event(self._clock.time_ns(), filled_by=FILL_KIND)]

    def _postpone(self, gap: OpenGap) -> None:
        wait_s = min(RETRY_S * 2**gap.attempts, RETRY_S_MAX)
        gap.attempts += 1
        gap.retry_at = self._clock.monotonic() + wait_s
