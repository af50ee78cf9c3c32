"""Bad input: a clear error or a reject row, while the connection and all other symbols go on."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from proofs.stages import Stages
from support.recording import record_until
from support.tiny_http import Reply, Request, TinyServer, served
from support.tiny_socket import Call, TinySocket, at, live
from tickhouse.cli import build_parser, run_verb
from tickhouse.clock import ScaledClock
from tickhouse.source.finnhub.feed import open_finnhub_rest
from tickhouse.source.options import FinnhubOptions
from tickhouse.source.secret import Secret

KEY = "k3y-of-a-test"
DAY = "2026-11-23"
TRADED_MS = at(f"{DAY} 15:00") // 1_000_000
SLOW_S = 3 * 3600
"""This machine's clock is so much behind: trades seem to come before they happen."""


def message(*elements: str) -> str:
    return f'{{"data":[{",".join(elements)}],"type":"trade"}}'


def element(symbol: str = "AAPL", price: str = "100.5", time: str = str(TRADED_MS)) -> str:
    return f'{{"c":["1"],"p":{price},"s":{json.dumps(symbol)},"t":{time},"v":5}}'


GOOD = message(element("MSFT"))
BAD: dict[str, tuple[str | bytes, list[str]]] = {
    "binary": (b"\x00\xff\xfe\x80\r\n", ["not_json"]),
    "no JSON": ("hello", ["not_json"]),
    "empty": ("", ["not_json"]),
    "half JSON": (GOOD[:30], ["not_json"]),
    "100,000 deep": ("[" * 100_000 + "]" * 100_000, ["not_json"]),
    "100,000 deep inside": (f'{{"data":{"[" * 100_000}{"]" * 100_000}}}', ["not_json"]),
    "price NaN": (message(element(price="NaN")), ["not_json"]),
    "price Infinity": (message(element(price="Infinity")), ["not_json"]),
    "price 'NaN'": (message(element(price='"NaN"')), ["bad_price"]),
    "price 1e308": (message(element(price="1e308")), ["bad_price"]),
    "price 1e999": (message(element(price="1e999")), ["bad_price"]),
    "price negative": (message(element(price="-100.5")), ["bad_price"]),
    "price null": (message(element(price="null")), ["missing_price"]),
    "price 2^63": (message(element(price="9223372036854775808")), ["bad_price"]),
    "time 2^63": (message(element(time="9223372036854775808")), ["bad_time"]),
    "time 2^64": (message(element(time="18446744073709551616")), ["bad_time"]),
    "time negative": (message(element(time="-1")), ["bad_time"]),
    "time in seconds": (message(element(time=str(TRADED_MS // 1000))), ["bad_time"]),
    "symbol malformed": (message(element("A'; drop table")), ["bad_symbol"]),
    "symbol empty": (message(element("")), ["missing_symbol"]),
    "symbol of 10,000": (message(element("A" * 10_000)), ["bad_symbol"]),
    "of another shape": ('{"type":"news","data":[]}', ["unknown_shape"]),
    "good among bad": (
        message(element(price="-1"), element("TSLA"), "null", element(time="null")),
        ["bad_price", "unknown_shape", "missing_time"],
    ),
}
OVERSIZE = message(*[element()] * 180_000)
"""10 MB of good trades: more than a frame may have."""

QUOTE = b'{"c":%s,"d":0.5,"dp":5,"h":11,"l":9.5,"o":10,"pc":10,"t":%s}'
NOW_S = b"%d" % (TRADED_MS // 1000)
BAD_QUOTES: dict[str, tuple[bytes, str]] = {
    "AIG": (b"\x00\xff\xfe\x80", "not_json"),
    "BAC": (b"[" * 100_000 + b"]" * 100_000, "not_json"),
    "CVX": (QUOTE % (b"NaN", NOW_S), "not_json"),
    "DIS": (QUOTE % (b"1e308", NOW_S), "bad_price"),
    "F": (QUOTE % (b"-10.5", NOW_S), "no_data"),
    "GE": (QUOTE % (b"10.5", b"9223372036854775808"), "bad_time"),
    "GM": (QUOTE % (b'"ten"', NOW_S), "bad_price"),
    "IBM": (QUOTE[:20], "not_json"),
    "KO": (b"", "not_json"),
    "PFE": (b"null", "not_json"),
    "T": (b'{"c":10.5,"t":null}', "bad_time"),
    "NOSUCH": (QUOTE % (b"0", b"0"), "no_data"),
}
HUGE = b'{"c":10.5,"t":%s,"x":"%s"}' % (NOW_S, b"x" * (10 << 20))


def answer(request: Request) -> Reply:
    symbol = request.target.rpartition("symbol=")[2]
    if symbol == "XOM":
        return Reply(HUGE)
    if symbol in BAD_QUOTES:
        return Reply(BAD_QUOTES[symbol][0])
    return Reply(QUOTE % (b"10.5", NOW_S) if symbol == "MSFT" else b"{}")


async def record_messages(stages: Stages) -> int:
    """Each bad message between good ones, on one connection; how many connections it took."""
    frames = [frame for bad, _ in BAD.values() for frame in (bad, GOOD)]
    frames += [OVERSIZE, GOOD]

    async def say(call: Call) -> None:
        await call.hear(3)
        await call.send(*frames)
        await call.stay()

    clock = ScaledClock(1, start_ns=at(f"{DAY} 15:00") - SLOW_S * 1_000_000_000)
    async with TinySocket(say) as server:
        feed = live(server, "AAPL,MSFT,TSLA?poll=off", clock=clock)
        await record_until(
            stages.log, feed, clock, lambda recorder: recorder.frames >= len(frames) - 1
        )
        return len(server.calls)


async def record_quotes(stages: Stages) -> list[str]:
    symbols = [*BAD_QUOTES, "XOM", "MSFT"]
    clock = ScaledClock(4, start_ns=at(f"{DAY} 15:00"))
    async with TinyServer(answer) as server:
        options = FinnhubOptions(token=Secret(KEY), rest_url=server.url, calls_per_minute=1800)
        feed = open_finnhub_rest(",".join(symbols), options, clock=clock)
        await record_until(
            stages.log,
            feed,
            clock,
            lambda _recorder: sum("MSFT" in request.target for request in server.requests) > 1,
        )
        return [request.target for request in server.requests]


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    stages = Stages(tmp_path_factory.mktemp("bad"))
    assert asyncio.run(record_messages(stages)) == 1, "one connection through all of it"
    asyncio.run(record_quotes(stages))
    stages.lander.drain()
    stages.refine()
    yield stages
    stages.close()


def ask(road: Stages, sql: str, *values: object) -> list[tuple[Any, ...]]:
    return road.warehouse.query(sql, values)


# -- messages of the socket ----------------------------------------------------------------------


@pytest.mark.parametrize("name", BAD)
def test_a_bad_message_is_a_reject_with_its_reason(name: str, road: Stages) -> None:
    seq = 2 * list(BAD).index(name)
    sql = "select reason from silver.rejected_trades where session_seq = ? order by trade_index"

    assert [reason for (reason,) in ask(road, sql, seq)] == BAD[name][1]


def test_all_other_trades_go_on_through_bad_messages(road: Stages) -> None:
    found = ask(road, "select symbol, count(*), max(price) from silver.trades group by symbol")

    assert sorted(found) == [
        ("MSFT", len(BAD) + 1, Decimal("100.5")),
        ("TSLA", 1, Decimal("100.5")),
    ]


def test_a_message_of_10_mb_is_a_gap_that_says_so(road: Stages) -> None:
    gaps = ask(road, "select seq_from, seq_to, cause from silver.gaps where kind = 'refused'")

    assert len(OVERSIZE) > 10_000_000
    ((first, last, cause),) = gaps
    assert (first, last) == (2 * len(BAD), 2 * len(BAD))
    assert "over the limit of 1000000" in cause


def test_a_clock_3_h_off_loses_and_refuses_nothing(road: Stages) -> None:
    ((early,),) = ask(
        road, "select count(*) from silver.trades where received_at < event_at - interval 2 hour"
    )

    assert early == len(BAD) + 2


# -- quotes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("symbol", BAD_QUOTES)
def test_a_bad_quote_is_a_reject_with_its_reason(symbol: str, road: Stages) -> None:
    sql = "select distinct reason from silver.rejected_quotes where symbol = ?"

    assert ask(road, sql, symbol) == [(BAD_QUOTES[symbol][1],)]
    assert ask(road, "select count(*) from silver.quotes where symbol = ?", symbol) == [(0,)]


def test_other_quotes_go_on_through_bad_ones(road: Stages) -> None:
    ((count, price),) = ask(
        road, "select count(*), max(price) from silver.quotes where symbol = 'MSFT'"
    )

    assert count >= 1
    assert price == Decimal("10.5")


def test_an_answer_of_10_mb_is_given_up_and_told_as_a_gap(road: Stages) -> None:
    causes = ask(road, "select cause from silver.gaps where stream = 'quotes' and kind = 'missed'")

    assert [cause for (cause,) in causes if "larger than 8388608 bytes" in cause]
    assert ask(road, "select count(*) from silver.quotes where symbol = 'XOM'") == [(0,)]


def test_nothing_of_bad_input_is_lost_or_doubled(road: Stages) -> None:
    report = road.audit()

    assert report.ok, [finding for layer in report.layers for finding in layer.findings]


def test_every_bad_message_has_a_reason_row_in_gold(road: Stages) -> None:
    expected = Counter(reason for _, reasons in BAD.values() for reason in reasons)
    found = ask(road, "select reason, count(*) from silver.rejected_trades group by reason")

    assert Counter(dict(found)) == expected


# -- the command line ----------------------------------------------------------------------------


def run(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    """Exit code and what a user reads of a verb that cannot run."""
    code = run_verb(build_parser().parse_args([*arguments, "--data", str(folder)]))
    shown = capsys.readouterr()
    assert KEY not in shown.out + shown.err
    assert "Traceback" not in shown.out + shown.err
    return code, [line for line in shown.err.splitlines() if line.startswith("tickhouse ")]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("finnhub://", "no symbol given"),
        ("finnhub://,", "not a symbol"),
        ("finnhub+rest://", "no symbol given"),
        ("finnhub://AA;PL", "is not a symbol"),
        ("finnhub://" + "A" * 33, "is not a symbol"),
        ("finnhub://AAPL,AAPL", "given twice"),
        ("finnhub://AAPL?depth=5", "unknown parameter"),
        ("binance://", "no pair"),
        ("binance://btc/usdt", "is no pair"),
        ("fin://AAPL", "is not a feed of this version"),
    ],
)
def test_an_address_that_cannot_be_meant_is_one_clear_line(
    source: str,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TICKHOUSE_FINNHUB_TOKEN", KEY)
    code, lines = run(tmp_path, capsys, "record", "--for", "5s", "--source", source)

    assert code == 2
    assert len(lines) == 1
    assert words in lines[0]


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b'{"error":"Invalid API key."}', "the API key is refused"),
        (401, b"", "TICKHOUSE_FINNHUB_TOKEN"),
    ],
)
def test_a_wrong_key_stops_the_recorder_with_one_clear_line(
    status: int,
    body: bytes,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TICKHOUSE_FINNHUB_TOKEN", KEY)
    with served(lambda _request: Reply(body, status)) as server:
        url = ("--finnhub-rest-url", server.url)
        code, lines = run(
            tmp_path, capsys, "record", "--for", "5s", "--source", "finnhub+rest://AAPL", *url
        )

    assert code == 2
    assert len(lines) == 1
    assert words in lines[0]


def test_without_a_key_one_is_told_where_to_put_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TICKHOUSE_FINNHUB_TOKEN", raising=False)
    code, lines = run(tmp_path, capsys, "record", "--for", "5s", "--source", "finnhub://AAPL")

    assert code == 2
    assert "TICKHOUSE_FINNHUB_TOKEN" in lines[0]
