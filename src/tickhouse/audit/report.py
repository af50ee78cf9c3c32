"""What an audit found: layer by layer, in records, with every finding named by key and range."""

from collections.abc import Callable
from typing import Final

import msgspec

FINDINGS_MAX: Final = 100

Progress = Callable[[str, int, int | None], None]
"""Told what is being checked, how much of it is done, and of how much (None: not known)."""


def no_progress(_layer: str, _done: int, _total: int | None) -> None:
    """Tell nobody."""


class Finding(msgspec.Struct, frozen=True):
    """One thing found.

    Attributes:
        kind: "lost", "duplicated", "corrupt", "differs", "late" (in flight for too long), or
            "note" (worth knowing, not a problem).
        where: an object's key, a log partition, a table, a session.
        text: what was found there, with the range.
        count: records (objects and log batches, if corrupt).
    """

    kind: str
    where: str
    text: str
    count: int = 0


class LayerReport(msgspec.Struct, frozen=True):
    """One layer, compared with the one upstream of it.

    Attributes:
        name: such as "log_to_bronze".
        ok: nothing was found but notes.
        checked: records (frames, trades, rows) that were compared.
        lost, duplicated: records.
        corrupt: objects and log batches.
        in_flight: records that upstream has and this layer has not yet.
        in_flight_age_s: age of the oldest of them.
        findings: at most `FINDINGS_MAX`; the counts hold for all.
        sums: exact totals that were compared, as text where they are decimals.
    """

    name: str
    ok: bool
    checked: int
    lost: int
    duplicated: int
    corrupt: int
    in_flight: int
    in_flight_age_s: float | None
    findings: list[Finding]
    sums: dict[str, str]


class AuditReport(msgspec.Struct, frozen=True):
    """The verdict.

    Attributes:
        ok: every layer is.
        lost, duplicated: records. What one layer lost, those after it have not either, so these
            are the larger of what the layers add up to and what sessions or truth say.
        corrupt: objects and log batches.
        in_flight: records on their way.
        recounted: every frame of the lake was read and counted again; otherwise hashes and counts
            kept with the objects were believed.
        layers: in the order of the data.
        at_ms: wall clock at the start, UNIX milliseconds.
        seconds: how long it took.
    """

    ok: bool
    lost: int
    duplicated: int
    corrupt: int
    in_flight: int
    recounted: bool
    layers: list[LayerReport]
    at_ms: int
    seconds: float


class Layer:
    """Collects what is found in one layer.

    Args:
        name: see `LayerReport.name`.
        lag_s_max: a record in flight for longer is a finding; None: it is not (nothing runs).
    """

    def __init__(self, name: str, *, lag_s_max: float | None = None) -> None:
        self.name = name
        self._lag_s_max = lag_s_max
        self.checked = 0
        self.sums: dict[str, str] = {}
        self._counts = {"lost": 0, "duplicated": 0, "corrupt": 0}
        self._in_flight = 0
        self._age_s: float | None = None
        self._is_ok = True
        self._findings: list[Finding] = []

    def find(self, kind: str, where: str, text: str, count: int = 0) -> None:
        """Add a finding; see `Finding`."""
        if kind in self._counts:
            self._counts[kind] += count
        self._is_ok = self._is_ok and kind == "note"
        if len(self._findings) < FINDINGS_MAX:
            self._findings.append(Finding(kind, where, text, count))

    def compare(self, where: str, what: str, expected: int, found: int) -> None:
        """Add what is missing as lost, what is too much as duplicated."""
        if found < expected:
            self.find("lost", where, f"{found} {what} of {expected}", expected - found)
        elif found > expected:
            self.find("duplicated", where, f"{found} {what} of {expected}", found - expected)

    def add_in_flight(self, where: str, records: int, age_s: float | None) -> None:
        """Count records that are on their way."""
        if not records:
            return
        self._in_flight += records
        if age_s is not None:
            self._age_s = age_s if self._age_s is None else max(self._age_s, age_s)
            if self._lag_s_max is not None and age_s > self._lag_s_max:
                limit = f"over the limit of {self._lag_s_max:g} s"
                self.find("late", where, f"{records} records wait since {age_s:.1f} s, {limit}")

    def report(self) -> LayerReport:
        """What was found."""
        return LayerReport(
            name=self.name,
            ok=self._is_ok,
            checked=self.checked,
            in_flight=self._in_flight,
            in_flight_age_s=None if self._age_s is None else round(self._age_s, 3),
            findings=self._findings,
            sums=self.sums,
            **self._counts,
        )


END_TO_END: Final = frozenset({"sessions", "truth"})
"""Layers that see again what layers before them have lost."""


def summarise(
    layers: list[LayerReport], *, recounted: bool, at_ms: int, seconds: float
) -> AuditReport:
    """The verdict over all layers."""

    def total(field: str) -> int:
        steps = sum(getattr(layer, field) for layer in layers if layer.name not in END_TO_END)
        ends = [getattr(layer, field) for layer in layers if layer.name in END_TO_END]
        return max([steps, *ends])

    return AuditReport(
        ok=all(layer.ok for layer in layers),
        lost=total("lost"),
        duplicated=total("duplicated"),
        corrupt=sum(layer.corrupt for layer in layers),
        in_flight=sum(layer.in_flight for layer in layers if layer.name != "gold_to_published"),
        recounted=recounted,
        layers=layers,
        at_ms=at_ms,
        seconds=round(seconds, 3),
    )


def describe(report: AuditReport) -> str:
    """The verdict for people, a line a layer and a line a finding."""
    lines = [
        f"{'ok ' if layer.ok else 'BAD'}  {layer.name:<20} {layer.checked:>12,} checked"
        + "".join(
            f"  {name} {value:,}"
            for name, value in (
                ("lost", layer.lost),
                ("duplicated", layer.duplicated),
                ("corrupt", layer.corrupt),
                ("in flight", layer.in_flight),
            )
            if value or name in {"lost", "duplicated"}
        )
        + "".join(f"\n       {found.kind}: {found.where}: {found.text}" for found in layer.findings)
        for layer in report.layers
    ]
    verdict = "clean" if report.ok else "FOUND A PROBLEM"
    lines.append(
        f"audit {verdict}: lost {report.lost}, duplicated {report.duplicated},"
        f" corrupt {report.corrupt}, in flight {report.in_flight}; {report.seconds:.1f} s"
    )
    return "\n".join(lines)
