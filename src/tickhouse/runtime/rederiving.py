"""The verb `rederive`: silver and gold once more from the warehouse's own bronze rows."""

import argparse
import contextlib
from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from tickhouse.model.positions import Stream
from tickhouse.model.units import NANOS_PER_MICRO
from tickhouse.runtime import backends
from tickhouse.runtime.owner import OwnerServer, connect_owner
from tickhouse.runtime.result import EXIT_OK, VerbResult
from tickhouse.runtime.show import moment
from tickhouse.runtime.warehousing import make_refinery
from tickhouse.settings import Settings
from tickhouse.transform.rederiving import Anew
from tickhouse.warehouse.warehouse import WarehouseReader

EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - the warehouse keeps naive UTC

Cycle = Callable[[Anew], dict[str, Any]]


def rederive(settings: Settings, arguments: argparse.Namespace) -> VerbResult:
    """Derive a range, or everything, once more; the same result however often it is done."""
    received_from = _bound("--from", arguments.received_from)
    received_to = _bound("--to", arguments.received_to)
    with _owned(settings) as (warehouse, cycle):
        if received_from is None and received_to is None:
            anew = Anew()
        else:
            first = _first_load(warehouse, received_from, received_to)
            if first is None:
                content = {"ok": True, "built": False, "after_load_id": None}
                return VerbResult(EXIT_OK, content, "no frame of that range is in the warehouse")
            anew = Anew(after_load_id=first - 1)
        facts = cycle(anew)
    part = "everything" if not anew.after_load_id else f"what came after load {anew.after_load_id}"
    text = f"derived {part} once more; gold is at load {facts['gold_load_id']}"
    return VerbResult(EXIT_OK, {"ok": True, "after_load_id": anew.after_load_id, **facts}, text)


def _bound(flag: str, text: str | None) -> datetime | None:
    nanos = moment(flag, text)
    return None if nanos is None else EPOCH + timedelta(microseconds=nanos // NANOS_PER_MICRO)


def _first_load(
    warehouse: WarehouseReader, received_from: datetime | None, received_to: datetime | None
) -> int | None:
    """The first load that brought a frame received within the bounds."""
    bounds = [(">=", received_from), ("<=", received_to)]
    where = " and ".join(f"received_at {sign} ?" for sign, at in bounds if at is not None)
    parts = " union all ".join(
        f"select min(load_id) as load_id from bronze.{stream} where {where}"  # noqa: S608 - ours
        for stream in Stream
    )
    values = [at for _, at in bounds if at is not None] * len(Stream)
    return warehouse.query(f"select min(load_id) from ({parts}) as found", values)[0][0]  # noqa: S608


@contextlib.contextmanager
def _owned(settings: Settings) -> Generator[tuple[WarehouseReader, Cycle]]:
    """The warehouse, and what builds in it: the process that owns the file, or this one."""
    owner = connect_owner(settings.run_folder)
    if owner is not None:
        with contextlib.closing(owner):
            yield owner, lambda anew: owner.cycle(load=False, build=True, anew=anew)
        return
    warehouse = backends.open_warehouse(settings)
    refinery = make_refinery(settings, warehouse)
    server = OwnerServer(settings.run_folder, warehouse)
    try:
        yield (
            warehouse,
            lambda anew: msgspec.structs.asdict(refinery.cycle(load=False, anew=anew)),
        )
    finally:
        server.close()
        refinery.close()
        warehouse.close()
