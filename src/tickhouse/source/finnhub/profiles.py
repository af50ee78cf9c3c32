"""Company profiles (`/stock/profile2`), fetched once in a while: a feed that has an end.

What is durable already is its position: profiles in the log that are young enough are not asked for
again, so an interrupted refresh goes on where it stopped.
"""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
from typing_extensions import override

from tickhouse.clock import NANOS_PER_S, Clock
from tickhouse.errors import TransientError
from tickhouse.model.positions import Stream
from tickhouse.model.session import Mode  # noqa: TC001 - annotates an attribute
from tickhouse.source.feed import Arrivals, Delivery, Feed, History
from tickhouse.source.finnhub.rest import Answer, RestClient, decode_object, judge
from tickhouse.source.options import FinnhubOptions
from tickhouse.telemetry import get_logger

if TYPE_CHECKING:
    import httpx

PROFILE_SHARD: Final = 7
"""Shard (partition) of its own, far from those of feeds that record all day."""
PROFILE_SOURCE: Final = "finnhub.profile2"
ATTEMPTS: Final = 3
RETRY_S: Final = 2.0
SAID_BYTES: Final = 200
LOG_EVERY: Final = 50

_log = get_logger("record")


class ProfileCounts(msgspec.Struct):
    """What a refresh has come to.

    Attributes:
        fetched: symbols whose profile was delivered.
        unknown: symbols that Finnhub answers `{}` for; delivered as well.
        young: symbols not asked for, because the log has a young profile.
        failed: symbols given up, with what was answered.
    """

    fetched: int = 0
    unknown: list[str] = []
    young: int = 0
    failed: dict[str, str] = {}


class ProfileFeed(Feed):
    """Delivers the profile of each symbol, then is drained.

    Args:
        symbols: as Finnhub writes them.
        options: key, address and calls a minute.
        clock: paces, and tells a profile's age.
        age_s_min: a profile in the log that is younger is not fetched again.
        transport: tests replace the network here.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        options: FinnhubOptions,
        *,
        clock: Clock,
        age_s_min: float,
        transport: "httpx.AsyncBaseTransport | None" = None,
    ) -> None:
        self.url = "finnhub+profile2:"
        self.source = PROFILE_SOURCE
        self.mode: Mode = "live"
        self.shards = 1
        self.endless = False
        self.resumes = True
        self.counts = ProfileCounts()
        self._clock = clock
        self._age_s_min = age_s_min
        self._pending = list(dict.fromkeys(symbols))
        self._rest = RestClient(options, clock=clock, transport=transport)

    @override
    def begin(self, history: History) -> None:
        oldest_ns = self._clock.time_ns() - int(self._age_s_min * NANOS_PER_S)
        young: set[str | None] = set()
        for frame in history.frames(Stream.REFERENCE, PROFILE_SHARD):
            if frame.rx <= oldest_ns:
                break
            if frame.src == PROFILE_SOURCE:
                young.add(frame.sym)
        asked = len(self._pending)
        self._pending = [symbol for symbol in self._pending if symbol not in young]
        self.counts.young = asked - len(self._pending)

    @override
    def waits(self, shard: int) -> bool:
        return True

    @override
    async def connect(self, shard: int, cursor: int) -> AsyncIterator[Delivery]:
        async with self._rest:
            for number, symbol in enumerate(self._pending, 1):
                answer = await self._fetch(symbol)
                if answer is not None:
                    yield Arrivals(
                        [answer.body],
                        answer.received_at_ns,
                        Stream.REFERENCE,
                        symbol=symbol,
                        source=PROFILE_SOURCE,
                    )
                if number % LOG_EVERY == 0:
                    _log.info("profiles_fetched", asked=number, of=len(self._pending))

    async def _fetch(self, symbol: str) -> Answer | None:
        """The answer for one symbol; None = given up, and counted.

        Raises:
            TransientError: Finnhub cannot be reached, several times in a row.
            ConfigError: key or plan refused.
        """
        said = ""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = await self._rest.get("/stock/profile2", symbol=symbol)
            except TransientError as error:
                if attempt == ATTEMPTS:
                    raise
                await self._clock.sleep(error.retry_after_s)
                continue
            if judge(answer) == "ok":
                self._count(symbol, answer)
                return answer
            said = f"{answer.status}: {answer.body[:SAID_BYTES].decode(errors='replace')}"
            if judge(answer) != "rate_limited":
                await self._clock.sleep(RETRY_S)
        self.counts.failed[symbol] = said
        _log.warning("profile_given_up", symbol=symbol, answered=said)
        return None

    def _count(self, symbol: str, answer: Answer) -> None:
        self.counts.fetched += 1
        if decode_object(answer) == {}:
            self.counts.unknown.append(symbol)

    @override
    def acknowledge(self, shard: int, cursor: int) -> None:
        """Nothing to remember: what the log holds is the position."""

    @override
    def close(self) -> None:
        """Nothing to release."""
