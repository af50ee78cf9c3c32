"""A feed that delivers what a poller does: quotes, reference, and events of its own."""

from collections.abc import AsyncIterator, Sequence

import msgspec

from tickhouse.model.positions import Stream
from tickhouse.model.session import Coverage, Gap, Mode, Remote
from tickhouse.source.feed import Arrivals, Delivery, History

AT = 1_723_213_800_000_000_000
"""2024-08-09 14:30 UTC, in nanoseconds."""


class PolledFeed:
    """Delivers answers of /quote, one profile, and one event of each kind.

    Args:
        answers: symbol, payload kind and body of each answer, a second apart.
        stream: of the answers.
        url: of the feed.
    """

    def __init__(
        self,
        answers: Sequence[tuple[str | None, str, bytes]],
        *,
        stream: Stream = Stream.QUOTES,
        url: str = "finnhub+rest://AAPL",
    ) -> None:
        self.stream = stream
        self.url = url
        self.source = "finnhub.quote"
        self.mode: Mode = "live"
        self.shards = 1
        self.endless = False
        self.resumes = False
        self.answers = answers

    def begin(self, history: History) -> None:
        pass

    def waits(self, shard: int) -> bool:
        return True

    async def connect(self, shard: int, cursor: int) -> AsyncIterator[Delivery]:
        yield Remote(AT, "8f1-EWR", -12)
        yield Coverage(AT, "polling", ["AAPL", "MSFT"], "polled only")
        name, hour = f"missed {self.url}", 3_600_000_000_000
        yield Gap(AT, "trades", None, None, AT - hour, AT, ["AAPL"], "dropped", name=name)
        profile = {"name": "Apple Inc", "finnhubIndustry": "Technology", "marketCapitalization": 5}
        body = msgspec.json.encode(profile)
        yield Arrivals([body], AT, Stream.REFERENCE, "AAPL", "finnhub.profile2")
        for number, (symbol, kind, answer) in enumerate(self.answers):
            at = AT + number * 1_000_000_000
            yield Arrivals([answer], at, self.stream, symbol, kind)

    def acknowledge(self, shard: int, cursor: int) -> None:
        pass

    def close(self) -> None:
        pass


def good_answers(count: int) -> list[tuple[str | None, str, bytes]]:
    """Quotes that change now and then, an error among them."""
    answers: list[tuple[str | None, str, bytes]] = []
    for number in range(count):
        symbol, kind = ("AAPL", "MSFT")[number % 2], "finnhub.quote"
        body = {"c": 100 + number // 4, "d": 1, "dp": 1, "o": 99, "h": 101, "l": 98, "pc": 99}
        answers.append((symbol, kind, msgspec.json.encode(body | {"t": AT // 10**9})))
    answers.insert(3, ("AAPL", "finnhub.http.429", b"API limit reached. Please try again later."))
    return answers
