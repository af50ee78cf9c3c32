"""The live candle's conditions come from gold's seed and mean the same."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest

from tickhouse.dashboard.conditions import (
    COMBINATIONS_MAX,
    Conditions,
    Flags,
    is_regular_hours,
    seeded_conditions,
)


def millis(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc]


OPEN_MS = millis(2024, 8, 9, 14, 30)
CLOSED_MS = millis(2024, 8, 9, 22, 0)


@pytest.mark.parametrize(
    ("codes", "counts", "sets"),
    [
        (None, True, True),
        ((), True, True),
        (("1",), True, True),
        (("1", "12"), True, False),
        (("12", "1"), True, False),
        (("16",), False, False),
        (("20", "1"), False, False),
        (("9",), True, False),
        (("nobody knows this code",), True, True),
        (("nobody knows this code", "12"), True, False),
    ],
)
def test_all_codes_have_to_allow(
    codes: tuple[str, ...] | None, *, counts: bool, sets: bool
) -> None:
    conditions = seeded_conditions()

    assert conditions.flags(codes).counts_volume is counts
    assert conditions.sets_price("AAPL", codes, OPEN_MS) is sets


def test_form_t_sets_prices_outside_regular_hours_only() -> None:
    conditions = seeded_conditions()

    assert conditions.sets_price("AAPL", ("24",), CLOSED_MS)
    assert not conditions.sets_price("AAPL", ("24",), OPEN_MS)
    assert not conditions.sets_price("AAPL", ("24", "12"), CLOSED_MS)
    assert not conditions.sets_price("BINANCE:BTCUSDT", ("24",), CLOSED_MS)


def test_regular_hours_follow_new_york_through_both_changes_of_the_clock() -> None:
    try:
        zone = ZoneInfo("America/New_York")
    except ZoneInfoNotFoundError:
        pytest.skip("no time zone data on this machine")
    at = datetime(2023, 1, 1, 0, 15, tzinfo=UTC)
    while at.year < 2027:
        local = at.astimezone(zone)
        minute = local.hour * 60 + local.minute
        expected = local.weekday() < 5 and 570 <= minute < 960

        assert is_regular_hours("AAPL", int(at.timestamp() * 1000)) == expected, at
        at += timedelta(minutes=45)


def test_invented_codes_do_not_fill_the_memory() -> None:
    conditions = Conditions({"1": Flags(True, True, False)})
    for number in range(COMBINATIONS_MAX + 500):
        conditions.flags((str(number),))

    assert len(conditions._known) <= COMBINATIONS_MAX + 1
