"""Layers silver → gold and gold → published: sums, roll-ups, and the files that readers see."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from tickhouse.audit.digest import Digest, Hashing
from tickhouse.audit.positions import LevelAsker, Patience, Positions, has_table
from tickhouse.audit.report import Layer
from tickhouse.errors import ConfigError, CorruptError
from tickhouse.transform.level import LEVEL
from tickhouse.transform.manifest import GoldManifest
from tickhouse.transform.partitions import PLAN_OF, Cut
from tickhouse.transform.published import PublishedGold
from tickhouse.warehouse.dialect import epoch_ms, epoch_s, exact_product
from tickhouse.warehouse.warehouse import Row, WarehouseReader

_FINER: Final = (
    ("bars_1m", "bars_1s", 60),
    ("bars_5m", "bars_1m", 300),
    ("bars_1h", "bars_5m", 3600),
)

# One statement sees one state of the warehouse; it counts only if its level is not null.
_PER_SYMBOL: Final = """
with silver as (
    select symbol, session_date,
        count_if(counts_volume) as trade_count,
        sum(case when counts_volume then trade_size else 0 end) as volume,
        sum(case when counts_volume then {product} else 0 end) as dollar_volume,
        max(case when bar_sets_price then price end) as high,
        min(case when bar_sets_price then price end) as low
    from silver.trades group by symbol, session_date
),
bars as (
    select symbol, session_date, cast(sum(trade_count) as bigint) as trade_count,
        sum(volume) as volume, sum(dollar_volume) as dollar_volume,
        max(high) as high, min(low) as low
    from gold.bars_1s group by symbol, session_date
),
days as (
    select symbol, session_date, cast(sum(trade_count) as bigint) as trade_count,
        sum(volume) as volume, sum(dollar_volume) as dollar_volume
    from gold.bars_1d group by symbol, session_date
)
select {level} as level, coalesce(s.symbol, b.symbol, d.symbol),
    cast(coalesce(s.session_date, b.session_date, d.session_date) as varchar),
    coalesce(s.trade_count, 0), coalesce(b.trade_count, 0), coalesce(d.trade_count, 0),
    coalesce(s.volume, 0), coalesce(b.volume, 0), coalesce(d.volume, 0),
    coalesce(s.dollar_volume, 0), coalesce(b.dollar_volume, 0), coalesce(d.dollar_volume, 0),
    s.high is not distinct from b.high and s.low is not distinct from b.low
from silver as s
full join bars as b on s.symbol = b.symbol and s.session_date = b.session_date
full join days as d on coalesce(s.symbol, b.symbol) = d.symbol
    and coalesce(s.session_date, b.session_date) = d.session_date
"""
_ROLL_UP: Final = """
with finer as (
    select symbol, {bar_s} - {bar_s} % {seconds} as bar_s, bar_at, open, high, low, close, volume,
        trade_count, dollar_volume
    from gold.{finer}
),
parts as (
    select symbol, bar_s, max(high) as high, min(low) as low, sum(volume) as volume,
        cast(sum(trade_count) as bigint) as trade_count, sum(dollar_volume) as dollar_volume,
        min_by(open, case when open is not null then bar_at end) as open,
        max_by(close, case when close is not null then bar_at end) as close
    from finer group by symbol, bar_s
),
bars as (
    select symbol, {bar_s} as bar_s, open, high, low, close, volume, trade_count, dollar_volume
    from gold.{coarser}
)
select {level} as level, coalesce(p.symbol, b.symbol), coalesce(p.bar_s, b.bar_s),
    p.trade_count, b.trade_count
from parts as p full join bars as b on p.symbol = b.symbol and p.bar_s = b.bar_s
where p.symbol is null or b.symbol is null or {differs}
union all select {level}, null, null, null, null
"""
_KPI: Final = """
select {level} as level, k.symbol, cast(k.session_date as varchar), k.trade_count, d.trade_count
from gold.kpi as k left join gold.bars_1d as d
    on k.symbol = d.symbol and k.session_date = d.session_date
