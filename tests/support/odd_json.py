"""Hypothesis strategies: payloads that a feed should never send, written as a feed might."""

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

DATA = Path(__file__).parents[1] / "data" / "finnhub"
AT = 1_723_213_800_000
SAMPLES = [
    line for file in sorted(DATA.glob("ws_*.jsonl")) for line in file.read_bytes().split(b"\n")
]
BINANCE = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1723213800001,"s":"BTCUSDT",'
    b'"t":3735683259,"p":"61837.64","q":"0.004","T":1723213800000,"m":false,"M":true}}'
)
PAGE = (
    b'[{"id":3735683259,"price":"61837.64","qty":"0.004","quoteQty":"247.35","time":1723213800000,'
    b'"isBuyerMaker":false,"isBestMatch":true},{"id":3735683260,"price":"61837.65","qty":"1",'
    b'"quoteQty":"61837.65","time":1723213800001,"isBuyerMaker":true,"isBestMatch":true}]'
)
QUOTE = (
    b'{"c":261.74,"d":1.2,"dp":0.4606,"h":263.31,"l":260.68,"o":261.07,"pc":260.54,"t":1723233600}'
)
TICKS = (
    b'{"p":[255,255.01],"v":[5,100],"t":[1723213800000,1723213800001],"x":["K","P"],'
    b'"c":[["1"],["1","12"]],"s":"AAPL","skip":0,"count":2,"total":2}'
)
PROFILE = (
    b'{"country":"US","currency":"USD","exchange":"NASDAQ NMS - GLOBAL MARKET","name":"Apple Inc",'
    b'"finnhubIndustry":"Technology","marketCapitalization":1415993.25,"ticker":"AAPL"}'
)


class Written(str):
    """A JSON value exactly as written."""

    __slots__ = ()


NUMBERS = [
    "0", "-0", "1", "100", "100.25", "187.12345678901235", "1e2", "1E+2", "1e-12", "0.000000015",
    "0.000000005", "9999999999", "9999999999.99999999", "99999999999", "1e308", "-1e308", "1e400",
    "-1", "0.1", "0.30000000000000004", "9223372036854775807", "9223372036854775808",
    "18446744073709551616", "-9223372036854775809", "123456789012345678901234567890",
    "1723213800000", "1723213800", "1723213800000.5", "1.7232138e12", "946684799999",
    "4102444800000", "1e15", "12345678.9", "1234567.123456789",
    "1" * 5000, "1." + "0" * 5000 + "1",
]  # fmt: skip
WORDS = [
    "", " ", "AAPL", "BRK.B", "BINANCE:BTCUSDT", "IC MARKETS:1", "x; drop table", "A" * 33, "aapl",
    "NaN", "Infinity", "-inf", "1_000", "0x10", " 7.5 ", "+5", ".5", "5.", "1e2", "true", "null",
    "100", "0", "-3", "2.5", "1723213800000", "soon", "١٢٣", "\u2028", "é", "a\u0000b",
    "trade", "ping", "error", "btcusdt@trade", "btcusdt@bookTicker", "odd", '"', "\\", "'",
]  # fmt: skip

numbers = (
    st.sampled_from(NUMBERS).map(Written)
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
)
words = st.sampled_from(WORDS) | st.text(max_size=6)
scalars = numbers | words | st.none() | st.booleans()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


