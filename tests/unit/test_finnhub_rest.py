"""The REST client: key in a header, every answer told apart, failures in words."""

import asyncio
import logging
import socket
import ssl
import subprocess
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from support.tiny_http import Reply, Request, TinyServer, as_json
from tickhouse.clock import ScaledClock, SystemClock
from tickhouse.errors import ConfigError, TransientError
from tickhouse.source.finnhub.rest import (
    AccessRefusedError,
    Answer,
    KeyRefusedError,
    PlanRefusedError,
    RestClient,
    decode_object,
    judge,
)
from tickhouse.source.options import FinnhubOptions
from tickhouse.source.secret import Secret

KEY = "k3y-of-a-test"
QUOTE = as_json({"c": 261.74, "d": 1.2, "dp": 0.46, "h": 263.3, "l": 260.6, "t": 1582641000})


def options(url: str = "http://finnhub.test/api/v1", token: str = KEY) -> FinnhubOptions:
    return FinnhubOptions(token=Secret(token), rest_url=url, calls_per_minute=1800)


def client(
    handler: Callable[[httpx.Request], httpx.Response] | None = None,
    *,
    url: str = "http://finnhub.test/api/v1",
) -> RestClient:
    transport = None if handler is None else httpx.MockTransport(handler)
    return RestClient(
        options(url), clock=SystemClock(), transport=transport, chance=lambda low, _high: low
    )


def get(rest: RestClient, path: str = "/quote", **params: str) -> Answer:
    async def run() -> Answer:
        async with rest:
            return await rest.get(path, **params)

    return asyncio.run(run())


def serve(
    answer: Callable[[Request], Reply | bytes], work: Callable[[str], Awaitable[None]]
) -> None:
    async def run() -> None:
        async with TinyServer(answer) as server:
            await work(server.url)

    asyncio.run(run())


def answering(body: bytes, status: int = 200, **headers: str) -> Callable[..., httpx.Response]:
    return lambda _request: httpx.Response(status, content=body, headers=headers)


def test_the_key_travels_in_the_header_and_never_in_the_address() -> None:
    seen: list[Request] = []

    async def work(url: str) -> None:
        async with client(url=url) as rest:
            answer = await rest.get("/quote", symbol="BINANCE:BTCUSDT")
        assert answer.body == QUOTE
        assert answer.status == 200

    def answer(request: Request) -> Reply:
        seen.append(request)
        return Reply(QUOTE)

    serve(answer, work)

    assert [request.headers["x-finnhub-token"] for request in seen] == [KEY]
    assert seen[0].path == "/api/v1/quote"
    assert "BTCUSDT" in seen[0].target
    assert KEY not in seen[0].target


def test_what_the_server_says_of_itself_comes_with_the_answer() -> None:
    headers = {
        "X-Ratelimit-Limit": "60",
        "X-Ratelimit-Remaining": "54",
        "Date": "Mon, 31 Aug 2026 13:30:07 GMT",
    }
    answer = get(client(lambda _request: httpx.Response(200, content=QUOTE, headers=headers)))

    assert (answer.limit, answer.remaining) == (60, 54)
    assert answer.server_time_ns == 1_788_183_007 * 1_000_000_000
    assert abs(answer.received_at_ns - SystemClock().time_ns()) < 60 * 1_000_000_000


@pytest.mark.parametrize("value", ["", "many", "-1", "1e3", "²"])
def test_a_header_that_is_no_number_says_nothing(value: str) -> None:
    headers = [(b"X-Ratelimit-Remaining", value.encode()), (b"Date", b"yesterday")]
    answer = get(client(lambda _request: httpx.Response(200, content=QUOTE, headers=headers)))

    assert answer.remaining is None
    assert answer.server_time_ns is None


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, QUOTE, "ok"),
        (200, b"{}", "ok"),
        (200, b"[]", "ok"),
        (200, b'{"error":"API limit reached. Please try again later."}', "error_answer"),
        (200, b'{"c":1,"error":null}', "error_answer"),
        (200, b'{"data":{"error":1}}', "ok"),
        (200, QUOTE[:20], "failed"),
        (200, b"", "failed"),
        (200, b"<html>hello</html>", "failed"),
        (200, b"\xff\xfe", "failed"),
        (200, b"[" * 100_000, "failed"),
        (429, b'{"error":"API limit reached. Remaining Limit: 0"}', "rate_limited"),
        (429, b"API limit reached. Please try again later. Remaining Limit: 0", "rate_limited"),
        (429, b"", "rate_limited"),
        (500, b'{"c":1}', "failed"),
        (502, b"<html>Bad gateway</html>", "failed"),
        (302, b"", "failed"),
    ],
)
def test_answers_are_told_apart(status: int, body: bytes, verdict: str) -> None:
    answer = get(client(answering(body, status)))

    assert judge(answer) == verdict
    assert answer.body == body


