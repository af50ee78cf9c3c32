"""The simulator's truth against silver and gold: what must be there, known without the warehouse.

Sessions say which messages of a simulated feed were recorded; the truth of these is recomputed
from the feed's address (its seed) alone. The ledger file is the witness of what `record` had
acknowledged: it may be behind the log after a kill, never ahead of it.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

import msgspec

from tickhouse.audit.positions import LevelAsker, Patience, Positions
from tickhouse.audit.recount import Recount
from tickhouse.audit.report import Layer
from tickhouse.source.truth import SymbolTruth, Truth, TruthLedger, recompute
from tickhouse.warehouse.dialect import exact_product
from tickhouse.warehouse.warehouse import Row, WarehouseReader

# Sessions are bound as one text: there may be more of them than a statement takes parameters.
_AMONG: Final = """
in (
    select known.session_id from (select distinct session_id from silver.{table}) as known
    where contains(?, known.session_id)
)
"""
_SILVER: Final = """
select symbol, count(*), sum(trade_size), sum({product})
from silver.trades
where load_id <= {built} and session_id {among_trades}
group by symbol
"""
_OTHERS: Final = """
select count(*) from silver.trades
where load_id <= {built} and session_id not {among_trades}
"""
_REJECTS: Final = """
select reason, count(*) from silver.rejected_trades
where load_id <= {built} and session_id {among_rejected}
group by reason
"""
# Gold, plus what silver has that by the tape's rules counts in no bar, less what came since.
_GOLD: Final = """
with gold as (
    select symbol, cast(sum(trade_count) as bigint) as trades, sum(volume) as shares,
        sum(dollar_volume) as dollars
    from gold.bars_1d group by symbol
),
silver as (
    select symbol, cast(sum(sign) as bigint) as trades, sum(sign * trade_size) as shares,
        sum(sign * product) as dollars
    from (
        select symbol, trade_size, {product} as product,
            case when counts_volume then -1 else 1 end as sign
        from silver.trades where counts_volume = (load_id > {built})
    ) as signed
    group by symbol
)
select {level} as level, coalesce(g.symbol, s.symbol),
    coalesce(g.trades, 0) + coalesce(s.trades, 0),
    coalesce(g.shares, 0) + coalesce(s.shares, 0),
    coalesce(g.dollars, 0) + coalesce(s.dollars, 0)
from gold as g full join silver as s on g.symbol = s.symbol
"""

Totals = tuple[int, Decimal, Decimal]
NOTHING: Final[Totals] = (0, Decimal(0), Decimal(0))


class Recorded(msgspec.Struct, frozen=True):
    """What silver has built of one simulated feed.

    Attributes:
        cursors: per shard, the number after the feed's last message.
        sessions: its sessions.
    """

    cursors: dict[int, int]
    sessions: list[str]


def audit_truth(
    ledger: TruthLedger,
    warehouse: WarehouseReader,
    positions: Positions,
    recount: Recount,
    layer: Layer,
    *,
    patience: Patience,
) -> None:
    """Counts, shares and dollars of every symbol, and rejects, are what the seed says.

    Args:
        ledger: the witness, read before positions were taken.
        warehouse: silver and gold.
        positions: not looked beyond.
        recount: of the whole lake and log.
        layer: what is found.
        patience: used while a build is in the middle of its models.
    """
    recorded = _recorded(recount)
    for feed, witness in ledger.feeds.items():
        _compare_witness(witness, recount, layer)
        recorded.setdefault(feed, Recorded({}, []))
    if not positions.built:
        return
    everything: dict[str, Totals] = {}
    product = exact_product(warehouse.dialect, "price", "trade_size")
    parts = {
        "built": str(positions.built),
        "product": product,
        "among_trades": _AMONG.format(table="trades"),
        "among_rejected": _AMONG.format(table="rejected_trades"),
    }
    for feed, found in recorded.items():
        truth = recompute(feed, found.cursors)
        rows = warehouse.query(_SILVER.format(**parts), (",".join(found.sessions),))
        _compare_symbols(feed, truth, rows, layer)
        rejected = warehouse.query(_REJECTS.format(**parts), (",".join(found.sessions),))
        _compare_rejects(feed, truth, rejected, layer)
        for symbol, sums in truth.symbols.items():
            everything[symbol] = _added(everything.get(symbol, NOTHING), _totals(sums))
    sessions = ",".join(session for found in recorded.values() for session in found.sessions)
    if not warehouse.query(_OTHERS.format(**parts), (sessions,))[0][0]:
        rows = LevelAsker(warehouse, layer, patience).level_rows(_GOLD, "gold.bars_1d", **parts)
        _compare_gold(everything, rows, layer)
    layer.sums["trades"] = str(sum(totals[0] for totals in everything.values()))
    layer.sums["dollars"] = str(sum(totals[2] for totals in everything.values()))


def _recorded(recount: Recount) -> dict[str, Recorded]:
    """Built messages of each simulated feed, from the lake's own frames."""
    feeds: dict[str, Recorded] = {}
    for session, track in recount.sessions.items():
        opened = track.opened
        if opened is None or not opened.feed.startswith("sim:"):
            continue
        found = feeds.setdefault(opened.feed, Recorded({}, []))
        found.sessions.append(session)
        if track.built.end:
            end = (opened.cursor or 0) + track.built.end
            found.cursors[opened.shard] = max(found.cursors.get(opened.shard, 0), end)
    return feeds


