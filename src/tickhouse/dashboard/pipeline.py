"""The stage lane: what every stage says of itself in its status file, and the last audit."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import msgspec

STAGES: Final = ("record", "land", "load", "build", "serve")
SILENT_AFTER_MS: Final = 10_000
"""A stage that calls itself running and has not written its status for so long is silent."""
STATUS_BYTES_MAX: Final = 256_000


def pipeline_state(
    run_folder: Path, heartbeat: Mapping[str, Any], *, now_ms: int | None = None
) -> dict[str, Any]:
    """State of all stages with the live facts of log and gold.

    Args:
        run_folder: `<data>/run`.
        heartbeat: see `Hub.heartbeat`.
        now_ms: wall clock, UNIX milliseconds.
    """
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    return {
        "ts": now,
        "feed": {name: heartbeat.get(name) for name in FEED_FACTS},
        "gold": {name: heartbeat.get(name) for name in GOLD_FACTS},
        "stages": [_stage(run_folder, name, now) for name in STAGES],
        "audit": _audit(run_folder, now),
    }


FEED_FACTS: Final = (
    "badge", "feed", "connections", "links", "closed", "ended", "lost", "clock_offset_ms",
    "coverage", "gaps", "gaps_filled", "last_gap", "rate", "tick_ms", "word", "words", "market",
    "fault",
)  # fmt: skip
GOLD_FACTS: Final = ("gold", "gold_at_ms", "lag_ms", "behind", "skipped")


def _stage(run_folder: Path, name: str, now_ms: int) -> dict[str, Any]:
    """Status of one stage: state "unknown" where it has never run here."""
    content = _read(run_folder / f"{name}.json")
    if content is None:
        return {"name": name, "state": "unknown", "age_ms": None, "facts": {}}
    at_ms = content.get("at_ms")
    age_ms = max(now_ms - at_ms, 0) if isinstance(at_ms, int) else None
    state = str(content.get("state", "unknown"))
    is_silent = age_ms is None or age_ms > SILENT_AFTER_MS
    if state in {"running", "starting"} and is_silent:
        state = "silent"
    facts = content.get("facts")
    return {
        "name": name,
        "state": state,
        "age_ms": age_ms,
        "facts": facts if isinstance(facts, dict) else {},
    }


def _audit(run_folder: Path, now_ms: int) -> dict[str, Any] | None:
    content = _read(run_folder / "audit.json")
    if content is None:
        return None
    at_ms = content.get("at_ms")
    return {
        "ok": content.get("ok") is True,
        "lost": content.get("lost"),
        "duplicated": content.get("duplicated"),
        "corrupt": content.get("corrupt"),
        "age_ms": max(now_ms - at_ms, 0) if isinstance(at_ms, int) else None,
    }


def _read(path: Path) -> dict[str, Any] | None:
    """A status file, None where there is none; one that cannot be read says so as its state."""
    try:
        with path.open("rb") as file:
            content = msgspec.json.decode(file.read(STATUS_BYTES_MAX))
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        return {"state": "unreadable", "facts": {"error": str(error)}}
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {"state": "unreadable"}
