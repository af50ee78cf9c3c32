"""Questions to published gold: bounded, bound, and of what was asked."""

from collections.abc import Iterator

import pytest

from support.dashboard import TRADES, MemoryGold, MemoryLog, Trades, trade
from tickhouse.dashboard.queries import GoldQueries
from tickhouse.model.positions import Stream

T0 = 1_723_213_800_000
T0_S = T0 // 1000


@pytest.fixture
def gold() -> Iterator[MemoryGold]:
    gold = MemoryGold(facts=[("AAPL", "Technology", "Phones", 4e12, 99.0)])
    log, write = MemoryLog(), Trades()
    frames = [
        write.frame(trade("AAPL", 100 + minute, T0 + minute * 60_000), at_ms=T0)
        for minute in range(100)
    ]
    frames.append(write.frame(trade("XOM", 50, T0 - 10 * 86_400_000, 2), at_ms=T0))
    frames.append(write.frame(trade("ODD", 50, T0, 2, ["12"]), at_ms=T0))
    log.append(TRADES, frames, at_ms=T0)
    gold.publish(log, at_ms=T0)
    yield gold
    gold.close()


def test_before_the_first_build_there_are_no_bars_and_no_version() -> None:
    gold = MemoryGold()
    queries = GoldQueries(gold)

    assert queries.version() is None
    assert queries.candles("AAPL", "1m").rows == []
    assert queries.bars_since("1m", {"AAPL": 0}) == {}
    gold.close()


def test_the_newest_bars_are_found_without_being_told_where_they_are(gold: MemoryGold) -> None:
    rows = GoldQueries(gold).candles("AAPL", "1m", limit=3).rows

    assert rows == [
        (T0_S + 97 * 60, 197.0, 197.0, 197.0, 197.0, 100.0, 1, True),
        (T0_S + 98 * 60, 198.0, 198.0, 198.0, 198.0, 100.0, 1, False),
        (T0_S + 99 * 60, 199.0, 199.0, 199.0, 199.0, 100.0, 1, False),
    ]


def test_a_quiet_symbol_is_looked_for_further_back(gold: MemoryGold) -> None:
    queries = GoldQueries(gold)

    assert [row[0] for row in queries.candles("XOM", "1m").rows] == [T0_S - 864_000]
    assert queries.candles("NONE", "1s").rows == []


def test_a_range_is_half_open_and_the_limit_keeps_the_newest(gold: MemoryGold) -> None:
    queries = GoldQueries(gold)
    rows = queries.candles("AAPL", "1m", from_s=T0_S, to_s=T0_S + 600, limit=4).rows

    assert [row[0] for row in rows] == [T0_S + minute * 60 for minute in (6, 7, 8, 9)]


def test_bars_of_several_symbols_each_from_its_own_start(gold: MemoryGold) -> None:
    found = GoldQueries(gold).bars_since("1m", {"AAPL": T0_S + 99 * 60, "XOM": 0})

    assert [bar.start_s for bar in found["AAPL"]] == [T0_S + 99 * 60]
    assert [bar.start_s for bar in found["XOM"]] == [T0_S - 864_000]


def test_a_bar_with_volume_and_no_price_has_null_prices(gold: MemoryGold) -> None:
    rows = GoldQueries(gold).candles("ODD", "1m", from_s=0).rows

    assert rows == [(T0_S, None, None, None, None, 2.0, 1, True)]


def test_market_rows_name_what_their_change_is_measured_from(gold: MemoryGold) -> None:
    rows = {row.symbol: row for row in GoldQueries(gold).market()}

    assert (rows["AAPL"].reference, rows["AAPL"].reference_is) == (99.0, "close")
    assert (rows["XOM"].reference, rows["XOM"].reference_is) == (50.0, "open")
    assert (rows["ODD"].reference, rows["ODD"].reference_is) == (None, "")
    assert rows["AAPL"].sector == "Technology"
    assert rows["XOM"].dollar_volume == 100.0


