"""The verbs that ask: `status`, `query`, `doctor`."""

import argparse
import contextlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from tickhouse.errors import TickhouseError
from tickhouse.runtime import backends
from tickhouse.runtime.backend_checks import (
    accept_snowflake,
    probe_lake,
    probe_log,
    probe_snowflake,
    probe_spool,
)
from tickhouse.runtime.feed_checks import Check, check_feed
from tickhouse.runtime.gold import open_gold
from tickhouse.runtime.level import Levels, PartitionLevel, Status, read_statuses
from tickhouse.runtime.owner import connect_owner
from tickhouse.runtime.result import EXIT_OK, EXIT_PROBLEM, VerbResult
from tickhouse.settings import Settings
from tickhouse.transform.published import PublishedGold

FREE_BYTES_MIN: Final = 1 << 30
STALE_S: Final = 30.0
SPOOL_FACTS: Final = ("spool_end", "relayed")


def status(settings: Settings, _arguments: argparse.Namespace) -> VerbResult:
    """Where each stage is; code 1 when one has failed, waits, or its process is gone."""
    statuses = read_statuses(settings.run_folder)
    with contextlib.closing(Levels(settings)) as looked:
        levels = looked.partitions()
        gold_fault = looked.gold_fault
    stages = [_stage(status) for status in statuses.values() if status.stage != "audit"]
    problems = [problem for stage in stages for problem in _problems(stage)]
    problems += [f"gold cannot be looked at: {gold_fault}"] if gold_fault else []
    content: dict[str, Any] = {
        "ok": not problems,
        "problems": problems,
        "stages": stages,
        "partitions": [_partition(level) for level in levels],
    }
    text = "\n".join([_stage_table(stages), "", _level_table(levels), *problems])
    return VerbResult(EXIT_PROBLEM if problems else EXIT_OK, content, text)


def _problems(stage: dict[str, Any]) -> list[str]:
    """What an operator must look at: a failed stage, and what it waits at."""
    name, facts = stage["stage"], stage["facts"]
    found: list[str] = []
    if stage["state"] not in {"running", "stopped", "starting"}:
        found.append(f"{name} is {stage['state']}: {facts.get('error', 'see its log')}")
    for kind in ("blocked", "alarms"):
        waiting: dict[str, str] = facts.get(kind) or {}
        found += [f"{name} waits at {place}: {reason}" for place, reason in waiting.items()]
    return found


def _stage(status: Status) -> dict[str, Any]:
    state = status.state if status.is_alive or status.state == "stopped" else "gone"
    age_s = round(max(0.0, time.time() - status.at_ms / 1000), 1)
    return {"stage": status.stage, "state": state, "age_s": age_s, "facts": status.facts}


def _stage_table(stages: Sequence[dict[str, Any]]) -> str:
    rows = [[stage["stage"], stage["state"], f"{stage['age_s']} s ago"] for stage in stages]
    return table(["stage", "state", "reported"], rows) if rows else "no stage has run here yet"


def _partition(level: PartitionLevel) -> dict[str, Any]:
    """A partition's facts; those of a spool where there is one."""
    facts = {**msgspec.structs.asdict(level), "log_lag": level.log_lag}
    if level.spool_end is None:
        return {name: value for name, value in facts.items() if name not in SPOOL_FACTS}
    return {**facts, "spool_lag": level.spool_lag}


def _level_table(levels: Sequence[PartitionLevel]) -> str:
    if not levels:
        return "the log is empty"
    rows: list[list[object]] = [
        [level.partition, level.log_end, level.landed, level.published] for level in levels
    ]
    header = ["partition", "log end", "landed", "published"]
    if all(level.spool_end is None for level in levels):
        return table(header, rows)
    spooled = [[level.spool_end, level.relayed] for level in levels]
    rows = [[row[0], *more, *row[1:]] for row, more in zip(rows, spooled, strict=True)]
    return table([header[0], "spool end", "relayed", *header[1:]], rows)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns aligned for a terminal."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def query(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """A SELECT over gold and silver, as readers see them."""
    if settings.is_warehouse_snowflake:
        with contextlib.closing(backends.open_snowflake(settings)) as warehouse:
            columns, rows = warehouse.answer(arguments.sql, rows_max=arguments.rows)
    else:
        found = PublishedGold(settings.gold_folder).query(arguments.sql, rows_max=arguments.rows)
        columns, rows = found.columns, found.rows
    content = {"ok": True, "columns": columns, "rows": [list(row) for row in rows]}
    return VerbResult(EXIT_OK, content, table(columns, rows))


def doctor(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Check every configured backend, and the feed's key, plan, limits and clock."""
    if arguments.accept:
        return _checked(accept_snowflake(settings))
    probes: dict[str, Callable[[Settings], str]] = {
        "source": lambda settings: backends.open_source(settings).url,
        "log": probe_log,
        **({"spool": probe_spool} if settings.is_log_kafka else {}),
        "lake": probe_lake,
        "warehouse": probe_snowflake if settings.is_warehouse_snowflake else _probe_warehouse,
        "gold" if settings.is_warehouse_snowflake else "published gold": _probe_gold,
        "disk": _probe_disk,
    }
    checks = [_check(name, probe, settings) for name, probe in probes.items()]
    return _checked([*checks, *check_feed(settings)])


def _checked(checks: Sequence[Check]) -> VerbResult:
    """What was found, a line each; code 1 where something is to be mended."""
    ok = all(check.ok for check in checks)
    rows = [["ok" if check.ok else "FIX", check.name, check.found] for check in checks]
    content = {"ok": ok, "checks": [msgspec.structs.asdict(check) for check in checks]}
    return VerbResult(EXIT_OK if ok else EXIT_PROBLEM, content, table(["", "what", "found"], rows))


def _check(name: str, probe: Callable[[Settings], str], settings: Settings) -> Check:
    try:
        return Check(name, ok=True, found=probe(settings))
    except (TickhouseError, OSError) as error:
        return Check(name, ok=False, found=str(error))


def _probe_warehouse(settings: Settings) -> str:
    owner = connect_owner(settings.run_folder)
    if owner is not None:
        owner.close()
        return f"{settings.warehouse_url}: owned by a running refine, which answers"
    warehouse = backends.open_warehouse(settings)
    try:
        warehouse.prepare()
        ((rows,),) = warehouse.query("select count(*) from bronze.load_ledger")
    finally:
        warehouse.close()
    return f"{settings.warehouse_url}: {rows} objects loaded"


def _probe_gold(settings: Settings) -> str:
    with open_gold(settings) as gold:
        manifest = gold.manifest()
    if manifest is None:
        return "nothing built yet" if settings.is_warehouse_snowflake else "nothing published yet"
    return f"version {manifest.version}, load {manifest.load_id}"


def _probe_disk(settings: Settings) -> str:
    folder = next(path for path in (settings.data, *settings.data.parents) if path.exists())
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} cannot be written; choose another --data")
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES_MIN:
        raise OSError(f"only {free >> 20} MiB free under {folder}; make room")
    return f"{free >> 30} GiB free under {folder}"
