"""The exchange calendar: regular and extended hours, half days, holidays, daylight saving."""

from datetime import UTC, date, datetime

import pytest

from tickhouse.model.calendar import MarketState, is_always_open, new_york
from tools.calendar_seed import FIRST, sessions


def ns(text: str) -> int:
    """UNIX nanoseconds of a UTC time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000_000


@pytest.mark.filterwarnings("ignore:Series.values returning:DeprecationWarning")
def test_the_seed_equals_the_library_on_every_day_that_both_know() -> None:
    from exchange_calendars import get_calendar

    calendar = new_york()
    last = min(calendar.last_day, get_calendar("XNYS").last_session.date())
    ours = [
        (
            str(session.day),
            f"{datetime.fromtimestamp(session.open_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S}",
            f"{datetime.fromtimestamp(session.close_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S}",
            str(session.is_early_close).lower(),
        )
        for session in calendar.sessions
        if session.day <= last
    ]

    assert list(sessions(last)) == ours
    assert FIRST == calendar.sessions[0].day
    assert 5000 < len(ours)


@pytest.mark.parametrize(
    ("at", "state"),
    [
        ("2024-08-09 07:59:59", "closed"),
        ("2024-08-09 08:00:00", "pre-market"),
        ("2024-08-09 13:29:59", "pre-market"),
        ("2024-08-09 13:30:00", "regular"),
        ("2024-08-09 19:59:59", "regular"),
        ("2024-08-09 20:00:00", "post-market"),
        ("2024-08-09 23:59:59", "post-market"),
        ("2024-08-10 00:00:00", "closed"),
        ("2024-08-10 15:00:00", "closed"),
        # in winter all is an hour later in UTC; the clocks change on a Sunday
        ("2026-03-06 14:29:59", "pre-market"),
        ("2026-03-06 14:30:00", "regular"),
        ("2026-03-09 13:29:59", "pre-market"),
        ("2026-03-09 13:30:00", "regular"),
        ("2026-03-09 08:00:00", "pre-market"),
        ("2026-03-06 08:59:59", "closed"),
        # the day after Thanksgiving closes at 13:00, extended hours at 17:00
        ("2024-11-29 17:59:59", "regular"),
        ("2024-11-29 18:00:00", "post-market"),
        ("2024-11-29 21:59:59", "post-market"),
        ("2024-11-29 22:00:00", "closed"),
        # Thanksgiving, and a day of mourning that no rule foresees
        ("2024-11-28 15:00:00", "closed"),
        ("2025-01-09 15:00:00", "closed"),
        ("2003-12-31 15:00:00", "closed"),
    ],
)
def test_the_state_of_the_exchange_at_a_moment(at: str, state: str) -> None:
    calendar = new_york()

    assert state == calendar.state(ns(at))
    assert (state != "closed") == calendar.is_open(ns(at))


def test_beyond_its_end_the_calendar_knows_no_session() -> None:
    calendar = new_york()
    after = ns(f"{calendar.last_day} 12:00:00") + 10 * 86_400_000_000_000

    assert MarketState.CLOSED == calendar.state(after)
    assert calendar.session_at_or_after(calendar.last_day.replace(year=2100)) is None


def test_sessions_are_found_by_date() -> None:
    calendar = new_york()
    thanksgiving = date(2024, 11, 28)
    half_day = calendar.session_on(date(2024, 11, 29))

    assert calendar.session_on(thanksgiving) is None
    assert half_day is not None
    assert half_day.is_early_close
    assert half_day == calendar.session_at_or_after(thanksgiving)
    assert half_day == calendar.latest(ns("2024-12-01 12:00:00"))
    assert calendar.latest(ns("2003-12-31 12:00:00")) is None


def test_symbols_that_name_a_venue_never_close() -> None:
    assert is_always_open("BINANCE:BTCUSDT")
    assert not is_always_open("BRK.B")
