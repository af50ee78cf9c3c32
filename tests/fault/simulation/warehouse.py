"""A warehouse in memory: rows and ledger in one transaction, which may be cut off anywhere."""

from collections.abc import Sequence

import msgspec

from tests.fault.simulation.chance import Chance, Crash
from tickhouse.bronze.object import unpack
from tickhouse.errors import TransientError
from tickhouse.model.positions import ChainId
from tickhouse.warehouse.dialect import Dialect
from tickhouse.warehouse.warehouse import BronzeObject, LoadResult, Quarantined, Row, extending

Identity = tuple[int, str | None, int | None]
"""Offset, session and message number of a row; the last two only of a frame."""


class _Line(msgspec.Struct):
    o: int
    ses: str | None = None
    seq: int | None = None


_decode = msgspec.json.Decoder(_Line).decode


def identity_of(line: bytes) -> Identity:
    """What tells a bronze line from every other one of its chain."""
    at = _decode(line)
    return at.o, at.ses, at.seq


class SimulatedWarehouse:
    """`Warehouse`, as the loader sees it.

    Attributes:
        rows: lines as loaded, by chain.
        ledger: ranges as loaded, by chain.
    """

    dialect: Dialect = "duckdb"

    def __init__(self, chance: Chance) -> None:
        self.rows: dict[ChainId, list[bytes]] = {}
        self.ledger: dict[ChainId, list[tuple[int, int]]] = {}
        self._chance = chance
        self._load_id = 0

    def prepare(self) -> None:
        pass

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        return []

    def positions(self) -> dict[ChainId, int]:
        return {chain: ranges[-1][1] for chain, ranges in self.ledger.items()}

    def load(self, objects: Sequence[BronzeObject]) -> LoadResult:
        pending = extending(objects, self.positions())
        if not pending:
            return LoadResult(None, 0, 0, 0)
        self.strike()
        lines = [unpack(item.body, item.key).splitlines() for item in pending]
        self.store(pending, lines)
        self._load_id += 1
        if self._chance.strikes("kafka_answer_lost", 0.01):
            raise TransientError("the answer to COMMIT was lost")
        self.strike()
        rows = sum(item.manifest.n for item in pending)
        return LoadResult(self._load_id, len(pending), rows, 0)

    def store(self, pending: Sequence[BronzeObject], lines: Sequence[Sequence[bytes]]) -> None:
        """Rows and ledger rows become visible together."""
        self.strike()
        for item, taken in zip(pending, lines, strict=True):
            self.insert_rows(item, taken)
            self.insert_ledger(item)

    def insert_rows(self, item: BronzeObject, lines: Sequence[bytes]) -> None:
        self.rows.setdefault(item.chain, []).extend(lines)

    def insert_ledger(self, item: BronzeObject) -> None:
        covered = (item.manifest.start, item.manifest.next)
        self.ledger.setdefault(item.chain, []).append(covered)

    def strike(self) -> None:
        if self._chance.strikes("kill_loader", 0.02):
            raise Crash

    def loaded(self) -> dict[ChainId, list[Identity]]:
        """What it holds, by chain and in order."""
        return {chain: [identity_of(line) for line in lines] for chain, lines in self.rows.items()}

    def quarantine(self, key: str, reason: str) -> None:
        raise AssertionError(f"quarantined {key}: {reason}")

    def release(self, key: str) -> None:
        pass

    def quarantined(self) -> list[Quarantined]:
        return []

    def close(self) -> None:
        pass
