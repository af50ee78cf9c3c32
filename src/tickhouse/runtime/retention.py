"""The verb `retention`: what of the lake is old enough to go, and whether the warehouse has it."""

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from tickhouse.bronze.chain import find_chains, is_object
from tickhouse.bronze.store import Store
from tickhouse.model.positions import ChainId, Stream
from tickhouse.runtime import backends
from tickhouse.runtime.ask import table
from tickhouse.runtime.proof import warehouse_reader
from tickhouse.runtime.result import EXIT_OK, VerbResult
from tickhouse.settings import Settings
from tickhouse.warehouse.warehouse import WarehouseReader


class ChainRetention(msgspec.Struct):
    """A chain's objects in the lake.

    Attributes:
        chain: where they lie.
        begin: the first offset that is still there.
        objects, bytes: all of them.
        old_objects, old_bytes: in the warehouse for longer than asked for; the chain's last object
            is never among them, since it tells where the chain ends.
        pending_objects, pending_bytes: not in the warehouse yet: must not go, however old.
    """

    chain: str
    begin: int | None = None
    objects: int = 0
    bytes: int = 0
    old_objects: int = 0
    old_bytes: int = 0
    pending_objects: int = 0
    pending_bytes: int = 0


def retention(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Report; nothing is removed."""
    store = backends.open_store(settings)
    # The warehouse keeps naive UTC.
    now = datetime.now(UTC).replace(tzinfo=None)
    with warehouse_reader(settings) as warehouse:
        loaded = _ends(warehouse, now)
        old = _ends(warehouse, now - timedelta(days=arguments.days))
    chains = [_measure(store, chain, loaded, old) for chain in find_chains(store)]
    names = ("objects", "bytes", "old_objects", "old_bytes", "pending_objects", "pending_bytes")
    total = {name: sum(getattr(chain, name) for chain in chains) for name in names}
    content: dict[str, Any] = {
        "ok": True,
        "days": arguments.days,
        **total,
        "chains": [msgspec.structs.asdict(chain) for chain in chains],
    }
    rows = [[chain.chain, chain.begin, *(getattr(chain, n) for n in names)] for chain in chains]
    header = ["chain", "begins at", *(name.replace("_", " ") for name in names)]
    summary = (
        f"{total['old_objects']} objects ({total['old_bytes']:,} bytes) are in the warehouse for"
        f" longer than {arguments.days:g} days; {total['pending_objects']} are not in it yet"
    )
    text = f"{summary}\n{table(header, rows)}" if rows else "the lake is empty"
    return VerbResult(EXIT_OK, content, text)


def _ends(warehouse: WarehouseReader, until: datetime) -> dict[ChainId, int]:
    """Where each chain's objects end that were loaded until then."""
    rows = warehouse.query(
        "select stream, topic, topic_id, part, max(next_offset) from bronze.load_ledger"
        " where loaded_at <= ? group by stream, topic, topic_id, part",
        (until,),
    )
    return {ChainId(Stream(row[0]), row[1], row[2], row[3]): row[4] for row in rows}


def _measure(
    store: Store, chain: ChainId, loaded: Mapping[ChainId, int], old: Mapping[ChainId, int]
) -> ChainRetention:
    """Count a chain's objects by one listing; keys sort by offset, so that names tell all."""
    found = ChainRetention(chain.prefix)
    loaded_key, old_key = chain.key(loaded.get(chain, 0)), chain.key(old.get(chain, 0))
    last = 0
    for item in store.list_objects(chain.prefix):
        if not is_object(item.key):
            continue
        if found.begin is None:
            found.begin = int(item.key.rpartition("/")[2].partition(".")[0])
        found.objects += 1
        found.bytes += item.size
        if item.key < old_key:
            found.old_objects += 1
            found.old_bytes += item.size
            last = item.size
        elif item.key >= loaded_key:
            found.pending_objects += 1
            found.pending_bytes += item.size
    if found.objects and found.old_objects == found.objects:
        found.old_objects -= 1
        found.old_bytes -= last
    return found
