"""Asks published gold beside the live view: a slow answer or a fault does not hold that up."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

from tickhouse.dashboard.queries import GoldAnswer, GoldQueries, GoldVersion, Questions
from tickhouse.errors import TickhouseError

RETRY_S: Final = 1.0

_T = TypeVar("_T")
Aside = Callable[[Callable[[], GoldAnswer | None]], "Future[GoldAnswer | None]"]
"""Runs a question somewhere and gives its future answer (`Executor.submit` does)."""


def run_at_once(work: Callable[[], _T]) -> "Future[_T]":
    """Run in this thread; where nobody waits."""
    future: Future[_T] = Future()
    try:
        future.set_result(work())
    except TickhouseError as error:
        future.set_exception(error)
    return future


class GoldAsker:
    """One question at a time; after a fault it waits a moment.

    Args:
        gold: published gold.
        aside: where questions are run.
        monotonic: seconds.

    Attributes:
        fault: why the last question was not answered; None while all is well.
        has_gold: whether anything was published yet, as far as is known.
        is_remote: whether asking costs: not done while nobody looks.
    """

    def __init__(
        self, gold: GoldQueries, *, monotonic: Callable[[], float], aside: Aside = run_at_once
    ) -> None:
        self._gold = gold
        self._aside = aside
        self._monotonic = monotonic
        self._asked: Future[GoldAnswer | None] | None = None
        self._next_at = monotonic()
        self.fault: str | None = None
        self.has_gold = True
        self.is_remote = gold.is_remote

    def poll(
        self,
        held: GoldVersion | None,
        questions: Callable[[GoldVersion], Questions],
        *,
        is_asking: bool,
    ) -> GoldAnswer | None:
        """The answer of a version, once it is there; never waits for it.

        Args:
            held: the version taken last.
            questions: what to ask of a version.
            is_asking: ask even if gold has not moved.
        """
        try:
            if self._asked is None and self._monotonic() >= self._next_at:
                self._asked = self._ask(held, questions, is_asking=is_asking)
            if self._asked is None or not self._asked.done():
                return None
            asked, self._asked = self._asked, None
            answer = asked.result()
        except TickhouseError as error:
            self.fault = str(error)
            self._next_at = self._monotonic() + RETRY_S
            return None
        self.fault = None
        return answer  # None if gold moved meanwhile: the newer version is asked next

    def _ask(
        self,
        held: GoldVersion | None,
        questions: Callable[[GoldVersion], Questions],
        *,
        is_asking: bool,
    ) -> "Future[GoldAnswer | None] | None":
        version = self._gold.version()
        self.has_gold = version is not None
        if version is None or (version == held and not is_asking):
            return None
        wanted = questions(version)
        return self._aside(lambda: self._gold.answer(version, wanted))
