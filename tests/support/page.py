"""Drives the dashboard in Debian's Chromium; what a person would look at, by name.

Waiting is done from outside (`Page.wait`): the page's policy forbids the evaluation of text inside.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Locator, sync_playwright
from playwright.sync_api import Page as BrowserPage

SCREENSHOTS = Path(__file__).parents[1] / "e2e" / "screenshots"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
]
WATCH_POLICY = """
window.__violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.__violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
});
"""
GIVEN_UP = "net::ERR_ABORTED"
"""The page itself gave a request up, for another symbol was chosen."""
PHONE = (390, 844)
DESKTOP = (1440, 900)


def chromium() -> str:
    """Path of Chromium; without one the test is skipped, or fails where CI=true."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    if os.environ.get("CI") == "true":
        pytest.fail("no Chromium on this machine, and CI needs one")
    pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")


@contextlib.contextmanager
def browsing() -> Iterator[Browser]:
    """A browser without a window."""
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Page:
    """The dashboard in one tab.

    Attributes:
        page: Playwright's page, for whatever is not named here.
        complaints: console errors and warnings, uncaught errors and failed requests.
    """

    def __init__(self, page: BrowserPage) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on(
            "console",
            lambda message: (
                self.complaints.append(f"{message.type}: {message.text}")
                if message.type in {"error", "warning"}
                else None
            ),
        )
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        page.on(
            "requestfailed",
            lambda request: (
                self.complaints.append(f"failed: {request.url} {request.failure}")
                if request.failure != GIVEN_UP
                else None
            ),
        )
        page.on(
            "response",
            lambda answer: (
                self.complaints.append(f"{answer.status}: {answer.url}")
                if answer.status >= 400
                else None
            ),
        )

    def open(self, url: str) -> None:
        """Go to the page and wait until its modules run."""
        self.page.goto(url)
        self.wait(lambda: self.page.evaluate("typeof window.__tickhouse === 'object'"))

    def wait(self, is_so: Callable[[], Any], *, seconds: float = 15, what: str = "") -> Any:
        """Ask again and again until the answer is true; gives the answer."""
        deadline = time.monotonic() + seconds
        while True:
            answer = is_so()
            if answer:
                return answer
            if time.monotonic() > deadline:
                pytest.fail(
                    f"after {seconds} s still not so: {what or is_so}; the page is"
                    f" {self.get('state')}, {self.get('reason')}; complaints: {self.complaints}"
                )
            self.page.wait_for_timeout(50)

    def get(self, name: str) -> Any:
        """A value of the page's debug hook `window.__tickhouse`."""
        return self.page.evaluate(f"window.__tickhouse?.{name}")

    @property
    def state(self) -> str:
        """connecting, waiting, live, stale or disconnected."""
        return self.get("state")

    def wait_for_state(self, state: str, *, seconds: float = 15) -> None:
        """Wait until the page is in a state."""
        self.wait(lambda: self.state == state, seconds=seconds, what=f"state {state}")

    @property
    def bars(self) -> list[list[Any]]:
        """Bars on the chart: [start s, open, high, low, close, volume, count, final]."""
        return self.get("bars")

    @property
    def last_bar(self) -> list[Any] | None:
        """The newest bar."""
        return self.get("lastBar")

    @property
    def kpi(self) -> dict[str, Any] | None:
        """The figures over the page."""
        return self.get("kpi")

    @property
    def map_cells(self) -> dict[str, dict[str, Any]]:
        """Cells of the market map by symbol: place, price, change."""
        return {cell["symbol"]: cell for cell in self.get("mapCells")}

    @property
    def violations(self) -> list[str]:
        """Breaches of the Content Security Policy."""
        return self.page.evaluate("window.__violations")

    def text(self, selector: str) -> str:
        """Visible text of an element."""
        return self.page.locator(selector).inner_text()

    def locator(self, selector: str) -> Locator:
        """See Playwright's `Page.locator`."""
        return self.page.locator(selector)

    def pixels(self, selector: str) -> int:
        """Number of different colours in a canvas: a blank one has one."""
        return self.page.evaluate(
            """(selector) => {
                const canvas = document.querySelector(selector);
                const { width, height } = canvas;
                const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
                const colours = new Set();
                for (let i = 0; i < data.length; i += 4 * 7) {
                    colours.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
                }
                return colours.size;
            }""",
            selector,
        )

    def screenshot(self, name: str, *, full: bool = False) -> Path:
        """Keep a picture in `tests/e2e/screenshots`."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=path, full_page=full)
        return path

    def assert_clean(self) -> None:
        """Nothing was complained about: console, requests, policy."""
        assert self.complaints == []
        assert self.violations == []


@contextlib.contextmanager
def tab(
    browser: Browser,
    *,
    size: tuple[int, int] = DESKTOP,
    scheme: Literal["dark", "light"] = "dark",
) -> Iterator[Page]:
    """A tab of its own, with a size and a colour scheme."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme
    )
    context.add_init_script(WATCH_POLICY)
    try:
        yield Page(context.new_page())
    finally:
        context.close()
