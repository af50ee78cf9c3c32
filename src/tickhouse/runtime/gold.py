"""Gold for readers: what is published beside an embedded warehouse, or Snowflake itself."""

import contextlib
from collections.abc import Generator

from tickhouse.runtime import backends
from tickhouse.settings import Settings
from tickhouse.transform.published import PublishedGold
from tickhouse.transform.warehouse_gold import WarehouseGold


@contextlib.contextmanager
def open_gold(settings: Settings) -> Generator[PublishedGold | WarehouseGold]:
    """Gold of the configured warehouse.

    Raises:
        ConfigError: nobody may log in with what is configured.
        TransientError: Snowflake cannot be reached.
    """
    if not settings.is_warehouse_snowflake:
        yield PublishedGold(settings.gold_folder)
        return
    warehouse = backends.open_snowflake(settings)
    try:
        yield WarehouseGold(warehouse)
    finally:
        warehouse.close()
