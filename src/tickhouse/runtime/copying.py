"""The verb `copy`: a lake into another one, as when it moves from a folder to a bucket."""

import argparse
import time

import msgspec

from tickhouse.audit.report import Progress
from tickhouse.bronze.copying import Copier, CopyReport
from tickhouse.errors import ConfigError
from tickhouse.runtime import backends
from tickhouse.runtime.proof import progress_line
from tickhouse.runtime.result import EXIT_OK, EXIT_PROBLEM, VerbResult
from tickhouse.settings import Settings


def copy(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Copy what the target lacks; code 1 where something is wrong at the source or the target."""
    source = arguments.copy_from or settings.lake_url
    if backends.place_of(source) == backends.place_of(arguments.copy_to):
        raise ConfigError("copy: --from and --to are the same lake")
    began_s = time.monotonic()
    with progress_line() as progress:
        report = Copier(
            backends.open_lake_there(source, settings, setting="--from"),
            backends.open_store_at(arguments.copy_to, settings, setting="--to"),
            tell=lambda report: _tell(progress, report),
            wait=lambda tries: time.sleep(2 ** (tries - 1)),
        ).run()
    ok = not report.problems
    seconds = round(time.monotonic() - began_s, 3)
    content = {"ok": ok, **msgspec.to_builtins(report), "seconds": seconds}
    return VerbResult(EXIT_OK if ok else EXIT_PROBLEM, content, _describe(report))


def _tell(progress: Progress, report: CopyReport) -> None:
    progress("copied", report.objects + report.skipped, None)


def _describe(report: CopyReport) -> str:
    put = f"{report.objects} objects ({report.bytes:,} bytes)"
    lines = [f"{report.chains} chains: copied {put}, {report.skipped} were there"]
    if report.foreign_count:
        lines.append(f"{report.foreign_count} foreign objects were left alone:")
        lines += [f"  {key}" for key in report.foreign]
    lines += [f"PROBLEM {problem}" for problem in report.problems]
    return "\n".join(lines)
