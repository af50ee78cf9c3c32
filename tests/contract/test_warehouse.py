"""The contract of a warehouse: one suite over every backend."""

import base64
import json
import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from support.lake_builder import (
    LOG_AT_MS,
    SESSION,
    chain_id,
    finnhub_message,
    frames,
    make_gap,
    make_object,
    pack_lines,
    run_of,
)
from tests.support.snowflake import open_snowflake
from tickhouse.bronze.object import unpack
from tickhouse.errors import ConfigError, CorruptObjectError
from tickhouse.model.frame import encode_frames
from tickhouse.model.positions import Stream
from tickhouse.warehouse.duckdb import DuckDBWarehouse
from tickhouse.warehouse.warehouse import BronzeObject, Warehouse

TRADES = chain_id(0)
OTHER = chain_id(1)
EVENTS = chain_id(0, stream=Stream.SESSIONS)
POSITIONS_OF_ROWS = (
    "select topic_id, part, log_offset from bronze.trades order by topic_id, part, log_offset"
)


@pytest.fixture(params=["duckdb", pytest.param("snowflake", marks=pytest.mark.warehouse)])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Warehouse]:
    opened: Warehouse
    if request.param == "duckdb":
        opened = DuckDBWarehouse(tmp_path / "w" / "warehouse.duckdb", clock_ms=lambda: 1_000)
    else:
        server = request.getfixturevalue("snowflake")
        database = request.getfixturevalue("snowflake_database")
        opened = open_snowflake(server, database, clock_ms=lambda: 1_000)
    opened.prepare()
    yield opened
    opened.close()


def scalar(warehouse: Warehouse, sql: str) -> object:
    return warehouse.query(sql)[0][0]


def epoch_ms(at: datetime) -> int:
    return int(at.replace(tzinfo=UTC).timestamp() * 1000)


def payload_of(cell: str | None) -> Any:
    """What a payload column holds; warehouses write numbers and spaces in their own way."""
    return None if cell is None else json.loads(cell)


def assert_rows_equal_the_ledger(warehouse: Warehouse) -> int:
    """Rows = distinct positions = sum of the ledger, for every stream; returns the rows."""
    total = 0
    for stream in Stream:
        ((rows,),) = warehouse.query(f"select count(*) from bronze.{stream}")
        ((distinct,),) = warehouse.query(
            "select count(*) from"
            f" (select distinct topic_id, part, log_offset from bronze.{stream}) as positions"
        )
        (ledger,) = warehouse.query(
            "select coalesce(sum(n), 0) from bronze.load_ledger where stream = ?", [stream.value]
        )[0]
        assert rows == distinct == ledger
        total += rows
    return total


def test_prepare_may_be_called_again(warehouse: Warehouse) -> None:
    warehouse.load(run_of(TRADES, objects=1, rows=2))
    identity = warehouse.query("select * from bronze.identity")

    warehouse.prepare()

    assert warehouse.query("select * from bronze.identity") == identity
    assert len(identity) == 1
    assert warehouse.positions() == {TRADES: 2}
    assert warehouse.load(run_of(TRADES, objects=2, rows=2)).load_id == 2


def test_a_row_holds_the_frame_and_its_position(warehouse: Warehouse) -> None:
    warehouse.load([make_object(TRADES, 0, frames(0, 1))])

    ((*position, log_at, received_at, payload), rest) = (
        warehouse.query(
            "select topic_id, part, log_offset, log_at, received_at, payload from bronze.trades"
        )[0],
        warehouse.query(
            "select source, session_id, session_seq, symbol, payload_text, payload_b64, poison,"
            " file, load_id from bronze.trades"
        ),
    )

    assert position == ["e1", 0, 0]
    assert epoch_ms(log_at) == LOG_AT_MS
    assert received_at == datetime(2024, 11, 22, 18, 26, 40, 123456)  # noqa: DTZ001 - UTC
    assert payload_of(payload) == json.loads(finnhub_message(0))
    assert rest == [
        ("sim:finnhub.ws", SESSION, 0, None, None, None, None, TRADES.key(0), 1),
    ]


