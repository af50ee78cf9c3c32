"""What an object holds: messages, each with its kind and, where it does not name it, its symbol."""

import gzip
import io
import zlib
from collections.abc import Iterator
from itertools import groupby
from typing import Final, Literal, NamedTuple

import msgspec

from tickhouse.errors import ConfigError
from tickhouse.model.frame import FRAME_BYTES_MAX, encode_frames, is_strict_json_line
from tickhouse.model.positions import Stream
from tickhouse.model.symbols import is_symbol
from tickhouse.source.feed import Arrivals

OBJECT_BYTES_MAX: Final = 64 << 20
"""A larger object, or one that inflates to more, is not read."""
MODE: Final = "import"

Kind = Literal["auto", "quote", "trade"]
KINDS: Final[tuple[Kind, ...]] = ("auto", "quote", "trade")

_GZIP: Final = b"\x1f\x8b"
_SUFFIXES: Final = (".gz", ".json", ".jsonl", ".ndjson", ".txt")
_SURELY_SMALL: Final = FRAME_BYTES_MAX // 7
"""No payload grows more than sixfold in its frame."""
_broken: Final = (OSError, EOFError, zlib.error)
_unreadable: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_value = msgspec.json.Decoder(msgspec.Raw).decode
_text = msgspec.json.Decoder(str).decode


class UnfitError(Exception):
    """An object that is not taken, and why."""


class SymbolRule(msgspec.Struct, frozen=True):
    """Where a quote's symbol is found.

    Attributes:
        field: of the message; "" = not there.
        part: of the key below what is listed, from 0, or from the end below 0; None = not there.
        is_sure: it was said, not guessed: the key's part may be in lower case.
    """

    field: str = "symbol"
    part: int | None = -2
    is_sure: bool = False


GUESS: Final = SymbolRule()
"""The field `symbol`, or else the folder that the object is in, if that looks like a symbol."""


def read_symbol_rule(text: str | None) -> SymbolRule:
    """The rule that `--symbol-from` gives.

    Raises:
        ConfigError: neither `field:<name>` nor `key:<number>`.

    >>> read_symbol_rule("key:0")
    SymbolRule(field='', part=0, is_sure=True)
    """
    if text is None:
        return GUESS
    where, _, what = text.partition(":")
    if where == "field" and what:
        return SymbolRule(what, None, is_sure=True)
    if where == "key" and what.removeprefix("-").isdecimal():
        return SymbolRule("", int(what), is_sure=True)
    raise ConfigError(
        f"--symbol-from {text!r}: give field:<name>, or key:<number> for a part of the key: key:0"
        " is the first one, key:-2 the object's folder"
    )


class Message(NamedTuple):
    """A message of an object; see `Arrivals`."""

    payload: bytes
    stream: Stream
    source: str
    symbol: str | None = None
    is_like: bool = True
    """Whether it looks like what it is taken for."""


def messages_of(
    body: bytes, key: str, kind: Kind = "auto", rule: SymbolRule = GUESS
) -> list[Message]:
    """The messages of an object, payloads as they are.

    Args:
        body: of the object; gzip is inflated.
        key: below what is listed.
        kind: what the messages are; auto = told one by one.
        rule: where symbols of quotes are found.

    Raises:
        UnfitError: the object is not taken; nothing of it.
    """
    found = [_message(payload, key, kind, rule) for payload in _payloads(_inflated(body))]
    if not found:
        raise UnfitError("empty")
    for number, message in enumerate(found, 1):
        if _is_too_large(message):
            raise UnfitError(
                f"message {number} of {len(message.payload)} bytes makes a frame over the limit of"
                f" {FRAME_BYTES_MAX}"
            )
    return found


def _inflated(body: bytes) -> bytes:
    if not body.startswith(_GZIP):
        return body
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
            text = file.read(OBJECT_BYTES_MAX + 1)
    except _broken as error:
        raise UnfitError(f"broken gzip: {error}") from error
    if len(text) > OBJECT_BYTES_MAX:
        raise UnfitError(f"inflates to more than the limit of {OBJECT_BYTES_MAX} bytes")
    return text


