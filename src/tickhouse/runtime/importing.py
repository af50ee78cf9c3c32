"""The verb `import`: a lake of one JSON object a message into the log, and the proof that it is."""

import argparse
import contextlib
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tickhouse.audit.imported import ImportProof, prove_import
from tickhouse.audit.report import Progress
from tickhouse.errors import BusyError
from tickhouse.runtime import backends
from tickhouse.runtime.proof import progress_line
from tickhouse.runtime.result import EXIT_OK, EXIT_PROBLEM, VerbResult
from tickhouse.runtime.streaming import record_feed
from tickhouse.settings import Settings
from tickhouse.source.importing.book import ImportBook
from tickhouse.source.importing.feed import IMPORT_SHARD, ImportCounts, ImportFeed
from tickhouse.source.importing.messages import read_symbol_rule
from tickhouse.telemetry import get_logger

TELL_S: Final = 10.0
"""Without a terminal, progress is a line of the log this often."""

_log = get_logger("import")


def import_lake(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Import what the log does not hold yet; code 1 where something was not taken, or is amiss.

    Raises:
        BusyError: a recorder holds the log.
        TransientError, RefusedError: of the place; run it again, it goes on.
    """
    rule = read_symbol_rule(arguments.symbol_from)
    lake = backends.open_foreign_lake(arguments.place, settings)
    began_s = time.monotonic()
    with contextlib.closing(ImportBook()) as book, progress_line() as progress:
        feed = ImportFeed(lake, book, kind=arguments.kind, rule=rule)
        is_stopped = _record(feed, settings, arguments, progress)
        log = backends.open_spool_reader(settings)
        try:
            proof = prove_import(
                log, book, place=lake.place, shard=IMPORT_SHARD, is_whole=not is_stopped
            )
        finally:
            log.close()
    ok = not (is_stopped or proof.problems or feed.counts.refused)
    content: dict[str, Any] = {
        "ok": ok,
        "place": lake.url,
        "stopped": is_stopped,
        **msgspec.structs.asdict(feed.counts),
        "in_log": msgspec.structs.asdict(proof),
        "seconds": round(time.monotonic() - began_s, 3),
    }
    text = _describe(feed.counts, proof, is_stopped=is_stopped)
    return VerbResult(EXIT_OK if ok else EXIT_PROBLEM, content, text)


def _record(
    feed: ImportFeed, settings: Settings, arguments: argparse.Namespace, progress: Progress
) -> bool:
    """Record what is not there yet; whether it was told to stop before the end."""
    try:
        _, is_stopped = record_feed(
            feed,
            settings,
            arguments,
            report=_Teller(feed.counts, progress),
            shard=IMPORT_SHARD,
        )
    except BusyError as error:
        raise BusyError(
            f"{error} A log has one writer: stop `tickhouse up` (or `record`), run `tickhouse"
            " import`, start it again; an interrupted import goes on where it stopped"
        ) from error
    return is_stopped


class _Teller:
    """Says how far an import is: on a terminal as it goes, else in the log now and then."""

    def __init__(self, counts: ImportCounts, progress: Progress) -> None:
        self._counts = counts
        self._progress = progress
        self._told_at = time.monotonic()

    def __call__(self, state: str, facts: Mapping[str, Any]) -> None:
        """See `Report`."""
        counts = self._counts
        self._progress("imported", counts.objects, counts.listed - counts.there)
        now = time.monotonic()
        if now - self._told_at < TELL_S:
            return
        self._told_at = now
        _log.info(
            "importing",
            state=state,
            listed=counts.listed,
            there=counts.there,
            imported=counts.objects,
            refused=counts.refused,
            error=facts.get("error"),
        )


def _describe(counts: ImportCounts, proof: ImportProof, *, is_stopped: bool) -> str:
    taken = f"{counts.objects:,} ({counts.bytes:,} bytes) as {counts.frames:,} frames"
    others = f"{counts.there:,} were in the log already, {counts.refused:,} not taken"
    lines = [f"{counts.listed:,} objects listed: imported {taken}, {others}"]
    lines += [f"NOT TAKEN {reason}" for reason in counts.reasons]
    if counts.refused > len(counts.reasons):
        lines.append(f"… and {counts.refused - len(counts.reasons):,} more; all are in this log")
    if counts.unlike:
        lines.append(
            f"neither quote nor trade by their looks: {counts.unlike:,} messages, the first in"
            f" {counts.unlike_key}; taken as they are, silver's rejects will name them"
        )
    lines += [f"PROBLEM {problem}" for problem in proof.problems]
    if not proof.problems:
        held = f"{proof.frames:,} frames of {proof.bytes:,} bytes"
        older = f"; {proof.trimmed:,} older ones are in the lake alone" if proof.trimmed else ""
        lines.append(f"read back: {proof.objects:,} objects, each in the log once: {held}{older}")
    lines.append(
        "stopped before the end: run it again to go on"
        if is_stopped
        else "land, load and build (or `up`) carry them on"
    )
    return "\n".join(lines)
