"""Published gold: whole versions, only what changed, from whatever was left behind."""

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.gold_tables import START, GoldSource
from tickhouse import telemetry
from tickhouse.errors import RefusedError
from tickhouse.model.positions import ChainId, Stream
from tickhouse.transform import exporter as exporting
from tickhouse.transform.manifest import GoldFile, GoldManifest, read_index, read_manifest
from tickhouse.transform.published import PublishedGold
from tickhouse.transform.publisher import Publisher


@pytest.fixture
def source(tmp_path: Path) -> Iterator[GoldSource]:
    found = GoldSource(tmp_path / "gold")
    yield found
    found.close()


def published(source: GoldSource) -> GoldManifest:
    manifest = read_manifest(source.folder)
    assert manifest is not None
    return manifest


def trade_files(source: GoldSource) -> list[GoldFile]:
    groups = published(source).tables["silver.trades"].groups.values()
    return [file for name in groups for file in read_index(source.folder, name)]


def named_files(source: GoldSource) -> set[str]:
    names = {"manifest.json"}
    for table in published(source).tables.values():
        names |= {file.name for file in table.files} | set(table.groups.values())
        for index in table.groups.values():
            names |= {file.name for file in read_index(source.folder, index)}
    return names


def assert_same_rows(source: GoldSource) -> None:
    gold = PublishedGold(source.folder)
    for table in gold.tables():
        assert source.rows(table) == sorted(gold.query(f"from {table}")), table


def run_loads(source: GoldSource, publisher: Publisher, count: int, *, trades: int = 1) -> None:
    for _ in range(count):
        load_id = source.next_load()
        source.trade(trades)
        publisher.publish(load_id)


def test_the_manifest_names_the_warehouse_and_the_position_published_per_table(
    source: GoldSource,
) -> None:
    publisher = source.publisher()
    source.next_load()
    source.bar(START)
    publisher.publish(1)
    source.next_load()
    source.trade()
    publisher.publish(2)

    manifest = published(source)

    assert ("w1", 2, 2) == (manifest.warehouse_id, manifest.version, manifest.load_id)
    assert {2} == {table.load_id for table in manifest.tables.values()}
    assert (("trades", "e1", 0, 200),) == manifest.positions
    chain = ChainId(Stream.TRADES, "tickhouse.trades.v1", "e1", 0)
    assert {chain: 200} == manifest.chain_positions()
    assert 1_723_213_800_000 == manifest.published_at_ms


def test_only_what_a_build_touched_is_rewritten(source: GoldSource) -> None:
    publisher = source.publisher()
    source.next_load()
    source.trade()
    for minute in range(0, 60, 5):
        source.bar(START + timedelta(minutes=minute))
    source.connection.execute("insert into gold.kpi values ('AAPL', 1, 1)")
    publisher.publish(1)
    load_id = source.next_load()
    source.bar(START + timedelta(minutes=5, seconds=7))

    result = publisher.publish(load_id)

    assert ["bars_1d/2024-08-01T0000", "bars_1s/2024-08-09T1435"] == source.short_names()
    assert not result.is_full
    assert_same_rows(source)


def test_a_late_bar_replaces_its_partition_and_not_the_others(source: GoldSource) -> None:
    publisher = source.publisher()
    source.next_load()
    source.bar(START, 1)
    source.bar(START + timedelta(hours=1), 2)
    publisher.publish(1)
    load_id = source.next_load()
    source.bar(START, 3)

    publisher.publish(load_id)

    assert ["bars_1d/2024-08-01T0000", "bars_1s/2024-08-09T1430"] == source.short_names()
    assert_same_rows(source)


def test_nothing_is_written_when_nothing_was_built(source: GoldSource) -> None:
    publisher = source.publisher()
    source.next_load()
    source.bar(START)
    publisher.publish(1)
    before = source.files()

    result = publisher.publish(1)

    assert not result.changed
    assert before == source.files()


