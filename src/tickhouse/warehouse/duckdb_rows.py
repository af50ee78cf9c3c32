"""Bronze rows from staged lines in DuckDB: the insert, plain or careful, and the count after it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import duckdb

from tickhouse.model.positions import Stream
from tickhouse.warehouse.warehouse import BronzeObject, check_counts

LINE_BYTES_MAX: Final = 16 << 20
"""A longer line goes the careful way, which measures its lines."""

PLAIN: Final = """
insert into bronze.{table} by name
select
    t as topic_id, p as part, o as log_offset,
    make_timestamp(lt * 1000) as log_at, make_timestamp(rx // 1000) as received_at,
    src as source, ses as session_id, seq as session_seq, sym as symbol,
    raw as payload, text as payload_text, b64 as payload_b64, poison_b64 as poison,
    key as file, {load_id} as load_id
from read_json(?, format = 'newline_delimited', records = 'true', auto_detect = false,
    maximum_object_size = {bytes_max},
    columns = {{t: 'varchar', p: 'integer', o: 'bigint', lt: 'bigint',
        src: 'varchar', ses: 'varchar', seq: 'bigint', rx: 'bigint', sym: 'varchar',
        raw: 'json', text: 'varchar', b64: 'varchar', poison_b64: 'varchar'}})
join (select unnest(?::varchar[]) as key, unnest(?::varchar[]) as key_t,
        unnest(?::integer[]) as key_p, unnest(?::bigint[]) as start_o,
        unnest(?::bigint[]) as next_o)
    on t = key_t and p = key_p and o >= start_o and o < next_o
"""

# The position is what the lander put in front. A line is a frame where it parses and its numbers
# are numbers; any other line becomes a poison row that holds the line itself.
CAREFUL: Final = """
insert into bronze.{table} by name
with quoted as (
    select *, try(json_transform(line, '{{
        "src":"VARCHAR","ses":"VARCHAR","seq":"VARCHAR","rx":"VARCHAR","sym":"VARCHAR",
        "raw":"JSON","text":"VARCHAR","b64":"VARCHAR","poison_b64":"VARCHAR"}}')) as frame
    from read_json(?, format = 'newline_delimited', records = 'true', auto_detect = false,
        maximum_object_size = {bytes_max},
        columns = {{t: 'varchar', p: 'integer', o: 'bigint', lt: 'bigint',
            line: 'varchar', b64: 'varchar'}})
    join (select unnest(?::varchar[]) as key, unnest(?::varchar[]) as key_t,
            unnest(?::integer[]) as key_p, unnest(?::bigint[]) as start_o,
            unnest(?::bigint[]) as next_o)
        on t = key_t and p = key_p and o >= start_o and o < next_o
),
judged as (
    select *, coalesce(
        frame.poison_b64 is not null
        or (frame.src is not null and frame.ses is not null
            and try_cast(frame.seq as bigint) is not null
            and try_cast(frame.rx as bigint) is not null), false) as is_frame
    from quoted
)
select
    t as topic_id, p as part, o as log_offset, make_timestamp(lt * 1000) as log_at,
    case when is_frame then make_timestamp(try_cast(frame.rx as bigint) // 1000) end
        as received_at,
    case when is_frame then frame.src end as source,
    case when is_frame then frame.ses end as session_id,
    case when is_frame then try_cast(frame.seq as bigint) end as session_seq,
    case when is_frame then frame.sym end as symbol,
    case when is_frame then frame.raw end as payload,
    case when is_frame then frame.text end as payload_text,
    case when is_frame then frame.b64 end as payload_b64,
    case when is_frame then frame.poison_b64 else coalesce(b64, to_base64(encode(line))) end
        as poison,
    key as file, {load_id} as load_id
from judged
"""

_COUNTS: Final = """
select file, count(*), count(distinct log_offset)
from bronze.{table} where load_id = {load_id} group by file
"""

CANNOT_READ: Final = (duckdb.DataError, duckdb.IntegrityError, duckdb.InvalidInputException)
"""What `PLAIN` raises at a line that is not JSON, or whose numbers are not numbers."""


def insert_rows(
    cursor: duckdb.DuckDBPyConnection, sql: str, path: Path, objects: Sequence[BronzeObject]
) -> None:
    """Insert the staged lines of one stream; a line's position says which object it is of."""
    columns: list[list[str] | list[int]] = [
        [item.key for item in objects],
        [item.chain.topic_id for item in objects],
        [item.chain.part for item in objects],
        [item.manifest.start for item in objects],
        [item.manifest.next for item in objects],
    ]
    cursor.execute(sql, [str(path), *columns])


def check_rows(
    cursor: duckdb.DuckDBPyConnection,
    stream: Stream,
    load_id: int,
    objects: Sequence[BronzeObject],
) -> None:
    """Each object must have given as many rows and offsets as its manifest says.

    Raises:
        CorruptObjectError: it has not; names the object.
    """
    found = {
        file: (rows, offsets)
        for file, rows, offsets in cursor.execute(
            _COUNTS.format(table=stream.value, load_id=load_id)
        ).fetchall()
    }
    check_counts(objects, found)