def _payloads(body: bytes) -> list[bytes]:
    """One JSON value over however many lines, or else each line.

    A line break between the tokens of a value becomes a blank: a frame is one line.
    """
    lines = [line.removesuffix(b"\r") for line in body.split(b"\n")]
    lines = [line for line in lines if line.strip()]
    if len(lines) > 1 and _is_json(body):
        return [body.replace(b"\r", b" ").replace(b"\n", b" ").strip()]
    return lines


def _is_json(body: bytes) -> bool:
    try:
        _value(body)
    except _unreadable:
        return False
    return True


def _message(payload: bytes, key: str, kind: Kind, rule: SymbolRule) -> Message:
    message = _object(payload)
    told = kind_of(message)
    taken = told if kind == "auto" else kind
    if taken in ("trade", "binance"):
        source = f"{MODE}:{'binance' if taken == 'binance' else 'finnhub'}.ws"
        return Message(payload, Stream.TRADES, source, is_like=told in ("trade", "binance"))
    symbol = _symbol_of(message, key, rule)
    if symbol is None and told == "quote":
        raise UnfitError("a quote without a symbol: say where it is with --symbol-from")
    return Message(payload, Stream.QUOTES, f"{MODE}:finnhub.quote", symbol, is_like=told == "quote")


def _object(payload: bytes) -> dict[str, msgspec.Raw]:
    """The fields of a payload that silver will be able to read."""
    try:
        return _fields(payload) if is_strict_json_line(payload) else {}
    except _unreadable:
        return {}


def kind_of(message: dict[str, msgspec.Raw]) -> Literal["quote", "trade", "binance"] | None:
    """What a message is by its fields; None = neither.

    >>> raw = msgspec.Raw(b"1")
    >>> kind_of({"c": raw, "t": raw}), kind_of({"type": raw}), kind_of({"error": raw})
    ('quote', 'trade', None)
    """
    if "stream" in message:
        return "binance"
    if "type" in message:
        return "trade"
    return "quote" if "c" in message and ("t" in message or "pc" in message) else None


def _symbol_of(message: dict[str, msgspec.Raw], key: str, rule: SymbolRule) -> str | None:
    if rule.field in message:
        try:
            symbol = _text(message[rule.field])
        except _unreadable:
            symbol = ""
        if is_symbol(symbol):
            return symbol
    parts = key.split("/")
    if rule.part is None or not -len(parts) <= rule.part < len(parts):
        return None
    part = parts[rule.part]
    if rule.part in (-1, len(parts) - 1):
        part = _without_suffixes(part)
    part = part.rpartition("=")[2]
    if rule.is_sure:
        part = part.upper()
    has_letter = any(letter.isalpha() for letter in part)
    return part if is_symbol(part) and (has_letter or rule.is_sure) else None


def _without_suffixes(name: str) -> str:
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _is_too_large(message: Message) -> bool:
    if len(message.payload) <= _SURELY_SMALL:
        return False
    (frame,) = encode_frames(
        [message.payload],
        source=message.source,
        session="0" * 36,
        first_seq=10**12,
        received_at_ns=10**18,
        symbol=message.symbol,
    )
    return len(frame) > FRAME_BYTES_MAX


def arrivals_of(messages: list[Message], received_at_ns: int) -> Iterator[Arrivals]:
    """Messages as arrivals, one a run of the same stream, source and symbol."""
    for (stream, source, symbol), run in groupby(
        messages, lambda message: (message.stream, message.source, message.symbol)
    ):
        payloads = [message.payload for message in run]
        yield Arrivals(payloads, received_at_ns, stream, symbol, source)


def measure(payload: bytes) -> int:
    """Bytes of a payload; blanks around it, which JSON does not keep, do not count."""
    return len(payload.strip())
