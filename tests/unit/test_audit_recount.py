"""The recount's parts: ranges of numbers, elements of payloads, sums, digests, the verdict."""

import json
from decimal import Decimal
from itertools import pairwise

import duckdb
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.lake_builder import SESSION, frames
from tickhouse.audit.digest import Hashing
from tickhouse.audit.elements import read_elements
from tickhouse.audit.intervals import Intervals
from tickhouse.audit.recount import Recount, frame_of, read_line
from tickhouse.audit.report import FINDINGS_MAX, Layer, describe, summarise
from tickhouse.model.frame import decode_envelope, encode_frames, splice_positions
from tickhouse.model.positions import Stream
from tickhouse.model.session import Closed, Gap, Opened, PreviousSession

AT = 1_723_213_800_000


# -- ranges ------------------------------------------------------------------------------------

numbers = st.integers(0, 40)


@given(st.lists(numbers), st.lists(st.tuples(numbers, numbers)), st.integers(0, 45))
def test_intervals_are_a_set_of_numbers(
    added: list[int], ranges: list[tuple[int, int]], end: int
) -> None:
    intervals, expected = Intervals(), set[int]()
    for start, stop in ranges:
        intervals.add_range(start, stop)
        expected |= set(range(start, stop))
    for number in added:
        assert intervals.add(number) == (number not in expected)
        expected.add(number)

    found = list(intervals)
    assert expected == {number for start, stop in found for number in range(start, stop)}
    assert len(expected) == len(intervals)
    assert max(expected, default=-1) + 1 == intervals.end
    assert all(stop < start for (_, stop), (start, _) in pairwise(found))
    holes = {number for start, stop in intervals.holes(end) for number in range(start, stop)}
    assert set(range(end)) - expected == holes


# -- elements ----------------------------------------------------------------------------------


def finnhub(**fields: object) -> bytes:
    element = {"s": "AAPL", "p": 1.5, "v": 2, "t": AT, "c": None} | fields
    return json.dumps({"type": "trade", "data": [element]}).encode()


def reasons(kind: str, payload: bytes) -> list[str]:
    return read_elements(kind, payload).reasons


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"s": None}, "missing_symbol"),
        ({"s": ""}, "missing_symbol"),
        ({"s": "x; drop"}, "bad_symbol"),
        ({"p": None}, "missing_price"),
        ({"p": 0}, "bad_price"),
        ({"p": -1}, "bad_price"),
        ({"p": "abc"}, "bad_price"),
        ({"p": "NaN"}, "bad_price"),
        ({"p": "1_000"}, "bad_price"),
        ({"p": 1e-12}, "bad_price"),
        ({"p": 1e10}, "bad_price"),
        ({"v": None}, "missing_size"),
        ({"v": 0}, "zero_size"),
        ({"v": -5}, "bad_size"),
        ({"v": [1]}, "bad_size"),
        ({"p": 1e9, "v": 1e6}, "bad_size"),
        ({"t": None}, "missing_time"),
        ({"t": 0}, "bad_time"),
        ({"t": "soon"}, "bad_time"),
        ({"s": None, "p": None, "v": None, "t": None}, "unknown_shape"),
    ],
)
def test_an_element_that_is_no_trade_has_its_first_reason(
    fields: dict[str, object], reason: str
) -> None:
    assert [reason] == reasons("finnhub.ws", finnhub(**fields))


