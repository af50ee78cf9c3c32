"""Lakes read back: each frame once, byte for byte, in order, and no more objects than needed."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.lake_builder import Lake, chain_id
from support.recorded_lake import (
    RECEIVED_NS,
    SECOND_NS,
    count_inflated,
    frames_at,
    message,
    put,
)
from tickhouse.bronze import reading
from tickhouse.bronze.chain import Chain
from tickhouse.bronze.local import LocalStore
from tickhouse.bronze.reading import Span, frames_by_receipt, payload_of, read_chain, read_line
from tickhouse.errors import ConfigError
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.runtime.backends import open_source
from tickhouse.settings import Settings
from tickhouse.source.cutting import cut
from tickhouse.source.feed import Arrivals, Feed
from tickhouse.stream.recorder import Recorder
from tickhouse.stream.sqlite import SqliteLog

QUOTES = Stream.QUOTES
PAYLOADS = [
    message(1),
    b' {"type":"ping"} \t',
    b"\xff\xfe",
    b"not json",
    b'"\\u00e9"',
    b"[1 ]",
    b"",
]


def lake_of(tmp_path: Path) -> Path:
    return tmp_path / "lake"


def source(tmp_path: Path, rest: str = "lake?speed=max") -> Feed:
    return open_source(Settings(data=tmp_path, source=f"replay:{rest}"))


async def arrivals_of(feed: Feed, cursor: int = 0) -> list[Arrivals]:
    return [item async for item in feed.connect(0, cursor) if isinstance(item, Arrivals)]


def payloads_of(feed: Feed, cursor: int = 0) -> list[bytes]:
    return [p for item in asyncio.run(arrivals_of(feed, cursor)) for p in item.payloads]


# -- replaying a lake ------------------------------------------------------------------------


def test_payloads_come_back_byte_for_byte(tmp_path: Path) -> None:
    put(lake_of(tmp_path), frames_at(PAYLOADS))

    assert payloads_of(source(tmp_path)) == PAYLOADS


@given(payload=st.one_of(st.binary(max_size=40), st.text(alphabet='{}[]"\\ \t:,1e', max_size=20)))
def test_any_payload_comes_back_byte_for_byte(payload: bytes | str) -> None:
    sent = payload.encode() if isinstance(payload, str) else payload
    value = frames_at([sent])[0]
    line = read_line(b'{"t":"e1","p":0,"o":7,"lt":1,' + value[1:])

    assert (line.o, payload_of(line)) == (7, sent)


def test_partitions_are_merged_by_receipt_and_poison_is_left_out(tmp_path: Path) -> None:
    lake = lake_of(tmp_path)
    put(lake, [*frames_at([message(n) for n in (0, 2, 4)], every_ns=2 * SECOND_NS), b"poison"])
    later = RECEIVED_NS + SECOND_NS
    odd = frames_at(
        [message(n) for n in (1, 3)], received_at_ns=later, every_ns=2 * SECOND_NS, session="s2"
    )
    put(lake, odd, chain=chain_id(part=1))

    assert payloads_of(source(tmp_path)) == [message(n) for n in range(5)]


def test_frames_of_a_restored_log_are_replayed_once(tmp_path: Path) -> None:
    lake = lake_of(tmp_path)
    values = frames_at([message(n) for n in range(6)])
    put(lake, values[:3])
    put(lake, values[3:5], start=3)
    put(lake, values[2:4], chain=chain_id(topic_id="e1.1"))
    put(lake, values[5:], chain=chain_id(topic_id="e1.1"), start=2)

    assert payloads_of(source(tmp_path)) == [message(n) for n in range(6)]


@given(numbers=st.lists(st.integers(0, 12), max_size=60))
def test_a_number_is_new_once(numbers: list[int]) -> None:
    seen = reading.Numbers()

    assert [number for number in numbers if seen.add(number)] == list(dict.fromkeys(numbers))


def test_objects_behind_a_lost_one_are_replayed(tmp_path: Path) -> None:
    lake = lake_of(tmp_path)
    keys = [put(lake, frames_at([message(n)], seq=n), start=n) for n in range(3)]
    Lake(lake).delete(keys[1])

    assert payloads_of(source(tmp_path)) == [message(0), message(2)]


def test_a_lake_that_replays_itself_comes_to_an_end(tmp_path: Path) -> None:
    lake = lake_of(tmp_path)
    for start in range(0, 3000, 500):
        values = frames_at([message(start + n) for n in range(500)], seq=start)
        put(lake, values, start=start)

    async def replay(rest: str) -> int:
        count, offset = 0, lake_end(lake)
        async for item in source(tmp_path, rest).connect(0, 0):
            assert isinstance(item, Arrivals)
            own = frames_at(item.payloads, session=rest, seq=count, source="replay:finnhub.ws")
            put(lake, own, start=offset + count)
            count += len(item.payloads)
        return count

    for rest in ("lake?speed=max&times=2", f"file:///{lake}?speed=max&times=2"):
        assert asyncio.run(replay(rest)) == 6000


def lake_end(lake: Path) -> int:
    lines = read_chain(Lake(lake).store, chain_id(), Span())
    return 1 + max(line.o for line in lines)


def test_another_lake_is_replayed_with_what_was_a_replay(tmp_path: Path) -> None:
    put(tmp_path / "other", frames_at([message(1)], source="replay:finnhub.ws"))
    items = asyncio.run(arrivals_of(source(tmp_path, f"file:///{tmp_path}/other?speed=max")))

    assert [(item.payloads, item.source) for item in items] == [([message(1)], "replay:finnhub.ws")]


def polled(number: int) -> bytes:
    return b'{"c":%d}' % number


def put_trades_and_quotes(lake: Path) -> None:
    put(lake, frames_at([message(n) for n in range(40)], every_ns=10))
    repeated = [polled(n // 4) for n in range(60)]
    values = frames_at(repeated, received_at_ns=RECEIVED_NS + 3, every_ns=7, session="q",
                       source="finnhub.quote", symbol="AAPL")  # fmt: skip
    put(lake, values, chain=chain_id(part=1, stream=QUOTES))


def test_quotes_are_replayed_among_the_trades(tmp_path: Path) -> None:
    put_trades_and_quotes(lake_of(tmp_path))
    items = asyncio.run(arrivals_of(source(tmp_path)))
    quotes = [item for item in items if item.stream is QUOTES]

    assert sum(len(item.payloads) for item in quotes) == 60
    assert {(item.source, item.symbol) for item in quotes} == {("replay:finnhub.quote", "AAPL")}
    assert {item.source for item in items if item.stream is Stream.TRADES} == {"replay:finnhub.ws"}
    assert len(items) > 30


@pytest.mark.parametrize("after", [0, 1, 2, 9, 33, 70, 99])
def test_a_replay_of_trades_and_quotes_goes_on_exactly_where_it_stopped(
    tmp_path: Path, after: int
) -> None:
    """Equal quotes follow one another, so that content cannot tell where it stopped.

    Another feed comes between.
    """
    put_trades_and_quotes(lake_of(tmp_path))
    log = SqliteLog(tmp_path / "log.db")
    asyncio.run(Recorder(stopped_after(source(tmp_path), after), log).run(asyncio.Event()))
    put(tmp_path / "other", frames_at([b'"between"']))
    other = source(tmp_path, f"file:///{tmp_path}/other?speed=max")
    asyncio.run(Recorder(other, log).run(asyncio.Event()))
    asyncio.run(Recorder(source(tmp_path), log).run(asyncio.Event()))
    stored = [
        [value.partition(b'"raw":')[2] for value in batch.values]
        for stream in (Stream.TRADES, QUOTES)
        if (batch := log.read(TopicPartition(stream, 0), 0)) is not None
    ]
    log.close()

    stored[0].remove(b'"between"}')
    assert stored[0] == [message(n) + b"}" for n in range(40)]
    assert stored[1] == [polled(n // 4) + b"}" for n in range(60)]


def test_a_cursor_counts_trades_and_quotes(tmp_path: Path) -> None:
    put_trades_and_quotes(lake_of(tmp_path))
    feed, told = source(tmp_path), list[int]()

    def acknowledge(shard: int, cursor: int) -> None:
        told.append(cursor)

    feed.acknowledge = acknowledge
    log = SqliteLog(tmp_path / "log.db")
    asyncio.run(Recorder(feed, log).run(asyncio.Event()))
    log.close()

    assert told[-1] == 100


def stopped_after(feed: Feed, count: int) -> Feed:
    """The feed, ended after so many messages."""
    whole = feed.connect

    async def connect(shard: int, cursor: int):  # noqa: ANN202 - as Feed.connect
        left = count
        async for item in whole(shard, cursor):
            assert isinstance(item, Arrivals)
            kept = item.payloads[:left]
            left -= len(kept)
            if kept:
                yield Arrivals(kept, item.received_at_ns, item.stream, item.symbol, item.source)
            if left == 0:
                return

    feed.connect = connect
    return feed


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("file:////nowhere/at/all", "no lake there"),
        ("lake?kind=finnhub.ws", "files only"),
        ("lake?symbols=,", "such as AAPL,MSFT"),
        ("file:relative", "file"),
    ],
)
def test_an_address_of_no_use_is_refused_at_once(tmp_path: Path, rest: str, said: str) -> None:
    put(lake_of(tmp_path), frames_at([message(1)]))

    with pytest.raises(ConfigError, match=said):
        source(tmp_path, rest)


def test_a_lake_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no lake there"):
        source(tmp_path, f"file:///{tmp_path}/typo")

    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("query", ["from=2027-01-01", "symbols=NONE", "to=2020-01-01"])
def test_a_range_that_holds_nothing_is_an_error(tmp_path: Path, query: str) -> None:
    put(lake_of(tmp_path), frames_at([message(1)]))

    with pytest.raises(ConfigError, match="nothing there to replay"):
        payloads_of(source(tmp_path, f"lake?speed=max&{query}"))


def test_a_replay_that_is_done_delivers_no_more_and_is_no_error(tmp_path: Path) -> None:
    put(lake_of(tmp_path), frames_at([message(1)]))

    assert payloads_of(source(tmp_path), cursor=1) == []


# -- objects read ----------------------------------------------------------------------------


@pytest.fixture
def inflated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return count_inflated(monkeypatch)


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (Span(offset_from=25, offset_to=25), [2]),
        (Span(offset_from=29, offset_to=30), [2, 3]),
        (Span(offset_to=9), [0]),
        (Span(offset_from=95), [9]),
        (Span(offset_from=100), [9]),
        (Span(received_from=RECEIVED_NS + 41, received_to=RECEIVED_NS + 52), [4, 5]),
        (Span(received_to=RECEIVED_NS - 1), []),
        (Span(offset_from=20, received_to=RECEIVED_NS + 29), [2]),
    ],
)
def test_only_objects_that_may_hold_the_span_are_inflated(
    tmp_path: Path, inflated: list[str], span: Span, expected: list[int]
) -> None:
    keys: list[str] = []
    for n in range(10):
        values = frames_at([message(n)] * 10, seq=n * 10, received_at_ns=RECEIVED_NS + n * 10)
        keys.append(put(lake_of(tmp_path), values, start=n * 10))
    lines = list(read_chain(Lake(lake_of(tmp_path)).store, chain_id(), span))

    assert inflated == [keys[n] for n in expected]
    assert [line.o for line in lines] == [
        offset
        for offset in range(100)
        if (span.offset_from or 0)
        <= offset
        <= (span.offset_to if span.offset_to is not None else 99)
        and (span.received_from or 0)
        <= RECEIVED_NS + offset
        <= (span.received_to or RECEIVED_NS * 2)
    ]


def test_an_object_of_poison_alone_is_looked_into(tmp_path: Path) -> None:
    put(lake_of(tmp_path), [b"poison"])
    store = Lake(lake_of(tmp_path)).store
    found = list(read_chain(store, chain_id(), Span(received_from=RECEIVED_NS)))

    assert [payload_of(line) for line in found] == [b"poison"]
    assert list(frames_by_receipt(store, [Stream.TRADES], Span())) == []


def test_foreign_files_in_a_chain_are_no_objects(tmp_path: Path) -> None:
    key = put(lake_of(tmp_path), frames_at([message(1)]))
    (lake_of(tmp_path) / key).with_name("5x.gz").write_bytes(b"foreign")

    assert payloads_of(source(tmp_path)) == [message(1)]


# -- cutting to symbols ----------------------------------------------------------------------

B = b'{"s":"B","p":2}'


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"data":[%b],"type":"trade" }' % B, b'{"data":[%b],"type":"trade" }' % B),
        (b'{"data":[null,%b],"type":"trade"}' % B, b'{"data":[%b],"type":"trade"}' % B),
        (b'{"data":[{"s":["B"]},%b],"type":"trade"}' % B, b'{"data":[%b],"type":"trade"}' % B),
        (b'{"id":7,"type":"trade","data":[{},%b]}' % B, b'{"id":7,"type":"trade","data":[%b]}' % B),
        (b'{"data":[%b],"type":"news"}' % B, None),
        (b'{"data":%b,"type":"trade"}' % B, None),
        (b'{"data":[],"type":"trade"}', None),
        (b"[" * 100_000, None),
        (b"\xff", None),
    ],
)
def test_elements_of_other_symbols_are_cut_out_and_the_rest_stays(
    payload: bytes, expected: bytes | None
) -> None:
    assert cut(payload, "finnhub.ws", {"B"}) == expected


def test_a_chain_that_holds_no_object_yet_has_no_records(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    Chain(store, chain_id()).open()

    assert list(read_chain(store, chain_id(), Span())) == []
