"""A build killed at a durable step: the next one goes on, and nothing is lost or doubled."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from support.bronze_rows import T0, BronzeFrame, finnhub, trade
from support.builds import EXACT_TABLES, builder_of, new_warehouse, rows_of

BUILD = """
import sys
from pathlib import Path
from tickhouse.transform.builder import Builder, duckdb_target
import duckdb
path = Path(sys.argv[1])
builder = Builder(
    connect=lambda: duckdb.connect(str(path)), target=duckdb_target(path),
    work_folder=path.parent / "dbt",
)
builder.prepare()
print(builder.build().load_id)
"""


def frames(first: int) -> list[BronzeFrame]:
    return [
        BronzeFrame(
            payload=finnhub(trade("AAPL", T0 + timedelta(seconds=seq), 100 + seq % 3, 10)), seq=seq
        )
        for seq in range(first, first + 5)
    ]


@pytest.mark.parametrize(
    "failpoint",
    ["build.trades.after", pytest.param("build.bars_1m.after", marks=pytest.mark.long)],
)
def test_a_killed_build_changes_nothing_that_the_next_does_not_mend(
    tmp_path: Path, failpoint: str
) -> None:
    killed, whole = new_warehouse(tmp_path / "killed"), new_warehouse(tmp_path / "whole")
    for warehouse in (killed, whole):
        warehouse.load(frames(0))
    with builder_of(killed) as builder:
        builder.build()
    for warehouse in (killed, whole):
        warehouse.load(frames(5))
    process = subprocess.run(
        [sys.executable, "-c", BUILD, str(killed.path)],
        env=os.environ | {"TICKHOUSE_FAILPOINTS": f"{failpoint}=kill"},
        capture_output=True,
        check=False,
        timeout=120,
    )
    for warehouse in (killed, whole):
        warehouse.load(frames(10))
        with builder_of(warehouse) as builder:
            builder.build()

    assert -signal.SIGKILL == process.returncode, process.stderr.decode()
    for table in EXACT_TABLES:
        assert rows_of(whole, table) == rows_of(killed, table), table
