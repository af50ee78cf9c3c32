"""A build that is killed between a changed model and those that are made from it."""

import os
from pathlib import Path

from proofs.stages import Stages
from support.processes import run_killed
from tickhouse.source.address import open_feed


def build(folder: str) -> None:
    """Run in a process of its own."""
    stages = Stages(Path(folder))
    stages.builder.build()
    os._exit(0)


def test_what_is_downstream_of_a_changed_model_is_built_afresh_whenever_the_build_stops(
    tmp_path: Path,
) -> None:
    stages = Stages(tmp_path)
    stages.record(open_feed("sim://sp500?symbols=3&rate=max&frames=40"))
    stages.refine()
    bars = "select symbol, bar_at, open, high, low, close from gold.bars_1s order by all"
    expected = stages.warehouse.query(bars)
    cursor = stages.warehouse.cursor()
    cursor.execute("update meta.positions set fingerprint = 'older' where model <> 'tests'")
    cursor.execute("update gold.bars_1s set high = high + 1")
    cursor.close()
    stages.close()

    run_killed(build, str(tmp_path), failpoints="build.trades.after=kill")
    stages = Stages(tmp_path)
    stages.refine()
    found = stages.warehouse.query(bars)
    stages.close()

    assert expected == found
