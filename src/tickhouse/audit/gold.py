"""Layers silver → gold and gold → published: sums, roll-ups, and the files that readers see."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tickhouse.audit.digest import Digest, digest_sql
from tickhouse.audit.positions import LEVEL, LevelAsker, Patience, Positions, has_table
from tickhouse.audit.report import Layer
from tickhouse.errors import ConfigError, CorruptError
from tickhouse.transform.manifest import GoldManifest
from tickhouse.transform.partitions import PLAN_OF, Cut
from tickhouse.transform.published import PublishedGold
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
        count(*) filter (where counts_volume) as trade_count,
        coalesce(sum(trade_size) filter (where counts_volume), 0) as volume,
        coalesce(sum(cast(price as decimal(19, 8)) * trade_size)
            filter (where counts_volume), 0) as dollar_volume,
        max(price) filter (where bar_sets_price) as high,
        min(price) filter (where bar_sets_price) as low
    from silver.trades group by symbol, session_date
),
bars as (
    select symbol, session_date, sum(trade_count) as trade_count, sum(volume) as volume,
        sum(dollar_volume) as dollar_volume, max(high) as high, min(low) as low
    from gold.bars_1s group by symbol, session_date
),
days as (
    select symbol, session_date, sum(trade_count) as trade_count, sum(volume) as volume,
        sum(dollar_volume) as dollar_volume from gold.bars_1d group by symbol, session_date
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
with parts as (
    select symbol,
        time_bucket(interval '{seconds} seconds', bar_at, timestamp '2000-01-01') as bar_at,
        max(high) as high, min(low) as low, sum(volume) as volume, sum(trade_count) as trade_count,
        sum(dollar_volume) as dollar_volume,
        arg_min(open, bar_at) filter (where open is not null) as open,
        arg_max(close, bar_at) filter (where close is not null) as close
    from gold.{finer} group by all
)
select {level} as level, coalesce(p.symbol, b.symbol),
    cast(coalesce(p.bar_at, b.bar_at) as varchar), p.trade_count, b.trade_count
from parts as p full join gold.{coarser} as b on p.symbol = b.symbol and p.bar_at = b.bar_at
where p.symbol is null or b.symbol is null
    or (p.open, p.high, p.low, p.close, p.volume, p.trade_count, p.dollar_volume)
        is distinct from (b.open, b.high, b.low, b.close, b.volume, b.trade_count, b.dollar_volume)
union all select {level}, null, null, null, null
"""
_KPI: Final = """
select {level} as level, k.symbol, cast(k.session_date as varchar), k.trade_count, d.trade_count
from gold.kpi as k full join gold.bars_1d as d
    on k.symbol = d.symbol and k.session_date = d.session_date
where k.symbol is not null and (k.trade_count, k.volume, k.dollar_volume)
    is distinct from (coalesce(d.trade_count, 0), d.volume, d.dollar_volume)
union all select {level}, null, null, null, null
"""
_COMPLETENESS: Final = """
select {level} as level,
    (select coalesce(sum(trades), 0) from gold.completeness),
    (select count(*) from silver.trades),
    (select coalesce(sum(rejects), 0) from gold.completeness),
    (select count(*) from silver.rejected_trades where session_id is not null)
        + (select count(*) from silver.rejected_quotes where session_id is not null),
    (select coalesce(sum(quotes), 0) from gold.completeness),
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
    _audit_symbols(ask, layer)
    for coarser, finer, seconds in _FINER:
        sql = _ROLL_UP.replace("{seconds}", str(seconds)).replace("{finer}", finer)
        rows = ask.level_rows(sql.replace("{coarser}", coarser), f"gold.{coarser}")
        _name_bars(rows, f"gold.{coarser}", f"is not what gold.{finer} adds up to", layer)
    _name_bars(ask.level_rows(_KPI, "gold.kpi"), "gold.kpi", "is not its bar of the day", layer)
    for _, *pairs in ask.level_rows(_COMPLETENESS, "gold.completeness"):
        told, found = pairs[::2], pairs[1::2]
        if told != found:
            text = "says {} trades, {} rejects, {} quotes; silver has {}, {} and {}"
            layer.find("differs", "gold.completeness", text.format(*told, *found))


def _audit_symbols(ask: LevelAsker, layer: Layer) -> None:
    totals = [0, 0, 0]
    for row in ask.level_rows(_PER_SYMBOL, "gold.bars_1s"):
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
        "select count(*), epoch_ms(min(log_at)) from bronze.trades"
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
        columns = [name for name, _ in manifest.tables[table].columns]
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
    gold: PublishedGold, manifest: GoldManifest, table: str, columns: list[str]
) -> Digest | None:
    """None where the version changed meanwhile."""
    found = gold.query(digest_sql(table, columns), seconds_max=300)
    return Digest(*found[0]) if found.version == manifest.version else None


def _warehouse_digest(
    warehouse: WarehouseReader, table: str, columns: list[str], upto: int | None
) -> tuple[Any, Digest]:
    where = "true" if upto is None else f"load_id <= {upto}"
    digest = digest_sql(table, columns, where)
    row = warehouse.query(f"select {LEVEL}, d.* from ({digest}) as d")[0]  # noqa: S608
    return row[0], Digest(*row[1:])
