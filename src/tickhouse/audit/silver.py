"""Layer warehouse → silver, and the sessions' message numbers."""

from collections import Counter
from typing import Final

from tickhouse.audit.positions import Positions
from tickhouse.audit.quotes import QuoteSums
from tickhouse.audit.recount import CARRIED, Recount, SessionTrack, Sums
from tickhouse.audit.report import Layer
from tickhouse.model.positions import Stream
from tickhouse.warehouse.dialect import (
    Dialect,
    epoch_ms,
    epoch_s,
    exact_product,
    json_length,
    json_text,
)
from tickhouse.warehouse.warehouse import Row, WarehouseReader

_TRADES: Final = """
select symbol, count(*), sum(trade_size), sum({product})
from silver.trades where load_id <= {built} group by symbol
"""
_REJECTS: Final = """
select reason, count(*) from silver.rejected_trades where load_id <= {built} group by reason
"""
_TWICE: Final = """
select session_id, cast(sum(n - 1) as bigint), min(session_seq), max(session_seq) from (
    select session_id, session_seq, trade_index, count(*) as n
    from silver.trades where load_id <= {built}
    group by session_id, session_seq, trade_index having count(*) > 1
) as repeated group by session_id order by session_id limit 100
"""
_BOTH: Final = """
select t.session_id, count(*) from silver.trades as t
inner join silver.rejected_trades as r on t.session_id = r.session_id
    and t.session_seq = r.session_seq and t.trade_index = r.trade_index
where t.load_id <= {built} and r.load_id <= {built} group by t.session_id
"""
_QUOTES: Final = """
select symbol, count(*), cast(sum({seconds}) as bigint), sum(cast(price as decimal(38, 8))
    + 2 * coalesce(change, 0) + 3 * coalesce(change_percent, 0) + 5 * coalesce(day_open, 0)
    + 7 * coalesce(day_high, 0) + 11 * coalesce(day_low, 0) + 13 * coalesce(previous_close, 0))
from silver.quotes where load_id <= {built} group by symbol
"""
_QUOTES_TWICE: Final = """
select session_id, cast(sum(n - 1) as bigint), min(session_seq), max(session_seq) from (
    select session_id, session_seq, count(*) as n from (
        select session_id, session_seq from silver.quotes where load_id <= {built}
        union all
        select session_id, session_seq from silver.rejected_quotes
        where load_id <= {built} and session_id is not null
    ) as frames group by session_id, session_seq having count(*) > 1
) as repeated group by session_id order by session_id limit 100
"""
_QUOTE_FRAMES: Final = """
select (select count(*) from bronze.quotes where load_id <= {built})
    - (select count(*) from silver.repeated_frames where stream = 'quotes' and load_id <= {built})
"""
# Counted from the payloads, not from silver; frames of other kinds give one element each.
_ELEMENTS: Final = """
with frames as (
    select f.topic_id, f.part, f.log_offset, f.payload, f.poison,
        split_part(f.source, ':', -1) as kind
    from bronze.trades as f where f.load_id <= {built}
),
accepted as (
    select f.* from frames as f
    left join silver.repeated_frames as r on r.stream = 'trades' and r.topic_id = f.topic_id
        and r.part = f.part and r.log_offset = f.log_offset
    where r.log_offset is null
)
select cast(coalesce(sum(case
    when payload is null or kind is null then 1
    when kind = 'finnhub.ws' and {type} = 'trade' and {data_n} is not null then {data_n}
    when kind = 'finnhub.ws' then case when {type}
        in ('ping', 'pong', 'error', 'subscribe', 'unsubscribe') then 0 else 1 end
    when kind = 'binance.ws' and {stream} is null
        then case when coalesce({id}, {lastUpdateId}) is null then 1 else 0 end
    when kind = 'binance.ws' and {stream} like '%@%' and {stream} not like '%@trade' then 0
    when kind = 'binance.trades' and {n} is not null then {n}
    when kind = 'finnhub.tick' and {p_n} = {t_n} and {v_n} = {t_n}
        and coalesce({c_n}, {t_n}) = {t_n} then {t_n}
    else 1 end), 0) as bigint)
from accepted
"""


