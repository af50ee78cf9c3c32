"""The poller: round robin within the budget; every body kept, every outage told."""

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Self, cast

import pytest

from support.tiny_http import Reply, Request, TinyServer
from support.tiny_socket import CLOSED, OPEN, TOKEN, FakeClock, at, connected, options, take
from tickhouse.clock import ScaledClock
from tickhouse.errors import TransientError
from tickhouse.model.calendar import new_york
from tickhouse.model.positions import Stream
from tickhouse.model.session import Coverage, Gap, Remote
from tickhouse.source.feed import Arrivals, Delivery
from tickhouse.source.finnhub.coverage import CoverageBoard
from tickhouse.source.finnhub.feed import open_finnhub, open_finnhub_rest
from tickhouse.source.finnhub.poller import FinnhubPoller
from tickhouse.source.finnhub.rest import Answer, KeyRefusedError, PlanRefusedError, RestClient

QUOTE = b'{"c":261.74,"d":1.2,"dp":0.46,"h":263.3,"l":260.7,"o":261.1,"pc":259.45,"t":1795446000}'
STATUS = b'{"exchange":"US","holiday":null,"isOpen":true,"session":"regular","t":1795446000}'

Said = tuple[int, bytes] | Exception
Reaction = Callable[[str, str, int], Said]
"""What to answer to a path and a symbol, for the n-th time."""


def usual(path: str, symbol: str, nth: int) -> Said:
    return (200, QUOTE if path == "/quote" else STATUS)


