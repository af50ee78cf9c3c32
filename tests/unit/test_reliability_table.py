"""RELIABILITY.md: only what was measured, and every fault by its name."""

from tools.reliability_table import page

SECONDS = {"n": 3, "p50": 1.0, "p99": 2.0, "max": 2.0}
SOAK = {
    "plan": {"seconds": 1800.0, "seed": 5, "landers": 3},
    "kafka": "4.3.1-1",
    "kills": 3,
    "kills_by_stage": {"land": 2, "record": 1},
    "zombies": 1,
    "broker_restarts": 1,
    "s3_faults": 7,
    "s3_faults_by_kind": {"503": 7},
    "other_faults": {"disk_full": 2},
    "skipped": {"clock_wrong": "faketime is not installed"},
    "refused_by_disk": 4,
    "recovery_s": SECONDS,
    "recovery_s_by_kind": {"broker": SECONDS, "zombie": {"n": 0}},
    "command": "python -m proofs.soak --minutes 30 --seed 5",
}
WHOLE = {
    **SOAK,
    "oracle": {"frames": 1_234_567, "lost": 0, "duplicated": 0, "corrupt": 0},
    "audit": {"ok": True},
    "gold_equal": False,
}
SIMULATED = {
    "ok": True,
    "schedules": 100_000,
    "frames": 5,
    "objects": 6,
    "seconds": 7.5,
    "faults": {"kill": 9, "unseen": 0},
    "failed": [],
}


def test_a_page_tells_what_was_counted() -> None:
    text = page(WHOLE, [SIMULATED, {**SIMULATED, "mutant": "plain put", "ok": False}])

    assert "| frames acknowledged (session events among them) | 1,234,567 |" in text
    assert "row for row | **no** |" in text
    assert "| clock_wrong | faketime is not installed |" in text
    assert "| 100,000 | 5 | 6 | 0 | 7.5 |" in text
    assert "| plain put | 100,000 | 0 | yes |" in text
    assert "`python -m proofs.soak --minutes 30 --seed 5`" in text


def test_what_was_not_seen_is_not_in_the_page() -> None:
    text = page(SOAK, [])

    assert "lost" not in text.partition("| found |")[2].partition("| what struck |")[0]
    assert "zombie |" not in text.partition("Recovery")[2]
    assert "Simulated" not in text
    assert "Mutants" not in text
    assert "unseen" not in page(WHOLE, [SIMULATED])


def test_a_run_that_broke_off_says_so() -> None:
    assert "**the run broke off**" in page({**SOAK, "error": "TooLateError: waited"}, [])
