"""Exchange days: sessions by the calendar, with auctions, halts, extended hours and bursts."""

from bisect import bisect_right
from datetime import date
from functools import lru_cache
from typing import Final

import msgspec
import numpy as np

from tickhouse.model.calendar import MarketSession, new_york
from tickhouse.model.units import NANOS_PER_SECOND
from tickhouse.source.simulator.arrivals import Arrivals, Prints, expected_trades, merged
from tickhouse.source.simulator.block import Block, Flags, frame_flags, gather
from tickhouse.source.simulator.draws import Ints, draw, field, key, keys
from tickhouse.source.simulator.faults import REPEATED, REVERSED
from tickhouse.source.simulator.market import Market, mark_bits, shard_ranks, strike
from tickhouse.source.simulator.marks import (
    AUCTIONS,
    CLOSING,
    CONTINUOUS,
    FORM_T,
    OFFICIAL_CLOSE,
    OFFICIAL_OPEN,
    OPENING,
    RE_OPENING,
    SIZE_MEAN,
    sizes_and_conditions,
)
from tickhouse.source.simulator.prices import CENT, PRICE_UNITS, Axis, Prices
from tickhouse.source.simulator.profiles import shares
from tickhouse.source.simulator.scenario import FRAME_TRADES_MAX, Scenario
from tickhouse.source.simulator.universe import Roster

MICROS: Final = 1_000_000
CELL_US: Final = 100_000
"""Prints delivered within such a time share frames."""
AUCTION_S_MAX: Final = 60
AUCTION_SHARES: Final = {OPENING: (0.010, 0.020), CLOSING: (0.070, 0.080)}
"""Least and greatest part of the day's shares in an auction's print."""
RE_OPENING_SHARE: Final = 0.002
OFFICIAL_DELAY_US: Final = 150_000
HALT_S: Final = 300

_AUCTIONS, _FRAME_FAULTS = 40, 41


class _Framed(msgspec.Struct, frozen=True):
    """Prints of a period in frames.

    Attributes:
        prints: in order of delivery, each once.
        bounds, due_us, flags: per delivered frame, as in `Block`.
        order: place in `prints` of each delivered print; None = as they are.
    """

    prints: Prints
    bounds: Ints
    due_us: Ints
    flags: Flags
    order: Ints | None


