"""The live candle's conditions come from gold's seed and mean the same."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

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
    zone = ZoneInfo("America/New_York")
    holidays_and_half_days = 0
    at = datetime(2023, 1, 1, 0, 15, tzinfo=UTC)
    while at.year < 2027:
        local = at.astimezone(zone)
        minute = local.hour * 60 + local.minute
        on_a_usual_day = local.weekday() < 5 and 570 <= minute < 960
        is_open = is_regular_hours("AAPL", int(at.timestamp() * 1000))
        assert on_a_usual_day or not is_open, at
        holidays_and_half_days += on_a_usual_day and not is_open
        at += timedelta(minutes=45)

    assert 300 < holidays_and_half_days < 420


@pytest.mark.parametrize(
    ("at", "is_open"),
    [
        (millis(2024, 12, 25, 15, 0), False),
        (millis(2024, 7, 4, 15, 0), False),
        (millis(2024, 11, 29, 17, 59), True),
        (millis(2024, 11, 29, 18, 0), False),
        (millis(2024, 11, 27, 20, 59), True),
        (millis(2024, 11, 27, 21, 0), False),
        (millis(2024, 7, 3, 13, 29), False),
        (millis(2024, 7, 3, 13, 30), True),
        (millis(1999, 7, 1, 15, 0), False),
        (millis(2099, 7, 1, 15, 0), False),
    ],
)
def test_holidays_half_days_and_days_beyond_the_calendar_are_golds(
    at: int, *, is_open: bool
) -> None:
    assert is_regular_hours("AAPL", at) is is_open
    assert is_regular_hours("BINANCE:BTCUSDT", at)


def test_invented_codes_do_not_fill_the_memory() -> None:
    conditions = Conditions({"1": Flags(True, True, False)})
    for number in range(COMBINATIONS_MAX + 500):
        conditions.flags((str(number),))

    assert len(conditions._known) <= COMBINATIONS_MAX + 1
