"""One attempt to publish: writes the Parquet and index files that a new version needs."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from tickhouse.telemetry import failpoint, sync_folder, write_json_atomically
from tickhouse.transform.manifest import INDEX, GoldFile, GoldTable, read_index
from tickhouse.transform.partitions import Cut, TablePlan, unix_ms

FOLD_FILES: Final = 8
FOLD_ROWS_MAX: Final = 1_000_000

Query = Callable[[str], Sequence[tuple[Any, ...]]]
Groups = dict[str, list[GoldFile]]


class CopyToParquet(Protocol):
    """Writes the rows of a SELECT to a Parquet file, flushed to disk; returns their number."""

    def __call__(self, select_sql: str, path: Path, *, order_by: str = "") -> int:
        """See `DuckDBWarehouse.copy_to_parquet`."""
        ...


class Exporter:
    """Writes the files of one version; nothing refers to them before the flip.

    Args:
        folder: published gold.
        query, copy_to_parquet: the warehouse.
        suffix: `v<version>-<run>`, part of every name, so that none is used twice.
        load_id: what silver and gold hold.
        publish_day: group of what append-only tables get, `YYYY-MM-DD`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        query: Query,
        copy_to_parquet: CopyToParquet,
        suffix: str,
        load_id: int,
        publish_day: str,
    ) -> None:
        self._folder = folder
        self._query = query
        self._copy_to_parquet = copy_to_parquet
        self._suffix = suffix
        self._load_id = load_id
        self._publish_day = publish_day
        self.written: list[str] = []
        self.superseded: list[str] = []
        self.rows = 0

    def table(
        self, plan: TablePlan, columns: tuple[tuple[str, str], ...], before: GoldTable | None
    ) -> GoldTable:
        """Write what changed in a table since `before` (None: all of it)."""
        if before is not None and not (plan.has_load_id and self._has_news(plan, before.load_id)):
            return msgspec.structs.replace(before, load_id=self._load_id)
        empty = GoldTable(load_id=0, columns=columns)
        write = {Cut.WHOLE: self._whole, Cut.BY_TIME: self._by_time, Cut.APPEND: self._append}
        written = write[plan.cut](plan, before or empty)
        return msgspec.structs.replace(written, load_id=self._load_id)

    def _has_news(self, plan: TablePlan, published: int) -> bool:
        return bool(self._query(f"select 1 from {plan.name} where load_id > {published} limit 1"))  # noqa: S608 - names are ours

    def _whole(self, plan: TablePlan, before: GoldTable) -> GoldTable:
        file = self._export(plan, "all", "true", GoldFile("", 0))
        self.superseded += [old.name for old in before.files]
        return msgspec.structs.replace(before, files=(file,))

    # -- tables cut by time ------------------------------------------------------------------

    def _by_time(self, plan: TablePlan, before: GoldTable) -> GoldTable:
        starts = self._query(
            f"select distinct {plan.bucket_sql} as start from {plan.name}"  # noqa: S608 - names are ours
            f" where load_id > {before.load_id} order by start"
        )
        groups: Groups = {}
        for (start,) in starts:
            files = self._open_group(groups, before, f"{start:{plan.group}}")
            end = plan.bucket_end(start)
            place = GoldFile("", 0, from_ms=unix_ms(start), to_ms=unix_ms(end))
            column = plan.time_column
            where = f"{column} >= timestamp '{start}' and {column} < timestamp '{end}'"
            file = self._export(plan, f"{start:%Y-%m-%dT%H%M}", where, place)
            self._drop(files, [old for old in files if old.from_ms == file.from_ms])
            files.append(file)
        return self._close_groups(plan, before, groups)

    # -- append-only tables ------------------------------------------------------------------

    def _append(self, plan: TablePlan, before: GoldTable) -> GoldTable:
        groups: Groups = {}
        files = self._open_group(groups, before, self._publish_day)
        held = list(files)
        files += self._new_ranges(plan, before.load_id)
        while folded := _fold(files):
            files[:] = folded
        self._drop(held, [old for old in held if old not in files])
        files[:] = [file if file.name else self._export_range(plan, file) for file in files]
        return self._close_groups(plan, before, groups)

    def _new_ranges(self, plan: TablePlan, published: int) -> Iterable[GoldFile]:
        """Loads after `published`, together where they are few rows; not written yet."""
        time = plan.time_column
        loads = self._query(
            f"select load_id, count(*), epoch_ms(min({time})), epoch_ms(max({time}))"  # noqa: S608 - names are ours
            f" from {plan.name} where load_id > {published} and load_id <= {self._load_id}"
            " group by load_id order by load_id"
        )
        ranges: list[GoldFile] = []
        for load_id, rows, from_ms, last_ms in loads:
            to_ms = None if last_ms is None else last_ms + 1
            file = GoldFile("", rows, from_ms, to_ms, load_id - 1, load_id)
            if ranges and ranges[-1].rows + rows <= FOLD_ROWS_MAX:
                file = _joined([ranges.pop(), file], tier=0)
            ranges.append(file)
        return ranges

    def _export_range(self, plan: TablePlan, file: GoldFile) -> GoldFile:
        where = f"load_id > {file.load_from} and load_id <= {file.load_to}"
        return self._export(plan, f"load-{file.load_from + 1}-{file.load_to}", where, file)

    # -- files -------------------------------------------------------------------------------

    def _open_group(self, groups: Groups, before: GoldTable, group: str) -> list[GoldFile]:
        if group not in groups:
            name = before.groups.get(group)
            groups[group] = [] if name is None else list(read_index(self._folder, name))
        return groups[group]

    def _close_groups(self, plan: TablePlan, before: GoldTable, groups: Groups) -> GoldTable:
        names = dict(before.groups)
        for group, files in groups.items():
            self.superseded += [names[group]] if group in names else []
            names[group] = f"{INDEX}/{plan.short_name}/{group}.{self._suffix}.json"
            self.written.append(names[group])
            write_json_atomically(self._folder / names[group], files, durable=True)
        return msgspec.structs.replace(before, groups=names)

    def _drop(self, files: list[GoldFile], gone: Iterable[GoldFile]) -> None:
        for file in gone:
            files.remove(file)
            self.superseded.append(file.name)

    def _export(self, plan: TablePlan, part: str, where: str, place: GoldFile) -> GoldFile:
        name = f"{plan.short_name}/{part}.{self._suffix}.parquet"
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.written.append(name)
        rows = self._copy_to_parquet(
            f"select * from {plan.name} where {where}",  # noqa: S608  # names and literals are ours
            path,
            order_by=plan.order_by,
        )
        failpoint("publish.file.after")
        self.rows += rows
        return msgspec.structs.replace(place, name=name, rows=rows)

    def sync(self) -> None:
        """Flush the folders of all that was written: durable before anything names it."""
        folders = {(self._folder / name).parent for name in self.written}
        above = {self._folder / INDEX, self._folder, self._folder.parent}
        for folder in sorted(folders | (above if folders else set())):
            sync_folder(folder)

    def discard(self) -> None:
        """Remove what was written: the attempt failed before the flip."""
        for name in self.written:
            (self._folder / name).unlink(missing_ok=True)