def audit_silver(
    warehouse: WarehouseReader,
    positions: Positions,
    recount: Recount | None,
    layer: Layer,
    *,
    now_ms: int,
) -> None:
    """Every element of every frame is in trades or in rejects, once; so is every quote."""
    _add_unbuilt(warehouse, positions, layer, now_ms)
    if not positions.built:
        return
    built = positions.built
    audit_quotes(warehouse, built, recount, layer)
    product = exact_product(warehouse.dialect, "price", "trade_size")
    trades = warehouse.query(_TRADES.format(built=built, product=product))
    rejects = warehouse.query(_REJECTS.format(built=built))
    _audit_twice(warehouse, built, layer)
    found_trades = sum(row[1] for row in trades)
    found_rejects = sum(row[1] for row in rejects)
    layer.checked += found_trades + found_rejects
    layer.sums |= {
        "trades": str(found_trades),
        "rejects": str(found_rejects),
        "shares": str(sum(row[2] for row in trades)),
        "dollars": str(sum(row[3] for row in trades)),
    }
    if recount is None:
        elements = warehouse.query(_elements_sql(warehouse.dialect, built))[0][0]
        found = found_trades + found_rejects
        layer.compare("silver.trades and silver.rejected_trades", "elements", elements, found)
        return
    _compare_trades(recount, trades, layer)
    _compare_rejects("trades", recount.rejects, rejects, layer)
    _compare_repeated(warehouse, recount, built, layer)


def _elements_sql(dialect: Dialect, built: int) -> str:
    """Counts the elements of all frames by their payloads."""
    texts = ("type", "stream", "id", "lastUpdateId")
    fields = {name: json_text(dialect, "payload", name) for name in texts}
    lengths = {f"{name}_n": json_length(dialect, "payload", name) for name in ("data", *"tpvc")}
    whole = json_length(dialect, "payload")
    return _ELEMENTS.format(built=built, n=whole, **fields, **lengths)


def _add_unbuilt(
    warehouse: WarehouseReader, positions: Positions, layer: Layer, now_ms: int
) -> None:
    if positions.loaded <= positions.built:
        return
    for stream in Stream:
        count, oldest_ms = warehouse.query(
            f"select count(*), {epoch_ms('min(log_at)')} from bronze.{stream}"  # noqa: S608
            " where load_id > ? and load_id <= ?",
            (positions.built, positions.loaded),
        )[0]
        age_s = None if oldest_ms is None else (now_ms - oldest_ms) / 1000
        layer.add_in_flight(f"bronze.{stream}", count, age_s)


def _audit_twice(warehouse: WarehouseReader, built: int, layer: Layer) -> None:
    for session, count, first, last in warehouse.query(_TWICE.format(built=built)):
        text = f"{count} trades more than once, in messages {first}..{last} of session {session}"
        layer.find("duplicated", "silver.trades", text, int(count))
    for session, count in warehouse.query(_BOTH.format(built=built)):
        text = f"{count} elements of session {session} are trades and rejects"
        layer.find("duplicated", "silver.rejected_trades", text, count)


def _compare_trades(recount: Recount, trades: list[Row], layer: Layer) -> None:
    found = {row[0]: row[1:] for row in trades}
    for symbol in sorted({*recount.trades, *found}):
        expected = recount.trades.get(symbol) or Sums()
        count, shares, dollars = found.get(symbol, (0, 0, 0))
        where = f"silver.trades of {symbol}"
        layer.compare(where, "trades", expected.count, count)
        if count == expected.count and (shares, dollars) != (expected.shares, expected.dollars):
            text = (
                f"shares {shares}, dollars {dollars}; the lake's frames hold"
                f" {expected.shares} and {expected.dollars}"
            )
            layer.find("differs", where, text)


def _compare_rejects(stream: str, expected: Counter[str], rejects: list[Row], layer: Layer) -> None:
    found = {row[0]: row[1] for row in rejects}
    for reason in sorted({*expected, *found}):
        where = f"silver.rejected_{stream} for {reason}"
        layer.compare(where, "elements", expected[reason], found.get(reason, 0))


def audit_quotes(
    warehouse: WarehouseReader, built: int, recount: Recount | None, layer: Layer
) -> None:
    """Every frame of quotes is in quotes or in rejects, once."""
    quotes = warehouse.query(_QUOTES.format(built=built, seconds=epoch_s("quoted_at")))
    rejects = warehouse.query(_REJECTS.format(built=built).replace("_trades", "_quotes"))
    for session, count, first, last in warehouse.query(_QUOTES_TWICE.format(built=built)):
        text = f"{count} frames more than once, in messages {first}..{last} of session {session}"
        layer.find("duplicated", "silver.quotes and silver.rejected_quotes", text, int(count))
    found = [sum(row[1] for row in rows) for rows in (quotes, rejects)]
    layer.checked += sum(found)
    layer.sums |= {"quotes": str(found[0]), "rejected_quotes": str(found[1])}
    if recount is None:
        frames = warehouse.query(_QUOTE_FRAMES.format(built=built))[0][0]
        layer.compare("silver.quotes and silver.rejected_quotes", "frames", frames, sum(found))
        return
    _compare_quotes(recount, quotes, layer)
    _compare_rejects("quotes", recount.quotes.rejects, rejects, layer)


