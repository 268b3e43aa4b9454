"""A Ray cluster, or Ray on this machine alone (Moritz et al., Ray, OSDI 2018)."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agents.outputs import versions
from benchmarks.engine import ATTEMPTS, THREAD_VARIABLES, JobT, Lost

AHEAD = 2  # jobs for each CPU that are handed to Ray at a time: enough that none waits for the next
CALLS = 20  # jobs of a process before a new one takes its place, so that networks and caches of others take no memory
PATIENCE = 5.0  # seconds until an address must answer, and after which it is looked whether the cluster has grown
OBJECT_BYTES = 100 * 2**20  # results are a few kilobytes each
_CODE = ("reptile_env", "agents", "benchmarks")


class RayEngine:
    """Ray's tasks, one CPU each.

    A task whose process or machine is lost is done again elsewhere. The code of this checkout is sent along; what it depends on
    must be installed on every machine in the same versions, which is checked.

    Args:
        address: of a running cluster (``auto`` on one of its machines); None starts Ray on this machine.
        workers: CPUs of this machine to use, where there is no address.
    """

    def __init__(self, address: str | None, workers: int) -> None:
        self._address = address
        self.workers = 0 if address is not None else workers

    def run(self, work: Callable[[JobT], Any], jobs: Sequence[JobT]) -> Generator[tuple[JobT, Any], None, None]:
        """Each job with what `work` returns of it, or `Lost`, as soon as it is there.

        Raises:
            RuntimeError: other versions on one of the machines.
            ConnectionError: there is no cluster at the address.
        """
        check_answers(self._address)
        import ray

        self._start()
        try:
            task: Any = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1, max_calls=CALLS, scheduling_strategy="SPREAD")(_checked)
            pending: dict[Any, JobT] = {}
            open_, ours = deque(jobs), _installed()
            while open_ or pending:
                room = AHEAD * max(int(ray.cluster_resources().get("CPU", 1)), 1)
                while open_ and len(pending) < room:
                    job = open_.popleft()
                    pending[task.remote(work, job, ours)] = job
                ready, _ = ray.wait(list(pending), timeout=PATIENCE)
                for reference in ready:
                    yield pending.pop(reference), _taken(reference)
        finally:
            ray.shutdown()

    def _start(self) -> None:
        import ray

        variables = dict.fromkeys(THREAD_VARIABLES, "1")
        root = Path(__file__).parents[1]
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if self._address is not None:
            code = {"py_modules": [str(root / name) for name in _CODE]}
            ray.init(self._address, runtime_env={"env_vars": variables} | code, **quiet)
        else:
            environment = {"env_vars": variables | {"PYTHONPATH": str(root)}}
            ray.init(
                num_cpus=self.workers,
                object_store_memory=OBJECT_BYTES,
                include_dashboard=False,
                runtime_env=environment,
                **quiet,
            )


def check_answers(address: str | None) -> None:
    """Refuse an address where nobody answers: Ray would go on asking for minutes.

    Args:
        address: ``HOST:PORT``, ``ray://HOST:PORT``; others, such as ``auto``, are for Ray to look up.

    Raises:
        ConnectionError: no connection within a few seconds, or not a port.
    """
    place = (address or "").removeprefix("ray://")
    if ":" not in place:
        return
    try:
        where = urlsplit(f"//{place}")
        socket.create_connection((where.hostname or "", where.port or 0), timeout=PATIENCE).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        mend = "check host and port, that `ray start --head` runs there, and that no firewall is in between"
        raise ConnectionError(f"--address {address}: nothing answers there ({reason}); {mend}") from error


def _installed() -> dict[str, str]:
    """Versions of what is not sent along."""
    return {name: version for name, version in versions().items() if name != "code"}


@dataclass(frozen=True)
class _Mismatch:
    """What differs on the machine of a worker."""

    text: str


def _checked(work: Callable[[JobT], Any], job: JobT, wanted: dict[str, str]) -> Any:
    """The work of a job, on a machine that gives the same results."""
    found = _installed()
    differing = [f"{name} {found.get(name)} instead of {version}" for name, version in wanted.items() if found.get(name) != version]
    return _Mismatch(", ".join(differing)) if differing else work(job)


def _taken(reference: Any) -> Any:
    import ray

    try:
        result = ray.get(reference)
    except ray.exceptions.RayError as error:
        return Lost(f"{type(error).__name__}: {error}")
    if isinstance(result, _Mismatch):
        raise RuntimeError(f"a machine of the cluster has {result.text}; install the same versions everywhere")
    return result
