"""Where the double's trades come from: the simulator's day, or recorded frames."""

import json
from collections.abc import Collection, Iterator
from datetime import date
from pathlib import Path
from typing import Any, Protocol

from tickhouse.source.simulator import DayTape, QuoteBoard, Scenario
from tickhouse.source.simulator.tape import select

ZEROS = b'{"c":0,"d":null,"dp":null,"h":0,"l":0,"o":0,"pc":0,"t":0}'
NS = 10**9


class Market(Protocol):
    """What happens."""

    def frames(self, start_ns: int) -> Iterator[tuple[int, bytes]]:
        """Frames due from a moment on, each with its due time (UNIX ns)."""
        ...

    def cut(self, payload: bytes, symbols: Collection[str]) -> bytes | None:
        """A frame for who has subscribed to some symbols only."""
        ...

    def add(self, payload: bytes) -> None:
        """A frame has become due."""
        ...

    def quote(self, symbol: str, at_ns: int) -> bytes:
        """Body of `/quote`."""
        ...

    def ticks(self, symbol: str) -> list[dict[str, Any]]:
        """All trades of a symbol that day."""
        ...


class SimulatedDay:
    """One exchange day of the simulator."""

    def __init__(self, scenario: Scenario, day: date, *, end_ns: int | None = None) -> None:
        self.tape = DayTape(scenario, day)
        self._scenario, self._day, self._end_ns = scenario, day, end_ns
        self._board = QuoteBoard(self.tape)
        self._all = frozenset(self.tape.symbols)

    def frames(self, start_ns: int) -> Iterator[tuple[int, bytes]]:
        return self.tape.frames(start_ns, self._end_ns)

    def cut(self, payload: bytes, symbols: Collection[str]) -> bytes | None:
        return payload if self._all <= set(symbols) else select(payload, symbols)

    def add(self, payload: bytes) -> None:
        self._board.add(payload)

    def quote(self, symbol: str, at_ns: int) -> bytes:
        return self._board.body(symbol, at_ns)

    def ticks(self, symbol: str) -> list[dict[str, Any]]:
        tape = DayTape(self._scenario, self._day, [symbol])
        return [
            trade
            for _, payload in tape.frames(None, self._end_ns)
            for trade in json.loads(payload)["data"]
        ]


class RecordedFrames:
    """The lines of a file, one every `every_ns`."""

    def __init__(self, path: Path, *, every_ns: int = NS // 10) -> None:
        self.lines = [line for line in path.read_bytes().splitlines() if line]
        self._every_ns = every_ns
        self._last: dict[str, dict[str, Any]] = {}

    def frames(self, start_ns: int) -> Iterator[tuple[int, bytes]]:
        for number, line in enumerate(self.lines):
            yield start_ns + (number + 1) * self._every_ns, line

    def cut(self, payload: bytes, symbols: Collection[str]) -> bytes | None:
        return payload if any(f'"{symbol}"'.encode() in payload for symbol in symbols) else None

    def add(self, payload: bytes) -> None:
        for trade in json.loads(payload).get("data") or []:
            self._last[trade["s"]] = trade

    def quote(self, symbol: str, at_ns: int) -> bytes:
        trade = self._last.get(symbol)
        if trade is None:
            return ZEROS
        price = trade["p"]
        fields = {"c": price, "d": 0, "dp": 0, "h": price, "l": price, "o": price, "pc": price}
        return json.dumps({**fields, "t": trade["t"] // 1000}).encode()

    def ticks(self, symbol: str) -> list[dict[str, Any]]:
        frames = (json.loads(line) for line in self.lines)
        return [t for frame in frames for t in frame.get("data") or [] if t["s"] == symbol]