def _compare_quotes(recount: Recount, quotes: list[Row], layer: Layer) -> None:
    found = {row[0]: row[1:] for row in quotes}
    for symbol in sorted({*recount.quotes.symbols, *found}):
        expected = recount.quotes.symbols.get(symbol) or QuoteSums()
        count, seconds, total = found.get(symbol, (0, 0, 0))
        where = f"silver.quotes of {symbol}"
        layer.compare(where, "quotes", expected.count, count)
        if count == expected.count and (seconds, total) != (expected.seconds, expected.total):
            text = (
                f"times, figures add up to {seconds}, {total}; in the lake's frames to"
                f" {expected.seconds}, {expected.total}"
            )
            layer.find("differs", where, text)


def _compare_repeated(
    warehouse: WarehouseReader, recount: Recount, built: int, layer: Layer
) -> None:
    rows = warehouse.query(
        "select stream, count(*) from silver.repeated_frames where load_id <= ? group by stream",
        (built,),
    )
    found = {row[0]: row[1] for row in rows}
    for stream in Stream:
        expected, count = recount.repeated[stream], found.get(str(stream), 0)
        layer.sums[f"repeated_{stream}"] = str(count)
        if expected != count:
            text = f"{count} frames delivered again of {expected} in the lake"
            layer.find("differs", f"silver.repeated_frames of {stream}", text)


# -- sessions ----------------------------------------------------------------------------------


def audit_sessions(recount: Recount, layer: Layer) -> None:
    """Message numbers are dense from `opened` to `closed`: received, refused by name, or lost.

    A frame that lake or log hold counts as received, built or not.
    """
    recount.finish()
    known_ends = _ends_told_by_successors(recount)
    for session, track in sorted(recount.sessions.items()):
        _audit_session(session, track, known_ends.get(session, 0), layer)
    layer.sums["sessions"] = str(len(recount.sessions))


def _ends_told_by_successors(recount: Recount) -> dict[str, int]:
    """Message numbers given out by each session, as the next session of its shard says."""
    ends: dict[str, int] = {}
    for track in recount.sessions.values():
        previous = None if track.opened is None else track.opened.previous
        if previous is not None and previous.seq is not None:
            ends[previous.session] = max(ends.get(previous.session, 0), previous.seq + 1)
    return ends


def _audit_session(session: str, track: SessionTrack, told_end: int, layer: Layer) -> None:
    for stream in CARRIED:
        if stream is Stream.TRADES:
            _audit_stream(session, track, stream, told_end, layer)
        elif stream in track.streams or (
            track.closed is not None and str(stream) in track.closed.messages
        ):
            _audit_stream(session, track, stream, 0, layer)
    if track.opened is None and any(len(numbers.built) for numbers in track.streams.values()):
        layer.find("differs", f"session {session}", "it has frames, but no `opened` event")


def _audit_stream(
    session: str, track: SessionTrack, stream: Stream, told_end: int, layer: Layer
) -> None:
    where = f"session {session}" + ("" if stream is Stream.TRADES else f", {stream}")
    numbers = track.of(stream)
    given = 0 if track.closed is None else track.closed.messages.get(stream, 0)
    end = max(given, told_end, numbers.seen.end, numbers.refused.end)
    layer.checked += end
    for start, stop in numbers.refused:
        layer.find("note", where, f"messages {start}..{stop - 1} were refused by record")
        numbers.seen.add_range(start, stop)
    for start, stop in numbers.seen.holes(end):
        text = f"messages {start}..{stop - 1} of {end} are in neither lake nor log"
        layer.find("lost", where, text, stop - start)
    if track.closed is not None and given < end:
        text = f"closed after {given} messages, but {end} were seen"
        layer.find("differs", where, text)


def audit_completeness(warehouse: WarehouseReader, positions: Positions, layer: Layer) -> None:
    """The same by the warehouse's own account; used where the lake is not recounted."""
    if not positions.built:
        return
    rows = warehouse.query(
        "select session_id || case when stream = 'trades' then '' else ', ' || stream end,"
        " frames_expected, frames_missing from gold.completeness order by 1"
    )
    layer.checked = sum(row[1] for row in rows)
    layer.sums["sessions"] = str(len({row[0].partition(",")[0] for row in rows}))
    for session, expected, missing in rows:
        if missing > 0:
            text = f"{missing} of {expected} messages are missing"
            layer.find("lost", f"session {session}", text, missing)
        elif missing < 0:
            text = f"{-missing} messages more than were given out"
            layer.find("differs", f"session {session}", text)
