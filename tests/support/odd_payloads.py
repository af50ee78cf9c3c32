"""Payloads of every kind that a feed may send one day, made from a seed."""

import json
import random
from typing import Any

AT = 1_723_213_800_000
SYMBOLS = (
    "AAPL",
    "BINANCE:BTCUSDT",
    "IC MARKETS:1",
    "BRK.B",
    "",
    None,
    "x; drop",
    5,
    "A" * 33,
    True,
)
PRICES = (
    100,
    100.5,
    "100.25",
    0,
    -1,
    None,
    "abc",
    "",
    " 7.5 ",
    "1e2",
    1e-12,
    0.000000015,
    "0.000000014",
    9999999999,
    99999999999,
    187.12345678901235,
    True,
    [1],
    {"a": 1},
    "NaN",
    "Infinity",
    "1_000",
    123456789.12345678,
    "+5",
    ".5",
    "5.",
    1e5,
)
SIZES = (1, 5, 100, 0, -3, None, "2.5", "abc", 0.00000001, 1e-9, 0.5, 12345678.9, False, "0", "-0")
TIMES = (AT, AT + 1, str(AT), AT + 0.5, None, 0, -1, "soon", 10**20, 4_102_444_800_000, "1.7e12")
CONDITIONS = (None, [], ["1"], ["1", "12"], ["1", None], "1", [1], {"a": 1})


def odd_payloads(seed: int, count: int) -> list[bytes]:
    chooser = random.Random(seed)
    makers = (_finnhub, _finnhub, _finnhub, _shape, _text)
    return [chooser.choice(makers)(chooser) for _ in range(count)]


def odd_binance_payloads(seed: int, count: int) -> list[bytes]:
    chooser = random.Random(seed)
    return [chooser.choice((_binance, _binance, _shape, _text))(chooser) for _ in range(count)]


def _finnhub(chooser: random.Random) -> bytes:
    data: Any = [_element(chooser) for _ in range(chooser.choice((1, 1, 2, 3, 0)))]
    return json.dumps({"data": data, "type": "trade"}).encode()


def _mostly(chooser: random.Random, values: tuple[Any, ...]) -> Any:
    return values[0] if chooser.random() < 0.7 else chooser.choice(values)


def _element(chooser: random.Random) -> Any:
    if chooser.random() < 0.05:
        return chooser.choice((None, 5, "text", [], [[1]], {}, True))
    element = {
        "s": _mostly(chooser, SYMBOLS),
        "p": _mostly(chooser, PRICES),
        "v": _mostly(chooser, SIZES),
        "t": _mostly(chooser, TIMES),
        "c": chooser.choice(CONDITIONS),
    }
    for name in list(element):
        if chooser.random() < 0.05:
            del element[name]
    return element


def _binance(chooser: random.Random) -> bytes:
    trade = {
        "e": _mostly(chooser, ("trade", "aggTrade", None)),
        "s": _mostly(chooser, ("BTCUSDT", "btc", "", None, 5)),
        "p": _mostly(chooser, ("61837.64", *PRICES)),
        "q": _mostly(chooser, ("0.004", *SIZES)),
        "T": _mostly(chooser, TIMES),
        "t": _mostly(chooser, (1, None, "x")),
    }
    stream = _mostly(chooser, ("btcusdt@trade", "btcusdt@bookTicker", "odd", None, 5))
    message: dict[str, Any] = {
        "stream": stream,
        "data": _mostly(chooser, (trade, None, [trade], 5)),
    }
    return json.dumps(message).encode()


def _shape(chooser: random.Random) -> bytes:
    return chooser.choice(
        (
            b"null",
            b"5",
            b'"trade"',
            b"[]",
            b"{}",
            b'{"type":"ping"}',
            b'{"type":"error","msg":"x"}',
            b'{"type":"news","data":[]}',
            b'{"type":"trade"}',
            b'{"type":"trade","data":null}',
            b'{"type":"trade","data":{}}',
            b'{"type":"trade","data":"x"}',
            b'{"type":null}',
            b'{"type":5}',
            b'{"result":null,"id":1}',
            b'{"lastUpdateId":7,"bids":[],"asks":[]}',
            b'{"stream":"btcusdt@depth","data":{}}',
            b'{"stream":"odd"}',
            b'{"id":null}',
            b'{"a":"\\u0000"}',
            b'{"type":"trade","data":[{"s":"AAPL","p":1.5,"v":1,"t":1723213800000}],"x":1}',
        )
    )


def _text(chooser: random.Random) -> bytes:
    return chooser.choice((b"not json", b"", b"\xff\xfe", b'{"a":', b"{\n}", b"NaN", "ü".encode()))
