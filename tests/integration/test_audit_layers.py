"""Audit: clean where all is well; whatever is damaged is named by layer, key and range."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from proofs.stages import Stages
from support.audited import SIMULATOR, Road, bad_layers, first_row, layer, texts
from support.feeds import ListFeed
from support.odd_payloads import odd_binance_payloads, odd_payloads
from tickhouse.audit import audit as auditing
from tickhouse.audit.report import describe
from tickhouse.bronze.chain import find_chains
from tickhouse.bronze.object import pack, unpack
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.source.address import FeedOptions, open_feed
from tickhouse.source.truth import read_truth


@pytest.fixture
def road(road_folder: Path, tmp_path: Path) -> Road:
    return Road(road_folder, tmp_path / "data")


def test_an_untouched_road_is_clean_in_every_layer(road: Road) -> None:
    report = road.audit(truth=True, gold=True)

    assert report.ok, describe(report)
    assert (0, 0, 0, 0) == (report.lost, report.duplicated, report.corrupt, report.in_flight)
    assert report.recounted
    assert [
        "log_to_bronze",
        "bronze_to_warehouse",
        "warehouse_to_silver",
        "sessions",
        "silver_to_gold",
        "gold_to_published",
        "truth",
    ] == [found.name for found in report.layers]
    assert all(found.checked for found in report.layers)


def test_an_audit_changes_nothing(road: Road) -> None:
    before = {path: path.stat().st_mtime_ns for path in (road.folder / "lake").rglob("*")}
    before |= {path: path.stat().st_mtime_ns for path in (road.folder / "gold").rglob("*")}

    road.audit(gold=True)

    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_lake_too_big_to_recount_is_hashed_and_counted_in_sql(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "RECOUNT_FRAMES_MAX", 0)

    shallow, deep = road.audit(), road.audit(deep=True)

    assert (True, False) == (shallow.ok, shallow.recounted)
    assert (True, True) == (deep.ok, deep.recounted)
    assert (
        layer(shallow, "warehouse_to_silver").sums["trades"]
        == (layer(deep, "warehouse_to_silver").sums["trades"])
    )


def test_a_road_on_which_nothing_ever_ran_is_clean(tmp_path: Path) -> None:
    (tmp_path / "empty" / "log").mkdir(parents=True)
    (tmp_path / "empty" / "warehouse").mkdir()

    report = Road(tmp_path / "empty", tmp_path / "data").audit()

    assert report.ok, describe(report)


def test_progress_is_told(road: Road) -> None:
    told: list[str] = []

    road.audit(progress=lambda what, _done, _total: told.append(what))

    assert {"bronze", "warehouse", "silver", "gold"} <= set(told)


# -- log and lake ------------------------------------------------------------------------------


def test_a_deleted_object_is_named_with_its_range(road: Road) -> None:
    key, manifest = road.objects()[3]
    road.object_path(key).unlink()

    report = road.audit()

    assert ["log_to_bronze"] == bad_layers(report)
    assert (manifest.n, 0, 0) == (report.lost, report.duplicated, report.corrupt)
    assert f"offsets {manifest.start}..{manifest.next - 1} are in no object" in texts(
        report, "log_to_bronze"
    )
    assert key in texts(report, "log_to_bronze")


def test_a_deleted_last_object_is_named_with_its_range(road: Road) -> None:
    key, manifest = road.objects()[-1]
    road.object_path(key).unlink()

    report = road.audit()

    assert ["log_to_bronze"] == bad_layers(report)
    assert manifest.n == report.lost
    assert key in texts(report, "log_to_bronze")


def test_a_deleted_chain_is_lost_as_a_whole(road: Road) -> None:
    objects = road.objects(part=1)
    for key, _ in objects:
        road.object_path(key).unlink()
    road.object_path(road.chain(part=1).genesis_key).unlink()

    report = road.audit()

    assert sum(manifest.n for _, manifest in objects) == report.lost


@pytest.mark.parametrize("at", ["manifest", "body", "end"])
def test_a_flipped_bit_in_an_object_is_named(road: Road, at: str) -> None:
    key, manifest = road.objects()[2]
    body = bytearray(road.object_path(key).read_bytes())
    body[{"manifest": 40, "body": len(body) // 2, "end": len(body) - 1}[at]] ^= 4
    road.rewrite_object(key, bytes(body))

    report = road.audit()

    assert ["log_to_bronze"] == bad_layers(report)
    assert (0, 0, 1) == (report.lost, report.duplicated, report.corrupt)
    assert f"corrupt: {key}: offsets {manifest.start}..{manifest.next - 1}" in texts(
        report, "log_to_bronze"
    )


def test_a_truncated_object_is_named(road: Road) -> None:
    key, _ = road.objects()[0]
    os.truncate(road.object_path(key), 500)

    report = road.audit()

    assert 1 == report.corrupt
    assert key in texts(report, "log_to_bronze")


def test_an_object_with_a_right_hash_and_wrong_lines_is_found_by_the_recount(road: Road) -> None:
    chain, (key, manifest) = road.chain(), road.objects()[1]
    lines = unpack(road.object_path(key).read_bytes(), key)[:-1].split(b"\n")
    lines[1], lines[2] = lines[2], lines[1]
    road.rewrite_object(
        key,
        pack(
            lines,
            chain=chain,
            start=manifest.start,
            next_offset=manifest.next,
            rx_min=manifest.rx_min,
            rx_max=manifest.rx_max,
        ),
    )

    report = road.audit()

    assert 1 == report.corrupt
    assert "line 3: offset" in texts(report, "log_to_bronze")
    assert "the ledger says" in texts(report, "bronze_to_warehouse")


def test_an_object_whose_content_differs_from_the_log_is_named(road: Road) -> None:
    chain, (key, manifest) = road.chain(), road.objects()[1]
    text = unpack(road.object_path(key).read_bytes(), key)
    changed = text.replace(b'"rx":1', b'"rx":2', 1)
    road.rewrite_object(
        key,
        pack(
            changed[:-1].split(b"\n"),
            chain=chain,
            start=manifest.start,
            next_offset=manifest.next,
            rx_min=manifest.rx_min,
            rx_max=manifest.rx_max,
        ),
    )

    report = road.audit()

    assert f"differs: {key}: offset {manifest.start} is not the log's record" in texts(
        report, "log_to_bronze"
    )


def test_an_object_that_overlaps_the_one_before_it_is_named(road: Road) -> None:
    chain, (key, manifest) = road.chain(), road.objects()[1]
    lines = unpack(road.object_path(key).read_bytes(), key)[:-1].split(b"\n")
    start = manifest.start + 1
    body = pack(
        lines[1:],
        chain=chain,
        start=start,
        next_offset=manifest.next,
        rx_min=manifest.rx_min,
        rx_max=manifest.rx_max,
    )
    road.object_path(chain.key(start)).write_bytes(body)

    report = road.audit()

    assert manifest.n - 1 == layer(report, "log_to_bronze").duplicated
    assert f"duplicated: {chain.key(start)}: begins at {start}" in texts(report, "log_to_bronze")


def test_a_missing_genesis_is_named(road: Road) -> None:
    key = road.chain().genesis_key
    road.object_path(key).unlink()

    assert f"corrupt: {key}: missing" in texts(road.audit(), "log_to_bronze")


def test_a_damaged_batch_of_the_log_is_named(road: Road) -> None:
    with road.log_file() as log:
        log.execute(
            "update batches set body = zeroblob(length(body)) where stream = 'trades' and id ="
            " (select max(id) from batches where stream = 'trades' and part = 0)"
        )

    report = road.audit()

    assert ["log_to_bronze"] == bad_layers(report)
    assert 1 == report.corrupt
    assert "tickhouse.trades.v1[0]@" in texts(report, "log_to_bronze")


def test_records_removed_from_the_log_before_landing_are_lost(road: Road) -> None:
    with road.log_file() as log:
        end = log.execute(
            "select end_offset from ends where stream = 'trades' and part = 0"
        ).fetchone()[0]
        log.execute("delete from batches where stream = 'trades' and part = 0")
        log.execute(
            "update ends set begin_offset = end_offset + 5, end_offset = end_offset + 5"
            " where stream = 'trades' and part = 0"
        )

    report = road.audit()

    assert 5 == report.lost
    assert f"offsets {end}..{end + 4}: removed from the log before landing" in texts(
        report, "log_to_bronze"
    )


def test_a_recorded_gap_is_told_and_its_messages_are_lost(tmp_path: Path) -> None:
    stages = Stages(tmp_path)
    for number in range(3):
        stages.only_record(ListFeed([b'{"type":"ping"}'] * 4, url=f"list:{number}"))
    begin = stages.log.trim(TopicPartition(Stream.TRADES, 0), 10**6)
    stages.lander.drain()
    stages.refine()
    report = stages.audit()
    stages.close()

    assert ["sessions"] == bad_layers(report)
    assert begin == report.lost > 0
    assert f"a recorded gap: offsets 0..{begin - 1}" in texts(report, "log_to_bronze")


# -- in flight ---------------------------------------------------------------------------------


def test_what_is_in_flight_is_reported_as_such_with_its_age(tmp_path: Path) -> None:
    stages = Stages(tmp_path / "data")
    stages.record(open_feed("sim://sp500?symbols=3&rate=max&frames=30"))
    stages.refine()
    stages.record(open_feed("sim://sp500?symbols=3&rate=max&frames=31"))
    stages.loader.load_all()
    stages.record(open_feed("sim://sp500?symbols=3&rate=max&frames=32"))
    stages.only_record(open_feed("sim://sp500?symbols=3&rate=max&frames=33"))
    stages.close()
    road = Road(tmp_path / "data", tmp_path / "copy")

    report = road.audit(gold=True)
    late = road.audit(lag_s_max=0.000_001)
    early = road.audit(lag_s_max=3600)

    assert report.ok, describe(report)
    assert [3, 3, 3, 0, 0, 0] == [found.in_flight for found in report.layers]
    assert all(
        found.in_flight_age_s is not None and 0 <= found.in_flight_age_s < 600
        for found in report.layers
        if found.in_flight
    )
    assert ["log_to_bronze", "bronze_to_warehouse", "warehouse_to_silver"] == bad_layers(late)
    assert "over the limit" in texts(late, "log_to_bronze")
    assert early.ok
    assert 0 == late.lost


def test_gold_that_waits_to_be_published_is_in_flight(tmp_path: Path) -> None:
    stages = Stages(tmp_path / "data")
    stages.record(open_feed("sim://sp500?symbols=3&rate=max&frames=30"))
    stages.refine()
    stages.record(open_feed("sim://sp500?symbols=3&rate=max&frames=31"))
    stages.loader.load_all()
    stages.builder.build()
    stages.close()
    road = Road(tmp_path / "data", tmp_path / "copy")

    report = road.audit(gold=True)

    assert report.ok, describe(report)
    assert 1 == layer(report, "gold_to_published").in_flight
    assert 0 == report.in_flight


# -- warehouse ---------------------------------------------------------------------------------


def test_a_row_missing_from_bronze_is_named_by_its_object(road: Road) -> None:
    key, _ = road.objects()[2]
    road.change(
        f"delete from bronze.trades where file = '{key}' and log_offset ="
        f" (select min(log_offset) from bronze.trades where file = '{key}')"
    )

    report = road.audit()

    assert 1 == layer(report, "bronze_to_warehouse").lost
    assert key in texts(report, "bronze_to_warehouse")


def test_a_row_twice_in_bronze_is_named_by_its_object(road: Road) -> None:
    key, _ = road.objects()[2]
    road.change(f"insert into bronze.trades from bronze.trades where file = '{key}' limit 1")

    report = road.audit()

    assert 1 == layer(report, "bronze_to_warehouse").duplicated
    assert key in texts(report, "bronze_to_warehouse")


def test_a_row_with_another_offset_in_bronze_is_named(road: Road) -> None:
    key, manifest = road.objects()[2]
    road.change(
        f"update bronze.trades set log_offset = {manifest.next + 7} where file = '{key}'"
        f" and log_offset = {manifest.start}"
    )

    assert key in texts(road.audit(), "bronze_to_warehouse")


def test_an_object_that_the_ledger_has_skipped_is_lost(road: Road) -> None:
    key, manifest = road.objects()[2]
    road.change(
        f"delete from bronze.load_ledger where file = '{key}'",
        f"delete from bronze.trades where file = '{key}'",
    )

    report = road.audit()

    assert manifest.n == layer(report, "bronze_to_warehouse").lost
    assert f"lost: {key}: offsets {manifest.start}..{manifest.next - 1}" in texts(
        report, "bronze_to_warehouse"
    )


def test_an_object_twice_in_the_ledger_is_named(road: Road) -> None:
    key, manifest = road.objects()[2]
    road.change(f"insert into bronze.load_ledger from bronze.load_ledger where file = '{key}'")

    assert f"duplicated: {key}: 2 ledger rows" in texts(road.audit(), "bronze_to_warehouse")
    assert manifest.n <= road.audit().duplicated


def test_a_ledger_row_that_differs_from_its_object_is_named(road: Road) -> None:
    key, _ = road.objects()[2]
    road.change(f"update bronze.load_ledger set sha256 = 'ab' where file = '{key}'")

    assert f"differs: {key}: the ledger says" in texts(road.audit(), "bronze_to_warehouse")


def test_a_quarantined_object_is_named(road: Road) -> None:
    road.change("insert into bronze.quarantine values ('bronze/x', 'flipped', now()::timestamp)")

    assert "note: bronze/x: set aside by the loader: flipped" in texts(
        road.audit(), "bronze_to_warehouse"
    )


# -- silver ------------------------------------------------------------------------------------

ONE_TRADE = first_row("silver.trades", "source like 'sim:%'")


@pytest.mark.parametrize(
    ("statement", "lost", "duplicated", "text"),
    [
        (f"delete from silver.trades where {ONE_TRADE}", 1, 0, "trades of"),
        (f"insert into silver.trades from silver.trades where {ONE_TRADE}", 0, 2, "once"),
        (f"update silver.trades set price = price + 1 where {ONE_TRADE}", 0, 0, "dollars"),
        (f"update silver.trades set trade_size = trade_size + 1 where {ONE_TRADE}", 0, 0, "shares"),
        (f"update silver.trades set symbol = 'ZZZ' where {ONE_TRADE}", 1, 1, "ZZZ"),
        (
            f"delete from silver.rejected_trades where {first_row('silver.rejected_trades')}",
            1,
            0,
            "rejected_trades for",
        ),
        (
            "insert into silver.rejected_trades (reason, load_id) values ('bad_price', 1)",
            0,
            1,
            "rejected_trades for bad_price",
        ),
        (
            "insert into silver.repeated_frames (stream, load_id) values ('trades', 1)",
            0,
            0,
            "delivered again",
        ),
    ],
)
def test_every_frame_identity_is_in_silver_once(
    road: Road, statement: str, lost: int, duplicated: int, text: str
) -> None:
    road.change(statement)

    report = road.audit()

    found = layer(report, "warehouse_to_silver")
    assert not found.ok
    assert (lost, duplicated) == (found.lost, found.duplicated)
    assert text in texts(report, "warehouse_to_silver")


def test_a_trade_missing_from_silver_is_found_without_a_recount(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "RECOUNT_FRAMES_MAX", 0)
    road.change(f"delete from silver.trades where {ONE_TRADE}")

    assert 1 == layer(road.audit(), "warehouse_to_silver").lost


@pytest.mark.parametrize("seed", [1, 2])
def test_every_element_of_odd_payloads_is_a_trade_or_a_reject(tmp_path: Path, seed: int) -> None:
    """The recount shares nothing with the SQL; they agree on whatever a feed may send."""
    stages = Stages(tmp_path)
    sources = {
        "live:finnhub.ws": odd_payloads(seed, 800),
        "replay:binance.ws": odd_binance_payloads(seed, 500),
        "other.rest": odd_payloads(seed + 99, 30),
    }
    for source, payloads in sources.items():
        feed = ListFeed(payloads, url=source, batch=50)
        feed.source = source
        stages.record(feed)
    stages.refine()

    report = stages.audit()
    trades, rejects = (
        stages.warehouse.query(f"select count(*) from silver.{table}")[0][0]
        for table in ("trades", "rejected_trades")
    )
    stages.close()

    assert report.ok, describe(report)
    assert min(trades, rejects) > 100


# -- sessions ----------------------------------------------------------------------------------


def test_message_numbers_that_are_missing_are_named_by_session_and_range(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, manifest = road.objects()[4]
    session, first, last = road.ask(
        "select min(session_id), min(session_seq), max(session_seq) from bronze.trades"
        f" where file = '{key}'"
    )[0]
    road.object_path(key).unlink()
    road.change(
        f"delete from bronze.trades where file = '{key}'",
        f"delete from bronze.load_ledger where file = '{key}'",
    )

    report = road.audit()

    assert manifest.n == layer(report, "sessions").lost == report.lost
    assert f"lost: session {session}: messages {first}..{last} of" in texts(report, "sessions")


def test_a_session_without_closed_is_clean_up_to_the_next_opened(tmp_path: Path) -> None:
    stages = Stages(tmp_path / "data")
    feed = ListFeed([b'{"type":"ping"}'] * 20, breaks_after=(5, 11))
    stages.record(feed)
    stages.refine()
    report = stages.audit()
    stages.close()

    assert report.ok, describe(report)
    assert "3" == layer(report, "sessions").sums["sessions"]


# -- gold --------------------------------------------------------------------------------------


def raised(table: str, column: str, condition: str = "true") -> str:
    return f"update {table} set {column} = {column} + 1 where {first_row(table, condition)}"


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        (raised("gold.bars_1s", "volume"), "gold.bars_1s of"),
        ("update gold.bars_1s set high = high + 1", "highest or lowest"),
        ("delete from gold.bars_1s where symbol = 'AAPL'", "of AAPL"),
        (raised("gold.bars_1m", "close", "close is not null"), "not what gold.bars_1s adds up to"),
        (raised("gold.bars_5m", "open", "open is not null"), "not what gold.bars_1m adds up to"),
        (raised("gold.bars_1h", "trade_count"), "not what gold.bars_5m adds up to"),
        (raised("gold.bars_1d", "dollar_volume"), "gold.bars_1d of"),
        (raised("gold.kpi", "volume"), "is not its bar of the day"),
        (raised("gold.completeness", "trades"), "gold.completeness"),
    ],
)
def test_a_bar_that_is_not_what_silver_adds_up_to_is_named(
    road: Road, statement: str, text: str
) -> None:
    road.change(statement)

    report = road.audit()

    assert "silver_to_gold" in bad_layers(report)
    assert "warehouse_to_silver" not in bad_layers(report)
    assert text in texts(report, "silver_to_gold")


def test_gold_within_a_build_is_not_judged(road: Road) -> None:
    road.change("update meta.positions set load_id = load_id - 1 where model = 'bars_1m'")

    report = road.audit()

    assert "its models never stood at one load" in texts(report, "silver_to_gold")
    assert (0, 0) == (report.lost, report.duplicated)


# -- published ---------------------------------------------------------------------------------


def test_a_published_file_that_is_gone_is_named(road: Road) -> None:
    path = next((road.folder / "gold").glob("bars_1m/*.parquet"))
    current = {path.name for path in (road.folder / "gold").glob("bars_1m/*.parquet")}
    for name in current:
        (road.folder / "gold" / "bars_1m" / name).unlink()

    report = road.audit(gold=True)

    assert ["gold_to_published"] == bad_layers(report)
    assert 1 == report.corrupt
    assert path.parent.name in texts(report, "gold_to_published")


def test_published_rows_that_differ_from_the_warehouse_are_named(road: Road) -> None:
    road.change(
        f"update gold.market_map set name = name || '?' where {first_row('gold.market_map')}"
    )

    report = road.audit(gold=True)

    assert ["gold_to_published"] == bad_layers(report)
    assert "gold.market_map" in texts(report, "gold_to_published")


def test_gold_of_another_warehouse_is_named(road: Road) -> None:
    road.change("update bronze.identity set warehouse_id = 'another'")

    assert "this one is another" in texts(road.audit(gold=True), "gold_to_published")


def test_a_torn_manifest_of_published_gold_is_named(road: Road) -> None:
    (road.folder / "gold" / "manifest.json").write_bytes(b'{"format":')

    report = road.audit(gold=True)

    assert ["gold_to_published"] == bad_layers(report)
    assert "manifest.json" in texts(report, "gold_to_published")


# -- truth -------------------------------------------------------------------------------------


def forget_frame(road: Road) -> None:
    """A frame that is in no layer at all, though record had acknowledged it."""
    road.change(
        "delete from silver.trades where source like 'sim:%' and session_seq = 17",
    )


def claim_more(road: Road) -> None:
    path = road.folder / "truth.json"
    ledger = read_truth(path)
    shard = ledger.feeds[next(iter(ledger.feeds))].acknowledged[0]
    path.write_text(path.read_text().replace(f'"0":{shard}', f'"0":{shard + 3}'))


@pytest.mark.parametrize(
    ("damage", "text"), [(forget_frame, "trades of"), (claim_more, "were acknowledged")]
)
def test_what_the_simulator_knows_and_the_road_does_not_is_lost(
    road: Road, damage: Callable[[Road], None], text: str
) -> None:
    damage(road)

    report = road.audit(truth=True)

    assert not layer(report, "truth").ok
    assert layer(report, "truth").lost > 0
    assert text in texts(report, "truth")


def test_a_frame_delivered_twice_under_two_sessions_is_found_by_truth_alone(
    tmp_path: Path,
) -> None:
    stages = Stages(tmp_path / "data")
    options = FeedOptions(truth_path=tmp_path / "data" / "truth.json")
    stages.record(open_feed(f"{SIMULATOR}500", options))
    again = open_feed(f"{SIMULATOR}500")
    again.resumes = False
    stages.record(again)
    stages.refine()
    report = stages.audit(truth=True)
    stages.close()

    assert ["truth"] == bad_layers(report)
    assert report.duplicated > 900


def test_the_chain_of_a_restored_log_is_audited_with_the_log(tmp_path: Path) -> None:
    """Chain `<id>.1` holds the repeats; silver removes them; nothing is lost or doubled."""
    folder = tmp_path / "data"
    stages = Stages(folder)
    stages.record(ListFeed([b'{"type":"trade","data":[]}'] * 10))
    stages.close()
    backup = (folder / "log" / "log.db").read_bytes()
    stages = Stages(folder)
    stages.record(ListFeed([b'{"type":"ping"}'] * 12, url="list:2"))
    stages.close()
    for path in (folder / "log").glob("log.db*"):
        path.unlink()
    (folder / "log" / "log.db").write_bytes(backup)
    stages = Stages(folder)
    stages.record(ListFeed([b'{"type":"ping"}'] * 14, url="list:3"))
    stages.refine()
    report = stages.audit()
    generations = {chain.topic_id for chain in find_chains(stages.store)}
    stages.close()

    assert report.ok, describe(report)
    assert 2 == len(generations)
    assert 0 < int(layer(report, "warehouse_to_silver").sums["repeated_trades"])
