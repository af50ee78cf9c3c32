"""The book of gaps, the filler's steps and position: whatever the exchange gives, once."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.fake_time import FakeTime
from tickhouse.errors import TransientError
from tickhouse.model.frame import Envelope, decode_envelope, encode_frames
from tickhouse.model.positions import Stream
from tickhouse.model.session import Gap, SessionEvent
from tickhouse.source.binance import filler as filler_module
from tickhouse.source.binance import past as past_module
from tickhouse.source.binance.filler import Filler
from tickhouse.source.binance.gaps import GapBook, OpenGap, read_gap
from tickhouse.source.binance.ids import IdRange, read_filled_ids
from tickhouse.source.binance.past import load_gaps, read_past
from tickhouse.source.binance.rest import Page, Refusal
from tickhouse.source.binance.trail import Trail
from tickhouse.source.feed import Arrivals, Delivery

AT = 1_700_000_000_000_000_000


def gap(first: int, last: int, symbol: str = "BTCUSDT") -> OpenGap:
    return OpenGap(symbol, IdRange(first, last), time_from=AT, time_to=AT + 5, cause="lost")


def named(events: list[Gap]) -> list[tuple[str | None, str | None]]:
    return [(event.name, event.filled_by) for event in events]


# -- the book ----------------------------------------------------------------------------------


def test_a_gap_survives_the_log_as_it_is() -> None:
    told = gap(101, 149)
    found = read_gap(told.event(AT))

    assert found is not None
    assert found.event(AT) == told.event(AT)
    assert told.event(AT).symbols == ["BINANCE:BTCUSDT"]
    assert told.name == "BTCUSDT:101-149"


@pytest.mark.parametrize(
    "changed",
    [
        {"name": None},
        {"name": "0192f0a0-0000-7000-8000-000000000000"},
        {"name": "BTCUSDT:101-150"},
        {"name": "BTCUSDT:149-101", "id_from": 149, "id_to": 101},
        {"symbols": ["AAPL"]},
        {"symbols": []},
    ],
)
def test_gaps_of_other_feeds_are_no_gaps_of_ids(changed: dict[str, object]) -> None:
    event = gap(101, 149).event(AT)
    fields = {name: getattr(event, name) for name in event.__struct_fields__}

    assert read_gap(Gap(**{**fields, **changed})) is None


def test_a_gap_told_to_be_filled_is_not_open_in_whatever_order_the_log_is_read() -> None:
    events = [gap(1, 5).event(AT), gap(7, 9).event(AT), gap(1, 5).event(AT, filled_by="x")]
    for order in (events, events[::-1]):
        book = GapBook()
        book.load(order)

        assert [found.name for found in book.gaps()] == ["BTCUSDT:7-9"]
        assert book.told_to("BTCUSDT") == 9
        assert book.told_to("ETHUSDT") == -1


def test_late_ids_divide_a_gap_into_gaps_of_their_own_before_it_is_called_filled() -> None:
    book = GapBook()
    book.add(gap(101, 149))

    events = book.arrived_late("BTCUSDT", [103, 104, 149, 200], AT)

    assert named(events) == [
        ("BTCUSDT:101-102", None),
        ("BTCUSDT:105-148", None),
        ("BTCUSDT:101-149", "binance.ws"),
    ]
    assert [found.name for found in book.gaps()] == ["BTCUSDT:101-102", "BTCUSDT:105-148"]
    assert book.arrived_late("ETHUSDT", [101], AT) == []


def test_a_gap_begun_is_filled_before_another() -> None:
    book = GapBook()
    first, begun = gap(1, 5), gap(7, 9)
    book.add(first)
    book.add(begun)
    begun.next_id = 8

    assert book.due(0.0) is begun
    begun.retry_at = 10.0
    assert book.due(0.0) is first
    first.retry_at = 10.0
    assert book.due(0.0) is None


# -- the trail ---------------------------------------------------------------------------------


def message(trade_id: int, symbol: str = "BTCUSDT") -> bytes:
    data = {"e": "trade", "s": symbol, "t": trade_id}
    return json.dumps({"stream": f"{symbol.lower()}@trade", "data": data}).encode()


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(0, 20))
def test_jumps_are_exactly_the_ids_that_never_came_before_a_higher_one(
    ids: list[int], last: int
) -> None:
    trail = Trail(["BTCUSDT"], {"BTCUSDT": last})

    jumps = list(trail.follow([message(trade_id) for trade_id in ids]))

    found = [missing for jump in jumps for missing in range(jump.ids.first, jump.ids.last + 1)]
    highest = last
    expected: list[int] = []
    for trade_id in ids:
        expected += range(highest + 1, trade_id)
        highest = max(highest, trade_id)
    assert found == expected
    assert trail.last_ids() == {"BTCUSDT": highest}


def test_a_trail_proves_continuity_once_every_pair_has_gone_on() -> None:
    trail = Trail(["BTCUSDT", "ETHUSDT"], {"BTCUSDT": 4, "ETHUSDT": 9})

    assert list(trail.follow([message(5)])) == []
    assert not trail.proves_continuity
    assert list(trail.follow([message(10, "ETHUSDT")])) == []
    assert trail.proves_continuity


def test_a_pair_whose_past_is_not_known_proves_nothing_and_misses_nothing() -> None:
    trail = Trail(["BTCUSDT", "ETHUSDT"], {"BTCUSDT": 4})

    assert list(trail.follow([message(5), message(1000, "ETHUSDT")])) == []
    assert not trail.proves_continuity
    (jump,) = trail.follow([message(1003, "ETHUSDT")])
    assert (jump.symbol, jump.ids, jump.is_first) == ("ETHUSDT", IdRange(1001, 1002), False)


# -- the log -----------------------------------------------------------------------------------


class Notes:
    """A log of one feed: what its two shards handed on, to be read back from the newest."""

    def __init__(self) -> None:
        self.pages: list[Envelope] = []
        self.told: dict[int, list[Gap]] = {0: [], 1: []}
        self.trades: list[Envelope] = []

    def take(self, item: Delivery) -> None:
        """What the filler gave is durable."""
        if isinstance(item, Gap):
            self.told[1].append(item)
        elif isinstance(item, Arrivals):
            self.pages += envelopes(item.payloads, item.source or "", item.symbol)

    def frames(self, stream: Stream, shard: int) -> Iterator[Envelope]:
        return iter((self.trades, self.pages)[shard][::-1])

    def events(self, shard: int) -> Iterator[tuple[str, SessionEvent]]:
        return (("s", event) for event in self.told[shard][::-1])

    def given(self) -> Counter[int]:
        return Counter(i for page in self.pages for i in read_filled_ids(page.raw) or [])

    def missing(self) -> Counter[int]:
        told = self.told[0] + self.told[1]
        filled = {event.name for event in told if event.filled_by}
        return Counter(
            i
            for event in told
            if event.name not in filled
            for i in range(event.id_from or 0, (event.id_to or 0) + 1)
        )


def envelopes(payloads: list[bytes], source: str, symbol: str | None = None) -> list[Envelope]:
    values = encode_frames(
        payloads, source=source, session="s", first_seq=0, received_at_ns=AT, symbol=symbol
    )
    return [envelope for value in values if (envelope := decode_envelope(value)) is not None]


def test_the_last_id_is_the_highest_of_the_newest_frames_of_this_feed_alone() -> None:
    notes = Notes()
    notes.trades = [
        *envelopes([message(5), message(7), message(6)], "binance.ws"),
        *envelopes([message(4_611_686_018_427_387_000)], "binance.ws"),
        *envelopes([message(900)], "replay:binance.ws"),
        *envelopes([message(3, "OTHER"), b"[]"], "binance.ws"),
    ]

    symbols = ["BTCUSDT", "ETHUSDT"]
    past = asyncio.run(read_past(notes, symbols, FakeTime(), sought=symbols))

    assert past.last_ids == {"BTCUSDT": 7}
    assert (past.session, past.received_at) == ("s", AT)


def test_what_nothing_else_knows_is_read_far_back_for_and_the_rest_is_not() -> None:
    notes = Notes()
    notes.trades = [
        *envelopes([message(3, "ETHUSDT")], "binance.ws"),
        *envelopes([message(number) for number in range(5000)], "binance.ws"),
    ]
    symbols = ["BTCUSDT", "ETHUSDT"]

    near = asyncio.run(read_past(notes, symbols, FakeTime(), sought=["BTCUSDT"]))
    far = asyncio.run(read_past(notes, symbols, FakeTime(), sought=symbols))

    assert near.last_ids == {"BTCUSDT": 4999}
    assert far.last_ids == {"BTCUSDT": 4999, "ETHUSDT": 3}


def test_no_look_back_is_longer_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past_module, "FRAMES_MAX", 3000)
    notes = Notes()
    notes.trades = [
        *envelopes([message(3, "ETHUSDT")], "binance.ws"),
        *envelopes([message(number) for number in range(5000)], "binance.ws"),
    ]
    symbols = ["BTCUSDT", "ETHUSDT"]

    found = asyncio.run(read_past(notes, symbols, FakeTime(), sought=symbols))

    assert found.last_ids == {"BTCUSDT": 4999}


def test_a_fill_whose_end_is_out_of_sight_is_left_a_gap_rather_than_doubled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(past_module, "FRAMES_MAX", 3000)
    notes = Notes()
    notes.told[0] = [gap(101, 149).event(AT)]
    notes.pages = envelopes([b"{}"] * 3001, "finnhub.ws")
    book = GapBook()

    asyncio.run(load_gaps(notes, book, FakeTime()))

    assert book.gaps() == []
    assert book.told_to("BTCUSDT") == 149


# -- the filler --------------------------------------------------------------------------------

ANSWERS = ("whole", "short", "beyond", "holes", "refused", "failing", "nothing", "garbage")


class Exchange:
    """Answers as it is told, from ids that it has."""

    def __init__(self, answers: list[str], lacks: set[int]) -> None:
        self.answers = answers
        self.lacks = lacks

    async def trades(self, symbol: str, first_id: int, count: int) -> Page | Refusal:
        answer = self.answers.pop() if self.answers else "whole"
        if answer == "failing":
            raise TransientError("no answer")
        if answer == "refused":
            return Refusal("refused")
        has = [i for i in range(first_id, first_id + 60) if i not in self.lacks]
        ids = has[:count]
        if answer == "short":
            ids = has[: min(count, 3)]
        elif answer == "beyond":
            ids = has[: count + 4]
        elif answer == "holes":
            ids = [i for i in ids if i % 5]
        elif answer == "nothing":
            ids = []
        body = json.dumps([{"id": i} for i in ids]).encode()
        return Page(b"[{" if answer == "garbage" else body, AT)


async def fill(notes: Notes, exchange: Exchange, *, steps: int, ends_after: list[int]) -> None:
    """Fill with a filler that is ended, after any of its deliveries, and begun anew."""
    clock = FakeTime()
    handed = 0
    while steps > 0:
        book = GapBook()
        await load_gaps(notes, book, clock)
        filler = Filler(book, exchange, clock)  # type: ignore[arg-type]
        is_ended = False
        while steps > 0 and not is_ended:
            steps -= 1
            clock.elapsed_s += 10_000
            try:
                items = await filler.step()
            except TransientError:
                continue
            for item in items:
                notes.take(item)
                handed += 1
                is_ended = handed in ends_after
                if is_ended:
                    break


@settings(max_examples=300, deadline=None)
@given(
    answers=st.lists(st.sampled_from(ANSWERS), max_size=30),
    lacks=st.sets(st.integers(95, 160), max_size=12),
    ends_after=st.lists(st.integers(1, 30), max_size=8),
)
def test_every_id_of_a_gap_is_given_once_or_named_once_whatever_happens(
    answers: list[str], lacks: set[int], ends_after: list[int]
) -> None:
    notes = Notes()
    notes.told[0] = [gap(101, 149).event(AT), gap(155, 156).event(AT)]
    exchange = Exchange(answers, lacks)
    gaps = {*range(101, 150), 155, 156}

    asyncio.run(fill(notes, exchange, steps=40, ends_after=ends_after))

    assert notes.given() + notes.missing() == dict.fromkeys(gaps, 1)

    answers.clear()
    exchange.lacks = set()
    asyncio.run(fill(notes, exchange, steps=120, ends_after=[]))

    assert notes.given() == dict.fromkeys(gaps, 1)
    assert notes.missing() == {}


def test_a_gap_of_too_many_ids_is_left_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filler_module, "FILL_IDS_MAX", 48)
    notes = Notes()
    notes.told[0] = [gap(101, 149).event(AT), gap(155, 156).event(AT)]

    asyncio.run(fill(notes, Exchange([], set()), steps=20, ends_after=[]))

    assert notes.missing() == dict.fromkeys(range(101, 150), 1)
    assert notes.given() == {155: 1, 156: 1}


def test_a_refused_gap_is_asked_for_again_later_and_later() -> None:
    clock = FakeTime()
    book = GapBook()
    book.add(gap(101, 149))
    filler = Filler(book, Exchange(["refused"] * 99, set()), clock)  # type: ignore[arg-type]
    waits: list[float] = []
    for _ in range(14):
        clock.elapsed_s = book.gaps()[0].retry_at
        assert asyncio.run(filler.step()) == []
        waits.append(book.gaps()[0].retry_at - clock.elapsed_s)

    assert waits[:4] == [5, 10, 20, 40]
    assert waits[-1] == 3600