class ExchangeDay:
    """One session of a roster.

    Args:
        scenario: what is simulated.
        roster: whose trades.
        prices: of the roster.
        session: the day.
        shard: whose frame faults.
    """

    def __init__(
        self,
        scenario: Scenario,
        roster: Roster,
        prices: Prices,
        session: MarketSession,
        shard: int = 0,
    ) -> None:
        self.session = session
        self.axis = axis_of(session)
        self._scenario = scenario
        self._prices = prices
        rates = scenario.rate * shares(scenario.symbols)[roster.ranks]
        self.arrivals = Arrivals(
            scenario.seed,
            roster,
            rates,
            faults=scenario.faults,
            prices=prices,
            period_s=scenario.period_s,
        )
        self.periods = -(-self.axis.length_s // scenario.period_s)
        day_shares = expected_trades(rates, self.axis) * (SIZE_MEAN / 0.91)
        self._auctions, self._auction_sizes = self._hold_auctions(roster, day_shares)
        self._frame_key = key(scenario.seed, _FRAME_FAULTS, self.axis.number, shard)
        self._base_ms = session.pre_open_ns // MICROS
        self._framed = lru_cache(maxsize=8)(self._make_framed)

    # -- auctions -----------------------------------------------------------------------------

    def _hold_auctions(self, roster: Roster, day_shares: np.ndarray) -> tuple[Prints, Ints]:
        """Auction prints of the day in order, and their sizes; `bits` holds each one's size."""
        opened, closed = self.axis.bells_s
        own = keys(roster.ranks, self._scenario.seed, _AUCTIONS, self.axis.number)
        columns = np.arange(len(roster))
        parts: list[Prints] = []
        for kind, official, at_s in (
            (OPENING, OFFICIAL_OPEN, opened),
            (CLOSING, OFFICIAL_CLOSE, closed),
        ):
            bits = draw(own, np.full(len(own), kind))
            at_us = at_s * MICROS + (field(bits, 0, 32) * (AUCTION_S_MAX * MICROS) >> 32)
            low, high = AUCTION_SHARES[kind]
            size = (low + (high - low) * field(bits, 32) / (1 << 16)) * day_shares
            sizes = np.maximum(np.rint(size), 1).astype(np.uint64)
            parts.append(_auction_prints(at_us, columns, sizes, kind))
            parts.append(_auction_prints(at_us + OFFICIAL_DELAY_US, columns, sizes, official))
        for column, start_s in self.arrivals.halts(self.axis).items():
            where = np.array([column])
            size = np.maximum(np.rint(RE_OPENING_SHARE * day_shares[where]), 1).astype(np.uint64)
            at_us = np.array([(start_s + HALT_S) * MICROS])
            parts.append(_auction_prints(at_us, where, size, RE_OPENING))
        prints = merged(parts)
        return prints, prints.bits.astype(np.int64)

    def _auction_prices(self, prints: Prints) -> Ints:
        """On the cent, at the efficient price of the bell; official prices repeat the auction's."""
        opened, closed = self.axis.bells_s
        at_us = prints.event_us.copy()
        at_us[np.isin(prints.kind, (OPENING, OFFICIAL_OPEN))] = opened * MICROS
        at_us[np.isin(prints.kind, (CLOSING, OFFICIAL_CLOSE))] = closed * MICROS
        middle = self._prices.middle(self.axis, at_us, prints.column) * PRICE_UNITS
        return (np.rint(middle / CENT) * CENT).astype(np.int64)

    def closing_prices(self, columns: Ints) -> Ints:
        """Prices of the closing prints, 1e-4 dollars."""
        at_us = np.full(len(columns), self.axis.bells_s[1] * MICROS)
        kinds = np.full(len(columns), CLOSING)
        return self._auction_prices(Prints(at_us, at_us, columns, columns.astype(np.uint64), kinds))

    # -- frames -------------------------------------------------------------------------------

    def _delivered(self, period: int) -> Prints:
        """Prints delivered in a period, each once, in order."""
        start_us = period * self._scenario.period_s * MICROS
        end_us = start_us + self._scenario.period_s * MICROS
        families = [
            self.arrivals.family(self.axis, root)
            for root in range(max(0, period - self.arrivals.reach), period + 1)
        ]
        parts: list[Prints] = []
        for prints in (*families, self._auctions):
            first, end = np.searchsorted(prints.deliver_us, (start_us, end_us)).tolist()
            if first < end:
                parts.append(prints.taken(slice(first, end)))
        return merged(parts) if parts else self._auctions.taken(slice(0, 0))

    def _make_framed(self, period: int) -> _Framed:
        prints = self._delivered(period)
        most = self._scenario.batch or FRAME_TRADES_MAX
        cell = prints.deliver_us // CELL_US
        is_start = np.ones(len(prints), dtype=np.bool_)
        is_start[1:] = cell[1:] != cell[:-1]
        starts = np.flatnonzero(is_start)
        place = np.arange(len(prints)) - np.repeat(starts, np.diff(np.append(starts, len(prints))))
        firsts = np.flatnonzero(place % most == 0)
        bounds = np.append(firsts, len(prints))
        due_us = (cell[firsts] + 1) * CELL_US
        numbers = cell[firsts] * (1 << 20) + place[firsts]
        flags = frame_flags(self._scenario.faults, self._frame_key, numbers)
        if not flags.any():
            return _Framed(prints, bounds, due_us, flags, None)
        return _with_faults(prints, bounds, due_us, flags)

    def count(self, period: int) -> int:
        """Frames of a period."""
        return len(self._framed(period).due_us)

    def block(self, period: int, first: int, pace_us: int) -> Block:
        """The frames of a period.

        Args:
            period: which.
            first: number of its first frame.
            pace_us: as in `Block`, from the day's start.
        """
        framed = self._framed(period)
        prints = framed.prints
        opened, closed = self.axis.bells_s
        bits = mark_bits(prints.bits)
        price = self._prices.prints(self.axis, prints.event_us, prints.column, bits)
        size, condition = sizes_and_conditions(bits)
        is_off_hours = (prints.event_us < opened * MICROS) | (prints.event_us >= closed * MICROS)
        condition += is_off_hours * FORM_T
        strike(self._scenario.faults, bits, price, size)
        auctions = np.flatnonzero(prints.kind != CONTINUOUS)
        if len(auctions):
            of_auctions = prints.taken(auctions)
            price[auctions] = self._auction_prices(of_auctions)
            size[auctions] = of_auctions.bits.astype(np.int64)
            condition[auctions] = AUCTIONS + of_auctions.kind - 1
        arrays = (prints.column, price, size, condition, self._base_ms + prints.event_us // 1000)
        if framed.order is not None:
            arrays = tuple(array[framed.order] for array in arrays)
        base_us = self._base_ms * 1000
        return Block(
            first,
            framed.bounds,
            *arrays,
            due_us=base_us + framed.due_us,
            frame_faults=framed.flags,
            pace_us=pace_us - base_us,
        )


def _with_faults(prints: Prints, bounds: Ints, due_us: Ints, flags: Flags) -> _Framed:
    """Repeat and reverse the frames that are marked."""
    event_ms = prints.event_us // 1000
    for frame in np.flatnonzero(flags & REVERSED).tolist():
        times = event_ms[bounds[frame] : bounds[frame + 1]]
        if not times[0] < times[-1]:
            flags[frame] &= ~np.uint8(REVERSED)
    is_repeated = (flags & REPEATED) != 0
    source = np.repeat(np.arange(len(flags)), 1 + is_repeated)
    is_second = np.zeros(len(source), dtype=np.bool_)
    is_second[1:] = source[1:] == source[:-1]
    delivered = np.where(is_second, flags[source] & REVERSED, flags[source] & ~np.uint8(REPEATED))
    delivered |= is_second * np.uint8(REPEATED)
    is_reversed = (delivered & REVERSED) != 0
    bounds, order = gather(bounds, source, is_reversed)
    return _Framed(prints, bounds, due_us[source], delivered, order)


def _auction_prints(at_us: Ints, columns: Ints, sizes: np.ndarray, kind: int) -> Prints:
    kinds = np.full(len(columns), kind)
    prints = Prints(at_us, at_us, columns, sizes, kinds)
    return prints.taken(np.argsort(at_us, kind="stable"))


def axis_of(session: MarketSession) -> Axis:
    """The seconds of a session, from pre-market to the end of post-market."""
    following = new_york().session_at_or_after(date.fromordinal(session.day.toordinal() + 1))
    start = session.pre_open_ns
    return Axis(
        number=session.day.toordinal(),
        following=session.day.toordinal() + 1 if following is None else following.day.toordinal(),
        length_s=(session.post_close_ns - start) // NANOS_PER_SECOND,
        regular_s=(
            (session.open_ns - start) // NANOS_PER_SECOND,
            (session.close_ns - start) // NANOS_PER_SECOND,
        ),
    )


class ExchangeMarket(Market):
    """A shard of exchange days, from a first day on.

    Frames are counted from the first day's first; the count of a day is found by drawing when its
    trades arrive, so a cursor costs that for each day before it (`docs/simulator.md`).

    Args:
        scenario: what is simulated.
        shard: which part of it.
        day: the first session is on this day or after it.
        days: sessions; None = to the calendar's end.
    """

    def __init__(
        self, scenario: Scenario, shard: int, *, day: date, days: int | None = None
    ) -> None:
        self.scenario = scenario
        self._shard = shard
        self._roster = Roster(shard_ranks(scenario, shard))
        self.symbols = self._roster.symbols
        self.prices = Prices(scenario.seed, self._roster)
        sessions = [session for session in new_york().sessions if session.day >= day]
        self.sessions = sessions if days is None else sessions[:days]
        self._ends: list[int] = []
        """Number after the last frame of each period reached so far."""
        self._places: list[tuple[int, int]] = []
        """Session and period behind each of them."""
        self._pace_us: list[int] = [0]
        self.day = lru_cache(maxsize=2)(self._open_day)
        self.block = lru_cache(maxsize=8)(self._draw)

    def _open_day(self, number: int) -> ExchangeDay:
        session = self.sessions[number]
        return ExchangeDay(self.scenario, self._roster, self.prices, session, self._shard)

    def block_of(self, frame: int) -> Block | None:
        """See `Market`."""
        while not self.reach(frame, steps_max=1):
            pass
        number = bisect_right(self._ends, frame)
        return self.block(number) if number < len(self._ends) else None

    def reach(self, frame: int, *, steps_max: int) -> bool:
        """See `Market`; a step counts the frames of one period."""
        for _ in range(steps_max):
            if (self._ends and self._ends[-1] > frame) or not self._reach_next():
                return True
        return bool(self._ends) and self._ends[-1] > frame

    def _reach_next(self) -> bool:
        """Count the frames of one period more; False at the end."""
        session, period = self._places[-1] if self._places else (0, -1)
        period += 1
        if self._places and period == self.day(session).periods:
            session, period = session + 1, 0
            self._pace_us.append(self._pace_us[-1] + self.day(session - 1).axis.length_s * MICROS)
        if session == len(self.sessions):
            return False
        reached = self._ends[-1] if self._ends else 0
        self._ends.append(reached + self.day(session).count(period))
        self._places.append((session, period))
        return True

    def _draw(self, number: int) -> Block:
        session, period = self._places[number]
        first = self._ends[number - 1] if number else 0
        return self.day(session).block(period, first, self._pace_us[session])
