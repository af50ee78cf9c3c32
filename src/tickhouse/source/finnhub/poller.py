"""The REST session: quotes round robin within the plan's budget, and what the exchange says."""

from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Final

import msgspec

from tickhouse.clock import Clock
from tickhouse.errors import TransientError
from tickhouse.model.calendar import Calendar
from tickhouse.model.positions import Stream
from tickhouse.model.session import Gap, Remote
from tickhouse.source.feed import Arrivals, Delivery
from tickhouse.source.finnhub.coverage import CoverageBoard
from tickhouse.source.finnhub.rest import (
    OK,
    AccessRefusedError,
    Answer,
    PlanRefusedError,
    RestClient,
    judge,
)
from tickhouse.source.finnhub.rounds import Cadence, Rounds
from tickhouse.telemetry import get_logger

EXCHANGE: Final = "US"
STATUS_S: Final = 60.0
HOLIDAY_S: Final = 86_400.0
CADENCE_S: Final = 300.0
IDLE_S: Final = 1.0
WAIT_S_MAX: Final = 60.0
PATIENT_FAILURES: Final = 3
"""After more failed answers in a row than this, the next one is asked for ever more slowly."""

_log = get_logger("record")


class _Call(msgspec.Struct, frozen=True):
    """Something to ask for.

    Attributes:
        path: of the endpoint.
        stream: of the answers.
        every_s: how often, for what is not a quote.
        symbol: of a quote.
    """

    path: str
    stream: Stream
    every_s: float = 0.0
    symbol: str | None = None

    @property
    def params(self) -> dict[str, str]:
        return {"exchange": EXCHANGE} if self.symbol is None else {"symbol": self.symbol}

    def kind(self, status: int) -> str:
        """Payload kind of an answer."""
        return f"finnhub.{self.path.rpartition('/')[2] if status == OK else f'http.{status}'}"


class _Outage(msgspec.Struct, frozen=True):
    """No answers of a stream since then (UNIX nanoseconds UTC)."""

    since: int
    cause: str


REFERENCE_CALLS: Final = (
    _Call("/stock/market-status", Stream.REFERENCE, every_s=STATUS_S),
    _Call("/stock/market-holiday", Stream.REFERENCE, every_s=HOLIDAY_S),
)