def test_payloads_of_every_form_have_their_own_column(warehouse: Warehouse) -> None:
    payloads = [b'{"a":1.5}', b"null", b"not json\x00", b"\xff\xfe", b'"\\u0000"', b'"\\ud800"']
    values = encode_frames(
        payloads, source="s", session="x", first_seq=0, received_at_ns=1_000, symbol="A"
    )
    warehouse.load([make_object(TRADES, 0, [*values, b"no envelope"])])

    rows = warehouse.query(
        "select payload, payload_text, payload_b64, poison, symbol from bronze.trades"
        " order by log_offset"
    )

    assert [(payload_of(payload), *rest) for payload, *rest in rows] == [
        ({"a": 1.5}, None, None, None, "A"),
        (None, None, None, None, "A"),
        (None, "not json\x00", None, None, "A"),
        (None, None, "//4=", None, "A"),
        ("\x00", None, None, None, "A"),
        (None, '"\\ud800"', None, None, "A"),
        (None, None, None, "bm8gZW52ZWxvcGU=", None),
    ]


def test_streams_go_to_their_own_tables(warehouse: Warehouse) -> None:
    result = warehouse.load(
        [make_object(TRADES, 0, frames(0, 3)), make_object(EVENTS, 0, frames(0, 2))]
    )

    assert (result.load_id, result.objects, result.rows) == (1, 2, 5)
    assert scalar(warehouse, "select count(*) from bronze.trades") == 3
    assert scalar(warehouse, "select count(*) from bronze.sessions") == 2
    assert warehouse.positions() == {TRADES: 3, EVENTS: 2}


def test_the_same_objects_twice_are_loaded_once(warehouse: Warehouse) -> None:
    objects = run_of(TRADES, objects=3, rows=4)

    first, second = warehouse.load(objects), warehouse.load(objects)

    assert (first.load_id, first.rows) == (1, 12)
    assert (second.load_id, second.objects, second.rows, second.bytes) == (None, 0, 0, 0)
    assert assert_rows_equal_the_ledger(warehouse) == 12


@pytest.mark.parametrize("seed", range(5))
def test_the_order_in_which_objects_are_given_does_not_matter(
    warehouse: Warehouse, seed: int
) -> None:
    objects = run_of(TRADES, objects=5, rows=2) + run_of(OTHER, objects=5, rows=3)
    random.Random(seed).shuffle(objects)

    warehouse.load(objects)

    assert warehouse.positions() == {TRADES: 10, OTHER: 15}
    assert assert_rows_equal_the_ledger(warehouse) == 25


@pytest.mark.parametrize("seed", range(5))
def test_overlapping_loads_neither_lose_nor_double(warehouse: Warehouse, seed: int) -> None:
    chance = random.Random(seed)
    objects = run_of(TRADES, objects=8, rows=2) + run_of(OTHER, objects=8, rows=1)
    for _ in range(6):
        warehouse.load(chance.sample(objects, 9))
    warehouse.load(objects)

    assert warehouse.positions() == {TRADES: 16, OTHER: 8}
    assert assert_rows_equal_the_ledger(warehouse) == 24


def test_an_object_given_twice_in_one_load_is_loaded_once(warehouse: Warehouse) -> None:
    objects = run_of(TRADES, objects=2, rows=2)

    result = warehouse.load([*objects, *objects])

    assert (result.objects, result.rows) == (2, 4)


def test_load_id_is_dense_and_rises_with_commits(warehouse: Warehouse) -> None:
    objects = run_of(TRADES, objects=4, rows=1)
    warehouse.load(objects[:1])
    warehouse.load(objects[:1])
    with pytest.raises(CorruptObjectError):
        warehouse.load([pack_lines(TRADES, 1, [b'{"t":"e1","p":0,"o":7,"lt":1,"poison_b64":""}'])])
    warehouse.load(objects[1:3])
    warehouse.load(objects)

    rows = warehouse.query("select load_id, start_offset from bronze.load_ledger order by 2")

    assert rows == [(1, 0), (2, 1), (2, 2), (3, 3)]


