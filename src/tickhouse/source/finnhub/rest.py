"""Finnhub over REST: within the plan's budget, the key in a header, answers told apart."""

import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, Self, cast

import msgspec

from tickhouse.clock import Clock
from tickhouse.errors import ConfigError
from tickhouse.source.finnhub.budget import Budget
from tickhouse.source.http import HttpClient
from tickhouse.source.options import FinnhubOptions

if TYPE_CHECKING:
    import httpx

TOKEN_HEADER: Final = "X-Finnhub-Token"  # noqa: S105 - the header's name
OK: Final = 200
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
TOO_MANY_REQUESTS: Final = 429
SAID_BYTES: Final = 200
"""As much of an answer's body as a message repeats."""

Verdict = Literal["ok", "rate_limited", "failed", "error_answer"]


class Answer(msgspec.Struct, frozen=True):
    """What Finnhub answered.

    Attributes:
        status: HTTP status.
        body: as sent.
        received_at_ns: UNIX nanoseconds UTC.
        remaining: calls left by the server's count (`X-Ratelimit-Remaining`); None = unsaid.
        server_time_ns: the server's clock, whole seconds (`Date`); None = unsaid.
        limit: calls the plan has a minute (`X-Ratelimit-Limit`); None = unsaid.
    """

    status: int
    body: bytes
    received_at_ns: int
    remaining: int | None = None
    server_time_ns: int | None = None
    limit: int | None = None


class AccessRefusedError(ConfigError):
    """Finnhub refuses access for good; never retried."""

    def __init__(self, message: str, answer: Answer) -> None:
        super().__init__(message)
        self.answer = answer


class KeyRefusedError(AccessRefusedError):
    """401: no key, or not a key of Finnhub's."""


class PlanRefusedError(AccessRefusedError):
    """403: the key is good, its plan lacks what was asked for."""


class RestClient:
    """GETs of Finnhub's REST API; an async context manager.

    Args:
        options: key, base address, calls a minute.
        clock: of pacing, time-outs and receipts.
        transport: tests replace the network here.
        budget: shared by clients of one key; None = one of its own.
        chance: uniform between two numbers; see `Budget`.

    Raises:
        ConfigError: no key, a key that cannot be one, or an address that is not one.
    """

    def __init__(
        self,
        options: FinnhubOptions,
        *,
        clock: Clock,
        transport: "httpx.AsyncBaseTransport | None" = None,
        budget: Budget | None = None,
        chance: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.budget = budget or Budget(options.calls_per_minute, clock=clock, chance=chance)
        self._token = options.token
        self._http = HttpClient(
            options.rest_url,
            clock=clock,
            headers={TOKEN_HEADER: check_token(options)},
            setting="finnhub_rest_url",
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        """Open the connection pool."""
        _silence_url_logs()
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close it."""
        await self._http.__aexit__(*error)

    async def get(self, path: str, **params: str) -> Answer:
        """One GET, once the budget allows it; nothing is retried here.

        A 429 (and an answer that says as much with status 200) pauses the budget to the next
        minute; so does the last call that the server counts.

        Args:
            path: such as `/quote`.
            params: of the query.

        Raises:
            TransientError: no whole answer came.
            KeyRefusedError: 401.
            PlanRefusedError: 403.
        """
        await self.budget.turn()
        http = await self._http.get(path, params)
        answer = Answer(
            status=http.status,
            body=http.body,
            received_at_ns=http.received_at_ns,
            remaining=_whole(http.headers.get("x-ratelimit-remaining")),
            server_time_ns=http.server_time_ns,
            limit=_whole(http.headers.get("x-ratelimit-limit")),
        )
        self._settle(answer)
        self._refuse(answer, path)
        return answer

    def _settle(self, answer: Answer) -> None:
        """Bring the budget in line with what the server says."""
        now_ns = answer.server_time_ns or answer.received_at_ns
        if _says_limit_reached(answer, judge(answer)):
            self.budget.pause_to_next_minute(now_ns)
        elif answer.remaining is not None:
            self.budget.learn(answer.remaining, now_ns)

    def _refuse(self, answer: Answer, path: str) -> None:
        said = self._token.scrub(answer.body[:SAID_BYTES].decode(errors="replace").strip())
        where = f"{self._http.host}{path}"
        if answer.status == UNAUTHORIZED:
            raise KeyRefusedError(
                f"{where}: the API key is refused (401: {said}); set TICKHOUSE_FINNHUB_TOKEN or"
                " finnhub_token_file to the key on your Finnhub dashboard",
                answer,
            )
        if answer.status == FORBIDDEN:
            raise PlanRefusedError(
                f"{where}: the key is good but its plan does not include this (403: {said}); keep"
                " the key; ask for something else, or set finnhub_plan to the plan that you have",
                answer,
            )


def check_token(options: FinnhubOptions) -> str:
    """The key, once it can be sent in a header (an error of the HTTP library would repeat it).

    Raises:
        ConfigError: no key, or not printable ASCII.
    """
    token = options.token.reveal()
    if not token:
        raise ConfigError(
            "finnhub: no API key; set TICKHOUSE_FINNHUB_TOKEN or finnhub_token_file"
            " (a free key: https://finnhub.io/register)"
        )
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError(
            "finnhub: the API key holds spaces, line ends or characters that no key has;"
            " check TICKHOUSE_FINNHUB_TOKEN or finnhub_token_file"
        )
    return token


def judge(answer: Answer) -> Verdict:
    """What to make of an answer.

    Returns:
        "ok": status 200 and JSON without `error` (whether the values are any good is not judged);
        "rate_limited": 429; "error_answer": status 200 with a top-level `error`; "failed": any
        other status, or a body that is no JSON.
    """
    if answer.status == TOO_MANY_REQUESTS:
        return "rate_limited"
    if answer.status != OK:
        return "failed"
    try:
        content = _decode(answer)
    except ValueError:
        return "failed"
    return "error_answer" if isinstance(content, dict) and "error" in content else "ok"


def decode_object(answer: Answer) -> dict[str, Any] | None:
    """The JSON object in an answer's body; None where it holds none."""
    try:
        content = _decode(answer)
    except ValueError:
        return None
    return cast("dict[str, Any]", content) if isinstance(content, dict) else None


def _decode(answer: Answer) -> object:
    """The body's JSON.

    Raises:
        ValueError: it is none, or too deep to be any.
    """
    try:
        return msgspec.json.decode(answer.body)
    except RecursionError:
        raise ValueError("too deep") from None


def _says_limit_reached(answer: Answer, verdict: Verdict) -> bool:
    """Over the limit: status 429, or status 200 with an error that says so."""
    if verdict == "error_answer":
        return b"limit reached" in answer.body.lower()
    return verdict == "rate_limited"


def _whole(text: str | None) -> int | None:
    """The number in a header; None where there is none, or nonsense."""
    if text is None or not (text.isascii() and text.isdecimal()):
        return None
    return int(text[:9])


def _silence_url_logs() -> None:
    """The HTTP library logs every address at INFO; ours says what matters, once a batch."""
    logging.getLogger("httpx").setLevel(logging.WARNING)
