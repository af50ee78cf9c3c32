"""What the double says it sent against what bronze, silver and gold hold; nothing is assumed."""

import csv
import gzip
import json
import re
from base64 import b64decode
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import msgspec

from proofs.stages import Stages
from tickhouse.model.calendar import MarketState, new_york

if TYPE_CHECKING:
    from tests.servers.finnhub.record import Record, Sent

SYMBOL: Final = re.compile(r"[A-Z0-9.:_/^= -]{1,32}")
MINUTE_MS: Final = 60_000
NS: Final = 10**9
CONTROL: Final = {"ping", "pong", "error", "subscribe", "unsubscribe"}


class Found(msgspec.Struct):
    """What the comparison found.

    Attributes:
        lost: messages and trades that were sent, are not stored and lie in no recorded gap.
        duplicated: messages and trades stored more often than sent.
        gaps_expected: times in which a subscriber got nothing, and messages over the limit.
        gaps_recorded: those of them that silver.gaps tells.
        bars, bars_differ: minute bars compared with the double's own trades.
        trades, rejects: in silver.
        problems: in words.
    """

    lost: int = 0
    duplicated: int = 0
    gaps_expected: int = 0
    gaps_recorded: int = 0
    bars: int = 0
    bars_differ: int = 0
    trades: int = 0
    rejects: int = 0
    problems: list[str] = msgspec.field(default_factory=list)

    @property
    def is_ok(self) -> bool:
        """Whether nothing is wrong, and there was something to compare."""
        return self.problems == [] and self.gaps_expected > 0 and self.bars > 0

    def say(self, text: str) -> None:
        """Note a problem."""
        self.problems.append(text)


class _Gap(msgspec.Struct):
    time_from: int
    time_to: int
    symbols: frozenset[str]

    def covers(self, due_ns: int, tolerance_ns: int) -> bool:
        return self.time_from - tolerance_ns <= due_ns <= self.time_to + tolerance_ns


class _Line(msgspec.Struct):
    ses: str
    seq: int
    src: str
    raw: msgspec.Raw = msgspec.Raw()
    text: str | None = None
    b64: str | None = None

    @property
    def payload(self) -> bytes:
        if self.text is not None:
            return self.text.encode()
        return b64decode(self.b64) if self.b64 is not None else bytes(self.raw)


def check(stages: Stages, record: "Record", *, tolerance_s: float) -> Found:
    """Compare every layer with the double's record.

    Args:
        stages: level, nothing running.
        record: the double's.
        tolerance_s: seconds by which the ends of a gap may be off: a receipt is stamped by the
            client, a due time by the double, and the scaled clock magnifies what lies between.
    """
    found = Found()
    tolerance_ns = int(tolerance_s * NS)
    gaps, refused = _read_gaps(stages)
    received = _read_bronze(stages, found)
    sessions = _sessions_by_ray(stages)
    expected: list[dict[str, Any]] = []
    rejects = 0
    for ray, sent in record.connections.items():
        session = sessions.get(ray, "")
        stored = received.pop(session, {})
        delivered = _compare_connection(sent, session, stored, refused, gaps, tolerance_ns, found)
        for payload in delivered:
            trades, rejected = _judge(payload)
            expected += trades
            rejects += rejected
    if received:
        found.say(f"bronze holds sessions that the double does not know: {sorted(received)}")
    expected += _count_gaps(record, gaps, tolerance_ns, found)
    _compare_silver(stages, expected, rejects, found)
    _compare_bars(stages, expected, found)
    return found


def _read_bronze(stages: Stages, found: Found) -> dict[str, dict[int, bytes]]:
    """Payloads of the socket's frames, from the lake's own objects."""
    received: dict[str, dict[int, bytes]] = defaultdict(dict)
    decode = msgspec.json.Decoder(_Line).decode
    for path in sorted((stages.folder / "lake" / "bronze" / "v1" / "trades").rglob("*.jsonl.gz")):
        for text in gzip.decompress(path.read_bytes()).splitlines():
            line = decode(text)
            if line.seq in received[line.ses]:
                found.duplicated += 1
                found.say(f"bronze holds message {line.seq} of {line.ses} more than once")
            received[line.ses][line.seq] = line.payload
    return dict(received)


