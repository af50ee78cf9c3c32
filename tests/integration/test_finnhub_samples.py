"""Every recorded Finnhub message and answer through the real client, to the outcome it must have.

A server on 127.0.0.1 says what was recorded; the feed, the recorder and every stage are the real
ones.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from proofs.stages import Stages
from support.recording import record_until
from support.tiny_http import Reply, Request, TinyServer, as_json
from support.tiny_socket import Call, TinySocket, at, live
from tickhouse.clock import ScaledClock
from tickhouse.errors import ConfigError
from tickhouse.model.frame import decode_envelope
from tickhouse.model.positions import Stream, TopicPartition
from tickhouse.source.finnhub.feed import open_finnhub_rest
from tickhouse.source.finnhub.profiles import PROFILE_SHARD, ProfileFeed
from tickhouse.source.finnhub.rest import (
    KeyRefusedError,
    PlanRefusedError,
    RestClient,
    decode_object,
    judge,
)
from tickhouse.source.options import FinnhubOptions
from tickhouse.source.secret import Secret
from tickhouse.stream.recorder import Recorder

DATA = Path(__file__).parents[1] / "data" / "finnhub"
OBSERVED: dict[str, Any] = json.loads((DATA / "rest_observed.json").read_text())
SWAGGER: dict[str, Any] = json.loads((DATA / "rest_swagger_samples.json").read_text())
SPEED = 20.0

SOCKET_FILES = {
    "ws_control.jsonl": "MSFT",
    "ws_trade_2020_triplicate_no_c.jsonl": "AAPL,MSFT",
    "ws_trade_AAPL_20230331_regular.jsonl": "AAPL",
    "ws_trade_BTCUSDT_20240721.jsonl": "BINANCE:BTCUSDT",
    "ws_trade_FX_ICMARKETS_zero_volume.jsonl": "IC MARKETS:1",
    "ws_trade_TSLA_20230412_double_delivery.jsonl": "TSLA",
    "ws_trade_TSLA_AAPL_20221229_afterhours.jsonl": "TSLA,AAPL",
    "ws_trade_XOM_20230210_out_of_order.jsonl": "XOM",
    "ws_trade_mixed_null_conditions.jsonl": "AAPL,BINANCE:BTCUSDT",
}
"""Each file and the symbols that the feed watches while it is sent."""


def body_of(name: str) -> bytes:
    """The body of an observed answer."""
    answer = OBSERVED[name]
    return answer["text"].encode() if "text" in answer else as_json(answer["body"])


def observed(name: str, **headers: str) -> Reply:
    return Reply(body_of(name), OBSERVED[name]["status"], headers)


LIMITED = {"Date": formatdate(at("2023-03-31 14:31:58") / 1e9, usegmt=True)}
"""Two seconds are left of the server's minute."""
QUOTE = b'{"c":10.5,"d":0.5,"dp":5,"h":11,"l":9.5,"o":10,"pc":10,"t":1680273039}'
STALE = (
    b'{"c":10.5,"d":0.5,"dp":5,"h":11,"l":9.5,"o":10,"pc":10,"t":%d}'
    % (OBSERVED["quote_stale_200"]["body_t"])
)
QUOTES: dict[str, list[Reply]] = {
    "AAPL": [observed("quote_ok")],
    "MSFT": [observed("quote_after_close")],
    "NOSUCH": [observed("quote_unknown_symbol")],
    "SPY": [observed("quote_partial_zeros_2020")],
    "IBM": [observed("rate_limited", **LIMITED), Reply(QUOTE)],
    "BAC": [observed("rate_limited_plain_text_2020", **LIMITED), Reply(QUOTE)],
    "AIG": [Reply(b"", 429, LIMITED), Reply(QUOTE)],
    "GE": [Reply(as_json(SWAGGER["/quote"]["sample"]))],
    "XOM": [Reply(SWAGGER["/forex/rates"]["sample_raw_invalid_json"].encode())],
    "CVX": [Reply(SWAGGER["/stock/metric"]["sample_raw_invalid_json"].encode())],
    "GM": [Reply(body_of("rate_limited")), Reply(QUOTE)],
    "PFE": [observed("candle_no_data")],
    "KO": [observed("premium_endpoint_with_free_key")],
}
"""What the server answers to each symbol's quotes in turn; the last answer stays."""