def test_a_new_load_without_rows_moves_the_position_only(source: GoldSource) -> None:
    publisher = source.publisher()
    source.next_load()
    source.bar(START)
    publisher.publish(1)
    load_id = source.next_load()

    publisher.publish(load_id)

    assert [] == source.wrote
    assert 2 == published(source).load_id
    assert (("trades", "e1", 0, 200),) == published(source).positions


def spoil_other_warehouse(source: GoldSource) -> None:
    source.connection.execute("update bronze.identity set warehouse_id = 'w2'")


def spoil_project(source: GoldSource) -> None:
    source.connection.execute("update meta.positions set fingerprint = 'f3' where model = 'trades'")


def spoil_position(source: GoldSource) -> None:
    manifest = json.loads((source.folder / "manifest.json").read_bytes())
    manifest["load_id"] = 99
    (source.folder / "manifest.json").write_text(json.dumps(manifest))


def spoil_manifest_torn(source: GoldSource) -> None:
    content = (source.folder / "manifest.json").read_bytes()
    (source.folder / "manifest.json").write_bytes(content[: len(content) // 2])


def spoil_manifest_missing(source: GoldSource) -> None:
    (source.folder / "manifest.json").unlink()


def spoil_data_missing(source: GoldSource) -> None:
    next(source.folder.glob("bars_1s/*.parquet")).unlink()


def spoil_index_missing(source: GoldSource) -> None:
    next(source.folder.glob("index/bars_1s/*.json")).unlink()


def spoil_index_torn(source: GoldSource) -> None:
    next(source.folder.glob("index/bars_1s/*.json")).write_bytes(b'[{"name"')


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_other_warehouse,
        spoil_project,
        spoil_position,
        spoil_manifest_torn,
        spoil_manifest_missing,
        spoil_data_missing,
        spoil_index_missing,
        spoil_index_torn,
    ],
)
def test_everything_is_published_if_id_or_position_do_not_fit(
    source: GoldSource, spoil: "type[object]"
) -> None:
    source.next_load()
    source.trade(3)
    source.bar(START)
    source.bar(START + timedelta(days=1))
    source.publisher().publish(1)
    version = published(source).version
    spoil(source)
    # What a full refresh removes leaves no file behind.
    source.connection.execute("delete from gold.bars_1s where bar_at > timestamp '2024-08-10'")
    load_id = source.next_load()

    result = source.publisher().publish(load_id)

    assert result.is_full
    assert result.version > version
    assert_same_rows(source)


def test_a_new_process_goes_on_from_the_manifest(source: GoldSource) -> None:
    source.next_load()
    source.bar(START)
    source.publisher().publish(1)
    load_id = source.next_load()
    source.bar(START + timedelta(minutes=5))

    result = source.publisher().publish(load_id)

    assert not result.is_full
    assert ["bars_1d/2024-08-01T0000", "bars_1s/2024-08-09T1435"] == source.short_names()
    assert_same_rows(source)


def test_old_versions_are_kept_by_count_and_by_minutes(source: GoldSource) -> None:
    publisher = source.publisher(keep_versions=3, keep_minutes=2)
    source.next_load()
    source.bar(START)
    publisher.publish(1)
    first = named_files(source)

    for _ in range(3):
        source.bar(START, source.next_load())
        publisher.publish(source.load_id)
    after_count = first - source.files()
    source.now_s = 121
    publisher.publish(source.load_id)
    after_both = first - source.files()

    assert set() == after_count
    assert {name for name in first if name.startswith(("bars_1s", "bars_1d", "index/bars"))} == (
        after_both
    )
    assert named_files(source) <= source.files()


def test_minutes_alone_do_not_remove_an_old_version(source: GoldSource) -> None:
    publisher = source.publisher(keep_versions=3, keep_minutes=2)
    source.next_load()
    source.bar(START)
    publisher.publish(1)
    first = named_files(source)
    source.bar(START, source.next_load())
    publisher.publish(2)
    source.now_s = 3600

    publisher.publish(2)

    assert first <= source.files()


