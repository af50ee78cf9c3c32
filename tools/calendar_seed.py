"""Write the `calendar` seed from `exchange_calendars`: `python -m tools.calendar_seed`.

The library needs pandas, which is too much for a recorder; the table is small, and a test holds it
equal to the library. Run it once a year: `tickhouse doctor` says when.
"""

import csv
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Final

SEED: Final = Path("src/tickhouse/transform/project/seeds/calendar.csv")
COLUMNS: Final = ("session_date", "open_at", "close_at", "is_early_close")
FIRST: Final = date(2004, 1, 2)


def sessions(last: date, first: date = FIRST) -> Iterator[tuple[str, str, str, str]]:
    """Regular hours of XNYS, one row a session: date, open and close in UTC, early close."""
    from exchange_calendars import get_calendar

    calendar = get_calendar("XNYS", start=first.isoformat(), end=last.isoformat())
    early = set(calendar.early_closes)
    rows: Any = calendar.schedule.itertuples()
    for row in rows:
        opened, closed = (time.strftime("%Y-%m-%d %H:%M:%S") for time in (row.open, row.close))
        yield row.Index.date().isoformat(), opened, closed, str(row.Index in early).lower()


def main() -> None:
    """Write the seed up to the last day that the library knows (a year from today)."""
    last = date.fromisoformat(sys.argv[1]) if len(sys.argv) > 1 else _last_known()
    with SEED.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(sessions(last))


def _last_known() -> date:
    from exchange_calendars import get_calendar

    return get_calendar("XNYS").last_session.date()


if __name__ == "__main__":
    main()