@pytest.mark.parametrize(
    ("price", "kept"),
    [
        ("187.12", "187.12"),
        ('"187.12"', "187.12"),
        ("1e2", "100"),
        ('" 7.5 "', "7.5"),
        ("0.000000015", "0.00000002"),
        ('"0.000000014"', "0.00000001"),
        ("187.12345678901234567", "187.12345679"),
    ],
)
def test_prices_are_kept_to_eight_decimals_rounded_half_up(price: str, kept: str) -> None:
    payload = finnhub().replace(b"1.5", price.encode())

    assert [("AAPL", Decimal(kept), Decimal(2))] == read_elements("finnhub.ws", payload).trades


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        ("finnhub.ws", b'{"type":"ping"}', []),
        ("finnhub.ws", b'{"type":"trade","data":[]}', []),
        ("finnhub.ws", b'{"type":"trade","data":[null,5]}', ["unknown_shape"] * 2),
        ("finnhub.ws", b'{"type":"trade"}', ["unknown_shape"]),
        ("finnhub.ws", b"[1]", ["unknown_shape"]),
        ("binance.ws", b'{"stream":"a@depth","data":{}}', []),
        ("binance.ws", b'{"result":null,"id":1}', []),
        ("binance.ws", b'{"lastUpdateId":1}', []),
        ("binance.ws", b'{"a":1}', ["unknown_shape"]),
        ("binance.ws", b'{"stream":"a@trade","data":{"e":"x"}}', ["unknown_shape"]),
        ("binance.ws", b'{"stream":"a@trade","data":{"e":"trade"}}', ["unknown_shape"]),
        ("other", b"{}", ["unknown_shape"]),
    ],
)
def test_frames_without_trades_are_control_messages_or_rejects(
    kind: str, payload: bytes, expected: list[str]
) -> None:
    assert expected == reasons(kind, payload)


def test_a_binance_trade_has_the_symbol_that_finnhub_writes() -> None:
    payload = {"e": "trade", "s": "BTCUSDT", "p": "61837.64", "q": "0.004", "T": AT, "t": 1}
    message = json.dumps({"stream": "btcusdt@trade", "data": payload}).encode()

    assert [("BINANCE:BTCUSDT", Decimal("61837.64"), Decimal("0.004"))] == (
        read_elements("binance.ws", message).trades
    )


# -- recount -----------------------------------------------------------------------------------


def lines_of(values: list[bytes]) -> list[bytes]:
    return splice_positions(
        values, topic_id="e1", part=0, offsets=range(len(values)), log_times_ms=[AT] * len(values)
    ).lines


def events(*found: Opened | Closed | Gap, session: str = SESSION, first: int = 0) -> list[bytes]:
    return encode_frames(
        [msgspec.json.encode(event) for event in found],
        source="tickhouse",
        session=session,
        first_seq=first,
        received_at_ns=1,
    )


def test_each_frame_identity_counts_once_however_often_it_comes() -> None:
    recount = Recount()
    recount.add_lines(Stream.TRADES, lines_of(frames(0, 5, trades=3)), is_built=True)
    recount.add_lines(Stream.TRADES, lines_of(frames(3, 4, trades=3)), is_built=True)

    assert 7 * 3 == recount.trades["AAPL"].count
    assert 2 == recount.repeated[Stream.TRADES]
    assert 9 == recount.frames


def test_sums_are_exact_beyond_28_digits() -> None:
    payload = finnhub(p="9999999.99999999", v="9999999.99999999")
    recount = Recount()
    values = encode_frames(
        [payload] * 3, source="finnhub.ws", session="s", first_seq=0, received_at_ns=1
    )
    recount.add_lines(Stream.TRADES, lines_of(values), is_built=True)

    assert Decimal("299999999999999.4000000000000003") == recount.trades["AAPL"].dollars


def test_frames_that_silver_has_not_built_are_seen_and_not_summed() -> None:
    recount = Recount()
    recount.add_lines(Stream.TRADES, lines_of(frames(0, 2)), is_built=True)
    recount.add_lines(Stream.TRADES, lines_of(frames(2, 3)), is_built=False)
    recount.finish()

    assert 2 == recount.trades["AAPL"].count
    assert [(0, 5)] == list(recount.sessions[SESSION].seen)
    assert [(0, 2)] == list(recount.sessions[SESSION].built)


def test_poison_and_what_is_not_json_are_rejects() -> None:
    values = encode_frames(
        [b"not json", b"\xff", b"null"],
        source="finnhub.ws", session="s", first_seq=0, received_at_ns=1,
    )  # fmt: skip
    recount = Recount()
    recount.add_lines(Stream.TRADES, lines_of([*values, b"garbage"]), is_built=True)

    assert {"not_json": 3, "poison_record": 1} == dict(recount.rejects)


def test_a_line_that_is_none_of_ours_is_poison() -> None:
    assert read_line(b"\xff\xfe") is None
    assert read_line(b'{"a":1}') is None
    assert frame_of(decode_envelope(b"x")) is None


