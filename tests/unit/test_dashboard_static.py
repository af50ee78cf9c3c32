"""The page's files: self-contained, unchanged where vendored, and right under the strict policy."""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import time
from importlib import resources
from pathlib import Path

import pytest

from support.client import TestClient
from support.dashboard import MemoryGold, MemoryLog
from tickhouse.dashboard.app import STATIC, Dashboard
from tickhouse.dashboard.asking import GoldAsker
from tickhouse.dashboard.conditions import seeded_conditions
from tickhouse.dashboard.fanout import Fanout
from tickhouse.dashboard.hub import Hub
from tickhouse.dashboard.queries import GoldQueries
from tickhouse.dashboard.security import CHART_STYLE_HASH

VENDORED = STATIC / "vendor" / "lightweight-charts.standalone.production.mjs"
OWN = sorted(
    path
    for path in STATIC.rglob("*")
    if path.suffix in {".js", ".html", ".css", ".svg"} and "vendor" not in path.parts
)
PAGE_TESTS = Path(__file__).parent / "page"
ALLOWED_ADDRESSES = {"https://www.tradingview.com/", "http://www.w3.org/2000/svg"}


def test_the_vendored_library_is_the_recorded_one() -> None:
    recorded = re.search(r"`([0-9a-f]{64})`", (VENDORED.parent / "README.md").read_text())

    assert recorded is not None
    assert hashlib.sha256(VENDORED.read_bytes()).hexdigest() == recorded[1]


def test_the_policy_allows_exactly_the_style_that_the_library_writes() -> None:
    found = re.findall(
        r'createElement\("style"\),this\.\w+\.innerText="([^"]*)"', VENDORED.read_text("utf-8")
    )
    digests = [base64.b64encode(hashlib.sha256(css.encode()).digest()).decode() for css in found]

    assert [f"'sha256-{digest}'" for digest in digests] == [CHART_STYLE_HASH]


def test_licence_and_attribution_are_there() -> None:
    repository = Path(__file__).parents[2]
    notice = "TradingView Lightweight Charts™"

    assert "Apache License" in (VENDORED.parent / "LICENSE.lightweight-charts.txt").read_text()
    assert notice in (repository / "THIRD_PARTY_NOTICES.md").read_text("utf-8")
    page = (STATIC / "index.html").read_text("utf-8")
    assert notice in page
    assert 'href="https://www.tradingview.com/"' in page
    assert "attributionLogo: true" in (STATIC / "views" / "chart.js").read_text("utf-8")


@pytest.mark.parametrize("path", OWN, ids=lambda path: str(path.relative_to(STATIC)))
def test_nothing_comes_from_elsewhere(path: Path) -> None:
    addresses = re.findall(r"(?:https?:)?//[A-Za-z0-9.-]+\.[a-z]{2,}[^\s\"'`)<]*", path.read_text())

    assert set(addresses) <= ALLOWED_ADDRESSES


@pytest.mark.parametrize("path", OWN, ids=lambda path: str(path.relative_to(STATIC)))
def test_no_markup_is_made_of_text(path: Path) -> None:
    text = path.read_text("utf-8")

    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text)
    assert "new Function" not in text


def test_the_document_has_no_inline_script_or_style() -> None:
    text = (STATIC / "index.html").read_text("utf-8")

    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)
    assert re.findall(r"<script[^>]*>([^<]*)</script>", text) == [""]


def test_every_import_and_link_names_a_file_that_exists() -> None:
    for path in OWN:
        text = path.read_text("utf-8")
        imports = re.findall(r'from "(\.[^"]+)"', text)
        links = re.findall(r'(?:src|href)="/([^"#]+)"', text) if path.suffix == ".html" else []

        for name in imports:
            assert (path.parent / name).resolve().is_file(), f"{path.name}: {name}"
        for name in links:
            assert (STATIC / name).is_file(), f"{path.name}: {name}"


def test_static_files_have_the_types_that_browsers_insist_on(tmp_path: Path) -> None:
    log, gold = MemoryLog(), MemoryGold()
    queries = GoldQueries(gold)
    asker = GoldAsker(queries, monotonic=time.monotonic)
    hub = Hub(log, asker, seeded_conditions(), send=lambda _channel, _frame: None)
    fanout = Fanout(on_join=hub.join, on_last=hub.leave)
    app = Dashboard(hub=hub, gold=queries, fanout=fanout, run_folder=tmp_path).app(port=1)
    client = TestClient(app, base_url="http://127.0.0.1:1")
    kinds = {
        "/": "text/html",
        "/app.js": "text/javascript",
        "/vendor/lightweight-charts.standalone.production.mjs": "text/javascript",
        "/style.css": "text/css",
        "/favicon.svg": "image/svg+xml",
    }

    for path, kind in kinds.items():
        response = client.get(path)
        assert response.status_code == 200, path
        assert response.headers["content-type"].split(";")[0] == kind, path
        assert response.headers["cache-control"] == "no-cache", path
    gold.close()


def test_the_page_is_small() -> None:
    own = sum(path.stat().st_size for path in OWN)

    assert own < 130_000
    assert VENDORED.stat().st_size < 210_000


def test_the_files_are_part_of_the_package() -> None:
    static = resources.files("tickhouse.dashboard").joinpath("static")

    assert static.joinpath("index.html").is_file()


def test_the_modules_pass_their_own_tests() -> None:
    node = shutil.which("node")
    if node is None and os.environ.get("CI") == "true":
        pytest.fail("no node on this machine, and CI needs one")
    if node is None:
        pytest.skip("no node on this machine to run the page's module tests")
    files = sorted(str(path) for path in PAGE_TESTS.glob("*.test.mjs"))
    completed = subprocess.run(
        [node, "--test", *files], capture_output=True, text=True, timeout=120, check=False
    )

    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert re.search(r"pass [1-9]\d+", completed.stdout)
