"""By hand: silver and gold derived again from bronze, a range of receipts or everything; audited.

The same result however often it runs. Usually not needed: a changed model is built anew by the next
minute, late trades correct their bars, and what the lake holds is loaded whenever it comes.
"""

from datetime import timedelta

from airflow.sdk import Param, dag, task
from tickhouse_verbs import DEFAULTS, GOLD, START, run

MOMENT = {"type": ["null", "string"], "format": "date-time"}


@dag(
    schedule=None,
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=12),
    default_args={**DEFAULTS, "execution_timeout": timedelta(hours=5)},
    params={
        "from": Param(None, description="first receipt, UTC; empty: everything", **MOMENT),
        "to": Param(None, description="last receipt, UTC; empty: up to now", **MOMENT),
    },
    doc_md=__doc__,
    tags=["tickhouse"],
)
def tickhouse_backfill() -> None:
    """Rederive → audit."""

    @task(outlets=GOLD)
    def rederive(*, params: dict | None = None) -> dict:
        given = [(f"--{name}", params[name]) for name in ("from", "to") if params[name]]
        return run("rederive", *(word for option in given for word in option))

    @task
    def audit() -> dict:
        report = run("audit")
        return {name: report[name] for name in ("ok", "lost", "duplicated", "corrupt")}

    rederive() >> audit()


backfill = tickhouse_backfill()

if __name__ == "__main__":
    backfill.test()