def test_refused_numbers_and_the_end_come_from_session_events() -> None:
    recount = Recount()
    gap = Gap(1, "trades", 5, 7, 1, 1, [], "too large")
    previous = PreviousSession("before", 3)
    recount.add_lines(
        Stream.SESSIONS,
        lines_of(
            events(
                Opened(1, 0, "sim://x", "simulated", 4, previous),
                gap,
                Closed(2, "stopped", {"trades": 9}),
            )
        ),
        is_built=True,
    )
    track = recount.sessions[SESSION]

    assert [(5, 8)] == list(track.refused)
    assert track.closed is not None
    assert {"trades": 9} == track.closed.messages
    assert track.opened is not None
    assert previous == track.opened.previous


# -- digests -----------------------------------------------------------------------------------


HASHINGS = [Hashing("duckdb"), Hashing("duckdb", is_common=True)]


@pytest.mark.parametrize("hashing", HASHINGS, ids=["own", "common"])
@given(rows=st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 3)), max_size=8))
@settings(max_examples=25, deadline=None)
def test_a_digest_depends_on_rows_and_not_on_their_order(
    hashing: Hashing, rows: list[tuple[str | None, int]]
) -> None:
    sql = hashing.digest_sql("t", {"s": "VARCHAR", "n": "INTEGER"})
    with duckdb.connect() as connection:
        connection.execute("create table t (s varchar, n integer)")

        def digest(values: list[tuple[str | None, int]]) -> tuple[object, ...]:
            connection.execute("delete from t")
            for row in values:
                connection.execute("insert into t values (?, ?)", row)
            return connection.execute(sql).fetchall()[0]

        assert digest(rows) == digest(rows[::-1])
        assert digest(rows) != digest([*rows, ("a", 1), ("a", 1)])
        assert digest([(None, 1)]) != digest([("", 1)])


@pytest.mark.parametrize("hashing", HASHINGS, ids=["own", "common"])
def test_a_digest_can_be_had_for_each_group(hashing: Hashing) -> None:
    columns = {"n": "BIGINT"}
    of_groups = hashing.group_digest_sql("t", columns, ["s"], "n > 0")
    with duckdb.connect() as connection:
        connection.execute("create table t as select 'a' || i % 2 as s, i as n from range(6) r(i)")
        groups = connection.execute(of_groups).fetchall()
        whole = connection.execute(hashing.digest_sql("t", columns, "s = 'a1'")).fetchall()

    assert {"a0": 2, "a1": 3} == {row[0]: row[1] for row in groups}
    assert [row[1:] for row in groups if row[0] == "a1"] == whole


# -- the verdict -------------------------------------------------------------------------------


def test_a_note_is_no_problem_and_everything_else_is() -> None:
    clean, late = Layer("a"), Layer("b", lag_s_max=60)
    clean.find("note", "x", "worth knowing")
    clean.add_in_flight("x", 5, 1e9)
    late.add_in_flight("x", 5, 61)

    assert clean.report().ok
    assert not late.report().ok
    assert (5, 61) == (late.report().in_flight, late.report().in_flight_age_s)


def test_what_sessions_and_truth_see_again_is_not_counted_twice() -> None:
    lake, sessions = Layer("log_to_bronze"), Layer("sessions")
    lake.find("lost", "key", "offsets 0..6", 7)
    sessions.compare("session", "messages", 10, 3)
    report = summarise([lake.report(), sessions.report()], recounted=True, at_ms=1, seconds=0.5)

    assert (7, 0, False) == (report.lost, report.duplicated, report.ok)
    assert "BAD" in describe(report)
    assert "lost: key: offsets 0..6" in describe(report)


def test_counts_hold_for_more_findings_than_are_kept() -> None:
    layer = Layer("a")
    for number in range(FINDINGS_MAX + 50):
        layer.find("lost", str(number), "gone", 2)

    assert FINDINGS_MAX == len(layer.report().findings)
    assert 2 * (FINDINGS_MAX + 50) == layer.report().lost


def test_a_report_is_json_with_the_promised_fields() -> None:
    report = summarise([Layer("a").report()], recounted=True, at_ms=1, seconds=0)
    content = json.loads(msgspec.json.encode(report))

    assert {"ok", "lost", "duplicated", "corrupt", "layers", "at_ms"} <= content.keys()
    assert {"name", "ok", "checked", "lost", "duplicated", "corrupt", "in_flight", "findings"} <= (
        content["layers"][0].keys()
    )
