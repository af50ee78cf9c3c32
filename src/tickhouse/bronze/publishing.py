"""Where objects are packed and put: in the caller's own thread, or in a few others."""

from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Final, Protocol

from tickhouse.bronze.chain import Published

THREADS: Final = 8
"""Objects on their way at once: while one waits for the store, others are compressed."""

Job = Callable[[], Published]


class Executor(Protocol):
    """Runs jobs. `size` = how many at once."""

    size: int

    def submit(self, job: Job) -> Future[Published]:
        """Run a job, now or later; its future tells how it ended."""
        ...

    def wait(self, running: Collection[Future[Published]], timeout_s: float) -> None:
        """Return once one of the running jobs has ended, or after the time-out."""
        ...

    def close(self) -> None:
        """Run nothing more; what runs may end."""
        ...


class InlineExecutor:
    """Runs a job at once; what is no `Exception` ends the caller, as it would end a process."""

    size = 1

    def submit(self, job: Job) -> Future[Published]:
        """See `Executor.submit`."""
        future: Future[Published] = Future()
        try:
            future.set_result(job())
        except Exception as error:  # noqa: BLE001 - the future raises it again
            future.set_exception(error)
        return future

    def wait(self, running: Collection[Future[Published]], timeout_s: float) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing to release."""


class ThreadsExecutor:
    """Runs jobs in threads; compressing, hashing and sending release the interpreter."""

    def __init__(self, size: int = THREADS) -> None:
        self.size = size
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="land")

    def submit(self, job: Job) -> Future[Published]:
        """See `Executor.submit`."""
        return self._pool.submit(job)

    def wait(self, running: Collection[Future[Published]], timeout_s: float) -> None:
        """See `Executor.wait`."""
        wait(running, timeout_s, FIRST_COMPLETED)

    def close(self) -> None:
        """See `Executor.close`: a job that hangs in the store is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
