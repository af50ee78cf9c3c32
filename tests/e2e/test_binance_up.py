"""`tickhouse up --source binance://…` against the replaying server: ids gapless, or gaps exact."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proofs.kills import Road
from support.binance import PAIRS, ThreadedBinance

pytestmark = pytest.mark.slow

SPEED = 30
"""The capture of eleven minutes passes in 22 seconds."""
PATIENCE_S = 60
IDS = """
select replace(symbol, 'BINANCE:', ''), count(*), count(distinct trade_id),
    min(trade_id::bigint), max(trade_id::bigint)
from silver.trades group by symbol order by symbol
"""
MISSED = """
select replace(symbols, 'BINANCE:', ''), id_from, id_to from silver.gaps
where kind = 'missed' and id_from is not null and filled_by is null order by all
"""
IN_SILVER_AND_MISSED = """
select count(*) from silver.trades as t inner join silver.gaps as g
    on t.symbol = g.symbols and t.trade_id::bigint between g.id_from and g.id_to
where g.kind = 'missed' and g.filled_by is null
"""


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def accounted(road: Road) -> dict[str, tuple[int, int]]:
    """Ids in silver, and ids that its gaps name and nothing filled, by symbol."""
    named: Counter[str] = Counter()
    for symbol, first, last in road.ask("query", MISSED)["rows"]:
        named[symbol] += last - first + 1
    return {symbol: (count, named[symbol]) for symbol, count, *_ in road.ask("query", IDS)["rows"]}


@pytest.mark.parametrize("fill", [pytest.param("ok", marks=pytest.mark.long), "refused"])
def test_up_accounts_for_every_id_through_disconnects_and_a_kill(fill: str, tmp_path: Path) -> None:
    with ThreadedBinance() as binance:
        server = binance.server
        server.fill = fill
        road = Road(
            tmp_path / "data",
            f"binance://{PAIRS}",
            binance_ws_url=server.ws_url,
            binance_rest_url=server.rest_url,
        )
        road.start()
        try:
            binance.run(server.connected())
            binance.run(play(server))
            for how in ("close", "reset", "kill", "close"):
                time.sleep(3)
                if how == "kill":
                    assert road.kill_stage("record")
                    binance.run(server.disconnected())
                else:
                    binance.run(server.drop(how))
                binance.run(server.connected())
            wait_for(lambda: server.exchange.happened == len(server.exchange.messages))
            happened = {symbol: server.exchange.ids(symbol) for symbol in server.sent}
            expected = {symbol: len(ids) for symbol, ids in happened.items()}
            wait_for(lambda: {s: sum(n) for s, n in accounted(road).items()} == expected)
            rows = road.ask("query", IDS)["rows"]
            named = sum(missed for _, missed in accounted(road).values())
            in_both = road.ask("query", IN_SILVER_AND_MISSED)["rows"]
            audit = road.ask("audit", "--deep")
        finally:
            road.stop()

    for symbol, count, distinct, first, last in rows:
        assert count == distinct
        assert (first, last) == (min(happened[symbol]), max(happened[symbol]))
    assert in_both == [[0]]
    assert (named > 0) == (fill == "refused")
    assert (audit["ok"], audit["lost"], audit["duplicated"]) == (True, 0, 0), audit


async def play(server: Any) -> None:
    server.play(SPEED)