def test_an_answer_without_an_object_decodes_to_none() -> None:
    bodies = (b'{"a":1}', b"[]", b"null", b"{", b"[" * 100_000)

    assert [decode_object(Answer(200, body, 0)) for body in bodies] == [{"a": 1}, *[None] * 4]


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, b'{"error":"Invalid API key."}', KeyRefusedError, "TICKHOUSE_FINNHUB_TOKEN"),
        (401, b'{"error":"Please use an API key."}', KeyRefusedError, "Please use an API key"),
        (401, b"", KeyRefusedError, "401"),
        (
            403,
            b'{"error":"You don\'t have access to this resource."}',
            PlanRefusedError,
            "the key is good",
        ),
    ],
)
def test_a_refused_key_and_a_lacking_plan_are_for_the_operator_and_told_apart(
    status: int, body: bytes, kind: type[AccessRefusedError], words: str
) -> None:
    calls: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request.url.path)
        return httpx.Response(status, content=body)

    with pytest.raises(kind, match=words) as caught:
        get(client(answer), "/stock/tick")

    assert isinstance(caught.value, ConfigError)
    assert caught.value.answer.body == body
    assert calls == ["/api/v1/stock/tick"], "never retried"


@pytest.mark.parametrize(
    ("status", "body", "paused"),
    [
        (429, b"", True),
        (429, b"API limit reached.", True),
        (200, b'{"error":"API limit reached. Please try again later."}', True),
        (200, b'{"error":"unknown symbol"}', False),
        (200, QUOTE, False),
        (500, b"", False),
    ],
)
def test_over_the_limit_pauses_the_budget(status: int, body: bytes, *, paused: bool) -> None:
    rest = client(answering(body, status, date="Mon, 31 Aug 2026 13:30:45 GMT"))
    get(rest)

    assert rest.budget.paused_s == pytest.approx(15 if paused else 0, abs=1)


def test_the_last_call_that_the_server_counts_pauses_the_budget() -> None:
    headers = {"X-Ratelimit-Remaining": "0", "Date": "Mon, 31 Aug 2026 13:30:20 GMT"}
    rest = client(lambda _request: httpx.Response(200, content=QUOTE, headers=headers))
    get(rest)

    assert rest.budget.paused_s == pytest.approx(40, abs=1)


def test_a_server_that_hangs_is_given_up_after_10_s_of_the_feeds_clock() -> None:
    async def work(url: str) -> None:
        clock = ScaledClock(50)
        async with RestClient(options(url), clock=clock) as rest:
            started = clock.monotonic()
            with pytest.raises(TransientError, match="no whole answer within 10 s"):
                await rest.get("/quote")
            assert clock.monotonic() - started >= 9.9

    serve(lambda _request: Reply(hang=True), work)


def test_a_body_that_never_ends_is_given_up() -> None:
    async def work(url: str) -> None:
        async with client(url=url) as rest:
            with pytest.raises(TransientError, match="larger than 8388608 bytes"):
                await rest.get("/quote")

    serve(lambda _request: Reply(b"x" * (10 << 20)), work)


