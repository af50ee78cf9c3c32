"""`tickhouse up` on a fresh folder: a live chart in a real browser within a minute.

The chart draws from the log and is there within seconds. Cards and map come from gold, that is
after dbt's first builds: they are waited for, with other tests beside them, and not timed.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import ConsoleMessage, Page, sync_playwright

from proofs.kills import Road

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SCREENSHOTS = Path(__file__).parent / "screenshots"
LIVE_S_MAX = 60
GOLD_S_MAX = 240
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None and os.environ.get("CI") != "true", reason="needs Chromium"
    ),
]


@pytest.fixture
def road(tmp_path: Path) -> Iterator[Road]:
    road = Road(tmp_path / "data", "sim://sp500?symbols=30&rate=500")
    road.start()
    yield road
    road.stop()


@pytest.fixture
def page() -> Iterator[tuple[Page, list[str]]]:
    faults: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error":
            faults.append(message.text)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        page = browser.new_page(viewport={"width": 1600, "height": 950}, color_scheme="dark")
        page.on("console", note)
        page.on("pageerror", lambda error: faults.append(str(error)))
        yield page, faults
        browser.close()


def wait_for(what: Callable[[], str | None], timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s
    while (found := what()) is None:
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return found


def address_of(road: Road) -> str | None:
    path = road.data / "run" / "page.address"
    return json.loads(path.read_bytes())["url"] if path.exists() else None


@pytest.mark.timeout(600)
def test_up_shows_a_live_chart_within_a_minute(road: Road, page: tuple[Page, list[str]]) -> None:
    started = time.monotonic()
    shown, faults = page
    shown.goto(wait_for(lambda: address_of(road), LIVE_S_MAX))
    shown.wait_for_function(
        "() => window.__tickhouse?.state === 'live' && window.__tickhouse.lastBar",
        timeout=(LIVE_S_MAX - (time.monotonic() - started)) * 1000,
    )
    shown.wait_for_function(
        "() => (window.__tickhouse.mapCells ?? []).length >= 30 && window.__tickhouse.kpi",
        timeout=GOLD_S_MAX * 1000,
    )
    before = shown.evaluate(SNAPSHOT)
    shown.wait_for_function(
        "(before) => { const t = window.__tickhouse;"
        " return JSON.stringify(t.lastBar) !== before.bar"
        " && JSON.stringify(t.kpi) !== before.kpi && JSON.stringify(t.mapCells) !== before.map }",
        arg=before,
        timeout=GOLD_S_MAX * 1000,
    )
    SCREENSHOTS.mkdir(exist_ok=True)
    shown.screenshot(path=SCREENSHOTS / "up.png")

    assert re.search(r"SIMULATED", shown.inner_text("body"))
    assert faults == []


SNAPSHOT = (
    "() => ({bar: JSON.stringify(window.__tickhouse.lastBar),"
    " kpi: JSON.stringify(window.__tickhouse.kpi),"
    " map: JSON.stringify(window.__tickhouse.mapCells)})"
)
