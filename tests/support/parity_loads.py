"""Loads of every kind of frame, for tests that build them in two warehouses and compare."""

import gzip
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from support.bronze_rows import T0, BronzeFrame, binance, finnhub, millis, nanos, quote, trade
from tickhouse.model.session import (
    Closed,
    Coverage,
    Gap,
    Opened,
    PreviousSession,
    Remote,
    SessionEvent,
)

DATA = Path(__file__).parents[1] / "data"
MINUTE = timedelta(minutes=1)
SYMBOLS = ("AAPL", "MSFT", "XOM", "BINANCE:BTCUSDT")
CONDITIONS = (["1"], ["1", "12"], [], None, ["24"], ["8"], ["16"], ["1", "38"], ["zz", None])


def parity_loads(seed: int) -> list[list[BronzeFrame]]:
    """Four loads: what was recorded, then trades, quotes and events that come late and again."""
    chooser = random.Random(seed)
    trades, quotes = _trades(chooser), _quotes(chooser)
    events = list(_events())
    loads = [
        [*_recorded(), *trades[:60], *quotes[:20], *events[:4]],
        [*trades[90:150], *quotes[30:50], *_profiles(0), *events[4:9], *trades[40:45]],
        # late, and delivered again: by a session that was seen, and within the load
        [*trades[60:90], *trades[100:104], *quotes[20:30], *quotes[:3], *events[9:], *_pages()],
        [*trades[150:], *quotes[50:], *_profiles(1), *_rejects(), *events[5:7]],
    ]
    for load in loads[2:]:
        chooser.shuffle(load)
    return loads


def _trades(chooser: random.Random) -> list[BronzeFrame]:
    """Three sessions of a Friday that goes on after the close, in steps of a minute or so."""
    frames: list[BronzeFrame] = []
    numbers: dict[str, int] = {}
    at = T0 - timedelta(hours=1, minutes=10)
    for _ in range(200):
        at += timedelta(
            seconds=chooser.choice((1, 20, 60, 75, 130)), milliseconds=chooser.randrange(999)
        )
        session = chooser.choice(("t1", "t2", "t1\\0'"))
        prints = [
            trade(
                symbol := chooser.choice(SYMBOLS),
                at - timedelta(milliseconds=chooser.choice((0, 3, 3, 900, 40_000))),
                chooser.choice((100, 100.25, "61837.64", 0.00012345, 99.123456789)),
                chooser.choice((1, 5, "0.00400000", 100.5, 0)),
                None if ":" in symbol else chooser.choice(CONDITIONS),
            )
            for _ in range(chooser.randrange(1, 4))
        ]
        received = at + timedelta(microseconds=chooser.randrange(1, 400_000))
        frames.append(_frame(numbers, finnhub(*prints), session, received, "finnhub.ws"))
    close = datetime(2024, 8, 9, 20, 0, tzinfo=UTC)
    auction = [
        trade("AAPL", close + MINUTE, 101.5, 9000, ["19"]),
        trade("MSFT", close, 99, 7, ["6"]),
    ]
    return [*frames, _frame(numbers, finnhub(*auction), "t1", close + 2 * MINUTE, "finnhub.ws")]


def _quotes(chooser: random.Random) -> list[BronzeFrame]:
    frames: list[BronzeFrame] = []
    numbers: dict[str, int] = {}
    for step in range(60):
        symbol = chooser.choice((*SYMBOLS, "TSLA"))
        at = T0 + timedelta(minutes=20 * step)
        quoted = at - timedelta(seconds=chooser.choice((1, 30, 2000, 80_000)))
        if chooser.random() < 0.4 and frames:
            body, symbol = frames[-1].payload, frames[-1].symbol or symbol
        else:
            body = quote(
                quoted, chooser.choice((100, 100.5, 162.65, 0)), pc=chooser.choice((0, 99.7))
            )
        frame = _frame(numbers, body, "q1", at, "finnhub.quote")
        frames.append(msgspec.structs.replace(frame, stream="quotes", symbol=symbol))
    return frames


