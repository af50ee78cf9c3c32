"""Bronze frames to silver rows: real samples, repeats, sessions and gaps."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from support.bronze_rows import T0, BronzeFrame, BronzeWarehouse, finnhub, nanos, trade
from support.builds import builder_of, new_warehouse
from tickhouse.transform.builder import Builder

TSLA_TWICE = (
    '{"data":[{"c":["8","12","41"],"p":183.24,"s":"TSLA","t":1681312681830,"v":5},'
    '{"c":[],"p":183.23,"s":"TSLA","t":1681312681832,"v":100},'
    '{"c":["1","8","12"],"p":183.24,"s":"TSLA","t":1681312681830,"v":5},'
    '{"c":["1"],"p":183.23,"s":"TSLA","t":1681312681832,"v":100}],"type":"trade"}'
)


def opened(
    shard: int = 0, cursor: int | None = 0, previous: tuple[str, int | None] | None = None
) -> str:
    before = None if previous is None else {"session": previous[0], "seq": previous[1]}
    event = {"event": "opened", "at": nanos(T0), "shard": shard, "feed": "sim://sp500"}
    return json.dumps(event | {"mode": "simulated", "cursor": cursor, "previous": before})


def closed(messages: int) -> str:
    event = {"event": "closed", "at": nanos(T0 + timedelta(seconds=10)), "reason": "stopped"}
    return json.dumps(event | {"messages": {"trades": messages}})


def refused(seq_from: int, seq_to: int) -> str:
    event = {"event": "gap", "at": nanos(T0), "stream": "trades", "seq_from": seq_from}
    event |= {"seq_to": seq_to, "time_from": nanos(T0), "time_to": nanos(T0), "symbols": []}
    return json.dumps(event | {"cause": "frame is over the limit", "filled_by": None})


def event(payload: str, seq: int, session: str) -> BronzeFrame:
    return BronzeFrame(
        payload=payload, seq=seq, session=session, source="tickhouse", stream="sessions"
    )


def one(seq: int, session: str = "s1", **options: Any) -> BronzeFrame:
    at = T0 + timedelta(seconds=seq)
    return BronzeFrame(
        payload=finnhub(trade("AAPL", at, 100 + seq, 10)),
        seq=seq,
        session=session,
        received_at=at,
        **options,
    )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[tuple[BronzeWarehouse, Builder]]:
    warehouse = new_warehouse(tmp_path / "w")
    with builder_of(warehouse) as builder:
        yield warehouse, builder


def test_prints_delivered_twice_in_one_message_stay_two_prints(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    warehouse.load([BronzeFrame(payload=TSLA_TWICE, seq=0)])
    builder.build()

    assert [(4, 210)] == warehouse.query(
        "select count(*), cast(sum(trade_size) as int) from silver.trades"
    )


def test_silver_removes_repeated_frames_however_late_they_come(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    warehouse.load([one(0), one(1), one(1), one(2)])
    builder.build()
    warehouse.load([one(5), one(6)])
    builder.build()
    # 3 and 4 arrive late, 2 and 6 once more, 5 of another session is not a repeat
    warehouse.load([one(2), one(3), one(4), one(6), one(5, "s2")])
    builder.build()
    warehouse.load([one(seq) for seq in range(8)])
    builder.build()

    delivered = warehouse.query(
        "select session_id, session_seq, count(*) from silver.trades group by all order by all"
    )
    repeated = warehouse.query(
        "select session_seq, count(*) from silver.repeated_frames group by all order by all"
    )
    assert [("s1", seq, 1) for seq in range(8)] + [("s2", 5, 1)] == delivered
    assert [(0, 1), (1, 2), (2, 2), (3, 1), (4, 1), (5, 1), (6, 2)] == repeated
    completeness = warehouse.query(
        "select session_id, frames_received, frames_repeated, frames_missing, trades"
        " from gold.completeness order by session_id"
    )
    assert [("s1", 8, 10, 0, 8), ("s2", 1, 0, 5, 1)] == completeness


def test_accepted_ranges_do_not_grow_with_builds(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    for load in range(4):
        warehouse.load([one(3 * load + k) for k in range(3)])
        builder.build()

    ranges = warehouse.query(
        "select seq_from, seq_to from silver.frame_ranges where stream = 'trades' order by all"
    )
    assert [(0, 8), (9, 11)] == ranges


def test_sessions_gaps_and_completeness_tell_what_is_missing(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    warehouse.load(
        [
            event(opened(), 0, "a"),
            event(refused(3, 4), 1, "a"),
            event(closed(6), 2, "a"),
            *(one(seq, "a") for seq in (0, 1, 2, 5)),
            event(opened(cursor=6, previous=("a", 5)), 0, "b"),
            *(one(seq, "b") for seq in (0, 1)),
        ]
    )
    builder.build()
    # b was cut off after three messages of which two are here; c goes on too far
    warehouse.load([event(opened(cursor=99, previous=("b", 2)), 0, "c")])
    builder.build()

    sessions = warehouse.query(
        "select session_id, close_reason, trades_messages, feed_cursor from silver.sessions"
        " order by session_id"
    )
    gaps = warehouse.query(
        "select session_id, kind, seq_from, seq_to, cause, filled_by from silver.gaps order by all"
    )
    completeness = warehouse.query(
        "select session_id, frames_expected, frames_received, frames_refused, frames_missing,"
        " is_complete from gold.completeness order by session_id"
    )
    assert [("a", "stopped", 6, 0), ("b", None, None, 6), ("c", None, None, 99)] == sessions
    assert [
        ("a", "refused", 3, 4, "frame is over the limit", None),
        ("b", "silence", None, None, "stopped", "cursor"),
        ("c", "silence", None, None, "no closed event", None),
    ] == gaps
    assert [
        ("a", 6, 4, 2, 0, True),
        ("b", 3, 2, 0, 1, False),
        ("c", 0, 0, 0, 0, True),
    ] == completeness


def test_a_silence_starts_at_the_last_frame_however_late_that_frame_is_loaded(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    warehouse.load([event(opened(), 0, "a"), event(opened(cursor=3, previous=("a", 2)), 0, "b")])
    builder.build()
    warehouse.load([one(seq, "a") for seq in range(3)])
    builder.build()

    since = (T0 + timedelta(seconds=2)).replace(tzinfo=None)
    assert [(since, "cursor")] == warehouse.query("select time_from, filled_by from silver.gaps")


def test_poison_is_a_reject_and_belongs_to_no_session(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    warehouse.load([one(0), BronzeFrame(payload=None, seq=0, poison="AAEC"), one(1)])
    builder.build()

    rejects = warehouse.query(
        "select log_offset, session_id, reason, payload from silver.rejected_trades"
    )
    assert [(1, None, "poison_record", "AAEC")] == rejects
    assert [("s1",)] == warehouse.query("select session_id from gold.completeness")


def test_latency_percentiles_are_within_the_resolution_of_their_counts(
    bench: tuple[BronzeWarehouse, Builder],
) -> None:
    warehouse, builder = bench
    delays = [3, 50, 1000, 33, 7] * 4
    for half in (delays[:10], delays[10:]):
        first = 10 * warehouse.load_id
        warehouse.load(
            [
                BronzeFrame(
                    payload=finnhub(trade("A", T0 - timedelta(milliseconds=delay), 1, 1)),
                    seq=first + k,
                    source="sim:finnhub.ws",
                )
                for k, delay in enumerate(half)
            ],
            loaded_at=T0 + timedelta(seconds=1),
        )
        builder.build()

    found = warehouse.query(
        "select trade_count, event_to_received_ms_p50, event_to_received_ms_p95,"
        " received_to_log_ms_p99, log_to_loaded_ms_p50 from gold.latency"
    )
    assert [(20, 34, 1024, 2, 1024)] == found
    for true, shown in ((33, 34), (1000, 1024), (998, 1024)):
        assert true <= shown <= true * 1.0313


def test_times_of_a_replay_are_no_latency(bench: tuple[BronzeWarehouse, Builder]) -> None:
    warehouse, builder = bench
    warehouse.load([one(0, source="replay:finnhub.ws")])
    builder.build()

    assert [(None, 2)] == warehouse.query(
        "select event_to_received_ms_p50, received_to_log_ms_p50 from gold.latency"
    )


def test_rejects_are_counted_by_reason(bench: tuple[BronzeWarehouse, Builder]) -> None:
    warehouse, builder = bench
    zero_volume = (
        '{"data":[{"c":null,"p":1.06618,"s":"IC MARKETS:1","t":1713756721306,"v":0},'
        '{"c":null,"p":1.06619,"s":"IC MARKETS:1","t":1713756721732,"v":0}],"type":"trade"}'
    )
    control = '{"msg":"Subscribing to too many symbols","type":"error"}'
    warehouse.load(
        [BronzeFrame(payload=text, seq=seq) for seq, text in enumerate([zero_volume, control])]
    )
    builder.build()

    reasons = Counter(
        row[0] for row in warehouse.query("select reason from silver.rejected_trades")
    )
    assert {"zero_size": 2} == reasons
    assert [] == warehouse.query("from silver.trades")