class FakeRest:
    """Answers as told; a call takes as long as the budget makes it wait."""

    def __init__(self, clock: FakeClock, react: Reaction, *, calls_per_minute: int = 60) -> None:
        self.clock = clock
        self.react = react
        self.pace_s = 60 / calls_per_minute
        self.asked: list[tuple[float, str, str]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        pass

    async def get(self, path: str, **params: str) -> Answer:
        await self.clock.sleep(self.pace_s)
        symbol = params.get("symbol", "")
        nth = sum(asked[1:] == (path, symbol) for asked in self.asked)
        self.asked.append((self.clock.monotonic(), path, symbol))
        said = self.react(path, symbol, nth)
        if isinstance(said, Exception):
            raise said
        answer = Answer(said[0], said[1], self.clock.time_ns())
        if answer.status == 401:
            raise KeyRefusedError("the key is refused", answer)
        if answer.status == 403:
            raise PlanRefusedError("the plan lacks it", answer)
        return answer

    @property
    def quotes(self) -> list[str]:
        return [symbol for _, path, symbol in self.asked if path == "/quote"]


class Poll:
    """A poller over a fake client, polled for so many calls.

    Args:
        symbols: most liquid first.
        react: what the server answers.
        calls: how many calls to make.
    """

    def __init__(
        self,
        symbols: list[str],
        react: Reaction = usual,
        *,
        calls: int = 20,
        socket_max: int = 0,
        start_ns: int = OPEN,
        is_connected: bool = True,
        on_call: Callable[["Poll"], object] = lambda _poll: None,
    ) -> None:
        self.clock = FakeClock(start_ns)
        calendar = new_york()
        self.board = CoverageBoard(
            symbols, socket_max=socket_max, polls=True, clock=self.clock, calendar=calendar
        )
        if is_connected:
            self.board.subscribed()
        self.rest = FakeRest(self.clock, react)
        self.items: list[Delivery] = []
        poller = FinnhubPoller(
            lambda: cast("RestClient", self.rest), self.board, clock=self.clock, calendar=calendar
        )

        async def run() -> None:
            delivered: Any = poller.deliver()
            try:
                async for item in delivered:
                    self.items.append(item)
                    on_call(self)
                    if len(self.rest.asked) >= calls:
                        return
            finally:
                await delivered.aclose()

        self.error: Exception | None = None
        try:
            asyncio.run(run())
        except KeyRefusedError as error:
            self.error = error

    def arrivals(self, *kinds: str) -> list[Arrivals]:
        found = [item for item in self.items if isinstance(item, Arrivals)]
        return [item for item in found if not kinds or item.source in kinds]

    def told(self, kind: type[Any]) -> list[Any]:
        return [item for item in self.items if isinstance(item, kind)]


# -- rounds -----------------------------------------------------------------------------------


def test_polled_symbols_have_their_turns_one_after_the_other() -> None:
    poll = Poll(["AAPL", "MSFT", "TSLA"], calls=14)

    assert poll.rest.quotes == ["AAPL", "MSFT", "TSLA"] * 4
    assert [item.symbol for item in poll.arrivals("finnhub.quote")] == poll.rest.quotes


def test_a_quote_is_kept_byte_for_byte_with_its_symbol_and_kind() -> None:
    (first, *_) = Poll(["AAPL"]).arrivals("finnhub.quote")

    assert first.payloads == [QUOTE]
    assert (first.stream, first.symbol) == (Stream.QUOTES, "AAPL")
    assert first.received_at_ns > OPEN


def test_what_the_exchange_says_is_asked_for_every_minute_and_holidays_once_a_day() -> None:
    poll = Poll(["AAPL"], calls=300)

    paths = Counter(path for _, path, _ in poll.rest.asked)
    assert paths["/stock/market-status"] == 5
    assert paths["/stock/market-holiday"] == 1
    status = poll.arrivals("finnhub.market-status")
    assert {(item.stream, item.symbol) for item in status} == {(Stream.REFERENCE, None)}
    assert [item.stream for item in poll.arrivals("finnhub.market-holiday")] == [Stream.REFERENCE]


def test_symbols_without_the_socket_get_most_turns_and_the_others_some() -> None:
    poll = Poll(["NVDA", "AAPL", "MSFT", "TSLA"], calls=600, socket_max=2)

    turns = Counter(poll.rest.quotes)
    assert abs(turns["MSFT"] - turns["TSLA"]) <= 2
    assert turns["MSFT"] > 250
    assert turns["NVDA"] == turns["AAPL"] == 2


def test_symbols_on_the_socket_are_asked_for_within_the_first_minutes() -> None:
    poll = Poll(["NVDA", "AAPL", "MSFT", "TSLA"], calls=20, socket_max=2)

    assert {"NVDA", "AAPL"} <= set(poll.rest.quotes)


def test_a_symbol_that_falls_silent_on_the_socket_gets_the_turns_of_a_polled_one() -> None:
    def fall(poll: Poll) -> None:
        poll.board.quiet.add("AAPL")

    poll = Poll(["NVDA", "AAPL"], calls=100, socket_max=2, on_call=fall)

    turns = Counter(poll.rest.quotes)
    assert turns["AAPL"] > 90
    assert turns["NVDA"] == 1


def test_while_the_market_is_closed_quotes_are_asked_for_seldom_but_crypto_is_not() -> None:
    poll = Poll(["AAPL", "BINANCE:BTCUSDT"], calls=2000, start_ns=CLOSED)

    hours = poll.clock.elapsed_s / 3600
    turns = Counter(poll.rest.quotes)
    assert 3 * hours <= turns["AAPL"] <= 4 * hours + 1
    assert turns["BINANCE:BTCUSDT"] > 1900


def test_with_nothing_due_nothing_is_asked_for() -> None:
    poll = Poll(["AAPL"], calls=70, start_ns=CLOSED)

    paths = Counter(path for _, path, _ in poll.rest.asked)
    assert paths["/quote"] == pytest.approx(poll.clock.elapsed_s / 900, abs=1.1)


def test_while_the_socket_is_down_its_symbols_are_polled_and_this_is_told() -> None:
    poll = Poll(["NVDA", "AAPL", "MSFT"], calls=200, socket_max=2, is_connected=False)

    turns = Counter(poll.rest.quotes)
    assert min(turns.values()) > 40
    (down,) = [event for event in poll.told(Coverage) if event.reason == "the socket is down"]
    assert (down.channel, down.symbols) == ("polling", ["NVDA", "AAPL"])


# -- coverage ---------------------------------------------------------------------------------


def test_polling_is_told_at_the_start_and_its_cadence_as_achieved() -> None:
    poll = Poll(["AAPL", "MSFT"], calls=1000)

    first, *later = poll.told(Coverage)
    assert (first.channel, first.symbols, first.every_s) == ("polling", ["AAPL", "MSFT"], None)
    assert first.reason == "polled only"
    assert {symbol for event in later for symbol in event.symbols} == {"AAPL", "MSFT"}
    assert {(event.channel, event.reason) for event in later} == {("polling", "achieved")}
    assert all(event.every_s == pytest.approx(2.04, abs=0.1) for event in later)


def test_a_steady_cadence_is_told_once() -> None:
    poll = Poll(["AAPL", "MSFT"], calls=3000)

    told = [event for event in poll.told(Coverage) if event.every_s is not None]
    assert sum(len(event.symbols) for event in told) == 2


# -- failures ---------------------------------------------------------------------------------

LIMIT = b"API limit reached. Please try again later. Remaining Limit: 0"


def test_an_answer_over_the_limit_is_kept_and_the_symbol_keeps_its_turn() -> None:
    def limit(path: str, symbol: str, nth: int) -> Said:
        return (429, LIMIT) if (symbol, nth) == ("MSFT", 0) else usual(path, symbol, nth)

    poll = Poll(["AAPL", "MSFT", "TSLA"], limit, calls=7)

    (kept,) = poll.arrivals("finnhub.http.429")
    assert (kept.payloads, kept.symbol, kept.stream) == ([LIMIT], "MSFT", Stream.QUOTES)
    assert poll.rest.quotes == ["AAPL", "MSFT", "MSFT", "TSLA", "AAPL"]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (500, b"", "finnhub.http.500"),
        (502, b"<html>Bad Gateway</html>", "finnhub.http.502"),
        (302, b"", "finnhub.http.302"),
        (200, b'{"c":261.74,"d":1.', "finnhub.quote"),
        (200, b"\x00\xff", "finnhub.quote"),
        (200, b'{"error":"You are over"}', "finnhub.quote"),
        (200, b"[" * 100_000, "finnhub.quote"),
    ],
)
def test_a_failed_answer_is_kept_and_the_next_turn_asks_again(
    status: int, body: bytes, kind: str
) -> None:
    def fail(path: str, symbol: str, nth: int) -> Said:
        return (status, body) if (symbol, nth) == ("AAPL", 0) else usual(path, symbol, nth)

    poll = Poll(["AAPL", "MSFT"], fail, calls=6)

    kept = poll.arrivals("finnhub.quote", kind)[0]
    assert (kept.source, kept.payloads, kept.symbol) == (kind, [body], "AAPL")
    assert poll.rest.quotes == ["AAPL", "MSFT"] * 2
    assert poll.told(Gap) == []


