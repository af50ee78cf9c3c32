"""Five partitions of 1,001 small objects each: where a loader that lists one page loses 37 %."""

from pathlib import Path

from proofs.stages import Stages
from support.lake_builder import chain_id, frames, make_object
from tickhouse.bronze.chain import Chain

PARTITIONS = 5
OBJECTS = 1_001


def test_nothing_is_lost_from_five_times_1001_small_objects(tmp_path: Path) -> None:
    stages = Stages(tmp_path)
    for part in range(PARTITIONS):
        Chain(stages.store, chain_id(part)).open()
        for number in range(OBJECTS):
            identity = part * OBJECTS + number
            item = make_object(chain_id(part), number, frames(identity, 1))
            stages.store.put_if_absent(item.key, item.body, {})

    stages.refine()
    loaded = stages.warehouse.query("select count(*), count(distinct file) from bronze.trades")
    trades = stages.warehouse.query(
        "select count(*), count(distinct session_seq), sum(trade_size) from silver.trades"
    )
    stages.close()

    assert loaded == [(PARTITIONS * OBJECTS, PARTITIONS * OBJECTS)]
    assert trades == [(PARTITIONS * OBJECTS, PARTITIONS * OBJECTS, 5 * PARTITIONS * OBJECTS)]
