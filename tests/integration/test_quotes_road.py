"""Quotes, reference and their events through every layer: audited, rebuilt, published."""

import json
import random
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from proofs.stages import Stages
from support.audited import Road, first_row, layer, texts
from support.polled import AT, PolledFeed
from tickhouse.audit import audit as auditing
from tickhouse.audit.report import describe
from tickhouse.model.positions import Stream
from tickhouse.transform.published import PublishedGold
from tickhouse.warehouse.duckdb import DuckDBWarehouse


@pytest.fixture
def road(road_folder: Path, tmp_path: Path) -> Road:
    return Road(road_folder, tmp_path / "data")


REJECT = "insert into silver.rejected_quotes (session_id, session_seq, reason, load_id)"
ONE_QUOTE = first_row("silver.quotes")
ONE_OF_QUOTES = f"silver.quotes where {ONE_QUOTE}"


@pytest.mark.parametrize(
    ("statement", "lost", "duplicated", "text"),
    [
        (f"delete from silver.quotes where {ONE_QUOTE}", 1, 0, "quotes of"),
        (f"insert into silver.quotes from silver.quotes where {ONE_QUOTE}", 0, 2, "once"),
        (f"update silver.quotes set price = price + 1 where {ONE_QUOTE}", 0, 0, "add up"),
        (f"update silver.quotes set day_open = day_high, day_high = day_open where {ONE_QUOTE}",
         0, 0, "add up"),
        (f"update silver.quotes set quoted_at = received_at + interval 9 second where {ONE_QUOTE}",
         0, 0, "add up"),
        (f"update silver.quotes set symbol = 'ZZZ' where {ONE_QUOTE}", 1, 1, "ZZZ"),
        ("delete from silver.rejected_quotes", 1, 0, "rejected_quotes for http_429"),
        (f"{REJECT} select session_id, session_seq, 'no_data', 1 from {ONE_OF_QUOTES}",
         0, 2, "no_data"),
        ("insert into silver.repeated_frames (stream, load_id) values ('reference', 1)", 0, 0,
         "delivered again"),
    ],
)  # fmt: skip
def test_every_frame_of_quotes_is_in_silver_once(
    road: Road, statement: str, lost: int, duplicated: int, text: str
) -> None:
    road.change(statement)

    report = road.audit()

    found = layer(report, "warehouse_to_silver")
    assert not found.ok
    assert (lost, duplicated) == (found.lost, found.duplicated)
    assert text in texts(report, "warehouse_to_silver")


def test_a_quote_missing_from_silver_is_found_without_a_recount(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "RECOUNT_FRAMES_MAX", 0)
    road.change(f"delete from silver.quotes where {ONE_QUOTE}")

    report = road.audit()

    assert 1 == layer(report, "warehouse_to_silver").lost
    assert "says" in texts(report, "silver_to_gold")


@pytest.mark.parametrize("stream", [Stream.QUOTES, Stream.REFERENCE])
def test_message_numbers_are_dense_in_every_stream(road: Road, stream: Stream) -> None:
    key, manifest = road.objects(stream)[0]
    session = road.ask(f"select min(session_id) from bronze.{stream} where file = '{key}'")[0][0]
    road.object_path(key).unlink()
    road.change(
        f"delete from bronze.{stream} where file = '{key}'",
        f"delete from bronze.load_ledger where file = '{key}'",
    )

    with road.log_file() as log:
        log.execute(f"delete from batches where stream = '{stream}'")
        log.execute(f"update ends set begin_offset = end_offset where stream = '{stream}'")

    report = road.audit()

    assert manifest.n == layer(report, "sessions").lost
    last = manifest.n - 1
    assert f"session {session}, {stream}: messages 0..{last} of {manifest.n}" in texts(
        report, "sessions"
    )


def test_message_numbers_that_are_missing_are_found_without_a_recount(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "RECOUNT_FRAMES_MAX", 0)
    road.change(
        "update gold.completeness set frames_missing = 2 where stream = 'quotes'",
    )

    assert ", quotes: 2 of 12 messages are missing" in texts(road.audit(), "sessions")


def test_the_new_tables_are_published(road: Road) -> None:
    gold = PublishedGold(road.folder / "gold")

    found = {
        table: gold.query(f"select count(*) from {table}")[0][0]
        for table in ("quotes", "rejected_quotes", "coverage", "gaps", "gaps_daily", "calendar")
    }
    assert {"quotes": 11, "rejected_quotes": 1, "coverage": 2} == {
        table: found[table] for table in ("quotes", "rejected_quotes", "coverage")
    }
    assert min(found.values()) > 0
    assert [("Apple Inc",)] == gold.query("select name from instruments where symbol = 'AAPL'")
    assert {("AAPL", True), ("MSFT", True)} <= set(
        gold.query("select symbol, quoted_at is not null from kpi")
    )