def test_the_ledger_names_object_hash_and_time(warehouse: Warehouse) -> None:
    item = make_object(TRADES, 0, frames(0, 2))
    warehouse.load([item])

    rows = warehouse.query(
        "select file, stream, topic, topic_id, part, start_offset, next_offset, n, is_gap, sha256,"
        " load_id, loaded_at from bronze.load_ledger"
    )

    assert [(*rest, epoch_ms(loaded_at)) for *rest, loaded_at in rows] == [
        (
            *(item.key, "trades", "tickhouse.trades.v1", "e1", 0, 0, 2, 2, False),
            *(item.manifest.sha256, 1, 1_000),
        )
    ]


def test_an_object_beyond_a_hole_is_not_loaded(warehouse: Warehouse) -> None:
    first, _hole, third = run_of(TRADES, objects=3, rows=2)

    result = warehouse.load([first, third])

    assert result.objects == 1
    assert warehouse.positions() == {TRADES: 2}


def test_the_loader_stops_at_an_object_that_straddles_its_position(warehouse: Warehouse) -> None:
    warehouse.load([make_object(TRADES, 0, frames(0, 4))])
    straddling, later = make_object(TRADES, 2, frames(2, 4)), make_object(TRADES, 6, frames(6, 1))

    result = warehouse.load([straddling, later, make_object(OTHER, 0, frames(0, 1))])

    assert result.objects == 1
    assert warehouse.positions() == {TRADES: 4, OTHER: 1}
    assert assert_rows_equal_the_ledger(warehouse) == 5


def test_a_log_that_starts_later_begins_with_a_gap_object(warehouse: Warehouse) -> None:
    result = warehouse.load([make_gap(TRADES, 0, 50), make_object(TRADES, 50, frames(50, 2))])

    assert (result.objects, result.rows) == (2, 2)
    assert warehouse.positions() == {TRADES: 52}
    assert warehouse.query(
        "select start_offset, next_offset, n, is_gap from bronze.load_ledger order by 1"
    ) == [(0, 50, 0, True), (50, 52, 2, False)]


def test_a_load_of_gaps_alone_moves_the_position(warehouse: Warehouse) -> None:
    result = warehouse.load([make_gap(TRADES, 0, 50)])

    assert (result.load_id, result.objects, result.rows) == (1, 1, 0)
    assert warehouse.positions() == {TRADES: 50}


def test_offsets_that_hold_no_record_are_covered_by_next(warehouse: Warehouse) -> None:
    lines = [b'{"t":"e1","p":0,"o":%d,"lt":1,"poison_b64":"eA=="}' % o for o in (0, 2, 5)]

    warehouse.load([pack_lines(TRADES, 0, lines, next_offset=9)])

    assert warehouse.positions() == {TRADES: 9}
    assert assert_rows_equal_the_ledger(warehouse) == 3


UNREADABLE = [
    pytest.param(b'"v":1,"src":"s","ses":"x","seq":0,"rx":1,"sym":null,"raw":{"a":}', id="syntax"),
    pytest.param(b'"v":1,"src":"s","ses":"x","seq":"q","rx":1,"raw":1}', id="seq is a word"),
    pytest.param(b'"v":1,"src":"s","ses":"x","seq":0,"rx":99999999999999999999,"raw":1}', id="rx"),
    pytest.param(b'"v":1,"src":"s","ses":"x","seq":0,"rx":1,"raw":"\xff"}', id="not UTF-8"),
    pytest.param(b'"v":1,"src":"s","ses":"x","seq":0,"rx":1,"raw":"\x01"}', id="control"),
    pytest.param(b'"v":1,"src":"s","ses":"x","seq":0,"rx":1,"raw":"\\ud800"}', id="surrogate"),
    pytest.param(b'"v":1,"src":"s","ses":"x","seq":0,"rx":1,"raw":1', id="cut off"),
    pytest.param(b'"v":1} {"v":1}', id="two values"),
]


