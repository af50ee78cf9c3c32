"""The page's questions, put to gold as it is built and published."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tickhouse.dashboard.queries import GoldQueries
from tickhouse.transform.published import PublishedGold

ALL_MS = 1 << 42


def millis(hour: int, minute: int) -> int:
    return int(datetime(2024, 8, 9, hour, minute, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def queries(road_folder: Path) -> GoldQueries:
    return GoldQueries(PublishedGold(road_folder / "gold"))


def test_a_gap_of_silver_is_shaded_for_its_symbol_and_its_time_alone(queries: GoldQueries) -> None:
    (gap,) = queries.gaps("AAPL", 0, ALL_MS, 10)

    assert (gap.kind, gap.stream, gap.symbols) == ("missed", "trades", ["AAPL"])
    assert (gap.from_ms, gap.to_ms) == (millis(13, 30), millis(14, 30))
    assert (gap.cause, gap.filled_by, gap.feed) == ("dropped", None, "finnhub+rest://AAPL")
    assert queries.gaps("MSFT", 0, ALL_MS, 10) == []
    assert queries.gaps("AAPL", gap.to_ms + 1, ALL_MS, 10) == []


def test_a_feed_that_went_on_where_it_was_has_no_open_gap(queries: GoldQueries) -> None:
    version = queries.version()
    assert version is not None

    answer = queries.answer(version, {"1m": {"AAPL": None}})
    assert answer is not None
    assert answer.gap_mark[0] > 1, "gold has silences that a cursor filled"
    assert answer.gaps == []
    assert {row.price_from for row in answer.market} == {"trade"}
    assert answer.bars["AAPL"]["1m"].bars
