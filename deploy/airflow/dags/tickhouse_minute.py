"""Each minute: what is pending in the lake is loaded, built into silver and gold, and published.

One task, one process: each task costs Airflow a second, and dbt four to start. The log has a line
a step. What is pending is found in the load ledger, so a missed, doubled or killed minute costs
nothing: the next one takes it along. Where nothing was pending, the task is skipped.
"""

from datetime import timedelta

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowSkipException
from tickhouse_verbs import DEFAULTS, GOLD, START, run


@dag(
    schedule="* * * * *",
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    default_args=DEFAULTS,
    doc_md=__doc__,
    tags=["tickhouse"],
)
def tickhouse_minute() -> None:
    """Pending → load → build → publish."""

    @task(outlets=GOLD)
    def refine(*, outlet_events: dict | None = None) -> dict:
        facts = run("refine", "--once")
        if not facts["built"]:
            raise AirflowSkipException("nothing was pending: gold is level with the lake")
        for asset in GOLD:
            outlet_events[asset].extra = {"load_id": facts["gold_load_id"], "rows": facts["rows"]}
        return facts

    refine()


minute = tickhouse_minute()

if __name__ == "__main__":
    minute.test()
