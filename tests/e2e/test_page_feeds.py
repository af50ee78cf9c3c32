"""What the page says of a live feed: gaps, coverage, quotes, clock; and that a replay is one."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from support.dashboard import (
    QUOTES,
    SESSIONS,
    TRADES,
    Feeding,
    Market,
    MemoryGold,
    MemoryLog,
    Trades,
    opened,
    quote_frame,
    serving,
    session_event,
    trade,
)
from support.page import PHONE, Page, browsing, tab
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.model.session import Closed, Coverage, Gap, Remote

pytestmark = pytest.mark.browser

FEED = "finnhub://AAPL,BINANCE:BTCUSDT,KRAKEN:XBTUSD"
MINUTE = 60_000
POLLED = "KRAKEN:XBTUSD"
POLLER = TopicPartition(Stream.SESSIONS, 1)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def gap(at_ms: int, **changes: object) -> Gap:
    fields = {
        "at": at_ms * 1_000_000, "stream": "trades", "seq_from": None, "seq_to": None,
        "time_from": (at_ms - 2 * MINUTE) * 1_000_000, "time_to": (at_ms - MINUTE) * 1_000_000,
        "symbols": [], "cause": "disconnected: 1006", "name": "told",
    }  # fmt: skip
    return Gap(**(fields | changes))


def covers(
    at_ms: int, channel: str, *symbols: str, reason: str, every_s: float | None = None
) -> Coverage:
    return Coverage(at_ms * 1_000_000, channel, list(symbols), reason, every_s)  # type: ignore[arg-type]


class Road:
    """A live feed that has been on for an hour, with a hole of five minutes in it."""

    def __init__(self) -> None:
        self.market = Market(12, seed=2)
        self.market.trades = Trades(source="finnhub.ws")
        facts = [*self.market.facts, (POLLED, "Crypto", "Crypto", 1e12, 60_000.0)]
        self.log, self.gold = MemoryLog(), MemoryGold(facts=facts)
        self.now = now_ms()
        self._connect()
        for second in range(-3600, 0, 4):
            at = self.now + second * 1000
            if not self.now - 20 * MINUTE < at < self.now - 15 * MINUTE:
                self.log.append(TRADES, [self.market.frame(at)], at_ms=at)
        coin = trade("BINANCE:BTCUSDT", 60_500.5, self.now, 0.1)
        self.log.append(TRADES, [self.market.trades.frame(coin, at_ms=self.now)], at_ms=self.now)
        quote = quote_frame(POLLED, 61_500, self.now - 5000, at_ms=self.now)
        self.log.append(QUOTES, [quote], at_ms=self.now)
        hole = (self.now - 20 * MINUTE, self.now - 15 * MINUTE)
        self.gold.gap(*hole, name="hole", cause="silent for 152 s")
        filled = (self.now - 40 * MINUTE, self.now - 39 * MINUTE)
        self.gold.gap(*filled, name="filled", filled_by="finnhub.tick")
        self.gold.publish(self.log, at_ms=self.now)

    def _connect(self) -> None:
        began, names = self.now - 3_600_000, self.market.names
        told = [
            Remote(began * 1_000_000, "ray", -3_400),
            covers(began, "socket", *names, "BINANCE:BTCUSDT", reason="subscribed"),
            covers(self.now, "polling", "MSFT", reason="silent for 900 s"),
        ]
        events = [session_event(event, seq=seq) for seq, event in enumerate(told, 1)]
        self.log.append(SESSIONS, [opened("live", FEED, at_ms=began), *events], at_ms=self.now)
        polled = [
            covers(began, "polling", POLLED, reason="beyond the socket's 50"),
            covers(self.now, "polling", POLLED, "MSFT", reason="achieved", every_s=61.4),
            covers(self.now, "none", "TSLA", reason="the plan has no quotes of it (403)"),
        ]
        events = [session_event(event, session="p", seq=seq) for seq, event in enumerate(polled, 1)]
        begin = opened("live", FEED, at_ms=began, shard=1, session="p")
        self.log.append(POLLER, [begin, *events], at_ms=self.now)


@pytest.fixture(scope="module")
def road() -> Iterator[Road]:
    road = Road()
    with Feeding(road.log, road.gold, road.market, frames_s=20):
        yield road
    road.gold.close()


@pytest.fixture(scope="module")
def url(road: Road, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(road.log, road.gold, tmp_path_factory.mktemp("run")) as address:
        yield address


def show(page: Page, url: str, symbol: str = "AAPL") -> None:
    page.open(f"{url}/#/s/{symbol}?i=1m")
    page.wait_for_state("live")
    page.wait(lambda: len(page.map_cells) >= 12, what="the map")


def test_gaps_are_shaded_and_say_what_is_missing(browser: Browser, url: str, road: Road) -> None:
    with tab(browser) as page:
        show(page, url)
        page.wait(lambda: len(page.get("gaps")) >= 7, what="shaded places")
        slots = {slot["name"]: slot for slot in page.get("gaps")}

        assert slots["hole"]["filledBy"] is None
        assert slots["filled"]["filledBy"] == "finnhub.tick"
        places = sum(slot["name"] == "hole" for slot in page.get("gaps"))
        assert places in {5, 6}
        assert re.fullmatch(r"1 gap\s*1 filled", page.text("#gap-toggle"))
        assert page.text("#chart-incomplete") == "incomplete: 5 min missing"
        assert "incomplete" in page.text('[data-kpi="trades"] .kpi-note')
        lane = "1 gap (1 filled), last: silent for 152 s"
        page.wait(lambda: lane in page.text('[data-stage="feed"]'), what="what gold says of it")
        page.screenshot("gaps")
        page.assert_clean()


def test_the_gaps_are_listed_for_keyboard_and_screen_reader(browser: Browser, url: str) -> None:
    with tab(browser) as page:
        show(page, url)
        page.wait(lambda: page.locator("#gap-toggle").is_visible(), what="the legend")
        page.locator("#gap-toggle").focus()
        page.page.keyboard.press("Enter")
        rows = page.locator("#gap-list tbody tr").all_inner_texts()

        assert [re.split(r"\t", row)[2:] for row in rows] == [
            ["5 min", "silent for 152 s", "not filled"],
            ["60 s", "connection lost", "finnhub.tick"],
        ]
        assert page.locator("#gap-toggle").get_attribute("aria-expanded") == "true"
        page.locator("#gap-list").focus()
        page.page.keyboard.press("Escape")
        assert page.locator("#gap-list").is_hidden()
        page.assert_clean()


def test_a_pointer_on_a_gap_tells_its_cause(browser: Browser, url: str) -> None:
    with tab(browser) as page:
        show(page, url)
        page.wait(lambda: len(page.get("gaps")) >= 7)
        box = page.locator("#chart").bounding_box()
        assert box is not None

        def is_told() -> bool:
            for part in range(20, 95):
                page.page.mouse.move(box["x"] + box["width"] * part / 100, box["y"] + 90)
                if page.locator("#gap-tip").is_visible() and "silent" in page.text("#gap-tip"):
                    return True
            return False

        page.wait(is_told, what="the tooltip of the hole")
        text = page.text("#gap-tip")
        assert re.search(
            r"Gap \d{4}-\d\d-\d\d \d\d:\d\d:\d\d .*UTC\nsilent for 152 s\nnot filled", text
        )
        page.assert_clean()


def test_a_gap_that_the_log_tells_of_is_shaded_without_a_reload_and_so_is_its_filling(
    browser: Browser, url: str, road: Road
) -> None:
    def told(page: Page) -> list[str | None]:
        return [slot["filledBy"] for slot in page.get("gaps") if slot["name"] == "told"]

    with tab(browser) as page:
        show(page, url)
        at_ms = now_ms()
        road.log.append(SESSIONS, [session_event(gap(at_ms), seq=50)], at_ms=at_ms)
        page.wait(lambda: told(page), what="the new gap")
        assert set(told(page)) == {None}
        page.wait(lambda: "disconnected: 1006" in page.text('[data-stage="feed"]'))

        filled = gap(at_ms, filled_by="finnhub.tick")
        road.log.append(SESSIONS, [session_event(filled, seq=51)], at_ms=at_ms)
        page.wait(lambda: set(told(page)) == {"finnhub.tick"}, what="its filling")
        lane = "1 gap (2 filled), last: silent for 152 s"
        page.wait(
            lambda: lane in page.text('[data-stage="feed"]'), what="the open gap that is left"
        )
        page.assert_clean()


def test_a_symbol_says_how_it_is_covered_and_where_its_price_is_from(
    browser: Browser, url: str
) -> None:
    with tab(browser) as page:
        show(page, url)
        page.wait(lambda: page.get("standings").get(POLLED, [""])[0] == "live", what="standings")

        assert page.text("#chart-tag") == "trade"
        assert "on the socket" in page.text("#quote-word")
        page.get(f'select("{POLLED}")')
        page.wait(lambda: page.text("#chart-tag") == "polled quote, every 61 s")
        assert page.text("#quote-price") == "61,500.00"
        assert "live · polled, every 61 s (beyond the socket's 50)" in page.text("#quote-word")
        page.wait(lambda: "Candles are made of trades alone" in page.text('[data-cover="chart"]'))
        page.get('select("MSFT")')
        page.wait(
            lambda: "silent for 900 s: falls back to polling" in page.text("#quote-word"),
            what="why it is polled",
        )
        page.get('select("TSLA")')
        page.wait(lambda: "not covered: the plan has no quotes" in page.text("#quote-word"))
        marks = page.locator(f'[data-symbol="{POLLED}"] .mark, [data-symbol="TSLA"] .mark')
        assert sorted(marks.all_inner_texts()) == ["none", "polled"]
        page.assert_clean()


def test_the_feed_sums_up_connections_and_coverage(browser: Browser, url: str) -> None:
    with tab(browser) as page:
        show(page, url)
        page.wait(lambda: page.locator('[data-stage="feed"]').is_visible())
        lane = page.text('[data-stage="feed"]')

        assert "socket and poller open" in lane
        assert (
            "11 on the socket · 2 polled, every 61 s (1 silent on the socket) · 1 not covered"
            in lane
        )
        assert page.text("#badge") == "LIVE"
        assert page.text("#clock-offset") == "clock \u22123.4 s"
        assert re.match(r"(closed|pre-market|regular|post-market)", page.text("#session"))
        page.assert_clean()


@pytest.mark.parametrize(
    ("name", "size", "scheme"),
    [("live-light", (1440, 900), "light"), ("live-phone", PHONE, "dark")],
)
def test_a_live_feed_fits_every_screen(
    browser: Browser, url: str, name: str, size: tuple[int, int], scheme: str
) -> None:
    with tab(browser, size=size, scheme="light" if scheme == "light" else "dark") as page:
        show(page, url)
        page.wait(lambda: len(page.get("gaps")) >= 7)
        page.screenshot(name, full=size == PHONE)

        assert page.page.evaluate("document.scrollingElement.scrollWidth") <= size[0]
        page.assert_clean()


def test_a_lost_connection_is_told_with_its_reason(browser: Browser, tmp_path: Path) -> None:
    road = Road()
    at_ms = now_ms()
    closed = Closed(at=at_ms * 1_000_000, reason="silent for 151 s", messages={})
    road.log.append(SESSIONS, [session_event(closed, seq=9)], at_ms=at_ms)
    with serving(road.log, road.gold, tmp_path) as url, tab(browser) as page:
        page.open(url)
        page.wait(lambda: page.get("reason") == "lost", what="the loss")

        assert page.text("#pill-text") == "Connection lost"
        assert "connection was lost (silent for 151 s)" in page.text("#banner")
        page.assert_clean()
    road.gold.close()


def test_a_replay_cannot_be_taken_for_live(browser: Browser, tmp_path: Path) -> None:
    market = Market(12, seed=9)
    market.trades = Trades(source="replay:finnhub.ws")
    log, gold = MemoryLog(), MemoryGold(facts=market.facts)
    log.append(SESSIONS, [opened("replay", "replay:frames.gz", at_ms=now_ms())], at_ms=now_ms())
    with Feeding(log, gold, market), serving(log, gold, tmp_path) as url, tab(browser) as page:
        page.open(url)
        page.wait_for_state("live")

        assert page.text("#badge") == "REPLAY"
        assert page.locator("#badge").get_attribute("title") == "These trades were recorded earlier"
        border = page.locator(".topbar").evaluate("one => getComputedStyle(one).borderBottomWidth")
        assert border == "2px"
        assert page.locator("#session").is_hidden()
        page.screenshot("replay")
        page.assert_clean()
    gold.close()
