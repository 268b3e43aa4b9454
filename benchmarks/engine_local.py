"""Processes of this machine: a new one in place of any that dies, or has worked for long and comes to another family of jobs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Generic

from benchmarks.engine import ATTEMPTS, THREAD_VARIABLES, JobT, Lost

LAST_SECONDS = 5.0  # that a worker has to end after its last job
AGE = 60.0  # seconds after which the next family gets a new worker: starting one takes a few
_CONTEXT = multiprocessing.get_context("spawn")


class LocalEngine:
    """Processes of one thread each.

    A worker of some age is replaced when the next job is of another family, so that networks and caches of others take no memory.

    Args:
        workers: how many, at least 1.
        age: seconds after which a worker does jobs of its family alone.

    Raises:
        ValueError: no worker.
    """

    def __init__(self, workers: int, age: float = AGE) -> None:
        if workers < 1:
            raise ValueError(f"workers={workers}; at least 1 is needed")
        self.workers, self._age = workers, age

    def run(self, work: Callable[[JobT], Any], jobs: Sequence[JobT]) -> Generator[tuple[JobT, Any], None, None]:
        """Each job with what `work` returns of it, or `Lost`, as soon as it is there."""
        open_ = deque((job, 1) for job in jobs)
        crew: list[_Worker[JobT]] = []
        try:
            while open_ or any(worker.job for worker in crew):
                self._occupy(crew, open_, work)
                for pipe in wait([worker.pipe for worker in crew if worker.job is not None]):
                    worker = next(worker for worker in crew if worker.pipe is pipe)
                    job, attempt = worker.job, worker.attempt
                    assert job is not None
                    try:
                        result = worker.take()
                    except EOFError:  # it died
                        crew.remove(worker)
                        reason = worker.end()
                        if attempt < ATTEMPTS:
                            open_.appendleft((job, attempt + 1))
                            continue
                        result = Lost(f"its worker died {ATTEMPTS} times, at last with {reason}")
                    yield job, result
        finally:
            for worker in crew:
                worker.end()

    def _occupy(self, crew: list[_Worker[JobT]], open_: deque[tuple[JobT, int]], work: Callable[[JobT], Any]) -> None:
        """Give every worker that is free, or missing, a job."""
        for worker in [worker for worker in crew if worker.job is None]:
            if not open_ or (worker.family != open_[0][0].family and worker.age >= self._age):
                crew.remove(worker)
                worker.end()
            else:
                worker.give(*open_.popleft())
        while open_ and len(crew) < self.workers:
            worker = _Worker(work)
            crew.append(worker)
            worker.give(*open_.popleft())


class _Worker(Generic[JobT]):
    """A process at the other end of a pipe."""

    def __init__(self, work: Callable[[JobT], Any]) -> None:
        self.pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, work), daemon=True)
        with _one_thread():
            self._process.start()
        theirs.close()  # so that its death ends the pipe
        self.job: JobT | None = None
        self.attempt, self.family, self._born = 0, "", time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._born

    def give(self, job: JobT, attempt: int) -> None:
        self.job, self.attempt, self.family = job, attempt, job.family
        with suppress(BrokenPipeError):  # it died meanwhile; take() will tell
            self.pipe.send(job)

    def take(self) -> Any:
        """The result of its job; `EOFError` where it died."""
        self.job = None
        try:
            return self.pipe.recv()
        except OSError as error:
            raise EOFError from error

    def end(self) -> str:
        """End the process; says how it ended."""
        self.pipe.close()
        if self.job is not None:
            self._process.terminate()
        self._process.join(LAST_SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        code = self._process.exitcode or 0
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _serve(pipe: Connection, work: Callable[[JobT], Any]) -> None:
    """What a worker does: jobs from the pipe, results back into it, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends its workers
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)  # nobody waits for the result any more

    threading.Thread(target=watch, daemon=True).start()
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            result = work(job)
        except Exception:
            result = Lost(traceback.format_exc())
        pipe.send(result)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The environment of processes that are started within: one thread each."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