class Desk:
    """The REST server's answers: quotes by symbol, and what the exchange says."""

    def __init__(self, quotes: dict[str, list[Reply]]) -> None:
        self._quotes = quotes
        self.asked: Counter[str] = Counter()
        self.answers = 0
        self.enough: int | None = None

    def answer(self, request: Request) -> Reply:
        self.answers += 1
        symbol = request.target.rpartition("symbol=")[2]
        if request.path.endswith("/quote"):
            replies = self._quotes[symbol]
            self.asked[symbol] += 1
            if self.enough is None and self.has_given_all():
                self.enough = self.answers
            return replies[min(self.asked[symbol], len(replies)) - 1]
        if request.path.endswith("/stock/market-status"):
            return observed("market_status_open")
        return Reply(as_json(SWAGGER["/stock/market-holiday"]["sample"]))

    def is_done(self, recorder: Recorder) -> bool:
        """Whether everything was answered, and every answer is durable."""
        return self.enough is not None and recorder.frames >= self.enough

    def has_given_all(self) -> bool:
        return all(self.asked[symbol] >= len(self._quotes[symbol]) for symbol in self._quotes)


def options(url: str) -> FinnhubOptions:
    return FinnhubOptions(token=Secret("k3y"), rest_url=url, calls_per_minute=1800)


async def record_socket(stages: Stages, name: str) -> None:
    lines = (DATA / name).read_text().splitlines()
    symbols = SOCKET_FILES[name]

    async def say(call: Call) -> None:
        await call.hear(symbols.count(",") + 1)
        await call.send(*lines)
        await call.stay()

    clock = ScaledClock(1, start_ns=at("2026-11-23 15:00"))
    async with TinySocket(say) as server:
        feed = live(server, f"{symbols}?poll=off", clock=clock)
        await record_until(stages.log, feed, clock, lambda recorder: recorder.frames >= len(lines))


async def record_quotes(stages: Stages, quotes: dict[str, list[Reply]], start: str) -> None:
    desk = Desk(quotes)
    clock = ScaledClock(SPEED, start_ns=at(start))
    async with TinyServer(desk.answer) as server:
        feed = open_finnhub_rest(",".join(quotes), options(server.url), clock=clock)
        await record_until(stages.log, feed, clock, desk.is_done)


async def record_profile(stages: Stages) -> None:
    clock = ScaledClock(SPEED, start_ns=at("2023-03-31 14:00"))
    body = as_json(SWAGGER["/stock/profile2"]["sample"])
    async with TinyServer(lambda _request: Reply(body)) as server:
        feed = ProfileFeed(["AAPL"], options(server.url), clock=clock, age_s_min=60)
        await record_until(stages.log, feed, clock, lambda _recorder: False, shard=PROFILE_SHARD)


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    """Every sample recorded, landed, loaded and built."""
    stages = Stages(tmp_path_factory.mktemp("samples"))
    for name in SOCKET_FILES:
        asyncio.run(record_socket(stages, name))
    asyncio.run(record_quotes(stages, QUOTES, "2023-03-31 14:31"))
    asyncio.run(record_quotes(stages, {"GOOG": [Reply(STALE)]}, "2026-08-31 14:27"))
    asyncio.run(record_profile(stages))
    stages.lander.drain()
    stages.refine()
    yield stages
    stages.close()


def ask(road: Stages, sql: str, *values: object) -> list[tuple[Any, ...]]:
    return road.warehouse.query(sql, values)


# -- the socket ----------------------------------------------------------------------------------


def sent(name: str) -> list[dict[str, Any]]:
    """The messages of a file, read without the product's code."""
    lines = (DATA / name).read_text().splitlines()
    return [json.loads(line, parse_float=Decimal, parse_int=Decimal) for line in lines]


def session_of(name: str) -> str:
    feed = f"finnhub://{SOCKET_FILES[name]}?poll=off"
    return f"(select session_id from silver.sessions where feed = '{feed}')"


def test_every_recorded_file_is_tried() -> None:
    files = {file.name for file in DATA.iterdir() if file.suffix != ".md"}

    assert files == {*SOCKET_FILES, "rest_observed.json", "rest_swagger_samples.json"}


@pytest.mark.parametrize("name", SOCKET_FILES)
def test_messages_are_kept_as_they_were_sent(name: str, road: Stages) -> None:
    ((session,),) = ask(road, f"select {session_of(name)}")
    place = TopicPartition(Stream.TRADES, 0)
    kept: list[bytes] = []
    for offset in range(road.reader.bounds(place).end):
        batch = road.reader.read(place, offset, bytes_max=1)
        envelope = None if batch is None else decode_envelope(batch.values[0])
        if envelope is not None and envelope.ses == session:
            kept.append(bytes(envelope.raw))

    assert kept == (DATA / name).read_bytes().splitlines()


