"""What must hold when a schedule has ended, found without asking those that were tested."""

from collections import Counter

import msgspec

from tests.fault.simulation.kafka import Partition
from tests.fault.simulation.warehouse import identity_of
from tests.fault.simulation.world import World
from tickhouse.bronze.chain import Chain, find_chains
from tickhouse.bronze.object import unpack, verify
from tickhouse.model.frame import decode_envelope
from tickhouse.model.positions import ChainId, TopicPartition


class Line(msgspec.Struct):
    """A bronze line: its position, and what the log held there."""

    t: str
    p: int
    o: int
    lt: int
    poison_b64: bytes | None = None


_decode = msgspec.json.Decoder(Line).decode


def check(world: World) -> None:
    """Every acknowledged frame is in the lake, and in the warehouse exactly once by identity.

    Raises:
        AssertionError: says what is lost, doubled or broken.
    """
    _check_log(world)
    landed: dict[ChainId, dict[int, bytes]] = {}
    lines: dict[ChainId, list[bytes]] = {}
    for chain in find_chains(world.store):
        lines[chain] = _lines(world, chain)
        landed[chain] = _records(world, chain, lines[chain])
    _check_acknowledged(world, landed)
    _check_held(world, landed)
    _check_repeats(world, landed)
    _check_warehouse(world, lines)


def _check_log(world: World) -> None:
    """Wire to Kafka is exactly once, in order, but for what the broker lost."""
    for place, held in world.kafka.lives():
        spooled = [
            slot.spool for _, slot in held.records(held.low, held.end) if slot.spool is not None
        ]
        if place not in world.resent:
            assert spooled == sorted(set(spooled)), f"{place}: Kafka holds {spooled}"


def _lines(world: World, chain: ChainId) -> list[bytes]:
    """Lines of a chain; every object of its folder is in one unbroken list."""
    objects = Chain(world.store, chain)
    objects.check_genesis()
    walked = list(objects.walk())
    keys = [found.key for found in world.store.list_objects(chain.prefix)]
    keys = [key for key in keys if key != chain.genesis_key]
    assert [key for key, _ in walked] == keys, f"{chain}: walked {len(walked)} of {len(keys)}"
    lines: list[bytes] = []
    for key, manifest in walked:
        body = world.store.get(key)
        assert verify(body, key, chain) == manifest
        lines += unpack(body, key).splitlines()
    return lines


def _life(world: World, chain: ChainId) -> Partition:
    place = TopicPartition(chain.stream, chain.part)
    life = chain.topic_id.partition(".")[0]
    found = [held for at, held in world.kafka.lives() if (at, held.topic_id) == (place, life)]
    assert len(found) == 1, f"{chain}: of no topic"
    return found[0]


def _records(world: World, chain: ChainId, lines: list[bytes]) -> dict[int, bytes]:
    """Values by offset; each offset once, rising, and as the log has held it."""
    held = _life(world, chain)
    records: dict[int, bytes] = {}
    previous = -1
    for line in lines:
        at = _decode(line)
        assert at.o > previous, f"{chain}: offset {at.o} after {previous}"
        previous = at.o
        known = held.ever.get(at.o, set())
        matching = [value for value in known if _is_of(line, at, value)]
        assert matching, f"{chain}: offset {at.o} never held what was landed"
        records[at.o] = matching[0]
    return records


def _is_of(line: bytes, at: Line, value: bytes) -> bool:
    if at.poison_b64 is not None:
        return at.poison_b64 == value
    return line.endswith(value[1:]) and decode_envelope(value) is not None


def _check_acknowledged(world: World, landed: dict[ChainId, dict[int, bytes]]) -> None:
    everywhere = {value for records in landed.values() for value in records.values()}
    for spool in world.spools:
        lost = [value for value in spool.frames if value not in everywhere | world.excused]
        assert not lost, f"{spool.place}: lost {len(lost)} of {spool.end}, such as {lost[0]!r}"


def _check_held(world: World, landed: dict[ChainId, dict[int, bytes]]) -> None:
    """What a topic holds at the end is in one of its chains, at its offset."""
    for place, held in world.kafka.held.items():
        of_life = [
            records
            for chain, records in landed.items()
            if (chain.stream, chain.part) == (place.stream, place.part)
            and chain.topic_id.partition(".")[0] == held.topic_id
        ]
        for offset, slot in held.records(held.low, held.end):
            assert any(records.get(offset) == slot.value for records in of_life), (
                f"{place}@{offset} was not landed"
            )


def _check_repeats(world: World, landed: dict[ChainId, dict[int, bytes]]) -> None:
    """No frame twice in a life of a topic, but where the broker lost what it had."""
    frames: dict[tuple[TopicPartition, str], Counter[bytes]] = {}
    for chain, records in landed.items():
        place = TopicPartition(chain.stream, chain.part)
        life = chain.topic_id.partition(".")[0]
        ours = [value for value in records.values() if decode_envelope(value) is not None]
        if place not in world.resent:
            assert len(ours) == len(set(ours)), f"{chain}: a frame twice"
        frames.setdefault((place, life), Counter()).update(ours)
    for (place, life), counts in frames.items():
        if life not in world.lost_tails and place not in world.resent:
            assert max(counts.values(), default=1) == 1, f"{place}: a frame in two chains"


def _check_warehouse(world: World, lines: dict[ChainId, list[bytes]]) -> None:
    """Rows are one-to-one with the lake; by identity each acknowledged frame is there."""
    loaded = world.warehouse.loaded()
    landed = {chain: [identity_of(line) for line in taken] for chain, taken in lines.items()}
    for chain, expected in landed.items():
        rows = loaded.pop(chain, [])
        assert rows == expected, f"{chain}: {len(rows)} rows of {len(expected)}"
    assert not loaded, f"rows of no chain: {sorted(loaded)}"