def test_a_server_that_fails_and_fails_is_asked_ever_more_slowly() -> None:
    def fail(path: str, symbol: str, nth: int) -> Said:
        return (500, b"") if path == "/quote" else usual(path, symbol, nth)

    poll = Poll(["AAPL", "MSFT"], fail, calls=12)

    times = [at for at, path, _ in poll.rest.asked if path == "/quote"]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses[:3] == [1.0, 1.0, 1.0]
    assert pauses[3:7] == [3.0, 5.0, 9.0, 17.0]
    assert max(pauses) <= 62.0


def test_an_outage_without_answers_is_a_gap_from_the_first_failure_to_the_next_success() -> None:
    failed_at: list[int] = []

    def cut(path: str, symbol: str, nth: int) -> Said:
        if path == "/quote" and 1 <= nth <= 2:
            failed_at.append(poll_clock[0].time_ns())
            return TransientError("no whole answer within 10 s", retry_after_s=5.0)
        return usual(path, symbol, nth)

    poll_clock: list[FakeClock] = []

    def keep_clock(poll: Poll) -> None:
        poll_clock[:] = [poll.clock]

    poll = Poll(["AAPL", "MSFT"], cut, calls=10, on_call=keep_clock)

    (gap,) = poll.told(Gap)
    after = poll.items[poll.items.index(gap) + 1]
    assert (gap.stream, gap.symbols, gap.seq_from) == ("quotes", [], None)
    assert gap.cause == "no whole answer within 10 s"
    assert gap.time_from == failed_at[0]
    assert isinstance(after, Arrivals)
    assert gap.time_to == after.received_at_ns
    assert gap.name == f"quotes:{failed_at[0]}"
    assert len(failed_at) == 4


def test_an_answer_that_is_no_quote_does_not_end_an_outage() -> None:
    def cut(path: str, symbol: str, nth: int) -> Said:
        if path != "/quote" or nth >= 2:
            return usual(path, symbol, nth)
        return TransientError("unreachable") if nth == 0 else (503, b"")

    poll = Poll(["AAPL"], cut, calls=6)

    (gap,) = poll.told(Gap)
    assert gap.time_to == poll.arrivals("finnhub.quote")[0].received_at_ns


