"""What carries jobs out: processes of this machine, or a Ray cluster. Both give the same results."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

# Of a job whose worker dies, or takes its machine with it. A worker that dies of the job itself would do so for ever.
ATTEMPTS = 3
# Measurements are bitwise equal for one number of threads; numpy and torch read these as they are loaded.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Familiar(Protocol):
    """A job; those of one family share networks and caches, so they are best handed in side by side."""

    @property
    def family(self) -> str: ...


JobT = TypeVar("JobT", bound=Familiar)


@dataclass(frozen=True)
class Lost:
    """There is no result of a job.

    Attributes:
        reason: its workers died, or its work raised what it should not.
    """

    reason: str


class Engine(Protocol):
    """Carries jobs out, several at a time.

    Attributes:
        workers: how many at a time; 0: not known before it runs.
    """

    workers: int

    def run(self, work: Callable[[JobT], Any], jobs: Sequence[JobT]) -> Generator[tuple[JobT, Any], None, None]:
        """Each job with what `work` returns of it, or `Lost`, as soon as it is there; every job once.

        Args:
            work: a function of a module, which workers import.
            jobs: are pickled.
        """
