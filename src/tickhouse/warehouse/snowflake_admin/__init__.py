"""What an administrator of a Snowflake account runs once: numbered SQL beside this file.

`deploy/snowflake` shows the same files. None of them is run by tickhouse, which may not make roles,
warehouses or policies.
"""

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

PIPELINE: Final = "tickhouse_pipeline"
"""The role of a process that loads and builds."""
_FIXED: Final = frozenset({"tickhouse_loader", "tickhouse_transformer", "tickhouse_reader"})


def admin_scripts(*, database: str, warehouse: str = "", role: str = "") -> dict[str, str]:
    """The scripts by file name, in their order, with the names that are really used.

    Args:
        database: its name; as the others an identifier already validated.
        warehouse: its name; "" keeps the default.
        role: of a process that loads and builds; "" keeps the default, as does one of the roles
            that the scripts unite in it.
    """
    role = "" if role.lower() in _FIXED else role
    names = {"tickhouse": database, "tickhouse_wh": warehouse, PIPELINE: role}
    folder = files("tickhouse.warehouse.snowflake_admin")
    scripts = sorted(
        (item for item in folder.iterdir() if item.name.endswith(".sql")), key=lambda i: i.name
    )
    return {script.name: _renamed(script.read_text(), names) for script in scripts}


def _renamed(script: str, names: Mapping[str, str]) -> str:
    """Whole identifiers replaced, comments left as they are."""
    lines = script.splitlines(keepends=True)
    return "".join(line if line.startswith("--") else _replaced(line, names) for line in lines)


def _replaced(line: str, names: Mapping[str, str]) -> str:
    def name(found: re.Match[str]) -> str:
        return names.get(found[0], "") or found[0]

    return re.sub(r"\b[a-z_]+\b", name, line)