def test_files_are_never_named_twice_and_only_whole_versions_stay(source: GoldSource) -> None:
    publisher = source.publisher(keep_versions=1, keep_minutes=0)
    for number in range(6):
        source.bar(START + timedelta(minutes=number % 2 * 5), source.next_load())
        source.trade()
        publisher.publish(source.load_id)

        assert named_files(source) == source.files()
        assert_same_rows(source)


def test_what_a_killed_publish_left_is_removed_after_a_grace_time(source: GoldSource) -> None:
    source.next_load()
    source.bar(START)
    source.publisher().publish(1)
    orphan = source.folder / "bars_1s" / "2024-08-09T1430.v2-deadbeef.parquet"
    half = source.folder / "bars_1s" / ".2024-08-09T1430.v2-deadbeef.parquet.tmp"
    foreign = source.folder / "bars_1s" / "notes.txt"
    for path in (orphan, half, foreign):
        path.write_bytes(b"x")
    publisher = source.publisher(keep_versions=1, keep_minutes=2)

    publisher.publish(source.next_load())
    before_grace = orphan.exists()
    source.now_s = 121
    publisher.publish(source.next_load())

    assert before_grace
    assert not orphan.exists()
    assert not half.exists()
    assert foreign.exists()


def test_a_full_disk_leaves_the_current_version_and_no_new_file(source: GoldSource) -> None:
    publisher = source.publisher()
    source.next_load()
    source.bar(START)
    publisher.publish(1)
    before = source.files()
    source.bar(START + timedelta(minutes=5), source.next_load())
    source.trade()
    copy = publisher._copy_to_parquet

    def full(select_sql: str, path: Path, *, order_by: str = "") -> int:
        if "bars_1d" in select_sql:
            raise RefusedError("disk full")
        return copy(select_sql, path, order_by=order_by)

    publisher._copy_to_parquet = full
    with pytest.raises(RefusedError):
        publisher.publish(2)
    after_refusal = source.files()
    publisher._copy_to_parquet = copy
    publisher.publish(2)

    assert before == after_refusal
    assert_same_rows(source)