@pytest.mark.parametrize("symbol", ["'; drop table kpi; --", "AAPL' or '1'='1", "%"])
def test_values_are_bound_so_that_sql_in_them_is_only_text(gold: MemoryGold, symbol: str) -> None:
    queries = GoldQueries(gold)

    assert queries.candles(symbol, "1m", from_s=0).rows == []
    assert queries.bars_since("1m", {symbol: 0}) == {symbol: []}
    assert len(queries.market()) == 3


def test_table_names_come_from_a_fixed_list(gold: MemoryGold) -> None:
    with pytest.raises(KeyError):
        GoldQueries(gold).candles("AAPL", "1m; drop table kpi")
    with pytest.raises(ValueError, match="2m"):
        GoldQueries(gold).bars_since("2m", {"AAPL": 0})


def test_positions_of_another_log_or_stream_are_not_taken_for_this_ones(gold: MemoryGold) -> None:
    version = GoldQueries(gold).version()

    assert version is not None
    assert version.offsets(Stream.TRADES, "epoch1") == {0: 102}
    assert version.offsets(Stream.TRADES, "another") == {}
    assert version.offsets(Stream.QUOTES, "epoch1") == {}


def test_gaps_of_a_range_are_those_that_overlap_it_and_concern_the_symbol(gold: MemoryGold) -> None:
    gold.gap(T0, T0 + 60_000, name="all")
    gold.gap(T0 + 60_000, T0 + 90_000, name="mine", symbols=["AAPL", "XOM"], ids=(101, 149))
    gold.gap(T0, T0 + 60_000, name="other", symbols=["AAP"])
    gold.gap(T0, T0 + 1, name="exact", filled_by="cursor")
    gold.gap(T0, T0 + 1, name="elsewhere", cause="another feed")
    gold.gap(T0, T0 + 1, name="unshown", stream="reference")
    gold.gap(T0 - 9000, T0 - 8000, name="before")
    queries = GoldQueries(gold)

    found = queries.gaps("AAPL", T0, T0 + 3_600_000, 10)
    assert [gap.name for gap in found] == ["mine", "all"]
    assert (found[0].trades, found[0].symbols) == (49, ["AAPL", "XOM"])
    assert [gap.name for gap in queries.gaps("AAPL", T0, T0 + 60_000, 10)] == ["all"]
    assert [gap.name for gap in queries.gaps("AAPL", T0, T0 + 3_600_000, 1)] == ["mine"]
    assert {gap.name for gap in queries.gaps("", T0, T0 + 1, 10)} == {"all", "other"}


def test_a_gap_of_a_binance_connection_says_nothing_of_a_share(gold: MemoryGold) -> None:
    gold.connection.execute("insert into sessions values ('s1', 'binance://btcusdt')")
    gold.gap(T0, T0 + 60_000)
    queries = GoldQueries(gold)

    assert queries.gaps("AAPL", 0, T0 + 1, 10) == []
    assert len(queries.gaps("BINANCE:BTCUSDT", 0, T0 + 1, 10)) == 1


def test_without_gold_there_are_no_gaps() -> None:
    gold = MemoryGold()

    assert GoldQueries(gold).gaps("", 0, T0, 10) == []
    gold.close()


def test_the_market_says_what_is_missing_of_a_symbols_session(gold: MemoryGold) -> None:
    gold.gap(T0, T0 + 60_000, symbols=["AAPL"])
    gold.gap(T0 + 90_000, T0 + 120_000, name="g2", symbols=["AAPL"], filled_by="finnhub.tick")
    gold.gap(T0, T0 + 5_000, name="quotes", symbols=["ODD"], stream="quotes")
    rows = {row.symbol: row for row in GoldQueries(gold).market()}

    assert (rows["AAPL"].missing_s, rows["AAPL"].is_complete) == (60, False)
    assert rows["ODD"].is_complete
    assert rows["XOM"].is_complete

    gold.gap(T0, T0 + 90_000, name="all")
    rows = {row.symbol: row for row in GoldQueries(gold).market()}
    assert (rows["AAPL"].missing_s, rows["ODD"].missing_s) == (90, 90)
    assert rows["XOM"].is_complete, "its session is another day"
