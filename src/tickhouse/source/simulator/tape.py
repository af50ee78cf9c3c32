"""One exchange day as a tape: frames with the moment at which each is due, and quotes from them."""

from collections.abc import Collection, Iterator, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Final

import msgspec
import numpy as np

from tickhouse.errors import ConfigError
from tickhouse.model.calendar import new_york
from tickhouse.source.simulator.block import Block
from tickhouse.source.simulator.draws import draw, is_below, key
from tickhouse.source.simulator.faults import DISCONNECTED
from tickhouse.source.simulator.frames import FrameWriter
from tickhouse.source.simulator.prices import PRICE_UNITS, Prices
from tickhouse.source.simulator.scenario import Scenario
from tickhouse.source.simulator.sessions import ExchangeDay
from tickhouse.source.simulator.universe import Roster, read_universe

NANOS_PER_MICRO: Final = 1000
MINUTE_NS: Final = 60 * 10**9
NO_QUOTE: Final = b'{"c":0,"d":null,"dp":null,"h":0,"l":0,"o":0,"pc":0,"t":0}'
"""What Finnhub answers for a symbol that it does not know, and at times for those it does."""
_ZERO_QUOTES: Final = 50
_NOT_HIGH: Final = frozenset(
    ("3", "5", "10", "11", "12", "16", "17", "20", "22", "24", "25", "26", "37")
)
"""Codes of prints that set no high and low; `_NOT_LAST` those that set no last price."""
_NOT_LAST: Final = _NOT_HIGH | {"9", "21", "30", "32"}