@pytest.mark.parametrize("rest", UNREADABLE)
def test_an_object_whose_hash_is_right_always_loads_and_a_line_that_does_not_parse_becomes_a_poison_row(  # noqa: E501
    warehouse: Warehouse, rest: bytes
) -> None:
    good = make_object(OTHER, 0, frames(0, 3))
    bad = b'{"t":"e1","p":0,"o":1,"lt":1732300000200,' + rest
    lines = [b'{"t":"e1","p":0,"o":%d,"lt":1732300000200,"poison_b64":"eA=="}' % o for o in (0, 2)]

    result = warehouse.load([good, pack_lines(TRADES, 0, [lines[0], bad, lines[1]])])

    rows = warehouse.query(
        "select log_at, received_at, source, session_id, session_seq, payload, poison"
        " from bronze.trades where part = 0 and log_offset = 1"
    )
    poison = base64.b64encode(bad).decode()
    assert result.rows == 6
    assert [(epoch_ms(log_at), *rest) for log_at, *rest in rows] == [
        (LOG_AT_MS, None, None, None, None, None, poison)
    ]
    assert assert_rows_equal_the_ledger(warehouse) == 6


def test_good_frames_beside_an_unreadable_line_load_as_they_would_without_it(
    warehouse: Warehouse,
) -> None:
    values = frames(0, 3)
    warehouse.load([make_object(TRADES, 0, values)])
    bad = make_object(OTHER, 0, values)
    lines = [*unpack(bad.body, bad.key).splitlines(), b'{"t":"e1","p":1,"o":3,"lt":1,"raw":']

    warehouse.load([pack_lines(OTHER, 0, lines)])

    columns = (
        "log_offset, log_at, received_at, source, session_id, session_seq, symbol, payload,"
        " payload_text, payload_b64, poison"
    )
    sql = f"select {columns} from bronze.trades where part = ? and log_offset < 3 order by 1"
    assert warehouse.query(sql, [1]) == warehouse.query(sql, [0])


def test_a_second_offset_in_a_line_does_not_move_it(warehouse: Warehouse) -> None:
    """A foreign producer's envelope may hold fields of the lander's names; the prefix decides."""
    line = b'{"t":"e1","p":0,"o":0,"lt":1,"src":"s","ses":"x","seq":0,"rx":1,"raw":1,"o":5,"p":9}'

    warehouse.load([pack_lines(TRADES, 0, [line])])

    assert warehouse.query(POSITIONS_OF_ROWS) == [("e1", 0, 0)]


def test_a_very_long_line_loads(warehouse: Warehouse) -> None:
    poison = b"eHh4" * (5 << 20)
    line = b'{"t":"e1","p":0,"o":0,"lt":1,"poison_b64":"%b"}' % poison

    warehouse.load([pack_lines(TRADES, 0, [line])])

    assert scalar(warehouse, "select length(poison) from bronze.trades") == len(poison)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        pytest.param([(0, 0), (0, 0)], "line 2 has offset 0", id="an offset twice"),
        pytest.param([(0, 0), (0, 7)], "line 2 has offset 7", id="beyond its range"),
        pytest.param([(1, 0), (1, 1)], "another partition", id="another partition"),
        pytest.param([(0, 0), (1, 1)], "another partition", id="mixed partitions"),
    ],
)
def test_counts_that_differ_from_the_manifest_roll_the_whole_load_back(
    warehouse: Warehouse, lines: list[tuple[int, int]], reason: str
) -> None:
    good = make_object(OTHER, 0, frames(0, 3))
    bad = pack_lines(
        TRADES, 0, [b'{"t":"e1","p":%d,"o":%d,"lt":1,"poison_b64":""}' % line for line in lines]
    )

    with pytest.raises(CorruptObjectError, match=reason) as caught:
        warehouse.load([good, bad])

    assert caught.value.key == bad.key
    assert warehouse.positions() == {}
    assert assert_rows_equal_the_ledger(warehouse) == 0


