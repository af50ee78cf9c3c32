"""Silver and gold derived once more from bronze rows that are in the warehouse."""

import secrets
from collections.abc import Mapping
from typing import Final

import msgspec

from tickhouse.telemetry import failpoint
from tickhouse.transform.dbt_runner import Node, upstream_of
from tickhouse.transform.positions import Connection, record_seeds

MARK: Final = "rederived"
"""Name under which the last time is remembered, beside the models' positions."""


class Anew(msgspec.Struct, frozen=True):
    """What to derive once more: everything, or what was loaded after `after_load_id` and its gold.

    A model has one position, so a part is always the loads from one on. Tables that are appended
    to go back to it and read those loads again; which frames are repeats stays decided (the ranges
    behind it are folded together). Every other table is made whole from those: day bars, KPIs and
    completeness add up what arrived, and cannot take a part back.
    """

    after_load_id: int = 0


def rewind(connection: Connection, nodes: Mapping[str, Node], anew: Anew) -> frozenset[str]:
    """Take appended tables back, rows and position in one transaction; names what to make whole.

    A build that runs loses its windows with that, and stops at its next model: what it would read
    of the tables is not what it was pinned to.

    The same transaction leaves a mark among the fingerprints, so that gold is published anew even
    where the build after it is killed and another one completes it.
    """
    models = {name for name, node in nodes.items() if node.kind == "model"}
    appended = {name for name in models if nodes[name].is_appended}
    decided = set[str]().union(*(upstream_of(nodes[name], nodes) for name in appended))
    rewound = appended - decided if anew.after_load_id else set[str]()
    schemas = _schemas(connection)
    connection.execute("begin")
    try:
        connection.execute("update meta.build_lock set build_id = build_id")
        connection.execute("delete from meta.windows")
        record_seeds(connection, {MARK: secrets.token_hex(16)})
        for model in sorted(rewound & schemas.keys()):
            # The position first: on a warehouse that several may enter it is the build's lock.
            connection.execute(
                "update meta.positions set load_id = ? where model = ? and load_id > ?",
                [anew.after_load_id, model, anew.after_load_id],
            )
            connection.execute(
                f"delete from {schemas[model]}.{model} where load_id > ?",  # noqa: S608 - ours
                [anew.after_load_id],
            )
        failpoint("rederive.rewind.before")
        connection.execute("commit")
    except BaseException:
        connection.execute("rollback")
        raise
    failpoint("rederive.rewind.after")
    return frozenset(models - rewound - decided if anew.after_load_id else models)


def _schemas(connection: Connection) -> dict[str, str]:
    connection.execute(
        "select lower(table_name), lower(table_schema) from information_schema.tables"
        " where lower(table_schema) in ('silver', 'gold')"
    )
    return dict(connection.fetchall())
