"""Readers of published gold: whole versions, nothing else of the machine, bounded."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from support.gold_tables import START, GoldSource
from tickhouse.errors import ConfigError, CorruptError
from tickhouse.transform.manifest import GoldFile
from tickhouse.transform.pruning import visible_ranges
from tickhouse.transform.published import NothingPublishedError, PublishedGold


def published_source(folder: Path) -> GoldSource:
    found = GoldSource(folder)
    found.next_load()
    found.trade(3)
    for hour in range(4):
        found.bar(START + timedelta(hours=hour), hour)
        found.bar(START + timedelta(hours=hour), 10 + hour, symbol="MSFT")
    found.publisher().publish(1)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Iterator[GoldSource]:
    found = published_source(tmp_path / "it's gold")
    yield found
    found.close()


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoldSource]:
    """Not changed by the tests that use it."""
    found = published_source(tmp_path_factory.mktemp("published") / "it's gold")
    yield found
    found.close()


@pytest.fixture
def gold(steady: GoldSource) -> PublishedGold:
    return PublishedGold(steady.folder)


def test_before_the_first_publish_there_is_no_manifest_and_a_query_says_so(tmp_path: Path) -> None:
    gold = PublishedGold(tmp_path / "nowhere")

    assert gold.manifest() is None
    assert [] == gold.tables()
    with pytest.raises(NothingPublishedError, match="nothing published yet"):
        gold.query("select 1")


def test_tables_answer_with_and_without_schema(gold: PublishedGold) -> None:
    long = gold.query("select count(*) as n from gold.bars_1s where symbol = ?", ["AAPL"])
    short = gold.query('select count(*) from "BARS_1S" join Silver.Trades using (symbol)')

    assert ([(4,)], ["n"]) == (long.rows, long.columns)
    assert [(12,)] == short


def test_a_table_without_rows_has_its_columns(gold: PublishedGold) -> None:
    found = gold.query("select * from gold.kpi")

    assert ([], ["symbol", "last_price", "load_id"]) == (list(found), found.columns)


def test_show_and_describe_tell_what_there_is(gold: PublishedGold) -> None:
    assert ("kpi",) in gold.query("show tables")
    assert ["bar_at", "TIMESTAMP"] == list(gold.query("describe gold.bars_1s")[1][:2])


def test_decimals_stay_exact_and_times_naive_utc(gold: PublishedGold) -> None:
    found = gold.query("select close, bar_at from bars_1s order by bar_at, symbol limit 1")

    assert [(Decimal("0E-8"), START)] == found


@pytest.mark.parametrize(
    "sql",
    [
        "create table x as select 1",
        "insert into gold.kpi values (1)",
        "copy (select 1) to 'x.csv'",
        "attach 'x.db'",
        "set threads = 1",
        "explain select 1",
        "install httpfs",
        "select 1; select 2",
        "",
        "select from where",
        "select * from no_such_table",
    ],
)
def test_only_one_right_select_is_answered(gold: PublishedGold, sql: str) -> None:
    with pytest.raises(ConfigError):
        gold.query(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_text('{outside}')",
        "select * from read_csv('{folder}/../secret.csv')",
        "select * from '{outside}'",
        "select * from glob('{outside}*')",
        "select * from source",
        "select getenv('HOME')",
        "select * from read_text('https://example.com/')",
    ],
)
def test_a_query_reads_nothing_but_published_files(
    steady: GoldSource, gold: PublishedGold, tmp_path: Path, sql: str
) -> None:
    outside = tmp_path / "secret.csv"
    outside.write_text("a,b\n1,2\n")

    with pytest.raises(ConfigError):
        gold.query(sql.format(outside=outside, folder=str(steady.folder).replace("'", "''")))


def test_rows_are_bounded_and_the_rest_is_not_hidden(gold: PublishedGold) -> None:
    some = gold.query("from range(10)", rows_max=9)
    all_of_them = gold.query("from range(10)", rows_max=10)

    assert (9, True) == (len(some), some.is_truncated)
    assert (10, False) == (len(all_of_them), all_of_them.is_truncated)


def test_a_query_is_bounded_in_time(gold: PublishedGold) -> None:
    with pytest.raises(ConfigError, match=r"took over 0\.2 s"):
        gold.query(
            "select sum(a.range * b.range) from range(1e6::bigint) a, range(1e6::bigint) b",
            seconds_max=0.2,
        )


def test_a_query_is_bounded_in_memory(gold: PublishedGold) -> None:
    with pytest.raises(ConfigError, match="memory"):
        gold.query("select list(range::varchar || repeat('x', 1000)) from range(3000000)")


def test_a_reader_that_meets_a_missing_file_takes_the_current_manifest(
    source: GoldSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    gold = PublishedGold(source.folder)
    old = gold.manifest()
    publisher = source.publisher(keep_versions=1, keep_minutes=0)
    for close in (99, 98):
        source.next_load()
        source.bar(START, close)
        publisher.publish(source.load_id)
    current = PublishedGold.manifest
    answers = [old]
    monkeypatch.setattr(
        PublishedGold, "manifest", lambda self: answers.pop() if answers else current(self)
    )

    found = gold.query("select close from bars_1s where symbol = ? and bar_at = ?", ["AAPL", START])

    assert ([(98,)], 3) == (found, found.version)


def test_a_current_version_that_lacks_a_file_is_named(source: GoldSource) -> None:
    gold = PublishedGold(source.folder)
    gone = next(source.folder.glob("bars_1s/*.parquet"))
    gone.unlink()

    with pytest.raises(CorruptError, match=gone.name):
        gold.query("from bars_1s")


def test_a_torn_manifest_is_named(source: GoldSource) -> None:
    gold = PublishedGold(source.folder)
    (source.folder / "manifest.json").write_bytes(b"{")

    with pytest.raises(CorruptError, match=r"manifest\.json"):
        gold.query("from bars_1s")


def test_bars_are_the_newest_of_a_symbol_and_time_oldest_first(gold: PublishedGold) -> None:
    found = gold.bars(
        "bars_1s", "MSFT", START + timedelta(hours=1), START + timedelta(hours=4), limit=2
    )

    assert [START + timedelta(hours=2), START + timedelta(hours=3)] == [row[1] for row in found]
    with pytest.raises(ConfigError):
        gold.bars("kpi", "MSFT")


def opened(gold: PublishedGold, sql: str, parameters: list[object]) -> int:
    """How many files of bars_1s a query names."""
    seen: list[list[GoldFile]] = []
    select = PublishedGold._select

    def spy(self: PublishedGold, table: object, files: list[GoldFile]) -> str:
        seen.append(list(files))
        return select(self, table, files)  # pyright: ignore[reportArgumentType]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PublishedGold, "_select", spy)
        gold.query(sql, parameters)
    return max(len(files) for files in seen)


@pytest.mark.parametrize(
    ("files", "sql", "parameters"),
    [
        (4, "from bars_1s", []),
        (2, "from gold.bars_1s where symbol = ? and bar_at >= ?", ["A", "2024-08-09 16:30"]),
        (1, "from bars_1s b where b.bar_at = ?", [START]),
        (1, "from bars_1s where ? > bar_at", [START + timedelta(minutes=1)]),
        (
            2,
            "from bars_1s where bar_at between '2024-08-09 15:00' and ?",
            [START + timedelta(hours=2)],
        ),
        (3, "with x as (from bars_1s where bar_at > timestamp '2024-08-09 15:00') from x", []),
        (0, "from bars_1s where bar_at > ?", [START + timedelta(days=1000)]),
        # whatever is not plain sees all files
        (4, "from bars_1s where bar_at > ? or symbol = 'A'", [START]),
        (4, "from bars_1s where bar_at + interval 1 day > ?", [START]),
        (
            4,
            "from bars_1s where bar_at > timestamp '2024-08-09 16:00' - interval 1 day",
            [],
        ),
        (4, "from bars_1s a where a.bar_at > ? and exists (from bars_1s)", [START]),
        (4, "from bars_1s a join trades t on a.symbol = t.symbol where a.bar_at > ?", [START]),
        (
            4,
            "from bars_1d d where exists (select 1 from bars_1s s where d.bar_at > ?)",
            [START + timedelta(hours=2)],
        ),
    ],
)
def test_only_files_that_the_time_range_allows_are_opened(
    gold: PublishedGold, files: int, sql: str, parameters: list[object]
) -> None:
    assert files == opened(gold, sql, parameters)


@pytest.mark.parametrize("comparison", ["<", "<=", "=", ">", ">="])
def test_leaving_files_out_never_changes_an_answer(
    steady: GoldSource, gold: PublishedGold, comparison: str
) -> None:
    sql = f"select close from gold.bars_1s where symbol = ? and bar_at {comparison} ? order by 1"
    for minutes in (-1, 0, 60, 61, 119, 500):
        asked = ["MSFT", START + timedelta(minutes=minutes)]

        assert steady.connection.execute(sql, asked).fetchall() == gold.query(sql, asked)


def test_a_range_is_read_in_milliseconds_of_utc() -> None:
    with duckdb.connect() as connection:
        found = visible_ranges(
            connection,
            "from bars_1m where bar_at >= ? and bar_at < ?",
            ["1970-01-01 00:00:01", START],
        )

    assert {"gold.bars_1m": (1000, 1_723_213_800_000)} == found