def test_lines_without_a_position_are_named_and_nothing_is_loaded(warehouse: Warehouse) -> None:
    bad = pack_lines(TRADES, 0, [b'{"t":"e1","p":0,"o":0,"lt":1,"poison_b64":""}', b"rubbish"])

    with pytest.raises(CorruptObjectError, match=r"0000\.jsonl\.gz: line 2 carries no position"):
        warehouse.load([bad])

    assert warehouse.positions() == {}


def test_two_loads_at_once_do_no_harm(warehouse: Warehouse) -> None:
    objects = run_of(TRADES, objects=20, rows=2) + run_of(OTHER, objects=20, rows=2)
    results = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        for first in range(0, 40, 5):
            results.append(warehouse.load(objects[: first + 5]))  # noqa: PERF401

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    load_ids = sorted(result.load_id for result in results if result.load_id is not None)
    assert len(results) == 32
    assert load_ids == list(range(1, len(load_ids) + 1))
    assert sum(result.rows for result in results) == 80
    assert assert_rows_equal_the_ledger(warehouse) == 80


def test_load_id_is_dense_in_commit_order_with_several_loaders(warehouse: Warehouse) -> None:
    """Whoever reads sees every load up to the highest, of all streams: a build may be pinned."""
    chains = (TRADES, OTHER, EVENTS)
    objects = {chain: run_of(chain, objects=8, rows=2) for chain in chains}
    is_done = threading.Event()
    seen: set[tuple[int, int]] = set()

    def work(mine: list[BronzeObject]) -> None:
        for upto in range(1, len(mine) + 1):
            warehouse.load(mine[:upto])

    def watch() -> None:
        while not is_done.is_set():
            seen.update(
                warehouse.query(
                    "select coalesce(max(load_id), 0), count(distinct load_id)"
                    " from bronze.load_ledger"
                )
            )

    watcher = threading.Thread(target=watch)
    watcher.start()
    threads = [threading.Thread(target=work, args=[objects[chain]]) for chain in chains]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    is_done.set()
    watcher.join()

    assert len(seen) > 3
    assert all(highest == count for highest, count in seen)
    orders = warehouse.query(
        "select stream, part, load_id from bronze.load_ledger order by stream, part, start_offset"
    )
    assert orders == sorted(orders)
    assert [(24, 24)] == warehouse.query(
        "select max(load_id), count(distinct load_id) from bronze.load_ledger"
    )


@pytest.mark.parametrize(
    "sql",
    [
        "insert into bronze.identity values ('x')",
        "delete from bronze.trades",
        "create table x (i int)",
        "drop table bronze.trades",
        "copy bronze.trades to 'out.csv'",
        "explain analyze delete from bronze.trades",
        "select 1; delete from bronze.trades",
        "",
        "select * from nowhere",
        "select",
        "attach 'other.duckdb'",
    ],
)
def test_a_query_changes_nothing(warehouse: Warehouse, sql: str) -> None:
    warehouse.load(run_of(TRADES, objects=1, rows=2))

    with pytest.raises(ConfigError):
        warehouse.query(sql)

    assert scalar(warehouse, "select count(*) from bronze.trades") == 2


def test_a_query_binds_its_parameters(warehouse: Warehouse) -> None:
    assert warehouse.query("select cast(? as bigint) + 1, ?", [1, "x'; drop table y"]) == [
        (2, "x'; drop table y")
    ]


def test_a_quarantined_object_is_remembered_once_by_name(warehouse: Warehouse) -> None:
    warehouse.quarantine("a", "checksum differs")
    warehouse.quarantine("a", "another reason")
    warehouse.quarantine("b", "truncated")

    assert [(found.key, found.reason, found.found_at_ms) for found in warehouse.quarantined()] == [
        ("a", "checksum differs", 1_000),
        ("b", "truncated", 1_000),
    ]


def test_a_released_object_is_forgotten(warehouse: Warehouse) -> None:
    warehouse.quarantine("a", "checksum differs")

    warehouse.release("a")
    warehouse.release("never quarantined")

    assert warehouse.quarantined() == []
