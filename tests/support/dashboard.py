"""Stand-ins for what the dashboard reads: a log in memory, published gold in a DuckDB in memory."""

import contextlib
import random
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import duckdb
import msgspec
import pandas as pd

from tickhouse.dashboard.conditions import Conditions, seeded_conditions
from tickhouse.dashboard.prints import is_trade, read_trades
from tickhouse.dashboard.queries import Published
from tickhouse.dashboard.quotes import read_quote
from tickhouse.dashboard.server import listen, serve
from tickhouse.model.frame import encode_frames
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.model.session import Mode, Opened, SessionEvent, encode_event
from tickhouse.stream.log import Bounds, LogBatch, LogReader, PositionOf, Subscription
from tickhouse.transform.published import NothingPublishedError

TRADES = TopicPartition(Stream.TRADES, 0)
SESSIONS = TopicPartition(Stream.SESSIONS, 0)
QUOTES = TopicPartition(Stream.QUOTES, 1)


class MemoryLog:
    """A log of lists; each append is one batch."""

    def __init__(self, *, epoch: str = "epoch1") -> None:
        self.epoch = epoch
        self.records: dict[TopicPartition, list[tuple[int, bytes]]] = {}
        self.begin: dict[TopicPartition, int] = {}
        self.reads = 0
        self.lock = threading.Lock()

    def append(self, partition: TopicPartition, values: Sequence[bytes], *, at_ms: int) -> int:
        with self.lock:
            records = self.records.setdefault(partition, [])
            records.extend((at_ms, value) for value in values)
            return len(records)

    def topic_id(self, partition: TopicPartition) -> str:
        return self.epoch

    def partitions(self) -> list[TopicPartition]:
        return sorted(self.records)

    def bounds(self, partition: TopicPartition) -> Bounds:
        return Bounds(self.begin.get(partition, 0), len(self.records.get(partition, [])))

    def read(
        self, partition: TopicPartition, start: int, *, bytes_max: int = 8 << 20
    ) -> LogBatch | None:
        self.reads += 1
        bounds = self.bounds(partition)
        if start >= bounds.end:
            return None
        if start < bounds.begin:
            return LogBatch(partition, self.epoch, start, bounds.begin, [], [], [], trimmed=True)
        taken: list[tuple[int, bytes]] = []
        size = 0
        for record in self.records[partition][start : bounds.end]:
            taken.append(record)
            size += len(record[1])
            if size >= bytes_max:
                break
        end = start + len(taken)
        return LogBatch(
            partition,
            self.epoch,
            start,
            end,
            range(start, end),
            [at_ms for at_ms, _ in taken],
            [value for _, value in taken],
        )

    def subscribe(self, position_of: PositionOf) -> Subscription:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is held."""


class MemoryManifest(msgspec.Struct):
    version: int
    load_id: int
    published_at_ms: int
    positions: Any


_TRADES = """
create table trades (
    part integer, log_offset bigint, symbol varchar, event_ms bigint, received_us bigint,
    session_id varchar, seq bigint, i integer, price double, size double,
    counts boolean, sets boolean, source varchar
)
"""
_BARS = """
select
    symbol, time_bucket(interval '{seconds} seconds', make_timestamp(event_ms * 1000)) as bar_at,
    arg_min(price, (event_ms, received_us, session_id, seq, i)) filter (where sets) as open,
    max(price) filter (where sets) as high, min(price) filter (where sets) as low,
    arg_max(price, (event_ms, received_us, session_id, seq, i)) filter (where sets) as close,
    coalesce(sum(size) filter (where counts), 0) as volume,
    count(*) filter (where counts) as trade_count
from trades group by all having bool_or(sets or counts)
"""
_KPI = """
with traded as (
    select
        symbol, max(make_timestamp(event_ms * 1000))::date as session_date,
        arg_max(price, (event_ms, received_us, session_id, seq, i)) filter (where sets)
            as last_price,
        max(make_timestamp(event_ms * 1000)) filter (where sets) as last_at,
        arg_min(price, (event_ms, received_us, session_id, seq, i)) filter (where sets)
            as day_open,
        sum(size) filter (where counts) as volume, count(*) filter (where counts) as trade_count,
        sum(price * size) filter (where counts) as dollar_volume, any_value(source) as source,
        'trade' as price_source
    from trades group by symbol
),
quoted as (
    select
        symbol, max(quoted_at)::date, arg_max(price, quoted_at), max(quoted_at), null, null, 0,
        null, any_value(source), 'quote'
    from quotes where symbol not in (select symbol from traded) group by symbol
)
select
    symbol, 'Name of ' || symbol as name, session_date, last_price, last_at,
    r.reference as previous_close, day_open, volume, trade_count, dollar_volume, source,
    price_source, coalesce(r.disagreements, '') as disagreements