def test_an_answer_cut_off_is_tried_again_by_the_caller() -> None:
    async def work(url: str) -> None:
        async with client(url=url) as rest:
            with pytest.raises(TransientError, match=r"127.0.0.1:\d+/quote: the answer broke"):
                await rest.get("/quote")

    serve(lambda _request: Reply(QUOTE, cut=10), work)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"this is not HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
    ],
)
def test_what_is_no_http_is_a_passing_fault(raw: bytes) -> None:
    async def work(url: str) -> None:
        async with client(url=url) as rest:
            with pytest.raises(TransientError, match="/quote: the answer broke off"):
                await rest.get("/quote")

    serve(lambda _request: raw, work)


def test_an_unreachable_host_is_a_passing_fault_with_the_host_in_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(TransientError, match=f"127.0.0.1:{port}: cannot be reached"):
            get(client(url=f"http://127.0.0.1:{port}"))


def test_an_unknown_host_is_a_passing_fault() -> None:
    with pytest.raises(TransientError, match=r"nowhere\.invalid: cannot be reached"):
        get(client(url="https://nowhere.invalid/api/v1"))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://finnhub.io", "not an address"),
        ("finnhub.io/api/v1", "not an address"),
        ("https://", "not an address"),
        ("https://host:port/", "not an address"),
        (f"https://finnhub.io/api/v1?token={KEY}", "query"),
        (f"https://me:{KEY}@finnhub.io/api/v1", "password"),
    ],
)
def test_an_address_that_is_none_or_holds_a_key_is_refused(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        client(url=url)

    assert "finnhub_rest_url" in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("token", ["", "two words", "line\nend", "clé", "nul\0"])
def test_a_key_that_cannot_be_one_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(ConfigError, match="TICKHOUSE_FINNHUB_TOKEN") as caught:
        RestClient(options(token=token), clock=SystemClock())

    assert not token or token not in str(caught.value)


def test_no_error_log_or_repr_shows_the_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    echo = answering(f'{{"error":"bad key {KEY}"}}'.encode(), 401)
    broken: Callable[..., httpx.Response] = answering(b"x", 200, **{"content-encoding": "gzip"})
    for handler in (echo, broken, answering(QUOTE)):
        rest = client(handler)
        try:
            get(rest, symbol="AAPL")
        except (ConfigError, TransientError) as error:
            shown = "".join(traceback.format_exception(error))
            assert KEY not in shown
        assert KEY not in repr(rest)
        assert KEY not in repr(options())

    assert KEY not in caplog.text


def certificate(folder: Path, *, days: int) -> ssl.SSLContext:
    """A server's certificate for 127.0.0.1, its own authority; of -1 days: it has expired."""
    request, key, cert = (str(folder / name) for name in ("request.pem", "key.pem", "cert.pem"))
    extension = folder / "extension.cnf"
    extension.write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:TRUE\n")
    ask = ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=tickhouse test"]
    sign = ["x509", "-req", "-days", str(days), "-extfile", str(extension), "-signkey", key]
    for command in ([*ask, "-keyout", key, "-out", request], [*sign, "-in", request, "-out", cert]):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


@pytest.mark.parametrize(
    ("days", "trusted", "words"),
    [
        (2, True, None),
        (-1, True, "certificate has expired"),
        (2, False, "self-signed certificate|self signed certificate"),
    ],
)
def test_a_certificate_that_is_not_valid_is_said_and_nothing_is_sent(
    days: int,
    *,
    trusted: bool,
    words: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tls = certificate(tmp_path, days=days)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))

    async def run() -> list[Request]:
        async with TinyServer(lambda _request: Reply(QUOTE), tls=tls) as server:
            async with client(url=server.url) as rest:
                if words is None:
                    assert (await rest.get("/quote")).body == QUOTE
                else:
                    with pytest.raises(TransientError, match=words) as caught:
                        await rest.get("/quote")
                    assert "this machine's clock" in str(caught.value)
            return server.requests

    assert len(asyncio.run(run())) == (words is None)


def test_tls_spoken_to_a_server_that_does_not_is_said() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async def run() -> None:
        async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with client(url=f"https://127.0.0.1:{port}") as rest:
                with pytest.raises(TransientError, match=r"no TLS connection.*finnhub_rest_url"):
                    await rest.get("/quote")

    asyncio.run(run())