def _sessions_by_ray(stages: Stages) -> dict[str, str]:
    rows = stages.warehouse.query(
        "select json_extract_string(payload, '$.ray'), session_id from bronze.sessions"
        " where json_extract_string(payload, '$.event') = 'remote'"
    )
    return {ray: session for ray, session in rows if ray is not None}


def _read_gaps(stages: Stages) -> tuple[list[_Gap], dict[str, set[int]]]:
    """Gaps in time, and the message numbers that were refused, by session."""
    rows = stages.warehouse.query(
        "select kind, session_id, seq_from, seq_to, epoch_ns(time_from), epoch_ns(time_to), symbols"
        " from silver.gaps where stream = 'trades' and filled_by is null"
    )
    missed: list[_Gap] = []
    refused: dict[str, set[int]] = defaultdict(set)
    for kind, session, seq_from, seq_to, time_from, time_to, symbols in rows:
        if kind == "missed":
            missed.append(_Gap(time_from, time_to, frozenset(filter(None, symbols.split(",")))))
        elif kind == "refused":
            refused[session].update(range(seq_from, seq_to + 1))
    return missed, refused


def _compare_connection(
    sent: "Sent",
    session: str,
    stored: dict[int, bytes],
    refused: dict[str, set[int]],
    gaps: list[_Gap],
    tolerance_ns: int,
    found: Found,
) -> Iterator[bytes]:
    """Yield what must be in silver: what was sent, unless a gap tells that it did not arrive."""
    oversized = set(sent.oversized)
    if beyond := sorted(set(stored) - set(range(len(sent.messages)))):
        found.duplicated += len(beyond)
        found.say(f"{sent.ray}: messages {beyond[:3]} were never sent")
    last = max(stored, default=-1)
    for number, (message, due_ns) in enumerate(zip(sent.messages, sent.due_ns, strict=True)):
        if number in stored:
            if stored[number] != message:
                found.lost += 1
                found.say(f"{sent.ray}: message {number} is stored with other bytes")
            yield message
        elif number in oversized and number < last:
            found.gaps_expected += 1
            if number in refused[session]:
                found.gaps_recorded += 1
            else:
                found.lost += 1
                found.say(f"{sent.ray}: message {number} was refused without a gap")
        elif not any(gap.covers(due_ns, tolerance_ns) for gap in gaps):
            found.lost += 1
            found.say(f"{sent.ray}: message {number} of {len(sent.messages)} is in no gap")
            yield message


def _count_gaps(
    record: "Record", gaps: list[_Gap], tolerance_ns: int, found: Found
) -> list[dict[str, Any]]:
    """Every outage lies in one recorded gap that names its symbols; trades of those that do not."""
    lost: list[dict[str, Any]] = []
    for outage in record.outages:
        due = [due_ns for due_ns, _ in outage.frames]
        trades = [trade for _, payload in outage.frames for trade in _judge(payload)[0]]
        symbols = {trade["s"] for trade in trades}
        found.gaps_expected += 1
        if any(
            gap.covers(min(due), tolerance_ns)
            and gap.covers(max(due), tolerance_ns)
            and (not gap.symbols or symbols <= gap.symbols)
            for gap in gaps
        ):
            found.gaps_recorded += 1
            continue
        lost += trades
        span = f"{min(due)}..{max(due)}"
        found.say(f"{outage.cause} of {outage.ray}: {len(trades)} trades in no gap, {span}")
    return lost


def _judge(payload: bytes) -> tuple[list[dict[str, Any]], int]:
    """Trades of a message by the rules of silver, and how many elements are none."""
    try:
        message = json.loads(payload, parse_float=Decimal)
    except (ValueError, UnicodeDecodeError):
        return [], 1
    if message.get("type") in CONTROL:
        return [], 0
    good = [trade for trade in message["data"] if _is_trade(trade)]
    return good, len(message["data"]) - len(good)


