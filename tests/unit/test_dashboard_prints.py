"""Trades are read out of log records by the rules of silver, whatever else the log holds."""

import msgspec
import pytest

from tickhouse.dashboard.prints import Print, is_ping, is_trade, kind_of, read_trades, source_of
from tickhouse.model.frame import encode_frames

AT = 1_723_213_800_000


def record(payload: bytes, source: str = "sim:finnhub.ws", symbol: str | None = None) -> bytes:
    return encode_frames(
        [payload],
        source=source,
        session="s1",
        first_seq=7,
        received_at_ns=AT * 1_000_000,
        symbol=symbol,
    )[0]


def finnhub(*items: object) -> bytes:
    return record(msgspec.json.encode({"data": items, "type": "trade"}))


def good(**changes: object) -> dict[str, object]:
    return {"c": ["1"], "p": 10.5, "s": "AAPL", "t": AT, "v": 3} | changes


def prints_of(value: bytes) -> list[Print]:
    frame = read_trades(value)
    return [] if frame is None else [trade for trade in frame.prints if is_trade(trade)]


def test_a_finnhub_frame_gives_its_trades_in_order() -> None:
    frame = read_trades(finnhub(good(), good(s="MSFT", c=None, v=0.5)))

    assert frame is not None
    assert (frame.ses, frame.seq, frame.rx) == ("s1", 7, AT * 1_000_000)
    assert frame.prints == [
        Print("AAPL", 10.5, AT, 3, ("1",)),
        Print("MSFT", 10.5, AT, 0.5, None),
    ]


def test_absent_and_empty_conditions_are_trades_without_codes() -> None:
    item = good()
    del item["c"]

    assert [trade.c for trade in prints_of(finnhub(item, good(c=[])))] == [None, ()]


def test_a_binance_trade_is_named_as_finnhub_names_it() -> None:
    payload = (
        b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT",'
        b'"t":3735683259,"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true}}'
    )

    assert prints_of(record(payload, "replay:binance.ws")) == [
        Print("BINANCE:BTCUSDT", 61837.63, 1_723_161_255_342, 0.02)
    ]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"not an envelope",
        b'{"v":1,"src":"finnhub.ws"',
        record(b'{"type":"ping"}'),
        record(b'{"msg":"Subscribing to too many symbols","type":"error"}'),
        record(b'{"type":"trade"}'),
        record(b'{"type":"trade","data":{"p":1}}'),
        record(b"[1,2]"),
        record(b"\xff\xfe"),
        record(b"not json"),
        record(b'{"type":"trade","data":[]}', "somewhere.else"),
        record(b'{"stream":"btcusdt@bookTicker","data":{"u":1,"s":"BTCUSDT"}}', "binance.ws"),
        record(b'{"stream":"x@trade","data":{"e":"trade","s":"X","p":"?","q":"1"}}', "binance.ws"),
    ],
)
def test_records_without_trades_give_none(value: bytes) -> None:
    assert prints_of(value) == []


@pytest.mark.parametrize(
    "item",
    [
        good(p=None), good(p=0), good(p=-1), good(v=0), good(v=None), good(t=None), good(t=1),
        good(t=4_102_444_800_000), good(p=1e10), good(s=None), good(p="much"), 5, None, [],
    ],
)  # fmt: skip
def test_a_bad_element_is_left_out_and_its_neighbours_stay(item: object) -> None:
    assert prints_of(finnhub(good(), item, good(s="MSFT"))) == [
        Print("AAPL", 10.5, AT, 3, ("1",)),
        Print("MSFT", 10.5, AT, 3, ("1",)),
    ]


def test_numbers_written_as_text_are_read_as_silver_reads_them() -> None:
    assert prints_of(finnhub(good(p="10.5", v="3", t=str(AT), c=["1", None]))) == [
        Print("AAPL", 10.5, AT, 3, ("1",))
    ]


def test_the_source_is_found_without_decoding() -> None:
    assert source_of(record(b"1", "replay:binance.ws")) == "replay:binance.ws"
    assert source_of(b'{"v":1,"src":"' + b"x" * 500) == ""
    assert kind_of("replay:binance.ws") == "binance.ws"


def test_a_page_of_old_binance_trades_fills_under_the_symbol_of_its_frame() -> None:
    items = [
        {"id": 1, "price": "61837.64", "qty": "0.004", "time": AT, "isBuyerMaker": True},
        {"id": 2, "price": "61837.65", "qty": "x", "time": AT},
        "odd",
        {"id": 3, "price": "61837.66", "qty": "0.005", "time": AT + 1},
    ]
    value = record(msgspec.json.encode(items), "binance.trades", "BTCUSDT")

    assert prints_of(value) == [
        Print("BINANCE:BTCUSDT", 61837.64, AT, 0.004, None),
        Print("BINANCE:BTCUSDT", 61837.66, AT + 1, 0.005, None),
    ]


def test_a_page_of_finnhub_ticks_fills_column_by_column() -> None:
    page = {
        "s": "AAPL",
        "t": [AT, AT + 1],
        "p": [10.5, "11"],
        "v": [3, 4],
        "c": [["1", "24"], None],
    }
    value = record(msgspec.json.encode(page), "finnhub.tick", "AAPL")
    without_codes = record(
        msgspec.json.encode({"t": [AT], "p": [1], "v": [2]}), "finnhub.tick", "AAPL"
    )

    assert prints_of(value) == [
        Print("AAPL", 10.5, AT, 3, ("1", "24")),
        Print("AAPL", 11, AT + 1, 4, None),
    ]
    assert prints_of(without_codes) == [Print("AAPL", 1, AT, 2, None)]


@pytest.mark.parametrize("kind", ["binance.trades", "finnhub.tick"])
@pytest.mark.parametrize(
    "payload",
    [
        b"{}", b"[]", b"[1,2]", b"null", b"oops", b'{"t":[1],"p":[],"v":[1]}',
        b'{"t":1,"p":1,"v":1}', b'{"t":[1,2],"p":[1],"v":[1]}', b'[{"price":null}]',
    ],
)  # fmt: skip
def test_a_page_that_is_none_gives_no_trade(kind: str, payload: bytes) -> None:
    assert prints_of(record(payload, kind, "AAPL")) == []
    assert prints_of(record(payload, kind)) == []


def test_a_print_worth_a_quadrillion_is_none() -> None:
    assert is_trade(Print("AAPL", 1e9, AT, 1e5))
    assert not is_trade(Print("AAPL", 1e9, AT, 1e6))


def test_a_ping_is_told_from_trades() -> None:
    assert is_ping(record(b'{"type":"ping"}'))
    assert not is_ping(finnhub(good()))
