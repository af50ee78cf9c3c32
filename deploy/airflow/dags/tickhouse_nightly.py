"""Each night: audit, comparison with a rebuild of a sample, and what of the lake is old.

A finding fails its task, and so is told like any failure. No task waits for another's success, but
one runs at a time: an embedded warehouse lets one process in.
"""

import tempfile
from datetime import timedelta

from airflow.sdk import Param, dag, task
from tickhouse_verbs import DEFAULTS, START, run


@dag(
    schedule="17 3 * * *",
    start_date=START,
    catchup=False,
    max_active_runs=1,
    max_active_tasks=1,
    dagrun_timeout=timedelta(hours=20),
    default_args={**DEFAULTS, "execution_timeout": timedelta(hours=6)},
    params={
        "sample": Param(1, type="integer", minimum=1, description="partitions to rebuild"),
        "days": Param(30, type="number", minimum=0, description="older objects are reported"),
    },
    doc_md=__doc__,
    tags=["tickhouse"],
)
def tickhouse_nightly() -> None:
    """Audit, compare, retention."""

    @task
    def audit() -> dict:
        report = run("audit")
        return {name: report[name] for name in ("ok", "lost", "duplicated", "corrupt")}

    @task
    def compare(*, params: dict | None = None) -> dict:
        with tempfile.TemporaryDirectory(prefix="tickhouse-rebuild-") as folder:
            sample = str(params["sample"])
            report = run("rebuild", "--compare", "--sample", sample, "--to", f"{folder}/to")
        return {name: report[name] for name in ("identical", "rows", "sample", "load_id")}

    @task
    def retention(*, params: dict | None = None) -> dict:
        report = run("retention", "--days", str(params["days"]))
        return {name: value for name, value in report.items() if name != "chains"}

    audit()
    compare()
    retention()


nightly = tickhouse_nightly()

if __name__ == "__main__":
    nightly.test()
