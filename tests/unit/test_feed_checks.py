"""`doctor` for live feeds: what was found, and what to do."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from support.tiny_http import Reply, Request, as_json, served
from tickhouse.model.calendar import new_york
from tickhouse.runtime.feed_checks import Check, check_calendar, check_clock, check_feed
from tickhouse.settings import Settings

KEY = "k3y-of-a-test"
QUOTE = as_json({"c": 261.74, "d": 1.2, "dp": 0.46, "h": 263, "l": 260, "o": 261, "pc": 260})
NOW = 1_788_183_007
S = 1_000_000_000


def quoting(status: int = 200, body: bytes = QUOTE, **headers: str) -> Callable[[Request], Reply]:
    return lambda _request: Reply(body, status, headers)


def ask(answer: Callable[[Request], Reply | bytes], **values: Any) -> dict[str, Check]:
    with served(answer) as server:
        settings = Settings(
            source=values.pop("source", "finnhub://AAPL"),
            finnhub_token=SecretStr(KEY),
            finnhub_rest_url=server.url,
            binance_rest_url=server.url.removesuffix("/api/v1"),
            **values,
        )
        return {check.name: check for check in check_feed(settings)}


def dated(offset_s: float) -> dict[str, str]:
    return {"Date": formatdate(time.time() + offset_s, usegmt=True)}


def test_a_sound_key_is_accepted_with_limits_plan_clock_and_calendar() -> None:
    headers = {"X-Ratelimit-Limit": "60", "X-Ratelimit-Remaining": "54", **dated(0)}
    checks = ask(lambda _request: Reply(QUOTE, headers=headers))

    assert list(checks) == ["finnhub key", "finnhub limits", "clock", "finnhub plan", "calendar"]
    assert all(check.ok for check in checks.values())
    assert "60 calls a minute, 54 left this minute; 60 are used" in checks["finnhub limits"].found
    assert "gaps stay gaps" in checks["finnhub plan"].found


@pytest.mark.parametrize("source", ["sim://sp500", "replay:x", "ftp://x"])
def test_other_feeds_have_nothing_to_ask(source: str) -> None:
    assert ask(quoting(), source=source) == {}


def test_a_missing_key_is_said_with_where_to_put_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TICKHOUSE_FINNHUB_TOKEN", raising=False)
    (key, _calendar) = check_feed(Settings(source="finnhub://AAPL"))

    assert not key.ok
    assert "TICKHOUSE_FINNHUB_TOKEN" in key.found


def test_a_key_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    settings = Settings(source="finnhub://AAPL", finnhub_token_file=tmp_path / "none")

    assert "finnhub_token_file" in check_feed(settings)[0].found


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, f'{{"error":"Invalid API key {KEY}."}}'.encode(), "the API key is refused"),
        (403, b'{"error":"You don\'t have access to this resource."}', "the key is good"),
        (502, b"<html>Bad gateway</html>", "answered 502: <html>Bad gateway</html>; try again"),
        (200, b'{"c":', "answered 200"),
        (200, f'{{"error":"{KEY} is odd"}}'.encode(), "is odd"),
    ],
)
def test_a_key_that_is_not_accepted_is_said_and_never_shown(
    status: int, body: bytes, words: str
) -> None:
    checks = ask(quoting(status, body))

    assert not checks["finnhub key"].ok
    assert words in checks["finnhub key"].found
    assert not any(KEY in check.found for check in checks.values())


def test_a_key_over_its_limit_is_good() -> None:
    key = ask(quoting(429, b"API limit reached."))["finnhub key"]

    assert key.ok
    assert "does something else use the same key" in key.found


def test_an_unreachable_host_is_said() -> None:
    settings = Settings(
        source="finnhub+rest://AAPL",
        finnhub_token=SecretStr(KEY),
        finnhub_rest_url="http://127.0.0.1:9/api/v1",
    )
    key = check_feed(settings)[0]

    assert not key.ok
    assert "127.0.0.1:9: cannot be reached" in key.found


@pytest.mark.parametrize(
    ("limit", "mine", "ok", "words"),
    [
        ("60", 300, False, "set it to 60"),
        ("300", 60, True, "finnhub_calls_per_minute may be 300"),
        ("60", 60, True, "60 are used"),
    ],
)
def test_the_plans_limit_is_compared_with_the_setting(
    limit: str, mine: int, *, ok: bool, words: str
) -> None:
    checks = ask(
        lambda _request: Reply(QUOTE, headers={"X-Ratelimit-Limit": limit}),
        finnhub_calls_per_minute=mine,
    )

    assert checks["finnhub limits"].ok is ok
    assert words in checks["finnhub limits"].found


@pytest.mark.parametrize(
    ("status", "ok", "words"),
    [
        (200, True, "gaps are filled"),
        (403, False, "set it to free"),
        (500, False, "answered 500"),
    ],
)
def test_a_premium_plan_is_probed(status: int, *, ok: bool, words: str) -> None:
    def answer(request: Request) -> Reply:
        return Reply(b"{}", status if request.path.endswith("/stock/tick") else 200)

    plan = ask(answer, finnhub_plan="premium")["finnhub plan"]

    assert plan.ok is ok
    assert words in plan.found


@pytest.mark.parametrize(
    ("offset_s", "ok", "words"),
    [
        (0, True, "within 2 s"),
        (-1.5, True, "within 2 s"),
        (15, True, "s behind the server's; set it by NTP"),
        (-15, True, "s ahead of the server's; set it by NTP"),
        (3 * 3600, False, "before recording"),
        (-3 * 3600, False, "before recording"),
    ],
)
def test_the_clock_is_compared_with_the_servers(offset_s: float, *, ok: bool, words: str) -> None:
    clock = ask(lambda _request: Reply(QUOTE, headers=dated(offset_s)))["clock"]

    assert clock.ok is ok
    assert words in clock.found


def test_a_slow_answer_is_no_clock_that_is_off() -> None:
    server_ns = (NOW * S, NOW * S + S)

    assert check_clock(server_ns, (NOW - 8) * S, NOW * S).found == "within 2 s of the server's"
    assert not check_clock(server_ns, (NOW + 100) * S, (NOW + 108) * S).ok


@pytest.mark.parametrize(("days_left", "ok"), [(90, True), (60, True), (59, False), (-5, False)])
def test_a_calendar_that_nears_its_end_is_said(days_left: int, *, ok: bool) -> None:
    end = datetime.combine(new_york().last_day, datetime.min.time(), tzinfo=UTC)
    check = check_calendar(int((end.timestamp() - days_left * 86_400) * S))

    assert check.ok is ok
    assert ("update tickhouse" in check.found) is not ok


@pytest.mark.parametrize(
    ("reply", "ok", "words"),
    [
        (Reply(b"%b" % as_json({"serverTime": int(time.time() * 1000)})), True, "answers"),
        (Reply(b"{}", 451), False, "answered 451"),
        (Reply(b"<html>"), False, "does not tell the time"),
    ],
)
def test_binance_is_asked_for_the_time(reply: Reply, *, ok: bool, words: str) -> None:
    checks = ask(lambda _request: reply, source="binance://btcusdt")

    assert checks["binance"].ok is ok
    assert words in checks["binance"].found
    assert ("clock" in checks) is ok


def test_binance_out_of_reach_is_said() -> None:
    settings = Settings(source="binance://btcusdt", binance_rest_url="http://127.0.0.1:9")

    assert [check.ok for check in check_feed(settings)] == [False]
