"""The frame: one message exactly as a feed delivered it, wrapped once at receipt (DESIGN 3).

```json
{"v":1,"src":"finnhub.ws","ses":"<uuid7>","seq":17,"rx":1732300000123456789,"sym":null,"raw":{…}}
```

The envelope is the log record's value. `raw` is the payload byte for byte where it is strict,
one-line JSON in UTF-8 of bounded depth; otherwise `text` (a JSON string) or `b64` holds it. The
lander adds the position by splicing bytes in front and never interprets `raw`.
"""

import base64
import re
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Final

import msgspec

ENVELOPE_VERSION: Final = 1
FRAME_BYTES_MAX: Final = 1_000_000
"""An envelope larger than this is refused at receipt with a recorded gap (Kafka's usual limit)."""
DEPTH_MAX: Final = 64
"""Deeper JSON is kept as text: no parser downstream needs to recurse further."""

_PREFIX: Final = b'{"v":1,"src":"'
_OPENERS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])')
_RECEIPT: Final = b',"rx":'
_RECEIPT_DIGITS: Final = 19
_HEAD: Final = re.compile(
    rb'(?P<session>\{"v":1,"src":"[^"\\]*","ses":"[^"\\]*","seq":)[0-9]+,"rx":[0-9]{19}(?=,)'
)
_BLOCK: Final = 2_000
"""Records spliced at a time: what they need stays in the processor's cache."""
_COMMA, _BRACE = b",}"
_without_brace = itemgetter(slice(1, None))
_raw_decoder = msgspec.json.Decoder(msgspec.Raw)


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """A frame with its identity: `(ses, seq)` within a stream.

    Attributes:
        v: version of the envelope, 1.
        src: mode and payload kind, such as "finnhub.ws", "sim:finnhub.ws", "replay:binance.ws".
        ses: random id of the connection (UUIDv7).
        seq: message number in its session and stream, from 0, dense.
        rx: receipt, UNIX nanoseconds UTC.
        sym: symbol, only where the payload does not name it (REST bodies).
        raw: the payload where it is strict one-line JSON.
        text: the payload where it is other UTF-8 text.
        b64: the payload otherwise.
    """

    v: int
    src: str
    ses: str
    seq: int
    rx: int
    sym: str | None = None
    raw: msgspec.Raw = msgspec.Raw()
    text: str | None = None
    b64: str | None = None


_envelope_decoder = msgspec.json.Decoder(Envelope)


def decode_envelope(value: bytes) -> Envelope | None:
    """The envelope in a log record's value, or None where the value is not one.

    Never raises: a record that is not an envelope is landed as poison.
    """
    if not value.startswith(_PREFIX) or b"\n" in value or b"\r" in value:
        return None
    try:
        envelope = _envelope_decoder.decode(value)
        if not value.isascii():
            value.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    payloads = (bool(bytes(envelope.raw)), envelope.text is not None, envelope.b64 is not None)
    return envelope if envelope.v == ENVELOPE_VERSION and sum(payloads) == 1 else None


def encode_frames(
    payloads: Sequence[bytes],
    *,
    source: str,
    session: str,
    first_seq: int,
    received_at_ns: int,
    symbol: str | None = None,
) -> list[bytes]:
    """Wrap payloads received together; the n-th gets message number `first_seq + n`.

    Args:
        payloads: messages in order of receipt.
        source: see `Envelope.src`.
        session: see `Envelope.ses`.
        first_seq: message number of the first payload.
        received_at_ns: receipt of the batch, UNIX nanoseconds UTC.
        symbol: see `Envelope.sym`.
    """
    head = b'%b%b","ses":"%b","seq":' % (_PREFIX, source.encode(), session.encode())
    tail = b',"rx":%d,"sym":%b,' % (received_at_ns, msgspec.json.encode(symbol))
    together = b"".join(payloads)
    is_plain = together.isascii() and b"\n" not in together and b"\r" not in together
    is_raw = _is_strict_json if is_plain else is_strict_json_line
    raw_tail = tail + b'"raw":'
    return [
        b"%b%d%b%b}" % (head, seq, raw_tail, payload)
        if is_raw(payload)
        else b"%b%d%b%b}" % (head, seq, tail, _text_field(payload))
        for seq, payload in enumerate(payloads, first_seq)
    ]


def _text_field(payload: bytes) -> bytes:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return b'"b64":"' + base64.b64encode(payload) + b'"'
    return b'"text":' + msgspec.json.encode(text)


def is_strict_json_line(payload: bytes) -> bool:
    r"""Whether `payload` is UTF-8, strict JSON, on one line and of bounded depth.

    >>> is_strict_json_line(b'{"p":1.5}'), is_strict_json_line(b'{"p":NaN}')
    (True, False)
    >>> is_strict_json_line(b'{"p":\n1}'), is_strict_json_line(b'[' * 99 + b']' * 99)
    (False, False)
    """
    if b"\n" in payload or b"\r" in payload:
        return False
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError:
            return False
    return _is_strict_json(payload)


