"""Where a simulated lander's objects are put: now, or when the schedule gets round to it."""

from collections.abc import Callable, Collection
from concurrent.futures import Future

from tests.fault.simulation.chance import Chance
from tickhouse.bronze.chain import Published
from tickhouse.bronze.publishing import Job


class SimulatedExecutor:
    """Threads that run when they are told to; a crash in one of them ends its process.

    Args:
        chance: decides which job runs at once.
        pass_time: called with seconds where waiting finds nothing to run.
    """

    def __init__(self, chance: Chance, pass_time: Callable[[float], None]) -> None:
        self.size = 1 + chance.below(3)
        self._chance = chance
        self._pass_time = pass_time
        self._share_at_once = chance.pick([0.0, 0.5, 1.0])
        self._queued: list[tuple[Job, Future[Published]]] = []

    def submit(self, job: Job) -> Future[Published]:
        future: Future[Published] = Future()
        self._queued.append((job, future))
        if self._chance.random.random() < self._share_at_once:
            self.run_one()
        return future

    def run_one(self) -> bool:
        """Run one of the jobs, in any order; False where there is none."""
        if not self._queued:
            return False
        job, future = self._queued.pop(self._chance.below(len(self._queued)))
        try:
            future.set_result(job())
        except Exception as error:  # noqa: BLE001 - the future raises it again
            future.set_exception(error)
        return True

    def wait(self, running: Collection[Future[Published]], timeout_s: float) -> None:
        if not self.run_one():
            self._pass_time(timeout_s)

    def close(self) -> None:
        self._queued.clear()
