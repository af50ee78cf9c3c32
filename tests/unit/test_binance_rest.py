"""Old trades over REST: what is an answer, what is refused, what is asked again, and how fast."""

import asyncio
from typing import Any

import httpx
import pytest

from support.fake_time import FakeTime
from tickhouse.errors import TransientError
from tickhouse.source.binance.rest import BinanceRest, Page, Refusal


def ask(
    *answers: httpx.Response, clock: FakeTime | None = None
) -> tuple[list[Any], list[httpx.Request]]:
    """The outcome of each call, and the calls."""
    waiting = list(answers)
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return waiting.pop(0)

    async def run() -> list[Any]:
        transport = httpx.MockTransport(answer)
        found: list[Any] = []
        async with BinanceRest(
            "https://binance.test", clock=clock or SlowTime(), transport=transport
        ) as rest:
            for _ in answers:
                try:
                    found.append(await rest.trades("BTCUSDT", 7, 3))
                except TransientError as error:
                    found.append(error)
        return found

    return asyncio.run(run()), asked


class SlowTime(FakeTime):
    """Time-outs do not strike before the answer is there."""

    async def sleep(self, seconds: float) -> None:
        if seconds == 10.0:
            await asyncio.Event().wait()
        await super().sleep(seconds)


def test_a_page_is_the_body_as_sent() -> None:
    body = b'[ {"id":7} ]'
    (page,), (request,) = ask(httpx.Response(200, content=body))

    assert isinstance(page, Page)
    assert page.body == body
    assert str(request.url) == (
        "https://binance.test/api/v3/historicalTrades?symbol=BTCUSDT&fromId=7&limit=3"
    )


@pytest.mark.parametrize("status", [400, 401, 404, 451])
def test_what_will_not_change_is_a_refusal(status: int) -> None:
    (refusal,), _ = ask(httpx.Response(status, json={"code": -2014, "msg": "No key."}))

    assert refusal == Refusal(f"HTTP {status}, code -2014: No key.")


def test_an_unknown_symbol_is_told_apart() -> None:
    (refusal,), _ = ask(httpx.Response(400, json={"code": -1121, "msg": "Invalid symbol."}))

    assert refusal == Refusal("HTTP 400, code -1121: Invalid symbol.", is_unknown_symbol=True)


@pytest.mark.parametrize(
    ("status", "headers", "wait_s"),
    [
        (429, {"Retry-After": "7"}, 7),
        (418, {"Retry-After": "120"}, 120),
        (429, {}, 60),
        (418, {"Retry-After": "soon"}, 60),
        (403, {}, 300),
        (500, {}, 5),
        (502, {}, 5),
        (302, {}, 5),
    ],
)
def test_what_may_change_is_asked_again_after_what_the_server_says(
    status: int, headers: dict[str, str], wait_s: float
) -> None:
    (error,), _ = ask(httpx.Response(status, headers=headers, content=b"<html>"))

    assert isinstance(error, TransientError)
    assert error.retry_after_s == wait_s
    assert str(error) == f"HTTP {status}: <html>"


def test_a_body_beyond_a_frame_is_given_up() -> None:
    (error,), _ = ask(httpx.Response(200, content=b"x" * 900_001))

    assert isinstance(error, TransientError)


def test_calls_are_paced_and_stop_for_a_minute_near_the_limit_of_weight() -> None:
    clock = SlowTime()
    answers = [
        httpx.Response(200, headers={"X-MBX-USED-WEIGHT-1M": used}, content=b"[]")
        for used in ("25", "50", "4900", "25", "no number")
    ]
    ask(*answers, clock=clock)

    assert clock.sleeps == [0.5, 0.5, 60.0, 0.5]
