"""Real bronze objects for tests, alone or in a lake."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from tickhouse.bronze.chain import Chain
from tickhouse.bronze.local import LocalStore
from tickhouse.bronze.object import pack, verify
from tickhouse.model.frame import encode_frames, splice_positions
from tickhouse.model.positions import ChainId, Stream, topic_of
from tickhouse.warehouse.warehouse import BronzeObject

SESSION = "0192f0a0-0000-7000-8000-000000000000"
RECEIVED_AT_NS = 1_732_300_000_123_456_789
LOG_AT_MS = 1_732_300_000_200


def chain_id(part: int = 0, *, stream: Stream = Stream.TRADES, topic_id: str = "e1") -> ChainId:
    return ChainId(stream, topic_of(stream), topic_id, part)


def finnhub_message(number: int, trades: int = 1) -> bytes:
    data = [
        {
            "c": ["1"],
            "p": 100 + (number + n) % 50 / 100,
            "s": "AAPL",
            "t": 1_732_300_000_000,
            "v": 5,
        }
        for n in range(trades)
    ]
    return msgspec.json.encode({"data": data, "type": "trade"})


def frames(first: int, count: int, *, trades: int = 1) -> list[bytes]:
    return encode_frames(
        [finnhub_message(number, trades) for number in range(first, first + count)],
        source="sim:finnhub.ws",
        session=SESSION,
        first_seq=first,
        received_at_ns=RECEIVED_AT_NS,
    )


def make_object(chain: ChainId, start: int, values: Sequence[bytes]) -> BronzeObject:
    """An object of dense offsets, as the lander makes it."""
    bronze = splice_positions(
        values,
        topic_id=chain.topic_id,
        part=chain.part,
        offsets=range(start, start + len(values)),
        log_times_ms=[LOG_AT_MS] * len(values),
    )
    return pack_lines(chain, start, bronze.lines)


def pack_lines(
    chain: ChainId, start: int, lines: Sequence[bytes], *, next_offset: int | None = None
) -> BronzeObject:
    """An object of any lines: its hash is right, whatever they hold."""
    end = start + len(lines) if next_offset is None else next_offset
    body = pack(
        lines, chain=chain, start=start, next_offset=end, rx_min=None, rx_max=None, gap=False
    )
    return as_bronze(chain, start, body)


def make_gap(chain: ChainId, start: int, next_offset: int) -> BronzeObject:
    """What the lander writes where retention passed it."""
    body = pack(
        [], chain=chain, start=start, next_offset=next_offset, rx_min=None, rx_max=None, gap=True
    )
    return as_bronze(chain, start, body)


def as_bronze(chain: ChainId, start: int, body: bytes) -> BronzeObject:
    key = chain.key(start)
    return BronzeObject(key, chain, verify(body, key, chain), body)


def run_of(chain: ChainId, *, objects: int, rows: int, start: int = 0) -> list[BronzeObject]:
    """Consecutive objects of equally many frames."""
    return [
        make_object(chain, at, frames(at, rows))
        for at in range(start, start + objects * rows, rows)
    ]


class Lake:
    """A lake in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = LocalStore(folder)

    def add(self, objects: Sequence[BronzeObject]) -> list[str]:
        for item in objects:
            self.open_chain(item.chain)
            self.store.put_if_absent(item.key, item.body, {})
        return [item.key for item in objects]

    def open_chain(self, chain: ChainId) -> None:
        Chain(self.store, chain).open()

    def path(self, key: str) -> Path:
        return self.folder / key

    def overwrite(self, key: str, body: bytes) -> None:
        """What nobody may do: the object's file gets other bytes."""
        path = self.path(key)
        path.chmod(0o644)
        path.write_bytes(body)

    def delete(self, key: str) -> None:
        self.path(key).unlink()