def written(value: Any) -> str:
    """JSON text; `Written` as it is, floats as Python writes them."""
    if isinstance(value, Written):
        return str(value)
    if isinstance(value, dict):
        pairs = (f"{json.dumps(name)}:{written(item)}" for name, item in value.items())
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def mostly(usual: Any) -> st.SearchStrategy[Any]:
    """Usually the usual value."""
    return st.one_of(st.just(usual), st.just(usual), values)


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects of which any field may be missing and in which others may be."""
    extra = st.dictionaries(words, values, max_size=1)
    known = st.fixed_dictionaries({}, optional=fields) | st.fixed_dictionaries(fields)
    return st.tuples(extra, known).map(lambda both: {**both[0], **both[1]})


codes = st.lists(st.sampled_from(["1", "12", "24", "@", "Q", "x,y"]) | scalars, max_size=3)
prints = objects(
    s=mostly("AAPL"), p=mostly(Written("187.25")), v=mostly(5), t=mostly(AT), c=codes | values
)
finnhub = objects(type=mostly("trade"), data=st.lists(prints | scalars, max_size=4) | values)
old_trades = objects(
    price=mostly("61837.64"), qty=mostly("0.004"), time=mostly(AT), id=mostly(3735683259)
)
old_page = st.lists(old_trades | scalars, max_size=4) | values
binance = objects(
    stream=mostly("btcusdt@trade"),
    data=objects(
        e=mostly("trade"), s=mostly("BTCUSDT"), p=mostly("61837.64"), q=mostly("0.004"),
        T=mostly(AT), t=mostly(3735683259),
    )
    | values,
)  # fmt: skip
quotes = objects(
    c=mostly(Written("261.74")), d=mostly(Written("1.2")), dp=mostly(Written("0.46")),
    h=mostly(263), l=mostly(260), o=mostly(261), pc=mostly(Written("260.54")),
    t=mostly(1723233600),
)  # fmt: skip
ticks = objects(
    p=st.lists(mostly(255), max_size=3) | values, v=st.lists(mostly(5), max_size=3) | values,
    t=st.lists(mostly(AT), max_size=3) | values, c=st.lists(codes, max_size=3) | values,
    s=mostly("AAPL"),
)  # fmt: skip
profiles = objects(
    name=mostly("Apple Inc"), finnhubIndustry=mostly("Technology"), currency=mostly("USD"),
    marketCapitalization=mostly(Written("1415993.25")), ticker=mostly("AAPL"),
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A real message with some bytes replaced, removed, repeated or cut off."""
    payload = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(payload)))
        length = draw(st.integers(0, 8))
        filling = draw(
            st.binary(max_size=4)
            | st.sampled_from(
                [
                    b"",
                    b"null",
                    b"{",
                    b"]",
                    b'"',
                    b"-",
                    b"e9",
                    b"0",
                    b",",
                    b"\\u0000",
                    b"\\ud800",
                    b"\\u0070",
                ]
            )
            | st.just(bytes(payload[place : place + 30]))
        )
        payload[place : place + length] = filling
    return bytes(payload)


def _text(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    return strategy.map(lambda value: written(value).encode(errors="surrogatepass"))


SEEDS = {
    "finnhub.ws": SAMPLES,
    "binance.ws": [BINANCE],
    "binance.trades": [PAGE],
    "finnhub.quote": [QUOTE],
    "finnhub.tick": [TICKS],
    "finnhub.profile2": [PROFILE],
}
SHAPES: dict[str, st.SearchStrategy[Any]] = {
    "finnhub.ws": finnhub,
    "binance.ws": binance,
    "binance.trades": old_page,
    "finnhub.quote": quotes,
    "finnhub.tick": ticks,
    "finnhub.profile2": profiles,
}
TOKENS = [
    b"[]", b"{}", b"null", b"true", b"-0", b"1e308", b"-1", b"9223372036854775808", b"NaN", b'""',
    b'"type":[]', b'"type":"trade"', b'"type":"ping"', b'"data":[', b'"data":null', b'{"s":"AAPL",',
    b'"p":1.5,', b'"p":null', b'"v":0', b'"t":1723213800000', b'"c":null', b'"stream":',
    b'"price":"1.5"', b'"qty":"0.1"', b'"time":1723213800000', b"\\u0070", b"\\ud800", b"_",
]  # fmt: skip
"""Pieces that a fuzzer puts together."""


def payloads_of(kind: str) -> st.SearchStrategy[bytes]:
    """Payloads of a kind: odd, mutated, of no kind at all."""
    return st.one_of(
        _text(SHAPES[kind]), _text(SHAPES[kind]), mutated(SEEDS[kind]), _text(values),
        st.binary(max_size=20),
    )  # fmt: skip