def _is_strict_json(payload: bytes) -> bool:
    if payload.count(b"[") + payload.count(b"{") > DEPTH_MAX and _depth(payload) > DEPTH_MAX:
        return False
    try:
        _raw_decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _depth(payload: bytes) -> int:
    depth = deepest = 0
    for match in _OPENERS.finditer(payload):
        if match[1]:
            depth += 1
            deepest = max(deepest, depth)
        elif match[2]:
            depth -= 1
    return deepest


class BronzeLines(msgspec.Struct, frozen=True):
    """Lines of a bronze object, and the receipt times they span (None: only poison).

    Attributes:
        text: the lines together, each ended by a newline.
        n: how many there are.
        rx_min, rx_max: UNIX nanoseconds UTC.
    """

    text: bytes
    n: int
    rx_min: int | None
    rx_max: int | None

    @property
    def lines(self) -> list[bytes]:
        """The lines one by one, without newlines."""
        return self.text.split(b"\n")[:-1]


class _Checked(msgspec.Struct, frozen=True):
    """Which of some records are no envelopes, and the receipt times of the others."""

    rx_min: int | None
    rx_max: int | None
    poisoned: Sequence[int] = ()


class _LogTimes(dict[int, bytes]):
    """The text of a log time; times repeat in bursts."""

    def __missing__(self, at: int) -> bytes:
        text = self[at] = b',"lt":%d,' % at
        return text


def splice_positions(
    values: Sequence[bytes],
    *,
    topic_id: str,
    part: int,
    offsets: Iterable[int],
    log_times_ms: Iterable[int],
) -> BronzeLines:
    """Bronze lines of log records: the position in front of the envelope, or a poison line.

    Every offset gives exactly one line, whatever its value is. Nothing is done record by record in
    Python: records that are alike are checked together, and their lines are pieced together by one
    join. Such a check reads the head of each envelope, not its payload: a payload that is no JSON
    makes a line that does not parse, and the loader makes a poison row of it.
    """
    head = b'\n{"t":"%b","p":%d,"o":' % (topic_id.encode(), part)
    places, times = list(offsets), list(log_times_ms)
    blocks = [
        _splice_block(head, values[at:end], places[at:end], times[at:end])
        for at in range(0, len(values), _BLOCK)
        for end in [at + _BLOCK]
    ]
    return BronzeLines(
        b"".join(block.text for block in blocks),
        len(values),
        min((block.rx_min for block in blocks if block.rx_min is not None), default=None),
        max((block.rx_max for block in blocks if block.rx_max is not None), default=None),
    )


def _splice_block(
    head: bytes, values: Sequence[bytes], offsets: list[int], log_times_ms: list[int]
) -> BronzeLines:
    checked = _check_alike(values) or _check_each(values)
    tails = list(map(_without_brace, values))
    for place in checked.poisoned:
        tails[place] = b'"poison_b64":"%b"}' % base64.b64encode(values[place])
    pieces = [b""] * (3 * len(values) + 1)
    pieces[0:-1:3] = _numbered(head, offsets)
    pieces[1::3] = map(_LogTimes().__getitem__, log_times_ms)
    pieces[2::3] = tails
    pieces[0] = pieces[0].removeprefix(b"\n")
    pieces[-1] = b"\n"
    return BronzeLines(b"".join(pieces), len(values), checked.rx_min, checked.rx_max)


def _numbered(head: bytes, numbers: list[int]) -> list[bytes]:
    """Each number as text, behind the same words."""
    together = str(numbers)[1:-1].encode()
    return (head + together.replace(b", ", b"\0" + head)).split(b"\0")


def _check_alike(values: Sequence[bytes]) -> _Checked | None:
    """The check of envelopes of one session whose heads have the same lengths; None for others.

    In the order of bytes, what lies between two values that begin alike begins like them. So the
    least and the greatest value tell how all of them begin.
    """
    together = b"".join(values)
    if b"\n" in together or b"\r" in together or not _is_utf8(together):
        return None
    least, greatest = min(values), max(values)
    if decode_envelope(least) is None or decode_envelope(greatest) is None:
        return None
    head, other = _HEAD.match(least), _HEAD.match(greatest)
    if head is None or other is None or head["session"] != other["session"]:
        return None
    end = head.end()
    if end != other.end() or {*map(itemgetter(end), values)} != {_COMMA}:
        return None
    received = list(map(itemgetter(slice(end - _RECEIPT_DIGITS - len(_RECEIPT), end)), values))
    first, last = _receipt(min(received)), _receipt(max(received))
    if first is None or last is None or {*map(itemgetter(-1), values)} != {_BRACE}:
        return None
    return _Checked(first, last)


def _receipt(field: bytes) -> int | None:
    digits = field.removeprefix(_RECEIPT)
    return int(digits) if len(digits) == _RECEIPT_DIGITS and digits.isdigit() else None


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_each(values: Sequence[bytes]) -> _Checked:
    envelopes = [decode_envelope(value) for value in values]
    received = [envelope.rx for envelope in envelopes if envelope is not None]
    poisoned = [place for place, envelope in enumerate(envelopes) if envelope is None]
    return _Checked(min(received, default=None), max(received, default=None), poisoned)