def test_a_warehouse_that_an_older_version_built_is_no_problem(road: Road) -> None:
    road.change("drop table silver.quotes", "delete from meta.positions where model = 'quotes'")

    report = road.audit(gold=True)

    assert report.ok, describe(report)
    assert "another version" in texts(report, "gold_to_published")


# -- whatever may come -------------------------------------------------------------------------

FIGURES = (
    100,
    100.5,
    "100.25",
    0,
    -1,
    None,
    "abc",
    "",
    " 7.5 ",
    "1e2",
    1e-12,
    0.000000015,
    99999999999,
    187.12345678901235,
    True,
    [1],
    {"a": 1},
    "NaN",
    1e308,
    "1_000",
)
TIMES = (AT // 10**9, AT // 10**9 + 0.5, "1723213800", 0, -5, None, "soon", 2**63, AT // 10**6, 1e9)
SYMBOLS = ("AAPL", "BINANCE:BTCUSDT", "BRK.B", None, "x; drop", "")
KINDS = ("finnhub.quote",) * 12 + ("finnhub.http.500", "finnhub.http.x", "odd", "replay:a.quote")
BODIES = (b"null", b"5", b"[]", b"{}", b"", b"\xff", b"{", b'{"error":""}', b'{"error":null}',
          b'{"error":{"a":1},"c":1,"t":1}', b'{"c":1}', b'{"t":1}', b'{"C":1,"T":1}')  # fmt: skip


def odd_answers(seed: int, count: int) -> list[tuple[str | None, str, bytes]]:
    chance = random.Random(seed)

    def mostly(values: tuple[Any, ...]) -> Any:
        return values[0] if chance.random() < 0.7 else chance.choice(values)

    found: list[tuple[str | None, str, bytes]] = []
    for _ in range(count):
        body = chance.choice(BODIES)
        if chance.random() < 0.9:
            fields = {name: mostly(FIGURES) for name in ("c", "d", "dp", "o", "h", "l", "pc")}
            fields["t"] = mostly(TIMES)
            for name in list(fields):
                if chance.random() < 0.03:
                    del fields[name]
            body = json.dumps(fields).encode()
        found.append((mostly(SYMBOLS), chance.choice(KINDS), body))
    return found


def test_every_odd_answer_is_a_quote_or_a_reject(tmp_path: Path) -> None:
    """The recount shares nothing with the SQL; they agree on whatever the source may send."""
    stages = Stages(tmp_path)
    stages.record(PolledFeed(odd_answers(5, 1500)))
    stages.refine()
    report = stages.audit()
    stages.close()

    assert report.ok, describe(report)
    with closing(DuckDBWarehouse(tmp_path / "warehouse" / "warehouse.duckdb")) as warehouse:
        reasons = dict(
            warehouse.query("select reason, count(*) from silver.rejected_quotes group by reason")
        )
        quotes = warehouse.query("select count(*) from silver.quotes")[0][0]
    assert {
        "http_500",
        "not_json",
        "unknown_shape",
        "error_answer",
        "bad_symbol",
        "no_data",
        "bad_price",
        "bad_time",
    } == reasons.keys()
    assert quotes > 300
    assert 1500 == quotes + sum(reasons.values())


def odd_ticks(seed: int, count: int) -> list[tuple[str | None, str, bytes]]:
    """Pages of /stock/tick: one column a figure, now and then of different lengths."""
    chance = random.Random(seed)
    times = (AT // 10**6, AT // 10**6 + 1, None, 0, "soon")
    found: list[tuple[str | None, str, bytes]] = []
    for _ in range(count):
        ticks = chance.choice((0, 1, 3, 5))
        page: dict[str, Any] = {
            name: [values[0] if chance.random() < 0.7 else chance.choice(values)
                   for _ in range(ticks + (chance.random() < 0.05))]
            for name, values in (("t", times), ("p", FIGURES), ("v", FIGURES),
                                 ("c", (["1"], ["12", "1"], [], None, "1")))
        }  # fmt: skip
        if chance.random() < 0.2:
            page[chance.choice("tpvc")] = chance.choice((None, 5, "x", {}))
        if chance.random() < 0.2:
            del page[chance.choice("tpvc")]
        body = chance.choice(BODIES) if chance.random() < 0.05 else json.dumps(page).encode()
        found.append((chance.choice(SYMBOLS), "finnhub.tick", body))
    return found


def test_every_odd_tick_is_a_trade_or_a_reject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = Stages(tmp_path / "data")
    stages.record(PolledFeed(odd_ticks(5, 600), stream=Stream.TRADES))
    stages.refine()
    deep = stages.audit()
    counts = [
        stages.warehouse.query(f"select count(*) from silver.{table}")[0][0]
        for table in ("trades", "rejected_trades")
    ]
    stages.close()
    monkeypatch.setattr(auditing, "RECOUNT_FRAMES_MAX", 0)
    shallow = Road(tmp_path / "data", tmp_path / "copy").audit()

    assert deep.ok, describe(deep)
    assert shallow.ok, describe(shallow)
    assert min(counts) > 100
