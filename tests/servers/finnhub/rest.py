"""The REST half: bodies, statuses and headers as Finnhub documents them."""

import json
from collections.abc import Callable  # noqa: TC003 - annotates an attribute
from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tickhouse.clock import Clock
from tickhouse.model.calendar import MarketState, new_york
from tickhouse.source.simulator.scenario import read_universe

from .faults import LIMIT_REACHED, LIMIT_REACHED_2020, Faults
from .market import ZEROS, Market

NS = 10**9
NO_KEY = b'{"error":"Please use an API key."}'
BAD_KEY = b'{"error":"Invalid API key."}'
NO_ACCESS = b'{"error":"You don\'t have access to this resource."}'
CALLS_PER_MINUTE = 60
CALLS_PER_SECOND = 30
TICKS_MAX = 25_000

Reply = tuple[int, bytes, dict[str, str]]


class Rest:
    """Answers to GETs.

    Args:
        market: what `/quote` and `/stock/tick` say.
        clock: of the budget and the calendar.
        token: the one good key.
        is_premium: whether the key's plan has the premium endpoints.
        faults: which strike `/quote`.

    Attributes:
        requests: paths asked for, in order.
    """

    def __init__(
        self, market: Market, *, clock: Clock, token: str, is_premium: bool, faults: Faults
    ) -> None:
        self._market = market
        self._clock = clock
        self._token = token
        self._is_premium = is_premium
        self._faults = faults
        self._calls: dict[int, int] = {}
        self._second: tuple[int, int] = (0, 0)
        self.calls_per_minute = CALLS_PER_MINUTE
        self.requests: list[str] = []
        self._endpoints: dict[str, Callable[[dict[str, str]], Reply]] = {
            "/quote": self._quote,
            "/stock/profile2": self._profile,
            "/stock/market-status": self._status,
            "/stock/market-holiday": self._holidays,
            "/stock/symbol": self._symbols,
            "/stock/tick": self._ticks,
            "/search": self._search,
        }

    async def answer(self, target: str, header: str | None) -> Reply:
        """The answer to a GET of `target`, its path below the base address."""
        parts = urlsplit(target)
        params = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        token = header or params.get("token")
        self.requests.append(parts.path)
        if token != self._token:
            return HTTPStatus.UNAUTHORIZED, BAD_KEY if token else NO_KEY, {}
        remaining = self._spend()
        headers = {
            "X-Ratelimit-Limit": str(self.calls_per_minute),
            "X-Ratelimit-Remaining": str(max(0, remaining)),
        }
        if remaining < 0:
            return HTTPStatus.TOO_MANY_REQUESTS, LIMIT_REACHED, headers
        endpoint = self._endpoints.get(parts.path)
        if endpoint is None:
            return HTTPStatus.NOT_FOUND, b"Not found.", headers
        fault = self._faults.next_answer() if parts.path == "/quote" else None
        status, body, more = endpoint(params) if fault is None else await self._fail(fault, params)
        return status, body, {**headers, **more}

    def _spend(self) -> int:
        """Count a call; what is left of the minute, below 0 where the call is too many."""
        now_s = self._clock.time_ns() // NS
        minute = now_s // 60
        second, count = self._second
        self._second = (now_s, count + 1 if second == now_s else 1)
        self._calls = {minute: self._calls.get(minute, 0) + 1}
        left = self.calls_per_minute - self._calls[minute]
        return -1 if self._second[1] > CALLS_PER_SECOND else left

    async def _fail(self, fault: str, params: dict[str, str]) -> Reply:
        if fault == "rest_hang":
            await self._clock.sleep(60)
        body = self._market.quote(params.get("symbol", ""), self._clock.time_ns())
        return {
            "rest_429_json": (429, LIMIT_REACHED, {"X-Ratelimit-Remaining": "0"}),
            "rest_429_text": (429, LIMIT_REACHED_2020, {"Content-Type": "text/plain"}),
            "rest_429_empty": (429, b"", {}),
            "rest_200_error": (200, LIMIT_REACHED, {}),
            "rest_5xx": (503, b"<html>Service Unavailable</html>", {"Content-Type": "text/html"}),
            "rest_hang": (200, body, {}),
            "rest_garbage": (200, b"\x00\xffnot json", {}),
            "rest_half_json": (200, body[: len(body) // 2], {}),
            "rest_zero_quote": (200, ZEROS, {}),
        }[fault]

    def _quote(self, params: dict[str, str]) -> Reply:
        return 200, self._market.quote(params.get("symbol", ""), self._clock.time_ns()), {}

    def _profile(self, params: dict[str, str]) -> Reply:
        for listing in read_universe():
            if listing.symbol == params.get("symbol"):
                return _json(
                    {
                        "country": "US",
                        "currency": "USD",
                        "exchange": "NASDAQ NMS - GLOBAL MARKET",
                        "finnhubIndustry": listing.sector,
                        "ipo": "1980-12-12",
                        "logo": "",
                        "marketCapitalization": 1415993.0,
                        "name": f"{listing.symbol} Inc",
                        "phone": "14089961010.0",
                        "shareOutstanding": 4375.47998046875,
                        "ticker": listing.symbol,
                        "weburl": "https://example.com/",
                    }
                )
        return 200, b"{}", {}

    def _status(self, params: dict[str, str]) -> Reply:
        now = self._clock.time_ns()
        state = new_york().state(now)
        sessions = {MarketState.CLOSED: None, MarketState.REGULAR: "regular"}
        return _json(
            {
                "exchange": params.get("exchange", "US"),
                "holiday": None,
                "isOpen": state is MarketState.REGULAR,
                "session": sessions.get(state, str(state)),
                "t": now // NS,
                "timezone": "America/New_York",
            }
        )

    def _holidays(self, params: dict[str, str]) -> Reply:
        today = datetime.fromtimestamp(self._clock.time_ns() / NS, tz=UTC).date()
        first = date(today.year, 1, 1)
        days = (first + timedelta(days=number) for number in range(365))
        holidays = [
            {"atDate": str(day), "eventName": "Holiday", "tradingHour": hours}
            for day in days
            if (hours := _short_hours(day)) is not None
        ]
        return _json({"data": holidays, "exchange": "US", "timezone": "America/New_York"})

    def _symbols(self, params: dict[str, str]) -> Reply:
        return _json([_listed(listing.symbol) for listing in read_universe()])

    def _search(self, params: dict[str, str]) -> Reply:
        wanted = params.get("q", "").upper()
        found = [item.symbol for item in read_universe() if wanted and wanted in item.symbol]
        result = [
            {"description": s, "displaySymbol": s, "symbol": s, "type": "Common Stock"}
            for s in found
        ]
        return _json({"count": len(result), "result": result})

    def _ticks(self, params: dict[str, str]) -> Reply:
        if not self._is_premium:
            return HTTPStatus.FORBIDDEN, NO_ACCESS, {}
        ticks = self._market.ticks(params.get("symbol", ""))
        skip = int(params.get("skip", "0"))
        page = ticks[skip : skip + min(int(params.get("limit", "500")), TICKS_MAX)]
        return _json(
            {
                "s": params.get("symbol", ""),
                "skip": skip,
                "count": len(page),
                "total": len(ticks),
                "v": [tick["v"] for tick in page],
                "p": [tick["p"] for tick in page],
                "t": [tick["t"] for tick in page],
                "x": ["P"] * len(page),
                "c": [tick.get("c") or [] for tick in page],
            }
        )


def _short_hours(day: date) -> str | None:
    """Trading hours of a holiday: none, or a half day's; None for an ordinary day or a weekend."""
    session = new_york().session_on(day)
    if session is None:
        return "" if day.isoweekday() <= 5 else None
    return "09:30-13:00" if session.is_early_close else None


def _listed(symbol: str) -> dict[str, Any]:
    return {
        "currency": "USD",
        "description": f"{symbol} INC",
        "displaySymbol": symbol,
        "figi": "BBG000B9Y5X2",
        "mic": "XNGS",
        "symbol": symbol,
        "type": "Common Stock",
    }


def _json(body: object) -> Reply:
    return 200, json.dumps(body, separators=(",", ":")).encode(), {}
