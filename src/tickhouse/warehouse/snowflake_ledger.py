"""The tables of bronze in Snowflake, and what a load writes into its ledger and asks of it."""

import re
import secrets
from importlib import resources
from typing import Final

OURS: Final = """
select (select count(*) from bronze.load_lock where load_id = ?), count(*),
    sum(case when loaded_at = to_timestamp_ntz(?, 3) then 1 else 0 end)
from bronze.load_ledger where load_id = ?
"""
"""Whether the lock row holds a load's id; objects of the ledger under it, and those of its time."""
IN_LEDGER: Final = """
select 1 from bronze.load_ledger where load_id = ? and loaded_at = to_timestamp_ntz(?, 3) limit 1
"""
"""Whether the ledger has this load: its id, and when its rows were written."""
INSERT_LEDGER: Final = """
insert into bronze.load_ledger (load_id, loaded_at, file, stream, topic, topic_id, part,
    start_offset, next_offset, n, is_gap, sha256)
select ?, to_timestamp_ntz(?, 3), r.value:file::varchar, r.value:stream::varchar,
    r.value:topic::varchar, r.value:topic_id::varchar, r.value:part::number(9, 0),
    r.value:start_offset::number(18, 0), r.value:next_offset::number(18, 0),
    r.value:n::number(18, 0), r.value:is_gap::boolean, r.value:sha256::varchar
from table(flatten(input => parse_json(?))) r
"""


def schema_statements() -> list[str]:
    """The statements of `snowflake.sql`, with this warehouse's random id."""
    text = resources.files("tickhouse.warehouse").joinpath("snowflake.sql").read_text()
    bare = re.sub(r"--[^\n]*", "", text).replace("{warehouse_id}", secrets.token_hex(11))
    return [statement.strip() for statement in bare.split(";") if statement.strip()]