from (from traded union all from quoted) left join facts as r using (symbol)
"""
_MAP = """
select symbol, sector, industry, market_cap from facts
where symbol in (select symbol from kpi)
"""
_GAPS = """
create table sessions (session_id varchar, feed varchar);
create table quotes (symbol varchar, quoted_at timestamp, price double, source varchar);
create table gaps (
    kind varchar, name varchar, session_id varchar, stream varchar, time_from timestamp,
    time_to timestamp, symbols varchar, cause varchar, filled_by varchar, id_from bigint,
    id_to bigint, load_id bigint
);
create table gaps_daily (
    session_date date, symbol varchar, stream varchar, missing_s double, is_complete boolean
);
"""
NO_IDS = (None, None)
INTERVALS = {"1s": 1, "1m": 60, "5m": 300, "1h": 3600, "1d": 86_400}


class MemoryGold:
    """Published gold: `publish` takes the log's trades up to given offsets.

    Args:
        conditions: rules of the bars.
        facts: (symbol, sector, industry, market cap, previous close) of symbols.
    """

    def __init__(
        self,
        conditions: Conditions | None = None,
        facts: Sequence[tuple[str, str, str, float | None, float | None]] = (),
    ) -> None:
        self.conditions = conditions or seeded_conditions()
        self.connection = duckdb.connect()
        self.lock = threading.Lock()
        self.current: MemoryManifest | None = None
        self.queries = 0
        self.fault: Exception | None = None
        self.is_remote = False
        self._taken: dict[TopicPartition, int] = {}
        self.connection.execute(_TRADES)
        self.connection.execute(
            "create table facts (symbol varchar, sector varchar, industry varchar,"
            " market_cap double, reference double, disagreements varchar)"
        )
        self.connection.execute(_GAPS)
        if facts:
            self.connection.executemany("insert into facts values (?, ?, ?, ?, ?, null)", facts)
        for interval, seconds in INTERVALS.items():
            self.connection.execute(
                f"create view bars_{interval} as {_BARS.format(seconds=seconds)}"
            )
        self.connection.execute(f"create view kpi as {_KPI}")
        self.connection.execute(f"create view market_map as {_MAP}")
        self.connection.execute("create schema gold; create schema silver")
        of_gold = [*(f"bars_{interval}" for interval in INTERVALS), "kpi", "market_map"]
        for name in (*of_gold, "gaps_daily"):
            self.connection.execute(f"create view gold.{name} as from main.{name}")
        for name in ("gaps", "sessions"):
            self.connection.execute(f"create view silver.{name} as from main.{name}")

    def manifest(self) -> MemoryManifest | None:
        return self.current

    def is_current(self, version: int) -> bool:
        return self.current is not None and self.current.version == version

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self.lock:
            self.queries += 1
            if self.current is None:
                raise NothingPublishedError(Path("gold"))
            if self.fault is not None:
                raise self.fault
            return self.connection.execute(sql, list(parameters)).fetchall()

    def publish(self, log: MemoryLog, *, at_ms: int, upto: dict[int, int] | None = None) -> None:
        """A build of the log's trades up to offsets `upto` by partition (default: all)."""
        rows: list[tuple[Any, ...]] = []
        with self.lock:
            for partition in log.partitions():
                if partition.stream is Stream.TRADES:
                    rows.extend(self._take(log, partition, upto))
                elif partition.stream is Stream.QUOTES:
                    self._take_quotes(log, partition)
            if rows:
                frame = pd.DataFrame(rows)
                self.connection.execute("insert into trades select * from frame")
                del frame
            version = self.current.version + 1 if self.current else 1
            positions = [
                (str(place.stream), log.epoch, place.part, offset)
                for place, offset in self._taken.items()
            ]
            self.current = MemoryManifest(version, version, at_ms, positions)

    def gap(
        self,
        from_ms: int,
        to_ms: int,
        *,
        symbols: Sequence[str] = (),
        cause: str = "connection lost",
        filled_by: str | None = None,
        name: str = "g1",
        stream: str = "trades",
        kind: str = "missed",
        ids: tuple[int, int] | None = None,
    ) -> None:
        """A gap of silver, and the day that it leaves incomplete."""
        times = [make_utc(at_ms) for at_ms in (from_ms, to_ms)]
        self.connection.execute(
            "insert into gaps values (?, ?, 's1', ?, ?, ?, ?, ?, ?, ?, ?, 1)",
            [kind, name, stream, *times, ",".join(symbols), cause, filled_by, *(ids or NO_IDS)],
        )
        for symbol in symbols or ("",):
            missing_s = 0.0 if filled_by else (to_ms - from_ms) / 1000
            self.connection.execute(
                "insert into gaps_daily values (?, ?, ?, ?, ?)",
                [times[0].date(), symbol, stream, missing_s, filled_by is not None],
            )

    def _take_quotes(self, log: MemoryLog, partition: TopicPartition) -> None:
        start = self._taken.get(partition, 0)
        end = self._taken[partition] = log.bounds(partition).end
        for _, value in log.records[partition][start:end]:
            quote = read_quote(value)
            if quote is not None:
                self.connection.execute(
                    "insert into quotes values (?, ?, ?, ?)",
                    [quote.symbol, make_utc(quote.quoted_ms), quote.price, quote.source],
                )

    def _take(
        self, log: MemoryLog, partition: TopicPartition, upto: dict[int, int] | None
    ) -> Iterator[tuple[Any, ...]]:
        start = self._taken.get(partition, 0)
        end = log.bounds(partition).end if upto is None else upto.get(partition.part, start)
        for offset in range(start, end):
            frame = read_trades(log.records[partition][offset][1])
            for i, trade in enumerate(frame.prints if frame else ()):
                if frame is not None and is_trade(trade):
                    flags = self.conditions.flags(trade.c)
                    sets = self.conditions.sets_price(trade.s, trade.c, trade.t)
                    yield (
                        partition.part, offset, trade.s, trade.t, frame.rx // 1000, frame.ses,
                        frame.seq, i, trade.p, trade.v, flags.counts_volume, sets, frame.src,
                    )  # fmt: skip
        self._taken[partition] = end

    def close(self) -> None:
        self.connection.close()


