"""The filler: exactly the ticks of a gap, each once, whenever it is killed."""

import asyncio
import json
from typing import Any, Self, cast

import pytest

from support.tiny_socket import (
    OPEN,
    SECOND,
    Call,
    FakeClock,
    ListHistory,
    TinySocket,
    at,
    connected,
    live,
    take,
)
from tickhouse.model.calendar import new_york
from tickhouse.model.frame import Envelope, encode_frames
from tickhouse.model.session import Coverage, Gap, Opened, SessionEvent
from tickhouse.source.feed import Arrivals, Delivery
from tickhouse.source.finnhub import filler as module
from tickhouse.source.finnhub.filler import KIND, FinnhubFiller
from tickhouse.source.finnhub.rest import Answer, PlanRefusedError, RestClient

NIGHT = at("2026-11-24 02:00")
"""After the Monday's post-market."""
NOON = at("2026-11-23 17:00")
NOON_MS = NOON // 1_000_000
FROM, TO = NOON + 500_000, NOON + 60 * SECOND + 500_000
"""A minute's gap; its bounds lie within a millisecond."""


class Archive:
    """`/stock/tick`: times of ticks by symbol and day; pages are as small as told."""

    def __init__(self, clock: FakeClock, ticks: dict[tuple[str, str], list[int]]) -> None:
        self.clock = clock
        self.ticks = ticks
        self.lacks_plan = False
        self.asked = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        pass

    async def get(self, path: str, **params: str) -> Answer:
        assert path == "/stock/tick"
        self.asked += 1
        await self.clock.sleep(0.2)
        if self.lacks_plan:
            raise PlanRefusedError("no access", Answer(403, b"{}", self.clock.time_ns()))
        times = self.ticks.get((params["symbol"], params["date"]), [])
        skip, limit = int(params["skip"]), int(params["limit"])
        page = times[skip : skip + limit]
        body = {
            "s": params["symbol"],
            "skip": skip,
            "count": len(page),
            "total": len(times),
            "t": page,
            "p": [1.0] * len(page),
            "v": [1] * len(page),
            "x": ["Q"] * len(page),
            "c": [["1"]] * len(page),
        }
        return Answer(200, json.dumps(body).encode(), self.clock.time_ns())


def gap(*symbols: str, name: str = "s1", start: int = FROM, end: int = TO) -> Gap:
    return Gap(end, "trades", None, None, start, end, list(symbols), "killed", name=name)


class Fill:
    """A filler over an archive; `run` fills for a while and returns what it delivered."""

    def __init__(
        self, ticks: dict[tuple[str, str], list[int]], *, start_ns: int = NIGHT, hours: float = 1.0
    ) -> None:
        self.clock = FakeClock(start_ns)
        self.archive = Archive(self.clock, ticks)
        self.until_s = hours * 3600

    def run(self, history: ListHistory, *, most: int = 10_000) -> list[Delivery]:
        """Deliver at most so many things, then be killed."""
        filler = FinnhubFiller(
            lambda: cast("RestClient", self.archive), clock=self.clock, calendar=new_york()
        )
        filler.read(history, told=0, own=2)

        async def run() -> list[Delivery]:
            items: list[Delivery] = []
            delivered: Any = filler.deliver()
            reader = asyncio.create_task(_collect(delivered, items, most))
            self.clock.until(self.until_s, reader.cancel)
            await asyncio.gather(reader, return_exceptions=True)
            await delivered.aclose()
            return items

        return asyncio.run(run())


async def _collect(delivered: Any, items: list[Delivery], most: int) -> None:
    while len(items) < most:
        try:
            items.append(await anext(delivered))
        except StopAsyncIteration:
            return


def times_of(items: list[Delivery]) -> list[tuple[str | None, int]]:
    pages = [item for item in items if isinstance(item, Arrivals)]
    assert {page.source for page in pages} <= {KIND}
    return [(page.symbol, t) for page in pages for t in json.loads(page.payloads[0])["t"]]