class DayTape:
    """The frames of one session; the same for everyone with the scenario and the day.

    Args:
        scenario: its shards do not matter; a symbol's rate is its share of the scenario's.
        day: a session of the calendar.
        symbols: those on the tape, of the scenario's; None = all. Each trades as it would among
            all of them.

    Attributes:
        session: its hours.
        symbols: those on the tape.

    Raises:
        ConfigError: no session on that day, or a symbol that the scenario does not have.
    """

    def __init__(self, scenario: Scenario, day: date, symbols: Sequence[str] | None = None) -> None:
        session = new_york().session_on(day)
        if session is None:
            raise ConfigError(f"sim: no session on {day}")
        listed = [listing.symbol for listing in read_universe()[: scenario.symbols]]
        unknown = sorted(set(symbols or ()) - set(listed))
        if unknown:
            raise ConfigError(f"sim: {', '.join(unknown)} not among the {len(listed)} symbols")
        self.session = session
        self.symbols = listed if symbols is None else list(symbols)
        self.scenario = scenario
        self._roster = Roster([listed.index(symbol) for symbol in self.symbols])
        self._prices = Prices(scenario.seed, self._roster)
        self._day = ExchangeDay(scenario, self._roster, self._prices, session)

    def blocks(self, start_ns: int | None = None, end_ns: int | None = None) -> Iterator[Block]:
        """Frames as arrays, a period at a time; those that hold some of the given time."""
        period_ns = self.scenario.period_s * 10**9
        origin = self.session.pre_open_ns
        first = 0 if start_ns is None else max(0, (start_ns - origin) // period_ns - 1)
        end = self._day.periods
        if end_ns is not None:
            end = max(first, min(end, -((origin - end_ns) // period_ns)))
        number = 0
        for period in range(first, end):
            block = self._day.block(period, number, 0)
            number = block.end
            yield block

    def frames(
        self, start_ns: int | None = None, end_ns: int | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """Frames in order, each with the exchange time at which it is due, UNIX nanoseconds UTC.

        Args:
            start_ns: only those due from then on; None = all.
            end_ns: only those due before; None = all.
        """
        writer = FrameWriter(self.symbols)
        for block in self.blocks(start_ns, end_ns):
            payloads = writer.write(block, block.first, block.end, block.event_ms)
            for due_us, payload in zip(block.due_us.tolist(), payloads, strict=True):
                due_ns = due_us * NANOS_PER_MICRO
                if (start_ns or 0) <= due_ns and (end_ns is None or due_ns < end_ns):
                    yield due_ns, payload

    def disconnects(self, start_ns: int = 0, end_ns: int | None = None) -> Iterator[int]:
        """Exchange times at which the fault `disconnect` ends the connection."""
        for block in self.blocks(start_ns, end_ns):
            for due_us in block.due_us[(block.frame_faults & DISCONNECTED) != 0].tolist():
                due_ns = due_us * NANOS_PER_MICRO
                if start_ns <= due_ns and (end_ns is None or due_ns < end_ns):
                    yield due_ns

    def previous_close(self, symbol: str) -> Decimal:
        """Price of the closing print of the session before, which need not be run for it."""
        before = new_york().latest(self.session.pre_open_ns - 1)
        day = self._day
        if before is not None:
            day = ExchangeDay(self.scenario, self._roster, self._prices, before)
        units = day.closing_prices(np.array([self.symbols.index(symbol)]))
        return Decimal(int(units[0])) / PRICE_UNITS

    def has_zero_quote(self, symbol: str, at_ns: int) -> bool:
        """Whether the fault `zero_quote` strikes a symbol in the minute of a moment."""
        word = key(self.scenario.seed, _ZERO_QUOTES, self.symbols.index(symbol))
        minute = np.array([at_ns // MINUTE_NS])
        rate = self.scenario.faults.zero_quote
        return rate > 0 and bool(is_below(draw(word, minute), rate)[0])


def select(payload: bytes, symbols: Collection[str]) -> bytes | None:
    """A frame with only the trades of some symbols; None where it holds none of theirs."""
    trades = [trade for trade in _decode(payload).data if trade.s in symbols]
    if not trades:
        return None
    return msgspec.json.encode(_Message(trades, "trade"))


class _Trade(msgspec.Struct):
    c: list[str]
    p: msgspec.Raw
    s: str
    t: int
    v: int


class _Message(msgspec.Struct):
    data: list[_Trade]
    type: str


_decode = msgspec.json.Decoder(_Message).decode


class _State(msgspec.Struct):
    last: Decimal
    at_ms: int
    opened: Decimal | None = None
    high: Decimal | None = None
    low: Decimal | None = None


class QuoteBoard:
    """What `/quote` answers, from the trades delivered so far.

    Before a symbol's first eligible trade of the day its quote is that of the close before.

    Args:
        tape: whose day.
    """

    def __init__(self, tape: DayTape) -> None:
        self._tape = tape
        self._previous = {symbol: tape.previous_close(symbol) for symbol in tape.symbols}
        self._states: dict[str, _State] = {}

    def add(self, payload: bytes) -> None:
        """Take in a frame."""
        for trade in _decode(payload).data:
            text = bytes(trade.p)
            if text not in {b"null", b"0"} and trade.v and trade.s in self._previous:
                self._add(trade, Decimal(text.decode()))

    def _add(self, trade: _Trade, price: Decimal) -> None:
        codes = frozenset(trade.c)
        state = self._states.get(trade.s)
        sets_last, sets_high = not codes & _NOT_LAST, not codes & _NOT_HIGH
        if state is None:
            if not sets_last:
                return
            state = self._states[trade.s] = _State(price, trade.t)
        if sets_high:
            state.high = price if state.high is None else max(state.high, price)
            state.low = price if state.low is None else min(state.low, price)
        if sets_last and trade.t >= state.at_ms:
            state.last, state.at_ms = price, trade.t
        if "19" in codes or (sets_last and state.opened is None):
            state.opened = price

    def body(self, symbol: str, at_ns: int) -> bytes:
        """The body of a 200 answer; zeros for an unknown symbol, or where a fault strikes.

        Args:
            symbol: as asked for.
            at_ns: when, UNIX nanoseconds UTC.
        """
        previous = self._previous.get(symbol)
        if previous is None or self._tape.has_zero_quote(symbol, at_ns):
            return NO_QUOTE
        state = self._states.get(symbol)
        if state is None:
            earlier = new_york().latest(self._tape.session.pre_open_ns - 1)
            at_ms = 0 if earlier is None else earlier.close_ns // 10**6
            state = _State(previous, at_ms, previous, previous, previous)
        change = state.last - previous
        percent = (change / previous * 100).quantize(Decimal("0.0001"))
        fields: dict[str, Any] = {
            "c": state.last,
            "d": change,
            "dp": percent,
            "h": state.high,
            "l": state.low,
            "o": state.opened,
            "pc": previous,
            "t": state.at_ms // 1000,
        }
        numbers = {name: float(value or 0) for name, value in fields.items() if name != "t"}
        return msgspec.json.encode({**numbers, "t": fields["t"]})