@pytest.mark.parametrize("name", SOCKET_FILES)
def test_every_print_is_a_trade_and_every_price_update_a_reject(name: str, road: Stages) -> None:
    expected = [
        (
            seq, index, item["s"], int(item["t"]), item["p"], item["v"],
            ",".join(item.get("c") or []),
        )
        for seq, message in enumerate(sent(name))
        for index, item in enumerate(message.get("data", []))
    ]  # fmt: skip
    trades = ask(
        road,
        "select session_seq, trade_index, symbol, epoch_ms(event_at), price, trade_size, conditions"
        f" from silver.trades where session_id = {session_of(name)} order by 1, 2",
    )
    rejects = ask(
        road,
        "select session_seq, trade_index, reason from silver.rejected_trades"
        f" where session_id = {session_of(name)} order by 1, 2",
    )

    assert [row for row in expected if row[5] > 0] == trades
    assert [(*row[:2], "zero_size") for row in expected if row[5] == 0] == rejects


def test_the_samples_hold_what_they_are_kept_for(road: Stages) -> None:
    """The named shapes are really in them: the tests above would pass over an empty file."""

    def count(name: str, condition: str) -> int:
        where = f"session_id = {session_of(name)} and {condition}"
        return ask(road, f"select count(*) from silver.trades where {where}")[0][0]

    regular = "ws_trade_AAPL_20230331_regular.jsonl"

    assert count(regular, "true") == 61
    assert count(regular, "trade_index = 9") > 0, "a batch of ten"
    assert count(regular, "price <> round(price, 2)") > 0, "sub-penny prices"
    assert count("ws_trade_2020_triplicate_no_c.jsonl", "conditions = ''") >= 3, "no c at all"
    assert count("ws_trade_BTCUSDT_20240721.jsonl", "trade_size < 0.001") > 0, "8e-05"
    assert count("ws_trade_mixed_null_conditions.jsonl", "conditions = ''") > 0, "c null"
    assert count("ws_control.jsonl", "true") == 0
    newest_first = ask(
        road,
        "select epoch_ms(event_at) from silver.trades where session_id ="
        f" {session_of('ws_trade_XOM_20230210_out_of_order.jsonl')}"
        " order by session_seq, trade_index",
    )
    assert newest_first != sorted(newest_first)
    doubled = ask(
        road,
        "select count(*) from silver.trades where session_id ="
        f" {session_of('ws_trade_TSLA_20230412_double_delivery.jsonl')}"
        " group by event_at, price, trade_size having count(*) > 1",
    )
    assert doubled == [(2,)] * 4, "four prints twice in a message, and all are kept"


def test_too_many_symbols_is_told_as_coverage(road: Stages) -> None:
    told = ask(
        road,
        "select channel, reason from silver.coverage"
        f" where session_id = {session_of('ws_control.jsonl')} order by session_seq",
    )

    assert told[0][0] == "socket"
    assert told[-1][0] == "none"


# -- quotes --------------------------------------------------------------------------------------


def quotes_of(road: Stages, symbol: str) -> list[tuple[Any, ...]]:
    return ask(
        road,
        "select price, previous_close, day_high, quoted_at, is_stale from silver.quotes"
        " where symbol = ? and not is_repeat",
        symbol,
    )


def reasons_of(road: Stages, symbol: str) -> set[str]:
    sql = "select distinct reason from silver.rejected_quotes where symbol = ?"
    return {reason for (reason,) in ask(road, sql, symbol)}


def test_a_good_quote_is_a_snapshot_with_the_sources_own_figures(road: Stages) -> None:
    quoted_at = datetime(2023, 3, 31, 14, 30, 39)  # noqa: DTZ001 - as the warehouse has it

    assert quotes_of(road, "AAPL") == [
        (Decimal("162.65"), Decimal("162.36"), Decimal("163.09"), quoted_at, False)
    ]


@pytest.mark.parametrize("symbol", ["MSFT", "GOOG", "GE"])
def test_the_last_close_during_a_session_is_stale_and_no_price_of_it(
    symbol: str, road: Stages
) -> None:
    assert [stale for *_, stale in quotes_of(road, symbol)] == [True]


def test_zeros_are_no_data(road: Stages) -> None:
    assert quotes_of(road, "NOSUCH") == []
    assert reasons_of(road, "NOSUCH") == {"no_data"}


def test_a_good_price_among_zeros_is_kept_and_the_zeros_are_not(road: Stages) -> None:
    ((price, previous_close, high, *_),) = quotes_of(road, "SPY")

    assert (price, previous_close, high) == (Decimal("517.96"), None, None)