def test_reference_that_failed_is_asked_for_again_before_its_time() -> None:
    def cut(path: str, symbol: str, nth: int) -> Said:
        is_first = path == "/stock/market-holiday" and nth == 0
        return TransientError("unreachable") if is_first else usual(path, symbol, nth)

    poll = Poll(["AAPL"], cut, calls=80)

    holidays = [at for at, path, _ in poll.rest.asked if path == "/stock/market-holiday"]
    assert len(holidays) == 2
    assert holidays[1] - holidays[0] < 70
    (gap,) = poll.told(Gap)
    assert gap.stream == "reference"


# -- refusals ---------------------------------------------------------------------------------


def test_a_refused_key_stops_the_poller_and_its_answer_is_kept() -> None:
    def refuse(path: str, symbol: str, nth: int) -> Said:
        return (401, b'{"error":"Invalid API key."}')

    poll = Poll(["AAPL"], refuse)

    assert isinstance(poll.error, KeyRefusedError)
    assert len(poll.rest.asked) == 1
    assert [item.source for item in poll.arrivals()] == ["finnhub.http.401"]


def test_what_the_plan_lacks_is_not_asked_for_again_and_the_rest_goes_on() -> None:
    def refuse(path: str, symbol: str, nth: int) -> Said:
        lacks = path == "/stock/market-holiday" or symbol == "SAP.DE"
        return (403, b'{"error":"no access"}') if lacks else usual(path, symbol, nth)

    poll = Poll(["AAPL", "SAP.DE", "MSFT"], refuse, calls=200)

    asked = Counter((path, symbol) for _, path, symbol in poll.rest.asked)
    assert asked["/stock/market-holiday", ""] == 1
    assert asked["/quote", "SAP.DE"] == 1
    assert asked["/quote", "AAPL"] > 90
    (none,) = [event for event in poll.told(Coverage) if event.channel == "none"]
    assert (none.symbols, none.reason) == (["SAP.DE"], "the plan has no quotes of it (403)")
    assert [(item.symbol, item.stream) for item in poll.arrivals("finnhub.http.403")] == [
        (None, Stream.REFERENCE),
        ("SAP.DE", Stream.QUOTES),
    ]
    assert poll.error is None


def test_a_quote_of_friday_on_an_open_monday_is_kept() -> None:
    stale = QUOTE.replace(b"1795446000", str(at("2026-11-20 21:00") // 10**9).encode())

    def friday(path: str, symbol: str, nth: int) -> Said:
        return (200, stale)

    poll = Poll(["AAPL"], friday, calls=5)

    assert {item.payloads[0] for item in poll.arrivals("finnhub.quote")} == {stale}


# -- over the real client ---------------------------------------------------------------------


def test_the_key_travels_in_a_header_and_the_servers_clock_is_told_once() -> None:
    def answer(request: Request) -> Reply:
        date = {"Date": "Mon, 23 Nov 2026 14:00:00 GMT"}
        return Reply(QUOTE if request.path.endswith("quote") else STATUS, headers=date)

    async def run() -> tuple[list[Delivery], TinyServer]:
        async with TinyServer(answer) as server:
            clock = ScaledClock(100, start_ns=OPEN)
            given = options(rest_url=server.url, calls_per_minute=600)
            feed = open_finnhub_rest("AAPL,MSFT", given, clock=clock)
            assert (feed.shards, feed.source, feed.waits(0)) == (1, "finnhub.quote", True)
            async with connected(feed) as items:
                return await take(items, 8), server

    items, server = asyncio.run(run())

    assert {request.headers["x-finnhub-token"] for request in server.requests} == {TOKEN}
    assert TOKEN not in "".join(request.target for request in server.requests)
    assert server.requests[0].target == "/api/v1/stock/market-status?exchange=US"
    assert server.requests[2].target == "/api/v1/quote?symbol=AAPL"
    (remote,) = [item for item in items if isinstance(item, Remote)]
    assert remote.clock_offset_ms == pytest.approx(-3_600_000, abs=60_000)


def test_the_poller_beside_the_socket_is_the_second_shard() -> None:
    async def run() -> list[Delivery]:
        async with TinyServer(lambda _request: Reply(QUOTE)) as server:
            given = options(rest_url=server.url, symbols_max=1)
            feed = open_finnhub("NVDA,AAPL", given, clock=ScaledClock(100, start_ns=OPEN))
            async with connected(feed, 1) as items:
                return await take(items, 2)

    coverage, status = asyncio.run(run())

    assert isinstance(coverage, Coverage)
    assert (coverage.channel, coverage.symbols) == ("polling", ["AAPL"])
    assert coverage.reason == "beyond the socket's 1"
    assert isinstance(status, Arrivals)
    assert status.source == "finnhub.market-status"