def _compare_witness(
    witness: Truth,
    recount: Recount,
    layer: Layer,
) -> None:
    """What was acknowledged is in silver, or on its way."""
    for shard, acknowledged in sorted(witness.acknowledged.items()):
        end = _seen_end(recount, witness.feed, shard)
        where = f"{witness.feed} shard {shard}"
        if acknowledged > end:
            text = f"frames {end}..{acknowledged - 1} were acknowledged and are not stored"
            layer.find("lost", where, text, acknowledged - end)


def _seen_end(recount: Recount, feed: str, shard: int) -> int:
    """One after the feed's last message of a shard that lake or log hold."""
    return max(
        (
            (track.opened.cursor or 0) + track.seen.end
            for track in recount.sessions.values()
            if track.opened is not None and (track.opened.feed, track.opened.shard) == (feed, shard)
        ),
        default=0,
    )


def _compare_symbols(feed: str, truth: Truth, rows: list[Row], layer: Layer) -> None:
    found = {row[0]: row[1:] for row in rows}
    for symbol in sorted({*truth.symbols, *found}):
        expected = _totals(truth.symbols[symbol]) if symbol in truth.symbols else NOTHING
        _compare(f"{symbol} of {feed}", expected, found.get(symbol, NOTHING), "silver", layer)


def _compare_rejects(feed: str, truth: Truth, rows: list[Row], layer: Layer) -> None:
    found: dict[str, int] = {row[0]: row[1] for row in rows}
    for reason in sorted({*truth.rejects, *found}):
        expected = truth.rejects.get(reason, 0)
        layer.checked += expected
        layer.compare(f"{reason} of {feed}", "rejects", expected, found.get(reason, 0))


def _compare_gold(everything: Mapping[str, Totals], rows: list[Row], layer: Layer) -> None:
    found = {row[1]: row[2:] for row in rows}
    for symbol in sorted({*everything, *found}):
        expected, totals = everything.get(symbol, NOTHING), found.get(symbol, NOTHING)
        _compare(f"{symbol} in gold", expected, totals, "gold", layer)


def _compare(
    where: str, expected: Totals, found: tuple[int, Decimal, Decimal], table: str, layer: Layer
) -> None:
    layer.checked += expected[0]
    if table == "silver":
        layer.compare(where, "trades", expected[0], found[0])
    elif found[0] != expected[0]:
        layer.find("differs", where, f"{found[0]} trades; the truth is {expected[0]}")
    if found[0] == expected[0] and tuple(found[1:]) != expected[1:]:
        text = f"shares {found[1]}, dollars {found[2]}; the truth is {expected[1]}, {expected[2]}"
        layer.find("differs", where, text)


def _totals(sums: SymbolTruth) -> Totals:
    return sums.trades, Decimal(sums.shares), sums.dollars


def _added(a: Totals, b: Totals) -> Totals:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]
