"""`audit`: every layer compared with the one upstream of it. Reads everything, changes nothing."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tickhouse.audit.gold import audit_gold, audit_published
from tickhouse.audit.lake import LakeAudit, audit_rows
from tickhouse.audit.positions import Patience, Positions, Sources, take_positions
from tickhouse.audit.recount import Recount
from tickhouse.audit.report import AuditReport, Layer, LayerReport, Progress, no_progress, summarise
from tickhouse.audit.silver import audit_completeness, audit_sessions, audit_silver
from tickhouse.audit.spool import SpoolAudit, audit_spool
from tickhouse.audit.truth import audit_truth
from tickhouse.bronze.store import Store
from tickhouse.source.truth import read_truth
from tickhouse.stream.log import LogReader
from tickhouse.transform.published import PublishedGold
from tickhouse.warehouse.warehouse import WarehouseReader

RECOUNT_FRAMES_MAX: Final = 2_000_000
"""A lake of up to so many frames is recounted even if not asked for."""


def audit(  # noqa: PLR0913 - all by keyword
    *,
    log: LogReader,
    store: Store,
    warehouse: WarehouseReader,
    spool: LogReader | None = None,
    gold: PublishedGold | None = None,
    truth_path: Path | None = None,
    deep: bool = False,
    lag_s_max: float | None = None,
    progress: Progress = no_progress,
    clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    sleep: Callable[[float], None] = time.sleep,
) -> AuditReport:
    """Answer whether everything that was recorded is in every layer exactly once.

    Args:
        log: the log; may be empty or trimmed.
        store: the lake.
        warehouse: the warehouse, or its owner's answers.
        spool: where `record` keeps frames until the log has them; None: the log is its own spool.
        gold: published gold; None: not looked at.
        truth_path: the simulator's ledger; None: not compared.
        deep: read and count every frame again, however many there are; so does `truth_path`.
        lag_s_max: what is in flight for longer is a finding; None where no stage runs.
        progress: told how far it is.
        clock_ms: wall clock, UNIX milliseconds.
        sleep: used while a build is in the middle of its models.

    Raises:
        ConfigError: something cannot be read at all.
    """
    started, now_ms = time.monotonic(), clock_ms()
    ledger = None if truth_path is None else read_truth(truth_path)
    sources = Sources(log, store, warehouse, gold, spool)
    positions = take_positions(sources)
    recounts = deep or ledger is not None or _frames(warehouse, positions) <= RECOUNT_FRAMES_MAX
    recount = Recount() if recounts else None
    layers = [
        Layer(name, lag_s_max=lag_s_max)
        for name in ("log_to_bronze", "bronze_to_warehouse", "warehouse_to_silver", "sessions")
    ]
    to_bronze, to_warehouse, to_silver, sessions = layers
    to_log = Layer("spool_to_log", lag_s_max=lag_s_max)
    spools = SpoolAudit(to_log, sources, positions)
    LakeAudit(
        sources=sources,
        positions=positions,
        recount=recount,
        now_ms=now_ms,
        to_bronze=to_bronze,
        to_warehouse=to_warehouse,
        progress=progress,
        spools=spools,
    ).run()
    if spool is not None or spools.is_relayed:
        layers.insert(0, to_log)
        progress("spool", 0, None)
        audit_spool(sources, positions, spools, recount, now_ms=now_ms)
    progress("warehouse", 0, None)
    audit_rows(warehouse, positions, to_warehouse)
    progress("silver", 0, None)
    audit_silver(warehouse, positions, recount, to_silver, now_ms=now_ms)
    if recount is None:
        audit_completeness(warehouse, positions, sessions)
    else:
        audit_sessions(recount, sessions)
    reports = [layer.report() for layer in layers]
    progress("gold", 0, None)
    patience = Patience(sleep)
    to_gold = Layer("silver_to_gold", lag_s_max=lag_s_max)
    audit_gold(warehouse, positions, to_gold, patience=patience)
    reports.append(to_gold.report())
    if gold is not None:
        reports.append(_audit_published(warehouse, gold, positions, lag_s_max, now_ms, patience))
    if ledger is not None and recount is not None:
        progress("truth", 0, None)
        truth = Layer("truth")
        audit_truth(ledger, warehouse, positions, recount, truth, patience=patience)
        reports.append(truth.report())
    return summarise(
        reports,
        recounted=recount is not None,
        at_ms=now_ms,
        seconds=time.monotonic() - started,
    )


def _frames(warehouse: WarehouseReader, positions: Positions) -> int:
    if not positions.loaded:
        return 0
    rows = warehouse.query("select cast(coalesce(sum(n), 0) as bigint) from bronze.load_ledger")
    return rows[0][0]


def _audit_published(
    warehouse: WarehouseReader,
    gold: PublishedGold,
    positions: Positions,
    lag_s_max: float | None,
    now_ms: int,
    patience: Patience,
) -> LayerReport:
    layer = Layer("gold_to_published", lag_s_max=lag_s_max)
    audit_published(warehouse, gold, positions, layer, now_ms=now_ms, patience=patience)
    return layer.report()