where k.trade_count is distinct from coalesce(d.trade_count, 0)
    or k.volume is distinct from d.volume or k.dollar_volume is distinct from d.dollar_volume
union all select {level}, null, null, null, null
"""
_FIGURES: Final = ("open", "high", "low", "close", "volume", "trade_count", "dollar_volume")
_COMPLETENESS: Final = """
select {level} as level,
    (select cast(coalesce(sum(trades), 0) as bigint) from gold.completeness),
    (select count(*) from silver.trades),
    (select cast(coalesce(sum(rejects), 0) as bigint) from gold.completeness),
    (select count(*) from silver.rejected_trades where session_id is not null)
        + (select count(*) from silver.rejected_quotes where session_id is not null),
    (select cast(coalesce(sum(quotes), 0) as bigint) from gold.completeness),
    (select count(*) from silver.quotes)
"""


def audit_gold(
    warehouse: WarehouseReader,
    positions: Positions,
    layer: Layer,
    *,
    patience: Patience,
) -> None:
    """Bars hold what silver holds; coarser bars what finer bars hold."""
    if not positions.built:
        return
    ask = LevelAsker(warehouse, layer, patience)
    product = exact_product(warehouse.dialect, "price", "trade_size")
    _audit_symbols(ask.level_rows(_PER_SYMBOL, "gold.bars_1s", product=product), layer)
    differs = " or ".join(f"p.{name} is distinct from b.{name}" for name in _FIGURES)
    for coarser, finer, seconds in _FINER:
        found = ask.level_rows(
            _ROLL_UP,
            f"gold.{coarser}",
            coarser=coarser,
            finer=finer,
            seconds=str(seconds),
            bar_s=epoch_s("bar_at"),
            differs=differs,
        )
        rows = [(*row[:2], _moment(row[2]), *row[3:]) for row in found]
        _name_bars(rows, f"gold.{coarser}", f"is not what gold.{finer} adds up to", layer)
    _name_bars(ask.level_rows(_KPI, "gold.kpi"), "gold.kpi", "is not its bar of the day", layer)
    for _, *pairs in ask.level_rows(_COMPLETENESS, "gold.completeness"):
        told, found = pairs[::2], pairs[1::2]
        if told != found:
            text = "says {} trades, {} rejects, {} quotes; silver has {}, {} and {}"
            layer.find("differs", "gold.completeness", text.format(*told, *found))


def _moment(seconds: int | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def _audit_symbols(rows: Sequence[Row], layer: Layer) -> None:
    totals = [0, 0, 0]
    for row in rows:
        _, symbol, date, *pairs, is_same_range = row
        counts, volumes, dollars = pairs[:3], pairs[3:6], pairs[6:]
        layer.checked += counts[0]
        totals = [a + b for a, b in zip(totals, (counts[0], volumes[0], dollars[0]), strict=True)]
        for place, table in ((1, "gold.bars_1s"), (2, "gold.bars_1d")):
            where = f"{table} of {symbol} on {date}"
            layer.compare(where, "trades that count", counts[0], counts[place])
            silver, gold = (volumes[0], dollars[0]), (volumes[place], dollars[place])
            if counts[0] == counts[place] and silver != gold:
                text = f"volume, dollars {gold}; silver {silver}"
                layer.find("differs", where, text)
        if not is_same_range:
            layer.find("differs", f"gold.bars_1s of {symbol} on {date}", "highest or lowest price")
    names = ("trades", "volume", "dollars")
    layer.sums |= {name: str(total) for name, total in zip(names, totals, strict=True)}


def _name_bars(rows: Sequence[Row], table: str, what: str, layer: Layer) -> None:
    for _, symbol, at, expected, found in rows:
        if symbol is not None:
            text = f"{what}: {expected} trades there, {found} here"
            layer.find("differs", f"{table} of {symbol} at {at}", text)


# -- published ---------------------------------------------------------------------------------


_PUBLISHED: Final = Hashing("duckdb")


class _Waiting(msgspec.Struct, frozen=True):
    """Loads that are built and not published yet."""

    records: int
    age_s: float | None


def audit_published(
    warehouse: WarehouseReader,
    gold: PublishedGold,
    positions: Positions,
    layer: Layer,
    *,
    now_ms: int,
    patience: Patience,
) -> None:
    """Every published table has the rows that the warehouse has, at the load published."""
    if positions.published_fault is not None:
        layer.find("corrupt", "manifest.json", positions.published_fault, 1)
        return
    if positions.published is None:
        if positions.built:
            layer.add_in_flight("published gold", positions.built, None)
            layer.find("note", "published gold", "nothing published yet")
        return
    if not positions.built:
        if has_table(warehouse, "gold", "bars_1d"):
            text = "silver and gold are of another version; the next build makes them anew"
            layer.find("note", "published gold", text)
        else:
            layer.find("differs", "manifest.json", "silver and gold are gone from the warehouse")
        return
    _audit_identity(warehouse, positions.published, layer)
    waiting = _waiting(warehouse, positions, now_ms)
    layer.add_in_flight("published gold", waiting.records, waiting.age_s)
    for table in sorted(positions.published.tables):
        _audit_table(warehouse, gold, table, layer, patience)


def _audit_identity(warehouse: WarehouseReader, manifest: GoldManifest, layer: Layer) -> None:
    found = warehouse.query("select warehouse_id from bronze.identity")[0][0]
    if found != manifest.warehouse_id:
        text = f"is of warehouse {manifest.warehouse_id}, this one is {found}"
        layer.find("differs", "manifest.json", text)


def _waiting(warehouse: WarehouseReader, positions: Positions, now_ms: int) -> _Waiting:
    published = 0 if positions.published is None else positions.published.load_id
    if published >= positions.built:
        return _Waiting(0, None)
    count, oldest_ms = warehouse.query(
        f"select count(*), {epoch_ms('min(log_at)')} from bronze.trades"  # noqa: S608 - ours
        " where load_id > ? and load_id <= ?",
        (published, positions.built),
    )[0]
    return _Waiting(count, None if oldest_ms is None else (now_ms - oldest_ms) / 1000)


def _audit_table(
    warehouse: WarehouseReader,
    gold: PublishedGold,
    table: str,
    layer: Layer,
    patience: Patience,
) -> None:
    """Compare a table's rows by count and hash, once both sides stand at the same load."""
    is_appended = PLAN_OF[table].cut is Cut.APPEND
    while True:
        manifest = gold.manifest()
        if manifest is None or table not in manifest.tables:
            return
        columns = dict(manifest.tables[table].columns)
        try:
            there = _published_digest(gold, manifest, table, columns)
        except (CorruptError, ConfigError) as error:
            layer.find("corrupt", table, str(error), 1)
            return
        upto = manifest.load_id if is_appended else None
        level, here = _warehouse_digest(warehouse, table, columns, upto)
        if there is not None and (is_appended or level == manifest.load_id):
            layer.checked += here.rows
            if here != there:
                text = f"{there.rows} published rows differ from the warehouse's {here.rows}"
                layer.find("differs", table, f"{text} at load {manifest.load_id}")
            return
        if not patience.wait():
            text = f"not compared: published at load {manifest.load_id}, built at {level}"
            layer.find("note" if level is not None else "late", table, text)
            return


def _published_digest(
    gold: PublishedGold, manifest: GoldManifest, table: str, columns: dict[str, str]
) -> Digest | None:
    """None where the version changed meanwhile."""
    found = gold.query(_PUBLISHED.digest_sql(table, columns), seconds_max=300)
    return Digest(*found[0]) if found.version == manifest.version else None


def _warehouse_digest(
    warehouse: WarehouseReader, table: str, columns: dict[str, str], upto: int | None
) -> tuple[Any, Digest]:
    where = "true" if upto is None else f"load_id <= {upto}"
    digest = _PUBLISHED.digest_sql(table, columns, where)
    row = warehouse.query(f"select {LEVEL} as level, d.* from ({digest}) as d")[0]  # noqa: S608
    return row[0], Digest(*row[1:])
