"""The simulator's faults through all stages: what its truth says is what silver holds."""

import asyncio
from pathlib import Path

from proofs.stages import Stages
from support.fake_time import FakeTime
from tickhouse.model.session import Closed
from tickhouse.source.address import FeedOptions, open_feed
from tickhouse.source.truth import read_truth, recompute
from tickhouse.stream.recorder import Recorder
from tickhouse.stream.session import events_backwards


def test_record_goes_on_after_a_disconnect_and_audit_agrees_with_the_truth(tmp_path: Path) -> None:
    """Every fault at once, through all stages: rejects by reason, trades by symbol."""
    faults = (
        "late:0.01,out_of_order:0.02,double_delivery:0.01,null_price:0.01,zero_price:0.01,"
        "zero_size:0.01,halt:0.5,disconnect:0.002"
    )
    url = f"sim://sp500?symbols=6&rate=3&speed=max&frames=5000&faults={faults}"
    stages = Stages(tmp_path / "data")
    truth_path = tmp_path / "data" / "truth.json"
    feed = open_feed(url, FeedOptions(truth_path=truth_path))
    asyncio.run(Recorder(feed, stages.log, clock=FakeTime()).run(asyncio.Event()))
    stages.lander.drain()
    stages.refine()
    report = stages.audit(truth=True)
    closed = [
        event.reason for _, event in events_backwards(stages.log, 0) if isinstance(event, Closed)
    ]
    rejects = dict(
        stages.warehouse.query("select reason, count(*) from silver.rejected_trades group by all")
    )
    stages.close()
    truth = read_truth(truth_path).feeds[feed.url]

    assert report.ok, report
    assert truth == recompute(feed.url, {0: 5000})
    assert truth.rejects == rejects
    assert set(rejects) == {"missing_price", "bad_price", "zero_size"}
    assert closed.count("simulated disconnect") == truth.faults["disconnect"] > 0
    assert set(truth.faults) == {"late", "out_of_order", "double_delivery", "disconnect"}


def test_a_reject_that_silver_lacks_is_lost(tmp_path: Path) -> None:
    stages = Stages(tmp_path / "data")
    options = FeedOptions(truth_path=tmp_path / "data" / "truth.json")
    stages.record(
        open_feed("sim://sp500?symbols=3&rate=max&frames=300&faults=zero_size:0.1", options)
    )
    stages.refine()
    clean = stages.audit(truth=True)
    with stages.warehouse.cursor() as cursor:
        first = "(select min(session_seq) from silver.rejected_trades)"
        cursor.execute(f"delete from silver.rejected_trades where session_seq = {first}")
    damaged = stages.audit(truth=True)
    stages.close()

    truth = next(layer for layer in damaged.layers if layer.name == "truth")
    assert clean.ok, clean
    assert truth.lost > 0
    assert "zero_size of sim://sp500" in truth.findings[0].where
