"""Coverage-guided fuzzing of what reads a feed's bytes: envelope, bronze line, elements.

    python tests/fuzz/fuzz_extractors.py [-max_total_time=60] [corpus]

The first byte of an input picks the payload kind; the rest is the payload, or (first byte above
127) makes one: each byte then chooses a piece of JSON.
"""

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["tickhouse.audit", "tickhouse.model"]):
    from tickhouse.audit.elements import read_elements
    from tickhouse.audit.quotes import read_quote
    from tickhouse.audit.recount import frame_of
    from tickhouse.model.frame import decode_envelope, encode_frames, splice_positions

KINDS = (
    "finnhub.ws",
    "binance.ws",
    "binance.trades",
    "finnhub.quote",
    "finnhub.tick",
    "finnhub.profile2",
    "finnhub.http.500",
    "other",
)
MADE = 128
NAMES = ("type", "data", "s", "p", "v", "t", "c", "stream", "e", "q", "T", "price", "qty", "time")
ATOMS = (
    "null", "true", "0", "-0", "1", "-1.5", "1e308", "1e400", "187.123456789012345", "1_0", '""',
    "9223372036854775808", "1723213800000", '"1723213800000"', '"trade"', '"ping"', '"AAPL"',
    '"NaN"', '" 7.5 "', '"btcusdt@trade"', '"a b"', "[]", "{}",
)  # fmt: skip
DEPTH_MAX = 4
SESSION = "0192f0a0-0000-7000-8000-000000000000"


def fuzz_one(data: bytes) -> None:
    """What may never happen, whatever a feed sends, is asserted here."""
    kind = KINDS[data[0] % len(KINDS)] if data else KINDS[0]
    payload = _value(iter(data[1:]), 0).encode() if data[:1] >= bytes([MADE]) else data[1:]
    (frame,) = encode_frames(
        [payload], source=kind, session=SESSION, first_seq=7, received_at_ns=1, symbol="AAPL"
    )
    _comes_back_whole(frame, payload)
    _is_one_line_each([frame, payload, b""])
    read = frame_of(decode_envelope(frame))
    assert read is not None
    assert read_quote(kind, "AAPL", read.payload)
    if read.payload is not None:
        _loses_no_element(kind, read.payload)


def _value(choices: Iterator[int], depth: int) -> str:
    """JSON of the pieces that the bytes choose; atoms once they run out."""
    choice = next(choices, 0)
    if depth == DEPTH_MAX or choice < MADE:
        return ATOMS[choice % len(ATOMS)]
    count = choice % 5
    if choice % 2:
        return "[" + ",".join(_value(choices, depth + 1) for _ in range(count)) + "]"
    pairs = (
        f'"{NAMES[next(choices, 0) % len(NAMES)]}":{_value(choices, depth + 1)}'
        for _ in range(count)
    )
    return "{" + ",".join(pairs) + "}"


def _comes_back_whole(frame: bytes, payload: bytes) -> None:
    """The envelope of any payload is one of ours and holds the payload byte for byte."""
    envelope = decode_envelope(frame)
    assert envelope is not None, payload
    assert (envelope.seq, envelope.ses) == (7, SESSION)
    if envelope.text is not None:
        assert envelope.text.encode() == payload
    elif envelope.b64 is not None:
        assert base64.b64decode(envelope.b64) == payload
    else:
        assert bytes(envelope.raw) == payload.strip(b" \t"), (bytes(envelope.raw), payload)


def _is_one_line_each(values: list[bytes]) -> None:
    """Every record, also one that is no envelope, is exactly one bronze line of valid JSON."""
    bronze = splice_positions(
        values,
        topic_id="e1",
        part=0,
        offsets=range(len(values)),
        log_times_ms=[1] * len(values),
    )
    assert len(bronze.lines) == len(values)
    for offset, line in enumerate(bronze.lines):
        assert b"\n" not in line
        assert b"\r" not in line
        assert line.startswith(b'{"t":"e1","p":0,"o":%d,' % offset)


def _loses_no_element(kind: str, payload: bytes) -> None:
    """Each element of a message of trades is a trade or has a reason."""
    found = read_elements(kind, payload, "AAPL")
    held = len(found.trades) + len(found.reasons)
    for symbol, price, size in found.trades:
        assert symbol
        assert price > 0
        assert size > 0
    if kind in {"finnhub.ws", "binance.trades"}:
        expected = _elements_of(kind, payload)
        assert expected is None or held == expected, (payload, held, expected)


def _elements_of(kind: str, payload: bytes) -> int | None:
    """Elements that a payload of the kind holds, by a third reading; None where it tells none."""
    try:
        message = json.loads(payload, parse_int=str)
    except ValueError:
        return None
    if kind == "binance.trades":
        return len(message) if isinstance(message, list) else None
    if not isinstance(message, dict) or payload.count(b'"type"') > 1 or b"\\" in payload:
        return None
    data = message.get("data")
    is_trades = message.get("type") == "trade" and payload.count(b'"data"') == 1
    return len(data) if is_trades and isinstance(data, list) else None


def main() -> None:
    """Run libFuzzer with the command line's arguments."""
    atheris.Setup(sys.argv, fuzz_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
