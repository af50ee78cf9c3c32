"""The market as the page shows it: one row a symbol, gold's facts with the live last price."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from tickhouse.dashboard.quotes import Quote
from tickhouse.model.calendar import is_always_open
from tickhouse.model.symbols import is_symbol

SYMBOLS_MAX: Final = 20_000
"""A feed that invents symbols without end fills neither memory nor page."""


class MarketRow(msgspec.Struct, frozen=True):
    """Gold's facts of a symbol in its current session; prices are None where there are none.

    Attributes:
        reference: price that the change is measured from.
        reference_is: "close" (previous session's), "open" (first price of this one) or "".
        last_ms: event time of the last price, UNIX milliseconds UTC.
        session_date: ISO date of the exchange session.
        source: mode and payload kind of its last price (`Envelope.src`).
        price_from: "trade", "quote" or "".
        disagreements: figures of the source's quote that ours contradict, joined by a comma.
        missing_s: seconds of the session that no gap filling brought back.
        is_complete: nothing of the session is known to be missing.
    """

    symbol: str
    name: str
    sector: str
    industry: str
    market_cap: float | None
    session_date: str
    last_price: float | None
    last_ms: int
    reference: float | None
    reference_is: str
    trade_count: int
    volume: float
    dollar_volume: float
    source: str
    price_from: str = "trade"
    disagreements: str = ""
    missing_s: float = 0.0
    is_complete: bool = True


class Mover(msgspec.Struct, frozen=True):
    """A symbol with the number that singles it out."""

    symbol: str
    value: float


class Kpi(msgspec.Struct, frozen=True):
    """The row of figures over the page: totals as of gold, movers and breadth as of now.

    Attributes:
        quoted: symbols whose last price is a quote, as of gold.
        incomplete: symbols of whose session something is missing.
        missing_s: seconds missing of the one that misses most.
        disagreeing: symbols of whose figures the source's quote says otherwise.
    """

    session_date: str
    symbols: int
    trades: int
    dollar_volume: float
    most_active: Mover | None
    gainer: Mover | None
    loser: Mover | None
    advancers: int
    decliners: int
    unchanged: int
    quoted: int = 0
    incomplete: int = 0
    missing_s: float = 0.0
    disagreeing: int = 0


class Universe:
    """Rows are only ever added, so a row's number means the same symbol until the server ends.

    Attributes:
        symbols, prices, times_ms: symbol, last price and its time by the source, by row.
        price_from: "trade" or "quote" ("" without a price), by row.
        heard_ms: receipt of the newest trade, UNIX milliseconds, by row; set by who reads trades.
        always_open: whether the symbol trades around the clock, by row.
        quotes: newest quote received, by row's number.
        refused: names that were no symbols, or too many.
    """

    def __init__(self) -> None:
        self.symbols: list[str] = []
        self.prices: list[float | None] = []
        self.times_ms: list[int] = []
        self.price_from: list[str] = []
        self.heard_ms: list[int] = []
        self.always_open: list[bool] = []
        self.quotes: dict[int, Quote] = {}
        self._numbers: dict[str, int] = {}
        self._gold: dict[str, MarketRow] = {}
        self._changed: set[int] = set()
        self.refused = 0

    def number(self, symbol: str) -> int | None:
        """The row of a symbol, added if it is new; None where it is not a symbol."""
        number = self._numbers.get(symbol)
        if number is None:
            number = self._admit(symbol)
        return number

    def _admit(self, symbol: str) -> int | None:
        if len(self.symbols) >= SYMBOLS_MAX or not is_symbol(symbol):
            self.refused += 1
            return None
        self.prices.append(None)
        self.times_ms.append(0)
        self.price_from.append("")
        self.heard_ms.append(0)
        self.always_open.append(is_always_open(symbol))
        self.symbols.append(symbol)
        self._numbers[symbol] = len(self.symbols) - 1
        return len(self.symbols) - 1

    def price(self, number: int, price: float, at_ms: int, price_from: str = "trade") -> None:
        """Take a last price unless a later one is known."""
        if at_ms >= self.times_ms[number]:
            self.times_ms[number] = at_ms
            self.price_from[number] = price_from
            if price != self.prices[number]:
                self.prices[number] = price
                self._changed.add(number)

    def quote(self, quote: Quote, *, is_stale: bool) -> None:
        """Take a polled quote: it is a price unless it is stale or a trade is as new."""
        number = self.number(quote.symbol)
        if number is None:
            return
        self.quotes[number] = quote
        at_ms = self.times_ms[number]
        is_newer = quote.quoted_ms > at_ms
        is_newer = is_newer or (quote.quoted_ms == at_ms and self.price_from[number] == "quote")
        if is_newer and not is_stale:
            self.price(number, quote.price, quote.quoted_ms, "quote")

    def take_gold(self, rows: Sequence[MarketRow]) -> None:
        """Take gold's facts of all symbols, and its prices where ours are older."""
        for row in rows:
            number = self.number(row.symbol)
            if number is None or row.last_price is None:
                continue
            if self.prices[number] is None or row.last_ms > self.times_ms[number]:
                self.price(number, row.last_price, row.last_ms, row.price_from)
        self._gold = {row.symbol: row for row in rows}

    def take_changed(self) -> list[int]:
        """Rows whose price changed since the last call."""
        changed = sorted(self._changed)
        self._changed.clear()
        return changed

    def change_percent(self, number: int) -> float | None:
        """Change of the last price from its reference, in percent."""
        row, price = self._gold.get(self.symbols[number]), self.prices[number]
        if row is None or price is None or not row.reference:
            return None
        return (price / row.reference - 1.0) * 100.0

    def find(self, text: str, limit: int) -> list[dict[str, Any]]:
        """Symbols whose symbol or name contains `text`; those that begin with it first."""
        wanted = text.upper()

        def rank(symbol: str) -> tuple[int, str] | None:
            if symbol.startswith(wanted):
                return (0, symbol)
            if wanted in symbol:
                return (1, symbol)
            row = self._gold.get(symbol)
            return (2, symbol) if row is not None and wanted in row.name.upper() else None

        ranks = sorted(found for found in map(rank, list(self.symbols)) if found is not None)
        return [self._described(symbol) for _, symbol in ranks[:limit]]

    def _described(self, symbol: str) -> dict[str, Any]:
        row = self._gold.get(symbol)
        name, sector = (row.name, row.sector) if row is not None else ("", "")
        return {"symbol": symbol, "name": name, "sector": sector}

    def columns(self) -> dict[str, list[Any]]:
        """The whole market, column by column; row n is row n of every `market` frame."""
        symbols = list(self.symbols)
        rows = [self._gold.get(symbol) for symbol in symbols]

        def column(value: Callable[[MarketRow], Any], missing: object = None) -> list[Any]:
            return [missing if row is None else value(row) for row in rows]

        return {
            "symbol": symbols,
            "name": column(lambda row: row.name, ""),
            "sector": column(lambda row: row.sector, ""),
            "industry": column(lambda row: row.industry, ""),
            "market_cap": column(lambda row: row.market_cap),
            "reference": column(lambda row: row.reference),
            "reference_is": column(lambda row: row.reference_is, ""),
            "price": self.prices[: len(symbols)],
            "at_ms": self.times_ms[: len(symbols)],
            "trades": column(lambda row: row.trade_count, 0),
            "volume": column(lambda row: row.volume, 0.0),
            "dollar_volume": column(lambda row: row.dollar_volume, 0.0),
            "source": column(lambda row: row.source, ""),
            "disagreements": column(lambda row: row.disagreements, ""),
            "missing_s": column(lambda row: row.missing_s, 0.0),
            "is_complete": column(lambda row: row.is_complete, missing=True),
        }

    def kpi(self) -> Kpi | None:
        """The figures of the newest session; None while gold is empty."""
        date = max((row.session_date for row in self._gold.values()), default=None)
        if date is None:
            return None
        rows = [row for row in self._gold.values() if row.session_date == date]
        changes = [
            Mover(row.symbol, change)
            for row in rows
            if (change := self.change_percent(self._numbers.get(row.symbol, 0))) is not None
        ]
        active = max(rows, key=lambda row: row.dollar_volume)
        return Kpi(
            session_date=date,
            symbols=len(rows),
            trades=sum(row.trade_count for row in rows),
            dollar_volume=sum(row.dollar_volume for row in rows),
            most_active=Mover(active.symbol, active.dollar_volume),
            gainer=max(changes, key=lambda mover: mover.value, default=None),
            loser=min(changes, key=lambda mover: mover.value, default=None),
            advancers=sum(mover.value > 0 for mover in changes),
            decliners=sum(mover.value < 0 for mover in changes),
            unchanged=sum(mover.value == 0 for mover in changes),
            quoted=sum(row.price_from == "quote" for row in rows),
            incomplete=sum(not row.is_complete for row in rows),
            missing_s=max(row.missing_s for row in rows),
            disagreeing=sum(bool(row.disagreements) for row in rows),
        )