def test_what_a_version_names_is_flushed_before_the_flip(
    source: GoldSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the flip finds every file; `copy_to_parquet` flushes its own."""
    flushed: list[Path] = []
    at_flip: list[Path] = []
    fsync, write = os.fsync, telemetry.write_json_atomically

    def note(descriptor: int) -> None:
        fsync(descriptor)
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    def flip(path: Path, content: object, *, durable: bool) -> None:
        at_flip.extend(flushed)
        write(path, content, durable=durable)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr("tickhouse.transform.publisher.write_json_atomically", flip)
    source.next_load()
    source.bar(START)
    source.trade(2)
    source.publisher().publish(1)

    folders = {(source.folder / name).parent for name in named_files(source)}
    assert len(folders) > 3
    assert folders <= set(at_flip)
    after_flip = flushed[len(at_flip) :]
    assert ".manifest.json." in after_flip[0].name
    assert source.folder in after_flip[1:]


@pytest.mark.parametrize("place", ["before", "after"])
def test_after_an_unknown_outcome_of_the_flip_what_is_there_decides(
    source: GoldSource, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    publisher = source.publisher()
    source.next_load()
    source.bar(START)
    publisher.publish(1)
    source.bar(START, source.next_load())
    write = telemetry.write_json_atomically

    def answer_lost(path: Path, content: object, *, durable: bool = False) -> None:
        if place == "after":
            write(path, content, durable=durable)
        raise OSError("input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("tickhouse.transform.publisher.write_json_atomically", answer_lost)
        if place == "before":
            with pytest.raises(RefusedError):
                publisher.publish(2)
        else:
            publisher.publish(2)
    result = publisher.publish(2)

    assert (place == "before") == result.changed
    assert named_files(source) <= source.files()
    assert_same_rows(source)


@pytest.mark.parametrize(
    "point", ["publish.file.after", "publish.flip.before", "publish.flip.after"]
)
def test_a_publish_that_stops_anywhere_is_made_good_by_the_next(
    source: GoldSource, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    source.next_load()
    source.bar(START)
    source.publisher().publish(1)
    old = source.rows("gold.bars_1s")
    source.bar(START, source.next_load())
    source.trade(2)
    with monkeypatch.context() as patch:
        patch.setitem(telemetry._failpoints, point, ["error", 1.0])
        with pytest.raises(telemetry.FailpointError):
            source.publisher().publish(2)
    seen = sorted(PublishedGold(source.folder).query("from gold.bars_1s"))

    source.publisher().publish(2)

    assert seen == (source.rows("gold.bars_1s") if point == "publish.flip.after" else old)
    assert_same_rows(source)


def test_the_manifest_does_not_grow_with_the_partitions_of_a_day(source: GoldSource) -> None:
    publisher = source.publisher()
    source.next_load()
    source.bar(START)
    publisher.publish(1)
    size = (source.folder / "manifest.json").stat().st_size
    source.next_load()
    for minute in range(0, 600, 5):
        source.bar(START + timedelta(minutes=minute))

    publisher.publish(2)

    # One more session date begins within these ten hours.
    assert (source.folder / "manifest.json").stat().st_size < size + 200


# -- append-only tables -------------------------------------------------------------------------


def test_append_only_tables_get_one_file_a_publish_and_are_folded(source: GoldSource) -> None:
    publisher = source.publisher()
    run_loads(source, publisher, 7)
    before = [(file.load_from, file.load_to) for file in trade_files(source)]

    run_loads(source, publisher, 1)

    assert [(n, n + 1) for n in range(7)] == before
    assert [(0, 8, 8)] == [(f.load_from, f.load_to, f.rows) for f in trade_files(source)]
    assert ["trades/load-1-8"] == source.short_names()
    assert_same_rows(source)


def test_a_publish_of_trades_reads_new_loads_only(source: GoldSource) -> None:
    publisher = source.publisher()
    run_loads(source, publisher, 20)

    load_id = source.next_load()
    source.trade()
    publisher.publish(load_id)

    assert ["select * from silver.trades where load_id > 20 and load_id <= 21"] == source.exported


def test_folding_keeps_files_few_and_rewrites_each_row_a_bounded_number_of_times(
    source: GoldSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "FOLD_ROWS_MAX", 24)
    monkeypatch.setattr(exporting, "FOLD_FILES", 4)
    publisher = source.publisher()
    copied = 0
    for _ in range(60):
        load_id = source.next_load()
        source.trade(2)
        copied += publisher.publish(load_id).rows

    # 120 rows: 2 to 8 to 24 rows a file, so at most three writes of each.
    assert copied - 2 <= 120 * 3
    assert len(trade_files(source)) <= 5 + 2 * 4
    assert_same_rows(source)


def test_a_load_of_many_rows_is_never_folded(
    source: GoldSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "FOLD_ROWS_MAX", 100)
    publisher = source.publisher()
    run_loads(source, publisher, 1, trades=300)
    run_loads(source, publisher, 9, trades=1)

    assert [300, 8, 1] == [file.rows for file in trade_files(source)]
    assert_same_rows(source)


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 3), st.booleans()), min_size=1, max_size=10
    )
)
@settings(max_examples=10, deadline=None)
def test_published_rows_equal_the_warehouse_whatever_is_built(
    tmp_path_factory: pytest.TempPathFactory, builds: list[tuple[int, int, bool]]
) -> None:
    source = GoldSource(tmp_path_factory.mktemp("gold") / "gold")
    try:
        publisher = source.publisher(keep_versions=1, keep_minutes=0)
        for minutes, trades, restarts in builds:
            source.next_load()
            source.trade(trades)
            source.bar(START + timedelta(minutes=minutes), source.load_id)
            publisher = source.publisher(keep_minutes=0) if restarts else publisher
            publisher.publish(source.load_id)
        assert_same_rows(source)
    finally:
        source.close()
