"""The simulator's truth against silver and gold: what must be there, known without the warehouse.

Sessions say which messages of a simulated feed were recorded; the truth of these is recomputed
from the feed's address (its seed) alone. The ledger file is the witness of what `record` had
acknowledged: it may be behind the log after a kill, never ahead of it.
"""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec

from tickhouse.audit.positions import Positions
from tickhouse.audit.recount import Recount
from tickhouse.audit.report import Layer
from tickhouse.source.truth import SymbolTruth, Truth, read_truth, recompute
from tickhouse.warehouse.warehouse import Row, WarehouseReader

# What silver holds of each shard: the message numbers of the feed, from the first to the last.
_CURSORS: Final = """
select s.feed, s.shard, min(coalesce(s.feed_cursor, 0) + r.seq_from),
    max(coalesce(s.feed_cursor, 0) + r.seq_to + 1)
from silver.frame_ranges as r inner join silver.sessions as s on r.session_id = s.session_id
where r.stream = 'trades' and s.mode = 'simulated' and r.load_id <= {built}
group by s.feed, s.shard
"""
_SILVER: Final = """
select s.feed, t.symbol, count(*), sum(t.trade_size),
    sum(cast(t.price as decimal(19, 8)) * t.trade_size)
from silver.trades as t inner join silver.sessions as s on t.session_id = s.session_id
where s.mode = 'simulated' and t.load_id <= {built}
group by s.feed, t.symbol
"""
# Gold, and what silver has that by the tape's rules counts in no bar.
_GOLD: Final = """
with gold as (
    select symbol, sum(trade_count) as trades, sum(volume) as shares,
        sum(dollar_volume) as dollars
    from gold.bars_1d group by symbol
),
silver as (
    select symbol, count(*) filter (where not counts_volume) as trades,
        coalesce(sum(trade_size) filter (where not counts_volume), 0) as shares,
        coalesce(sum(cast(price as decimal(19, 8)) * trade_size)
            filter (where not counts_volume), 0) as dollars
    from silver.trades group by symbol
)
select coalesce(g.symbol, s.symbol), coalesce(g.trades, 0) + coalesce(s.trades, 0),
    coalesce(g.shares, 0) + coalesce(s.shares, 0), coalesce(g.dollars, 0) + coalesce(s.dollars, 0)
from gold as g full join silver as s on g.symbol = s.symbol
"""
_OTHERS: Final = """
select count(*) from silver.trades as t left join silver.sessions as s
    on t.session_id = s.session_id where s.mode is distinct from 'simulated'
"""

Totals = tuple[int, Decimal, Decimal]
NOTHING: Final[Totals] = (0, Decimal(0), Decimal(0))


class Recorded(msgspec.Struct, frozen=True):
    """Messages of one simulated feed that silver holds: per shard, the first and the end."""

    since: dict[int, int]
    cursors: dict[int, int]


def audit_truth(
    path: Path,
    warehouse: WarehouseReader,
    positions: Positions,
    recount: Recount,
    layer: Layer,
) -> None:
    """Counts, shares and dollars of every symbol are what the seed says.

    Raises:
        ConfigError: there is no truth ledger, or it cannot be read.
    """
    ledger = read_truth(path)
    recorded = _recorded(warehouse, positions.built) if positions.built else {}
    for feed, witness in ledger.feeds.items():
        found = recorded.get(feed, Recorded({}, {}))
        _compare_witness(witness, found, recount, layer)
    rows = warehouse.query(_SILVER.format(built=positions.built)) if positions.built else []
    everything: dict[str, Totals] = {}
    for feed, found in recorded.items():
        truth = recompute(feed, found.cursors)
        _compare_symbols(feed, truth, [row for row in rows if row[0] == feed], layer)
        for symbol, sums in truth.symbols.items():
            everything[symbol] = _added(everything.get(symbol, NOTHING), _totals(sums))
    if positions.built and not warehouse.query(_OTHERS)[0][0]:
        _compare_gold(everything, warehouse.query(_GOLD), layer)
    layer.sums["trades"] = str(sum(totals[0] for totals in everything.values()))
    layer.sums["dollars"] = str(sum(totals[2] for totals in everything.values()))


def _recorded(warehouse: WarehouseReader, built: int) -> dict[str, Recorded]:
    feeds: dict[str, Recorded] = {}
    for feed, shard, first, end in warehouse.query(_CURSORS.format(built=built)):
        found = feeds.setdefault(feed, Recorded({}, {}))
        found.since[shard] = first
        found.cursors[shard] = end
    return feeds


def _compare_witness(
    witness: Truth,
    recorded: Recorded,
    recount: Recount,
    layer: Layer,
) -> None:
    """What was acknowledged is in silver, or on its way."""
    for shard, acknowledged in sorted(witness.acknowledged.items()):
        end = max(recorded.cursors.get(shard, 0), _seen_end(recount, witness.feed, shard))
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
    found = {row[1]: row[2:] for row in rows}
    for symbol in sorted({*truth.symbols, *found}):
        expected = _totals(truth.symbols[symbol]) if symbol in truth.symbols else NOTHING
        _compare(f"{symbol} of {feed}", expected, found.get(symbol, NOTHING), "silver", layer)


def _compare_gold(everything: Mapping[str, Totals], rows: list[Row], layer: Layer) -> None:
    found = {row[0]: row[1:] for row in rows}
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