def _joined(files: Sequence[GoldFile], *, tier: int) -> GoldFile:
    """The range that covers neighbouring files; not written yet."""
    return GoldFile(
        "",
        rows=sum(file.rows for file in files),
        from_ms=min((file.from_ms for file in files if file.from_ms is not None), default=None),
        to_ms=max((file.to_ms for file in files if file.to_ms is not None), default=None),
        load_from=files[0].load_from,
        load_to=files[-1].load_to,
        tier=tier,
    )


def _is_small(file: GoldFile) -> bool:
    return 2 * file.rows <= FOLD_ROWS_MAX


def _fold(files: list[GoldFile]) -> list[GoldFile] | None:
    """The newest files of one tier as one file of the next, once they are many; else None.

    Every row is written again at most once a tier, and a folded file has at most `FOLD_ROWS_MAX`
    rows: the cost of a publish does not grow with what was published before.
    """
    first = len(files)
    while first and files[first - 1].tier == files[-1].tier and _is_small(files[first - 1]):
        first -= 1
    if len(files) - first < FOLD_FILES:
        return None
    last, rows = first, 0
    while last < len(files) and rows + files[last].rows <= FOLD_ROWS_MAX:
        rows += files[last].rows
        last += 1
    folded = _joined(files[first:last], tier=files[-1].tier + 1)
    return [*files[:first], folded, *files[last:]]