def _recorded() -> Iterator[BronzeFrame]:
    """What feeds sent in truth."""
    with gzip.open(next((DATA / "binance_ws_head").glob("*.gz")), "rt") as lines:
        for number, line in enumerate(lines):
            at, _, payload = line.strip().partition(" ")
            received = datetime.fromtimestamp(int(at) // 1000 / 1e6, tz=UTC)
            yield BronzeFrame(
                payload=payload,
                seq=number,
                session="b1",
                source="replay:binance.ws",
                received_at=received,
            )
    number = 0
    for file in sorted((DATA / "finnhub").glob("ws_*.jsonl")):
        for line in file.read_text().splitlines():
            yield BronzeFrame(payload=line, seq=number, session="f1", source="sim:finnhub.ws")
            number += 1


def _pages() -> Iterator[BronzeFrame]:
    """What fills gaps: pages of old trades."""
    old = [
        {"id": n, "price": f"6183{n}.64", "qty": "0.004", "time": millis(T0) + 1000 * n}
        for n in range(4)
    ]
    columns = {"s": "AAPL", "t": [millis(T0), millis(T0) + 7], "p": [100.5, 101], "v": [3, "4"]}
    bodies: list[tuple[str, object, str]] = [
        ("binance.trades", [*old, None, {"id": -1, "price": "x"}], "BTCUSDT"),
        ("binance.trades", {"code": -1121}, "BTCUSDT"),
        ("finnhub.tick", columns | {"c": [["1", "24"], None]}, "AAPL"),
        ("finnhub.tick", columns | {"v": [3]}, "AAPL"),
        ("finnhub.tick", columns, "MSFT"),
    ]
    for number, (source, body, symbol) in enumerate(bodies):
        yield BronzeFrame(
            payload=json.dumps(body), seq=number, session="p1", source=source, symbol=symbol
        )


def _profiles(number: int) -> Iterator[BronzeFrame]:
    for place, symbol in enumerate(("AAPL", "NEWCO", "bad symbol")):
        body = {"name": f" {symbol} Inc {number}", "finnhubIndustry": "Technology",
                "currency": "USD", "marketCapitalization": 1415993.25 + number}  # fmt: skip
        yield BronzeFrame(
            payload=json.dumps(body if number or place else body | {"currency": "EUR"}),
            seq=10 * number + place, session="r1", source="finnhub.profile2", stream="reference",
            symbol=symbol, received_at=T0 + timedelta(hours=number),
        )  # fmt: skip


def _rejects() -> Iterator[BronzeFrame]:
    """Frames that are no trades, one of each reason that every warehouse must judge alike."""
    at = millis(T0)
    elements: list[Any] = [
        {"s": "AAPL", "p": None, "t": at, "v": 1}, {"s": "AAPL", "p": "abc", "t": at, "v": 1},
        {"s": "AAPL", "p": -1, "t": at, "v": 1}, {"s": "a b;", "p": 1, "t": at, "v": 1},
        {"s": "", "p": 1, "t": at, "v": 1}, {"p": 1, "t": at, "v": 1}, {"s": "A", "p": 1, "t": at},
        {"s": "A", "p": 1, "t": at, "v": "x"}, {"s": "A", "p": 1, "t": "soon", "v": 1},
        {"s": "A", "p": 1, "t": 12, "v": 1}, {"s": "A", "p": 1, "v": 1}, None, 3, {}, [],
        {"s": "A", "p": "1_000", "t": at, "v": 1}, {"s": "A", "p": "9e-124", "t": at, "v": 1},
        {"s": "A", "p": 9999999999, "t": at, "v": 9999999999},
        {"s": "A", "p": 99999999999, "t": at, "v": 1},
        {"s": "A", "p": "0.000000015", "t": at, "v": 1},
    ]  # fmt: skip
    payloads = [
        json.dumps({"type": "trade", "data": elements}), '{"type":"trade","data":null}',
        '{"type":"trade","data":{"a":1}}', '{"type":"news","data":[1]}', '{"type":"ping"}',
        "[1, 2]", "7",
    ]  # fmt: skip
    for number, payload in enumerate(payloads):
        yield BronzeFrame(payload=payload, seq=number, session="j1")
    binances = ['{"stream":"btcusdt@trade","data":{"e":"kline"}}', '{"result":null,"id":1}', "{}",
                binance("BTCUSDT", T0, "61837.64", "0.004", 2**64)]  # fmt: skip
    for number, payload in enumerate(binances):
        yield BronzeFrame(payload=payload, seq=number, session="j2", source="binance.ws")
    yield BronzeFrame(payload=None, seq=7, session="j1", text="no json")
    yield BronzeFrame(payload=None, seq=0, poison="AAEC")
    yield BronzeFrame(payload='{"error":"limit"}', seq=0, session="j3", source="finnhub.quote",
                      stream="quotes", symbol="AAPL")  # fmt: skip
    yield BronzeFrame(payload='{"x":1}', seq=1, session="j3", source="finnhub.http.429",
                      stream="quotes", symbol="AAPL")  # fmt: skip


def _events() -> Iterator[BronzeFrame]:
    feed, since, until = "finnhub://AAPL", T0 + MINUTE, T0 + 3 * MINUTE
    monday = T0 + timedelta(days=3)
    told: list[tuple[str, SessionEvent]] = [
        ("t1", Opened(nanos(T0), 0, feed, "live", 0, None)),
        ("t1", Remote(nanos(T0), "8f1-EWR", -12)),
        ("t1", Coverage(nanos(T0), "socket", ["AAPL", "MSFT"], "subscribed", 61.5)),
        (
            "t1",
            Gap(
                nanos(until), "trades", 503, 504, nanos(since), nanos(until), ["AAPL"], "too large"
            ),
        ),
        ("t1", Closed(nanos(since), "dropped", {"trades": 70})),
        ("t2", Opened(nanos(until) + 999, 0, feed, "live", None, PreviousSession("t1", 60))),
        ("t2", _gap("a", since, until, ["AAPL", "MSFT"])),
        (
            "t2",
            _gap("b", since + MINUTE, until + MINUTE, ["BINANCE:BTCUSDT"], id_from=101, id_to=149),
        ),
        ("q1", Opened(nanos(T0), 1, feed, "live", None, None)),
        ("q1", _gap("q", monday, monday + 9 * MINUTE, [], stream="quotes")),
        ("t1\\0'", Opened(nanos(monday), 0, feed, "live", 3, PreviousSession("t2", 9, 1))),
        ("t1\\0'", _gap("a", since, until, ["AAPL"], filled_by="finnhub.tick")),
        ("t1\\0'", _gap("c", since, monday, ["AAPL", "BINANCE:BTCUSDT"])),
    ]
    numbers: dict[str, int] = {}
    for session, event in told:
        payload = msgspec.json.encode(event).decode()
        at = datetime.fromtimestamp(event.at // 1000 / 1e6, tz=UTC)
        frame = _frame(numbers, payload, f"{session}", at, "tickhouse")
        yield msgspec.structs.replace(frame, stream="sessions")


def _gap(name: str, since: datetime, until: datetime, symbols: list[str], **options: Any) -> Gap:
    told: dict[str, Any] = {
        "stream": "trades",
        "seq_from": None,
        "seq_to": None,
        "cause": "dropped",
    }
    times = {"at": nanos(until), "time_from": nanos(since), "time_to": nanos(until)}
    return Gap(**(told | times | {"symbols": symbols, "name": name} | options))


def _frame(
    numbers: dict[str, int], payload: str | None, session: str, received: datetime, source: str
) -> BronzeFrame:
    seq = numbers.get(session, 0)
    numbers[session] = seq + 1
    return BronzeFrame(
        payload=payload, seq=seq, session=session, source=source, received_at=received
    )
