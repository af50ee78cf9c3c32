"""Old trades over REST: `GET /api/v3/historicalTrades`, within the weight Binance allows.

Binance counts a weight a minute and address (6000 as documented in 2024; this call weighs 25), says
the used weight in `X-MBX-USED-WEIGHT-1M`, answers 429 above it and bans with 418 who goes on. Calls
here are paced to half of it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Self

import msgspec

from tickhouse.clock import Clock
from tickhouse.errors import TransientError
from tickhouse.source.http import HttpAnswer, HttpClient

if TYPE_CHECKING:
    import httpx

PAGE_IDS: Final = 1000
"""Most trades the exchange gives at once."""
PACE_S: Final = 0.5
USED_WEIGHT_MAX: Final = 4800
LIMITED_S: Final = 60.0
WAF_S: Final = 300.0
FAILED_S: Final = 5.0
BODY_BYTES_MAX: Final = 900_000
"""A page of 1000 trades has about 150 kB; a frame may have 1 MB."""
OK: Final = 200
FORBIDDEN: Final = 403
LIMITED: Final = frozenset({418, 429})
REFUSED: Final = frozenset({400, 401, 404, 405, 410, 451})
INVALID_SYMBOL: Final = -1121
SAID_BYTES: Final = 200


class Page(msgspec.Struct, frozen=True):
    """A body as sent and its receipt, UNIX nanoseconds UTC."""

    body: bytes
    received_at_ns: int


class Refusal(msgspec.Struct, frozen=True):
    """The exchange will not give this, however often it is asked.

    Attributes:
        reason: in words.
        is_unknown_symbol: whether it knows no such symbol.
    """

    reason: str
    is_unknown_symbol: bool = False


class _Error(msgspec.Struct):
    code: int = 0
    msg: str = ""


class BinanceRest:
    """Paced calls; an async context manager.

    Args:
        base_url: `https://api.binance.com` or another that serves the same paths.
        clock: of pacing, time-outs and receipts.
        transport: tests replace the network here.

    Raises:
        ConfigError: not an address.
    """

    def __init__(
        self,
        base_url: str,
        *,
        clock: Clock,
        transport: "httpx.AsyncBaseTransport | None" = None,
    ) -> None:
        self._clock = clock
        self._http = HttpClient(
            base_url,
            clock=clock,
            setting="binance_rest_url",
            body_bytes_max=BODY_BYTES_MAX,
            transport=transport,
        )
        self._next_at = 0.0

    async def __aenter__(self) -> Self:
        """Open the connection pool."""
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close it."""
        await self._http.__aexit__(*error)

    async def trades(self, symbol: str, first_id: int, count: int) -> Page | Refusal:
        """Trades of a symbol from an id on.

        Args:
            symbol: as "BTCUSDT".
            first_id: the first one asked for.
            count: at most so many, 1 to 1000.

        Raises:
            TransientError: no answer of use now; ask again after `retry_after_s`.
        """
        parameters = {"symbol": symbol, "fromId": str(first_id), "limit": str(count)}
        return await self._get("/api/v3/historicalTrades", parameters)

    async def knows(self, symbol: str) -> bool:
        """Whether the exchange knows a symbol.

        Raises:
            TransientError: no answer of use now.
        """
        parameters = {"symbol": symbol, "limit": "1"}
        answer = await self._get("/api/v3/historicalTrades", parameters)
        return not (isinstance(answer, Refusal) and answer.is_unknown_symbol)

    async def clock_offset_ms(self) -> int | None:
        """The exchange's clock less ours; None where it does not say."""
        asked_at = self._clock.time_ns()
        try:
            answer = await self._get("/api/v3/time", {})
            if isinstance(answer, Refusal):
                return None
            server_ms = msgspec.json.decode(answer.body, type=dict[str, int])["serverTime"]
        except (TransientError, msgspec.DecodeError, UnicodeDecodeError, KeyError):
            return None
        return server_ms - (asked_at + answer.received_at_ns) // 2_000_000

    async def _get(self, path: str, parameters: Mapping[str, str]) -> Page | Refusal:
        wait_s = self._next_at - self._clock.monotonic()
        if wait_s > 0:
            await self._clock.sleep(wait_s)
        self._next_at = self._clock.monotonic() + PACE_S
        answer = await self._http.get(path, parameters)
        self._mind_weight(answer)
        if answer.status == OK:
            return Page(answer.body, answer.received_at_ns)
        said = _say(answer)
        if answer.status in REFUSED:
            return Refusal(said, _error(answer).code == INVALID_SYMBOL)
        raise TransientError(said, retry_after_s=_retry_after_s(answer))

    def _mind_weight(self, answer: HttpAnswer) -> None:
        used = answer.headers.get("x-mbx-used-weight-1m", "")
        if used.isdecimal() and int(used[:9]) > USED_WEIGHT_MAX:
            self._next_at = self._clock.monotonic() + LIMITED_S


def _error(answer: HttpAnswer) -> _Error:
    try:
        return msgspec.json.decode(answer.body, type=_Error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Error()


def _say(answer: HttpAnswer) -> str:
    error = _error(answer)
    said = error.msg or answer.body[:SAID_BYTES].decode(errors="replace").strip()
    code = f", code {error.code}" if error.code else ""
    return f"HTTP {answer.status}{code}: {said or 'no word why'}"


def _retry_after_s(answer: HttpAnswer) -> float:
    given = answer.headers.get("retry-after", "")
    if given.isdecimal():
        return max(1.0, float(given[:9]))
    if answer.status in LIMITED:
        return LIMITED_S
    return WAF_S if answer.status == FORBIDDEN else FAILED_S
