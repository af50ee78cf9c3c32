"""Sets of message numbers kept as ranges: small however many numbers are in them."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Intervals:
    """A set of integers as disjoint, rising, half-open ranges.

    >>> numbers = Intervals()
    >>> [numbers.add(n) for n in (0, 1, 3, 1)]
    [True, True, True, False]
    >>> list(numbers), len(numbers)
    ([(0, 2), (3, 4)], 3)
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Ranges, rising."""
        return zip(self._starts, self._ends, strict=True)

    def __len__(self) -> int:
        """Number of integers."""
        return sum(self._ends) - sum(self._starts)

    @property
    def begin(self) -> int:
        """The least; 0 if empty."""
        return self._starts[0] if self._starts else 0

    @property
    def end(self) -> int:
        """One after the greatest; 0 if empty."""
        return self._ends[-1] if self._ends else 0

    def add(self, number: int) -> bool:
        """Add one; False where it was in already."""
        if self._ends and number == self._ends[-1]:
            self._ends[-1] = number + 1
            return True
        place = bisect_right(self._starts, number)
        if place and number < self._ends[place - 1]:
            return False
        self._insert(place, number, number + 1)
        return True

    def add_range(self, start: int, end: int) -> None:
        """Add `start .. end - 1`."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def _insert(self, place: int, start: int, end: int) -> None:
        touches_before = place > 0 and self._ends[place - 1] == start
        touches_after = place < len(self._starts) and self._starts[place] == end
        if touches_before and touches_after:
            self._ends[place - 1] = self._ends.pop(place)
            del self._starts[place]
        elif touches_before:
            self._ends[place - 1] = end
        elif touches_after:
            self._starts[place] = start
        else:
            self._starts.insert(place, start)
            self._ends.insert(place, end)

    def overlap(self, start: int, end: int) -> int:
        """How many of `start .. end - 1` are in.

        >>> numbers = Intervals()
        >>> numbers.add_range(2, 6)
        >>> numbers.overlap(0, 3), numbers.overlap(6, 9)
        (1, 0)
        """
        first, last = bisect_right(self._ends, start), bisect_left(self._starts, end)
        ranges = zip(self._starts[first:last], self._ends[first:last], strict=True)
        return sum(min(end, stop) - max(start, begin) for begin, stop in ranges)

    def holes(self, end: int) -> list[tuple[int, int]]:
        """Ranges within `0 .. end - 1` that are not in.

        >>> numbers = Intervals()
        >>> numbers.add_range(2, 4)
        >>> numbers.holes(6), numbers.holes(3)
        ([(0, 2), (4, 6)], [(0, 2)])
        """
        found: list[tuple[int, int]] = []
        at = 0
        for start, stop in self:
            if start >= end:
                break
            if at < start:
                found.append((at, start))
            at = max(at, stop)
        if at < end:
            found.append((at, end))
        return found