@pytest.mark.parametrize("symbol", ["IBM", "BAC", "AIG"])
def test_over_the_limit_is_kept_and_asked_for_again(symbol: str, road: Stages) -> None:
    assert reasons_of(road, symbol) == {"http_429"}
    assert [row[0] for row in quotes_of(road, symbol)] == [Decimal("10.5")]


def test_an_error_with_status_200_is_a_reject_and_asked_for_again(road: Stages) -> None:
    assert reasons_of(road, "GM") == {"error_answer"}
    assert [row[0] for row in quotes_of(road, "GM")] == [Decimal("10.5")]


@pytest.mark.parametrize("symbol", ["XOM", "CVX"])
def test_an_answer_that_is_no_json_is_kept_whole_as_a_reject(symbol: str, road: Stages) -> None:
    sql = "select distinct payload from silver.rejected_quotes where symbol = ?"

    assert reasons_of(road, symbol) == {"not_json"}
    assert ask(road, sql, symbol) == [(QUOTES[symbol][0].body.decode(),)]


def test_an_answer_of_another_endpoint_is_of_unknown_shape(road: Stages) -> None:
    assert reasons_of(road, "PFE") == {"unknown_shape"}


def test_a_symbol_that_the_plan_lacks_is_given_up_and_the_others_go_on(road: Stages) -> None:
    asked = ask(road, "select count(*) from silver.rejected_quotes where symbol = 'KO'")
    told = ask(road, "select channel from silver.coverage where symbol = 'KO' order by session_seq")

    assert asked == [(1,)]
    assert reasons_of(road, "KO") == {"http_403"}
    assert told[-1] == ("none",)
    assert len(quotes_of(road, "AAPL")) == 1


def test_status_and_holidays_are_reference_frames(road: Stages) -> None:
    kinds = ask(road, "select distinct source from bronze.reference order by 1")

    assert kinds == [
        ("finnhub.market-holiday",), ("finnhub.market-status",), ("finnhub.profile2",),
    ]  # fmt: skip


def test_a_profile_renews_its_instrument_in_full_dollars(road: Stages) -> None:
    found = ask(
        road, "select name, market_cap, sector from silver.instruments where symbol = 'AAPL'"
    )

    assert found == [("Apple Inc", Decimal(1415993000000), "Information Technology")]


def test_nothing_of_the_samples_is_lost_or_doubled(road: Stages) -> None:
    report = road.audit()

    assert report.ok, [finding for layer in report.layers for finding in layer.findings]
    assert (report.lost, report.duplicated) == (0, 0)


# -- answers that are no data --------------------------------------------------------------------


def get(reply: Reply, path: str) -> Any:
    async def run() -> Any:
        clock = ScaledClock(SPEED)
        async with (
            TinyServer(lambda _request: reply) as server,
            RestClient(options(server.url), clock=clock) as rest,
        ):
            return await rest.get(path)

    return asyncio.run(run())


@pytest.mark.parametrize("path", sorted(SWAGGER))
def test_every_sample_answer_of_the_swagger_is_told_apart(path: str) -> None:
    sample = SWAGGER[path]["sample"]
    invalid = SWAGGER[path].get("sample_raw_invalid_json")
    answer = get(Reply(as_json(sample) if invalid is None else invalid.encode()), path)

    assert judge(answer) == ("ok" if invalid is None else "failed")
    assert decode_object(answer) == (sample if isinstance(sample, dict) else None)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("no_key", KeyRefusedError),
        ("invalid_key", KeyRefusedError),
        ("premium_endpoint_with_free_key", PlanRefusedError),
    ],
)
def test_a_refusal_is_for_the_operator(name: str, kind: type[ConfigError]) -> None:
    with pytest.raises(kind, match=OBSERVED[name]["body"]["error"].rstrip(".")):
        get(observed(name), "/stock/tick")


@pytest.mark.parametrize("name", ["no_key", "invalid_key"])
def test_a_refused_key_stops_the_feed_for_good_with_a_clear_message(
    name: str, tmp_path: Path
) -> None:
    stages = Stages(tmp_path)
    asked: list[str] = []

    def refuse(request: Request) -> Reply:
        asked.append(request.path)
        return observed(name)

    async def run() -> None:
        clock = ScaledClock(SPEED)
        async with TinyServer(refuse) as server:
            feed = open_finnhub_rest("AAPL", options(server.url), clock=clock)
            await record_until(stages.log, feed, clock, lambda _recorder: False)

    try:
        with pytest.raises(ConfigError, match="TICKHOUSE_FINNHUB_TOKEN"):
            asyncio.run(run())
    finally:
        stages.close()

    assert len(asked) == 1, "not retried"
