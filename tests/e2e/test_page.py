"""The page in a real browser: it moves, it says what is wrong, and its console stays empty."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, WebSocketRoute

from support.dashboard import (
    SESSIONS,
    TRADES,
    Feeding,
    Market,
    MemoryGold,
    MemoryLog,
    opened,
    serving,
    session_event,
    with_history,
)
from support.page import PHONE, Page, browsing, tab
from tickhouse.errors import CorruptError
from tickhouse.model.session import Closed

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


@pytest.fixture(scope="module")
def market() -> Market:
    return Market(120)


@pytest.fixture(scope="module")
def road(market: Market) -> Iterator[tuple[MemoryLog, MemoryGold]]:
    log, gold = with_history(market)
    with Feeding(log, gold, market):
        yield log, gold
    gold.close()


@pytest.fixture(scope="module")
def url(
    road: tuple[MemoryLog, MemoryGold], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    run = tmp_path_factory.mktemp("run")
    now = time.time_ns() // 1_000_000
    for stage, facts in {
        "record": {"frames": 12_345, "refused": 0},
        "land": {"records": 12_345, "objects": 17},
        "load": {"rows": 12_300, "load_id": 15},
        "build": {"builds": 15, "build_seconds": 0.6},
    }.items():
        content = {"stage": stage, "pid": 1, "state": "running", "at_ms": now, "facts": facts}
        (run / f"{stage}.json").write_text(json.dumps(content))
    report = {"ok": True, "lost": 0, "duplicated": 0, "corrupt": 0, "layers": [], "at_ms": now}
    (run / "audit.json").write_text(json.dumps(report))
    with serving(*road, run) as address:
        yield address


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def loaded(page: Page, url: str) -> None:
    page.open(url)
    page.wait_for_state("live")
    page.wait(lambda: len(page.bars) > 20 and len(page.map_cells) > 50, what="candles and map")


def test_candles_figures_and_map_move_and_nothing_complains(browser: Browser, url: str) -> None:
    with tab(browser) as page:
        loaded(page, url)
        bar, kpi, cells = page.last_bar, page.kpi, page.map_cells
        assert kpi is not None

        page.wait(lambda: page.last_bar != bar, what="the candle moves")
        page.wait(lambda: (page.kpi or {}).get("trades", 0) > kpi["trades"], what="figures move")
        moved = page.wait(
            lambda: [s for s, cell in page.map_cells.items() if cell["price"] != cells[s]["price"]],
            what="the map moves",
        )
        assert moved
        assert page.pixels("#map") > 20
        page.screenshot("dark")
        page.assert_clean()


def test_what_it_shows_is_said_at_the_top(browser: Browser, url: str) -> None:
    with tab(browser) as page:
        loaded(page, url)

        assert page.text("#badge") == "SIMULATED"
        assert page.text("#pill-text") == "Live"
        assert page.text("#source") == "sim://sp500"
        assert re.fullmatch(r"\d\d:\d\d:\d\d", page.text("#clock"))
        cards = page.locator(".kpi").count()
        assert cards == 6
        assert page.text("#kpi-trades").replace(",", "").isdigit()
        page.assert_clean()


def test_the_lane_shows_every_stage_and_the_last_audit(browser: Browser, url: str) -> None:
    with tab(browser) as page:
        loaded(page, url)
        page.wait(lambda: page.locator(".stage").count() == 6)
        stages = page.locator(".stage").evaluate_all("all => all.map((one) => one.dataset.stage)")

        assert stages == ["feed", "record", "land", "load", "build", "serve"]
        assert "12,345 frames" in page.text('[data-stage="record"]')
        assert "Audit clean" in page.text("#audit")
        assert "lost 0" in page.text("#audit")


def test_symbol_and_interval_are_chosen_by_mouse_keys_and_address(
    browser: Browser, url: str
) -> None:
    with tab(browser) as page:
        page.open(url + "/#/s/MSFT?i=5m")
        page.wait(lambda: len(page.bars) > 10 and len(page.map_cells) > 50, what="5 m bars")
        assert (page.get("symbol"), page.get("interval")) == ("MSFT", "5m")

        page.locator('#intervals [data-value="1m"]').click()
        page.wait(lambda: len(page.bars) > 20)
        assert page.get("interval") == "1m"
        steps = {
            after[0] - before[0] for before, after in zip(page.bars, page.bars[1:], strict=False)
        }
        assert min(steps) == 60

        cell = page.map_cells["AAPL"]
        box = page.locator("#map").bounding_box()
        assert box is not None
        page.page.mouse.move(box["x"] + cell["x"] + 5, box["y"] + cell["y"] + 5)
        assert "AAPL" in page.text("#tooltip")
        page.page.mouse.click(box["x"] + cell["x"] + 5, box["y"] + cell["y"] + 5)
        assert page.get("symbol") == "AAPL"

        page.page.keyboard.press("/")
        page.page.keyboard.type("tsl")
        page.page.keyboard.press("Enter")
        assert page.get("symbol") == "TSLA"
        page.page.keyboard.press("Escape")
        page.page.keyboard.press("1")
        assert page.get("interval") == "1s"
        assert page.page.url.endswith("#/s/TSLA?i=1s")
        page.wait(lambda: page.last_bar is not None, what="seconds of TSLA")
        page.screenshot("seconds")

        page.locator("#map-toggle").click()
        assert page.locator("#map-table tbody tr").count() > 50
        page.locator("#map-table tbody").get_by_role("button", name="V", exact=True).click()
        assert page.get("symbol") == "V"
        page.assert_clean()


@pytest.mark.parametrize(
    ("name", "size", "scheme"),
    [
        ("light", (1440, 900), "light"),
        ("phone", PHONE, "dark"),
        pytest.param("phone-light", PHONE, "light", marks=pytest.mark.long),
        pytest.param("tablet", (1024, 768), "dark", marks=pytest.mark.long),
        ("wide", (2200, 1200), "dark"),
    ],
)
def test_it_fits_every_screen_and_scheme(
    browser: Browser, url: str, name: str, size: tuple[int, int], scheme: str
) -> None:
    with tab(browser, size=size, scheme="light" if scheme == "light" else "dark") as page:
        loaded(page, url)
        widest = page.page.evaluate("document.scrollingElement.scrollWidth")
        page.screenshot(name, full=size == PHONE)

        assert widest <= size[0]
        assert page.pixels("#map") > 20
        page.assert_clean()


def test_a_first_run_waits_with_a_hint_and_comes_alive_without_a_reload(
    browser: Browser, tmp_path: Path
) -> None:
    market, log = Market(30, seed=4), MemoryLog()
    gold = MemoryGold(facts=market.facts)
    with serving(log, gold, tmp_path) as url, tab(browser) as page:
        page.open(url)
        page.wait_for_state("waiting")
        assert "Waiting for the first tick" in page.text("#banner")
        assert "tickhouse up" in page.text("#banner")
        page.screenshot("first-run")

        log.append(SESSIONS, [opened(at_ms=now_ms())], at_ms=now_ms())
        with Feeding(log, gold, market):
            page.wait_for_state("live")
            page.wait(lambda: page.last_bar and len(page.map_cells) == 30, what="all symbols")
            assert page.text("#badge") == "SIMULATED"
            page.assert_clean()
    gold.close()


def test_a_silent_feed_is_stale_then_disconnected_and_values_stay(
    browser: Browser, tmp_path: Path
) -> None:
    market = Market(30, seed=5)
    log, gold = with_history(market, minutes=30)
    with serving(log, gold, tmp_path) as url, tab(browser) as page:
        log.append(TRADES, [market.frame(now_ms())], at_ms=now_ms() - 4_000)
        page.open(url)
        page.wait_for_state("stale")
        assert page.get("reason") == "feed"
        assert "No new trades" in page.text("#banner")
        page.wait(lambda: len(page.bars) > 5)
        price = page.text("#quote-price")
        page.screenshot("stale")

        page.wait_for_state("disconnected", seconds=20)
        assert page.text("#quote-price") == price
        assert re.search(r"as of \d\d:\d\d:\d\d UTC", page.text("#banner"))
        page.screenshot("silent-feed")

        log.append(TRADES, [market.frame(now_ms())], at_ms=now_ms())
        page.wait_for_state("live")
        page.assert_clean()
    gold.close()


def test_a_feed_that_ended_is_told_apart_from_one_that_fell_silent(
    browser: Browser, tmp_path: Path
) -> None:
    market = Market(30, seed=8)
    log, gold = with_history(market, minutes=30)
    closed = Closed(at=now_ms() * 1_000_000, reason="drained", messages={})
    log.append(SESSIONS, [session_event(closed, seq=1)], at_ms=now_ms())
    log.append(TRADES, [market.frame(now_ms())], at_ms=now_ms() - 60_000)
    with serving(log, gold, tmp_path) as url, tab(browser) as page:
        page.open(url)
        page.wait_for_state("stale")

        assert page.get("reason") == "ended"
        assert page.text("#pill-text") == "Feed ended"
        assert "The feed has ended: drained" in page.text("#banner")
        page.screenshot("feed-ended")
        page.assert_clean()
    gold.close()


def test_without_the_server_values_stay_greyed_and_it_comes_back_by_itself(
    browser: Browser, tmp_path: Path
) -> None:
    market = Market(30, seed=6)
    log, gold = with_history(market, minutes=30)
    with Feeding(log, gold, market), tab(browser) as page:
        with serving(log, gold, tmp_path) as url:
            loaded_small(page, url)
            bars = len(page.bars)
        page.wait_for_state("disconnected")
        assert page.get("reason") == "socket"
        assert "No connection to the server" in page.text("#banner")
        assert len(page.bars) >= bars
        opacity = page.locator(".quote").evaluate("one => getComputedStyle(one).opacity")
        assert float(opacity) < 1
        page.screenshot("disconnected")

        port = int(url.rpartition(":")[2])
        with serving(log, gold, tmp_path, port=port):
            page.wait_for_state("live")
            bar = page.last_bar
            page.wait(lambda: page.last_bar != bar, what="the candle moves again")
            assert page.violations == []
            assert [text for text in page.complaints if "uncaught" in text] == []
    gold.close()


def loaded_small(page: Page, url: str) -> None:
    page.open(url)
    page.wait_for_state("live")
    page.wait(lambda: len(page.bars) > 5 and len(page.map_cells) == 30, what="candles and map")


def test_a_panel_that_fails_says_so_and_tries_again_when_asked(
    browser: Browser, tmp_path: Path
) -> None:
    market = Market(30, seed=7)
    log, gold = with_history(market, minutes=30)
    with (
        Feeding(log, gold, market, publish_s=60),
        serving(log, gold, tmp_path) as url,
        tab(browser) as page,
    ):
        loaded_small(page, url)
        gold.fault = CorruptError("version 3 lacks a file")
        other = next(symbol for symbol in page.map_cells if symbol != page.get("symbol"))
        page.get(f'select("{other}")')
        page.wait(lambda: "could not be loaded" in page.text('[data-cover="chart"]'))
        assert "version 3 lacks a file" in page.text('[data-cover="chart"]')
        page.screenshot("panel-error")
        assert page.state == "live"

        gold.fault = None
        page.locator('[data-cover="chart"] button').click()
        page.wait(lambda: len(page.bars) > 5)
        assert page.locator('[data-cover="chart"]').is_hidden()
    gold.close()


def test_told_to_resync_it_asks_anew_and_keeps_what_it_shows(browser: Browser, url: str) -> None:
    sockets: list[WebSocketRoute] = []

    def through(route: WebSocketRoute) -> None:
        route.connect_to_server()
        sockets.append(route)

    with tab(browser) as page:
        page.page.route_web_socket(re.compile("/api/v1/ws"), through)
        loaded(page, url)
        before = page.get("resyncs")
        with page.page.expect_response(re.compile("/api/v1/snapshot")):
            sockets[-1].send('{"op":"resync","reason":"slow"}')

        assert page.get("resyncs") == before + 1
        assert len(page.bars) > 20
        assert page.state == "live"
        page.assert_clean()


@pytest.mark.long
def test_seven_tabs_are_all_live(browser: Browser, url: str) -> None:
    """Server-sent events would stop at six connections; WebSockets do not."""
    context = browser.new_context()
    pages = [Page(context.new_page()) for _ in range(7)]
    for page in pages:
        page.open(url)
    for page in pages:
        page.wait_for_state("live")
    context.close()
