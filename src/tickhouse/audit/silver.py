"""Layer warehouse → silver, and the sessions' message numbers."""

from typing import Final

from tickhouse.audit.positions import Positions
from tickhouse.audit.recount import Recount, SessionTrack, Sums
from tickhouse.audit.report import Layer
from tickhouse.model.positions import Stream
from tickhouse.warehouse.warehouse import Row, WarehouseReader

_TRADES: Final = """
select symbol, count(*), sum(trade_size), sum(cast(price as decimal(19, 8)) * trade_size)
from silver.trades where load_id <= {built} group by symbol
"""
_REJECTS: Final = """
select reason, count(*) from silver.rejected_trades where load_id <= {built} group by reason
"""
_TWICE: Final = """
select session_id, sum(n - 1), min(session_seq), max(session_seq) from (
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
select coalesce(sum(case
    when payload is null or kind is null then 1
    when kind = 'finnhub.ws' and json_extract_string(payload, '$.type') = 'trade'
        and json_type(payload, '$.data') = 'ARRAY' then json_array_length(payload, '$.data')
    when kind = 'finnhub.ws' then case when json_extract_string(payload, '$.type')
        in ('ping', 'pong', 'error', 'subscribe', 'unsubscribe') then 0 else 1 end
    when kind = 'binance.ws' and json_extract_string(payload, '$.stream') is null
        then case when coalesce(json_extract_string(payload, '$.id'),
            json_extract_string(payload, '$.lastUpdateId')) is null then 1 else 0 end
    when kind = 'binance.ws' and json_extract_string(payload, '$.stream') like '%@%'
        and json_extract_string(payload, '$.stream') not like '%@trade' then 0
    else 1 end), 0)
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
    """Every element of every frame is in trades or in rejects, once."""
    _add_unbuilt(warehouse, positions, layer, now_ms)
    if not positions.built:
        return
    built = positions.built
    trades = warehouse.query(_TRADES.format(built=built))
    rejects = warehouse.query(_REJECTS.format(built=built))
    _audit_twice(warehouse, built, layer)
    found_trades = sum(row[1] for row in trades)
    found_rejects = sum(row[1] for row in rejects)
    layer.checked = found_trades + found_rejects
    layer.sums |= {
        "trades": str(found_trades),
        "rejects": str(found_rejects),
        "shares": str(sum(row[2] for row in trades)),
        "dollars": str(sum(row[3] for row in trades)),
    }
    if recount is None:
        elements = warehouse.query(_ELEMENTS.format(built=built))[0][0]
        layer.compare(
            "silver.trades and silver.rejected_trades", "elements", int(elements), layer.checked
        )
        return
    _compare_trades(recount, trades, layer)
    _compare_rejects(recount, rejects, layer)
    _compare_repeated(warehouse, recount, built, layer)


def _add_unbuilt(
    warehouse: WarehouseReader, positions: Positions, layer: Layer, now_ms: int
) -> None:
    if positions.loaded <= positions.built:
        return
    for stream in Stream:
        count, oldest_ms = warehouse.query(
            f"select count(*), epoch_ms(min(log_at)) from bronze.{stream}"  # noqa: S608
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


def _compare_rejects(recount: Recount, rejects: list[Row], layer: Layer) -> None:
    found = {row[0]: row[1] for row in rejects}
    for reason in sorted({*recount.rejects, *found}):
        where = f"silver.rejected_trades for {reason}"
        layer.compare(where, "elements", recount.rejects[reason], found.get(reason, 0))


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
    where = f"session {session}"
    given = 0 if track.closed is None else track.closed.messages.get(Stream.TRADES, 0)
    end = max(given, told_end, track.seen.end, track.refused.end)
    layer.checked += end
    for start, stop in track.refused:
        layer.find("note", where, f"messages {start}..{stop - 1} were refused by record")
        track.seen.add_range(start, stop)
    for start, stop in track.seen.holes(end):
        text = f"messages {start}..{stop - 1} of {end} are in neither lake nor log"
        layer.find("lost", where, text, stop - start)
    if track.closed is not None and given < end:
        text = f"closed after {given} messages, but {end} were seen"
        layer.find("differs", where, text)
    if track.opened is None and len(track.built):
        layer.find("differs", where, "it has frames, but no `opened` event")


def audit_completeness(warehouse: WarehouseReader, positions: Positions, layer: Layer) -> None:
    """The same by the warehouse's own account; used where the lake is not recounted."""
    if not positions.built:
        return
    rows = warehouse.query(
        "select session_id, frames_expected, frames_missing from gold.completeness order by 1"
    )
    layer.checked = sum(row[1] for row in rows)
    layer.sums["sessions"] = str(len(rows))
    for session, expected, missing in rows:
        if missing > 0:
            text = f"{missing} of {expected} messages are missing"
            layer.find("lost", f"session {session}", text, missing)
        elif missing < 0:
            text = f"{-missing} messages more than were given out"
            layer.find("differs", f"session {session}", text)
