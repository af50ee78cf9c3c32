"""A lake of hand-made frames, whose payloads, receipts and sessions a test chooses."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from support.lake_builder import Lake, as_bronze, chain_id
from tickhouse.bronze import reading
from tickhouse.bronze.object import pack
from tickhouse.model.frame import encode_frames, splice_positions
from tickhouse.model.positions import ChainId

RECEIVED_NS = 1_772_461_800_000_000_000
"""2026-03-02T14:30:00Z"""
SECOND_NS = 1_000_000_000
LOG_AT_MS = RECEIVED_NS // 1_000_000 + 1000


def message(number: int, symbol: str = "AAPL") -> bytes:
    return b'{"data":[{"p":1.50,"s":"%b","t":%d,"v":5}],"type":"trade"}' % (symbol.encode(), number)


def frames_at(
    payloads: Sequence[bytes],
    *,
    session: str = "s1",
    seq: int = 0,
    received_at_ns: int = RECEIVED_NS,
    every_ns: int = 1,
    source: str = "finnhub.ws",
    symbol: str | None = None,
) -> list[bytes]:
    """Frames of one session, one every so many nanoseconds."""
    return [
        encode_frames(
            [payload],
            source=source,
            session=session,
            first_seq=seq + number,
            received_at_ns=received_at_ns + number * every_ns,
            symbol=symbol,
        )[0]
        for number, payload in enumerate(payloads)
    ]


def put(
    folder: Path, values: Sequence[bytes], *, chain: ChainId | None = None, start: int = 0
) -> str:
    """An object of these records at an offset; its key."""
    place = chain or chain_id()
    lines = splice_positions(
        values,
        topic_id=place.topic_id,
        part=place.part,
        offsets=range(start, start + len(values)),
        log_times_ms=[LOG_AT_MS] * len(values),
    )
    body = pack(
        lines.lines,
        chain=place,
        start=start,
        next_offset=start + len(values),
        rx_min=lines.rx_min,
        rx_max=lines.rx_max,
    )
    return Lake(folder).add([as_bronze(place, start, body)])[0]


def count_inflated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the objects that were inflated, in order."""
    keys: list[str] = []
    unpack = reading.unpack

    def count(body: bytes, key: str) -> bytes:
        keys.append(key)
        return unpack(body, key)

    monkeypatch.setattr(reading, "unpack", count)
    return keys