def told(*gaps: Gap) -> list[tuple[str, SessionEvent]]:
    return [("s2", event) for event in gaps]


MONDAY = "2026-11-23"
EVERY_100_MS = [NOON_MS - 60_000 + 100 * n for n in range(2000)]
IN_GAP = [t for t in EVERY_100_MS if FROM < t * 1_000_000 < TO]


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_TICKS", 70)


def test_a_gap_is_filled_with_exactly_its_ticks_and_told_to_be_filled() -> None:
    items = Fill({("AAPL", MONDAY): EVERY_100_MS}).run(ListHistory({0: told(gap("AAPL"))}))

    assert times_of(items) == [("AAPL", t) for t in IN_GAP]
    assert len(items) == -(-len(IN_GAP) // 70) + 1
    (filled,) = [item for item in items if isinstance(item, Gap)]
    assert (filled.name, filled.filled_by, filled.symbols) == ("s1", "finnhub.tick", ["AAPL"])
    assert (filled.time_from, filled.time_to) == (FROM, TO)


def test_ticks_at_the_bounds_are_not_of_the_gap() -> None:
    edges = [NOON_MS - 1, NOON_MS, NOON_MS, NOON_MS + 1, NOON_MS + 59_999, NOON_MS + 60_000]
    edges += [NOON_MS + 60_001, NOON_MS + 60_001]

    items = Fill({("AAPL", MONDAY): edges}).run(ListHistory({0: told(gap("AAPL"))}))

    assert [t for _, t in times_of(items)] == edges[3:6]


def test_a_filler_killed_anywhere_goes_on_after_its_last_durable_page() -> None:
    ticks = {("AAPL", MONDAY): EVERY_100_MS, ("MSFT", MONDAY): EVERY_100_MS[::3]}
    whole = Fill(ticks).run(ListHistory({0: told(gap("AAPL", "MSFT"))}))

    for most in range(len(whole)):
        first = Fill(ticks).run(ListHistory({0: told(gap("AAPL", "MSFT"))}), most=most)
        history = ListHistory({0: told(gap("AAPL", "MSFT"))}, {2: pages(first)})
        second = Fill(ticks).run(history)

        assert times_of([*first, *second]) == times_of(whole)
        assert isinstance(second[-1], Gap)


def pages(items: list[Delivery]) -> list[Envelope]:
    return [
        Envelope(1, KIND, "f", n, item.received_at_ns, item.symbol, raw=_raw(item))
        for n, item in enumerate(items)
        if isinstance(item, Arrivals)
    ]


def _raw(item: Arrivals) -> Any:
    from tickhouse.model.frame import decode_envelope

    (value,) = encode_frames(
        item.payloads, source=KIND, session="f", first_seq=0, received_at_ns=item.received_at_ns
    )
    envelope = decode_envelope(value)
    assert envelope is not None
    return envelope.raw


def test_a_gap_that_was_filled_is_not_filled_again() -> None:
    import msgspec

    filled = msgspec.structs.replace(gap("AAPL"), filled_by=KIND)
    history = ListHistory({0: told(gap("AAPL")), 2: [("f", filled)]})

    assert Fill({("AAPL", MONDAY): EVERY_100_MS}).run(history) == []


def test_overlapping_gaps_give_each_tick_once() -> None:
    second = gap("AAPL", name="s2", start=TO - 10 * SECOND, end=TO + 10 * SECOND)

    items = Fill({("AAPL", MONDAY): EVERY_100_MS}).run(ListHistory({0: told(second, gap("AAPL"))}))

    assert times_of(items) == [
        ("AAPL", t) for t in EVERY_100_MS if FROM < t * 1_000_000 < TO + 10 * SECOND
    ]
    assert [item.name for item in items if isinstance(item, Gap)] == ["s1", "s2"]


def test_a_gap_over_a_night_is_filled_day_by_day() -> None:
    tuesday = at("2026-11-24 15:00")
    ticks = {
        ("AAPL", MONDAY): [NOON_MS - 1, NOON_MS + 1],
        ("AAPL", "2026-11-24"): [tuesday // 1_000_000 - 5, tuesday // 1_000_000 + 5],
    }
    fill = Fill(ticks, start_ns=at("2026-11-25 02:00"))

    items = fill.run(ListHistory({0: told(gap("AAPL", start=FROM, end=tuesday))}))

    assert [t for _, t in times_of(items)] == [NOON_MS + 1, tuesday // 1_000_000 - 5]


def test_a_gap_while_the_market_was_closed_is_filled_with_nothing() -> None:
    start = at("2026-11-21 10:00")
    items = Fill({}).run(ListHistory({0: told(gap("AAPL", start=start, end=start + SECOND))}))

    assert [item.filled_by for item in items if isinstance(item, Gap)] == [KIND]


def test_ticks_are_asked_for_only_when_the_day_is_over() -> None:
    fill = Fill({("AAPL", MONDAY): EVERY_100_MS}, start_ns=NOON + 120 * SECOND, hours=7.9)
    assert fill.run(ListHistory({0: told(gap("AAPL"))})) == []
    assert fill.archive.asked == 0

    fill = Fill({("AAPL", MONDAY): EVERY_100_MS}, start_ns=NOON + 120 * SECOND, hours=9.0)
    assert times_of(fill.run(ListHistory({0: told(gap("AAPL"))})))


def test_ticks_that_are_not_there_yet_are_asked_for_again_an_hour_later() -> None:
    fill = Fill({}, hours=4.5)

    assert fill.run(ListHistory({0: told(gap("AAPL"))})) == []
    assert fill.archive.asked == 5


def test_a_week_old_gap_is_left_open() -> None:
    fill = Fill({("AAPL", MONDAY): EVERY_100_MS}, start_ns=at("2026-12-01 02:00"))

    assert fill.run(ListHistory({0: told(gap("AAPL"))})) == []


def test_ticks_out_of_order_are_not_recorded() -> None:
    mixed = [*IN_GAP[:10], NOON_MS + 10 * 60_000, *IN_GAP[10:]]

    assert Fill({("AAPL", MONDAY): mixed}).run(ListHistory({0: told(gap("AAPL"))})) == []


def test_a_plan_without_ticks_ends_the_filler_alone() -> None:
    fill = Fill({})
    fill.archive.lacks_plan = True

    assert fill.run(ListHistory({0: told(gap("AAPL"))})) == []
    assert fill.archive.asked == 1


def test_gaps_of_crypto_and_of_quotes_are_not_filled() -> None:
    quotes = Gap(TO, "quotes", None, None, FROM, TO, ["AAPL"], "x", name="quotes:1")
    fill = Fill({("AAPL", MONDAY): EVERY_100_MS})

    assert fill.run(ListHistory({0: told(gap("BINANCE:BTCUSDT"), quotes)})) == []
    assert fill.archive.asked == 0


def test_where_gaps_may_be_filled_they_end_sharply_and_crypto_is_a_gap_of_its_own() -> None:
    async def script(call: Call) -> None:
        await call.stay()

    before: list[tuple[str, SessionEvent]] = [
        ("s1", Opened(OPEN - SECOND, 0, "finnhub://x", "live", None, None)),
        ("s1", Coverage(OPEN - SECOND, "socket", ["AAPL", "BINANCE:BTCUSDT"], "subscribed")),
    ]

    async def run() -> list[Delivery]:
        async with TinySocket(script) as server:
            feed = live(server, "AAPL,BINANCE:BTCUSDT", can_fetch_ticks=True)
            feed.begin(ListHistory({0: before}))
            async with connected(feed) as items:
                return await take(items, 3)

    _, stocks, crypto = asyncio.run(run())

    assert isinstance(stocks, Gap)
    assert isinstance(crypto, Gap)
    assert (stocks.name, stocks.symbols) == ("s1", ["AAPL"])
    assert (crypto.name, crypto.symbols) == ("s1:unfillable", ["BINANCE:BTCUSDT"])
    assert stocks.time_to == stocks.at < crypto.time_to