def _is_trade(trade: dict[str, Any]) -> bool:
    price, size, at, symbol = (trade.get(name) for name in ("p", "v", "t", "s"))
    return (
        isinstance(price, int | Decimal)
        and price > 0
        and isinstance(size, int | Decimal)
        and size > 0
        and isinstance(at, int)
        and isinstance(symbol, str)
        and SYMBOL.fullmatch(symbol) is not None
    )


def _compare_silver(
    stages: Stages, expected: list[dict[str, Any]], rejects: int, found: Found
) -> None:
    """Each trade exactly once, by symbol, time, price and size."""
    wanted = Counter((t["s"], t["t"], Decimal(t["p"]), Decimal(t["v"])) for t in expected)
    rows = stages.warehouse.query(
        "select symbol, epoch_ms(event_at), price, trade_size, count(*)"
        " from silver.trades group by all"
    )
    stored = Counter({(s, at, price, size): count for s, at, price, size, count in rows})
    missing, excess = wanted - stored, stored - wanted
    found.lost += missing.total()
    found.duplicated += excess.total()
    if missing or excess:
        found.say(f"silver lacks {list(missing)[:2]} and has {list(excess)[:2]} too much")
    found.trades = stored.total()
    found.rejects = stages.warehouse.query("select count(*) from silver.rejected_trades")[0][0]
    if found.rejects != rejects:
        found.say(f"{found.rejects} rejects; {rejects} elements are no trades")


# -- bars ------------------------------------------------------------------------------------


def _rules() -> dict[str, dict[str, str]]:
    seed = resources.files("tickhouse").joinpath("transform/project/seeds/trade_conditions.csv")
    return {row["code"]: row for row in csv.DictReader(seed.read_text().splitlines())}


def _compare_bars(stages: Stages, trades: Iterable[dict[str, Any]], found: Found) -> None:
    rows = stages.warehouse.query(
        "select symbol, epoch_ms(bar_at), high, low, volume, trade_count from gold.bars_1m"
    )
    stored = {(symbol, at): tuple(rest) for symbol, at, *rest in rows}
    wanted = _bars(trades)
    found.bars = len(wanted)
    differing = [key for key in {*wanted, *stored} if wanted.get(key) != stored.get(key)]
    found.bars_differ = len(differing)
    for key in sorted(differing)[:2]:
        found.say(f"bar {key}: {stored.get(key)}; the double's trades say {wanted.get(key)}")


def _bars(trades: Iterable[dict[str, Any]]) -> dict[tuple[str, int], tuple[Any, ...]]:
    """High, low, volume and count of each minute, by the tape's rules."""
    rules, calendar = _rules(), new_york()
    prices: dict[tuple[str, int], list[Decimal]] = defaultdict(list)
    sizes: dict[tuple[str, int], list[Decimal]] = defaultdict(list)
    for trade in trades:
        key = (trade["s"], trade["t"] // MINUTE_MS * MINUTE_MS)
        codes = [rules[code] for code in trade.get("c") or [] if code in rules]
        is_regular = calendar.state(trade["t"] * 10**6) is MarketState.REGULAR
        sets_price = all(_is(code["bar_price"]) for code in codes) and not (
            is_regular and any(_is(code["bar_price_off_hours_only"]) for code in codes)
        )
        if sets_price:
            prices[key].append(Decimal(trade["p"]))
        if all(_is(code["volume"]) for code in codes):
            sizes[key].append(Decimal(trade["v"]))
    return {
        key: (
            max(prices[key], default=None),
            min(prices[key], default=None),
            sum(sizes[key], Decimal(0)),
            len(sizes[key]),
        )
        for key in {*prices, *sizes}
    }


def _is(text: str) -> bool:
    return text.lower() in {"true", "1"}