class FinnhubPoller:
    """Polls what the socket does not bring, and the rest now and then.

    A session lasts as long as the recorder: failures are waited out, not reconnected.

    Args:
        rest: makes the client.
        board: which symbols come which way.
        clock: of pacing and receipts.
        calendar: when the exchange trades.
    """

    def __init__(
        self,
        rest: Callable[[], RestClient],
        board: CoverageBoard,
        *,
        clock: Clock,
        calendar: Calendar,
    ) -> None:
        self._rest = rest
        self._board = board
        self._clock = clock
        self._rounds = Rounds(clock=clock, calendar=calendar)
        self._cadence = Cadence(clock=clock)
        self._cadence_at = clock.monotonic() + CADENCE_S
        self._due_at = dict.fromkeys(REFERENCE_CALLS, clock.monotonic())
        self._refused: set[str] = set()
        self._outages: dict[Stream, _Outage] = {}
        self._failures = 0
        self._has_remote = False

    async def deliver(self) -> AsyncGenerator[Delivery]:
        """Poll for ever.

        Raises:
            KeyRefusedError: the key is refused (401).
        """
        async with self._rest() as rest:
            for coverage in self._board.polling():
                yield coverage
            while True:
                for item in self._coverage():
                    yield item
                call = self._next_call()
                if call is None:
                    await self._clock.sleep(IDLE_S)
                    continue
                answer, refusal = await self._ask(rest, call)
                if answer is not None:
                    for item in self._heed(call, answer):
                        yield item
                if refusal is not None:
                    for item in self._refuse(call, refusal):
                        yield item
                await self._wait_after_failures()

    def _next_call(self) -> _Call | None:
        now = self._clock.monotonic()
        for call, due_at in self._due_at.items():
            if due_at <= now:
                self._due_at[call] = now + call.every_s
                return call
        polled, beside = (
            [symbol for symbol in symbols if symbol not in self._refused]
            for symbols in (self._board.polled, self._board.beside)
        )
        symbol = self._rounds.next(polled, beside)
        return None if symbol is None else _Call("/quote", Stream.QUOTES, symbol=symbol)

    async def _ask(
        self, rest: RestClient, call: _Call
    ) -> tuple[Answer | None, AccessRefusedError | None]:
        """The answer, if there is one, and the refusal, if it is one."""
        try:
            return await rest.get(call.path, **call.params), None
        except AccessRefusedError as error:
            return error.answer, error
        except TransientError as error:
            outage = _Outage(self._clock.time_ns(), str(error))
            if call.stream not in self._outages:
                self._outages[call.stream] = outage
                _log.warning("poll_failed", path=call.path, error=outage.cause)
            self._again(call)
            await self._clock.sleep(min(error.retry_after_s, WAIT_S_MAX))
            return None, None

    def _again(self, call: _Call) -> None:
        """A call outside the usual rounds; a quote has its next turn in the next round."""
        if call.symbol is None:
            self._due_at[call] = self._clock.monotonic() + min(call.every_s, STATUS_S)

    def _heed(self, call: _Call, answer: Answer) -> Iterator[Delivery]:
        if answer.server_time_ns is not None and not self._has_remote:
            self._has_remote = True
            offset_ms = (answer.server_time_ns - answer.received_at_ns) // 1_000_000
            yield Remote(answer.received_at_ns, clock_offset_ms=offset_ms)
        verdict = judge(answer)
        if verdict == "ok":
            self._failures = 0
            if (outage := self._outages.pop(call.stream, None)) is not None:
                yield _gap(call.stream, outage, answer.received_at_ns)
            if call.symbol is not None:
                self._cadence.had(call.symbol)
        elif verdict == "rate_limited":
            self._again(call)
            if call.symbol is not None:
                self._rounds.again(call.symbol)
        else:
            self._failures += 1
            self._again(call)
        yield Arrivals(
            [answer.body],
            answer.received_at_ns,
            call.stream,
            symbol=call.symbol,
            source=call.kind(answer.status),
        )

    def _refuse(self, call: _Call, refusal: AccessRefusedError) -> Iterator[Delivery]:
        """What the plan lacks is not asked for again; without a key nothing is."""
        if not isinstance(refusal, PlanRefusedError):
            raise refusal
        self._failures = 0
        _log.warning("poll_refused", path=call.path, symbol=call.symbol, error=str(refusal))
        if call.symbol is None:
            del self._due_at[call]
            return
        self._refused.add(call.symbol)
        if call.symbol in self._board.polled:
            yield self._board.without([call.symbol], "the plan has no quotes of it (403)")

    def _coverage(self) -> Iterator[Delivery]:
        if (down := self._board.outage()) is not None:
            yield down
        now = self._clock.monotonic()
        if now < self._cadence_at:
            return
        self._cadence_at = now + CADENCE_S
        for every_s, symbols in self._cadence.news(self._board.polled).items():
            yield self._board.achieved(symbols, every_s)

    async def _wait_after_failures(self) -> None:
        excess = self._failures - PATIENT_FAILURES
        if excess > 0:
            await self._clock.sleep(min(WAIT_S_MAX, 2.0 ** min(excess, 10)))


def _gap(stream: Stream, outage: _Outage, until: int) -> Gap:
    """No answers came meanwhile, of whatever symbol."""
    return Gap(
        at=until,
        stream=stream,
        seq_from=None,
        seq_to=None,
        time_from=outage.since,
        time_to=max(until, outage.since),
        symbols=[],
        cause=outage.cause,
        name=f"{stream}:{outage.since}",
    )