def make_utc(at_ms: int) -> datetime:
    """A time as DuckDB keeps it."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).replace(tzinfo=None)


def quote_frame(
    symbol: str,
    price: float,
    quoted_ms: int,
    *,
    at_ms: int,
    seq: int = 0,
    source: str = "finnhub.quote",
    **changes: Any,
) -> bytes:
    """An answer of Finnhub's /quote, received at `at_ms`."""
    answer = {"c": price, "d": 0.1, "dp": 0.1, "h": price, "l": price, "o": price, "pc": price}
    payload = msgspec.json.encode({**answer, "t": quoted_ms // 1000, **changes})
    return encode_frames(
        [payload],
        source=source,
        session="q1",
        first_seq=seq,
        received_at_ns=at_ms * 1_000_000,
        symbol=symbol,
    )[0]


def session_event(event: SessionEvent, *, session: str = "s1", seq: int = 0) -> bytes:
    """A record of the stream `sessions`."""
    return encode_event(event, session=session, seq=seq)


def opened(
    mode: Mode = "simulated",
    feed: str = "sim://sp500",
    *,
    at_ms: int = 0,
    shard: int = 0,
    session: str = "s1",
) -> bytes:
    """An `opened` event of a shard."""
    event = Opened(
        at=at_ms * 1_000_000, shard=shard, feed=feed, mode=mode, cursor=None, previous=None
    )
    return session_event(event, session=session)


class Trades:
    """Writes Finnhub frames of one session; message numbers are dense."""

    def __init__(self, *, source: str = "sim:finnhub.ws", session: str = "s1") -> None:
        self.source = source
        self.session = session
        self.seq = 0

    def frame(self, *trades: dict[str, Any], at_ms: int) -> bytes:
        """One frame received at `at_ms`."""
        payload = msgspec.json.encode({"data": trades, "type": "trade"})
        value = encode_frames(
            [payload],
            source=self.source,
            session=self.session,
            first_seq=self.seq,
            received_at_ns=at_ms * 1_000_000,
        )[0]
        self.seq += 1
        return value


def trade(
    symbol: str, price: float, at_ms: int, size: float = 100, codes: Sequence[str] | None = None
) -> dict[str, Any]:
    """A trade as Finnhub words it."""
    return {"c": codes, "p": price, "s": symbol, "t": at_ms, "v": size}


SECTORS = [
    "Information Technology", "Financials", "Health Care", "Industrials", "Consumer Discretionary",
    "Communication Services", "Consumer Staples", "Energy", "Utilities", "Real Estate", "Materials",
]  # fmt: skip


class Market:
    """A seeded market whose prices walk; for the page and its tests.

    Args:
        symbols: number of symbols; the first ones are well-known names.
        seed: of the walk.
    """

    KNOWN = (
        "NVDA", "AAPL", "MSFT", "AMZN", "GOOGL", "META", "AVGO", "TSLA", "BRK.B", "JPM", "LLY",
        "V", "XOM", "UNH", "MA", "COST", "WMT", "HD", "PG", "NFLX",
    )  # fmt: skip

    def __init__(self, symbols: int = 40, *, seed: int = 1) -> None:
        self.random = random.Random(seed)
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        names = [*self.KNOWN]
        while len(names) < symbols:
            name = "".join(self.random.choices(letters, k=self.random.choice([3, 4])))
            if name not in names:
                names.append(name)
        self.names = names[:symbols]
        self.price = {name: round(self.random.uniform(12, 700), 2) for name in self.names}
        self.trades = Trades()
        self.facts = [
            (
                name,
                SECTORS[min(int(self.random.expovariate(0.35)), 10)],
                "Industry",
                float(round(4e12 / (rank + 1) ** 1.1)),
                round(self.price[name] * self.random.gauss(1, 0.012), 2),
            )
            for rank, name in enumerate(self.names)
        ]
        self.weights = [1 / (rank + 1) ** 0.6 for rank in range(len(self.names))]

    def frame(self, at_ms: int, count: int = 10) -> bytes:
        """One frame of `count` trades around `at_ms`."""
        found: list[dict[str, Any]] = []
        for name in self.random.choices(self.names, self.weights, k=count):
            step = self.random.gauss(0, 0.0004)
            self.price[name] = round(max(self.price[name] * (1 + step), 0.01), 2)
            is_odd = self.random.random() < 0.5
            size = self.random.randint(1, 99) if is_odd else 100 * self.random.randint(1, 8)
            codes = ["1", "12"] if is_odd else ["1"]
            found.append(trade(name, self.price[name], at_ms, size, codes))
        return self.trades.frame(*found, at_ms=at_ms)


@contextlib.contextmanager
def serving(
    log: LogReader,
    gold: Published,
    run_folder: Path,
    *,
    port: int = 0,
    conditions: Conditions | None = None,
) -> Iterator[str]:
    """The dashboard in a thread of this process; gives its address."""
    stop = threading.Event()
    ready = threading.Event()
    address: list[str] = []
    listener = listen("127.0.0.1", port)
    failure: list[BaseException] = []

    def on_ready(url: str) -> None:
        address.append(url)
        ready.set()

    def run() -> None:
        try:
            serve(
                reader=log,
                published=gold,
                conditions=conditions or seeded_conditions(),
                run_folder=run_folder,
                listener=listener,
                stop=stop,
                on_ready=on_ready,
            )
        except BaseException as error:
            failure.append(error)
            raise
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="serve")
    thread.start()
    try:
        assert ready.wait(20), "the server did not start"
        assert not failure, failure
        yield address[0]
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"


class Feeding:
    """Feeds a market into a log and publishes gold of it, in a thread, as the road would.

    Args:
        frames_s: frames a second, of ten trades each.
        publish_s: pause between two versions of gold.
    """

    def __init__(
        self,
        log: MemoryLog,
        gold: MemoryGold,
        market: Market,
        *,
        frames_s: int = 60,
        publish_s: float = 0.5,
    ) -> None:
        self._log, self._gold, self._market = log, gold, market
        self._pause_s, self._frames = 0.05, max(frames_s // 20, 1)
        self._publish_s = publish_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """The feed falls silent."""
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        published = time.monotonic()
        while not self._stop.wait(self._pause_s):
            now_ms = time.time_ns() // 1_000_000
            frames = [self._market.frame(now_ms) for _ in range(self._frames)]
            self._log.append(TRADES, frames, at_ms=now_ms)
            if time.monotonic() - published >= self._publish_s:
                published = time.monotonic()
                self._gold.publish(self._log, at_ms=now_ms)


def with_history(
    market: Market, *, minutes: int = 90, frames_a_minute: int = 12
) -> tuple[MemoryLog, MemoryGold]:
    """A log and gold of a market that has been open for a while."""
    log, gold = MemoryLog(), MemoryGold(facts=market.facts)
    now_ms = time.time_ns() // 1_000_000
    count = minutes * frames_a_minute
    log.append(SESSIONS, [opened(at_ms=now_ms)], at_ms=now_ms)
    for number in range(count):
        at_ms = now_ms - (count - number) * 60_000 // frames_a_minute
        log.append(TRADES, [market.frame(at_ms)], at_ms=at_ms)
    gold.publish(log, at_ms=now_ms)
    return log, gold
