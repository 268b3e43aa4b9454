"""What an evaluator may use of the machine: of it threads and device alone bear on a measurement. Imports no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_CACHE_BYTES = 2**30


@dataclass(frozen=True)
class Resources:
    """Memory, disk, threads and device of an evaluator.

    Args:
        cache_bytes: memory for what is kept from one plan to the next: activations (three quarters), weights and measurements
            (an eighth each); what was used least recently goes. At least 0; None: 1 GiB, or what another environment of the same
            task and settings asked for.
        disk_cache: folder of measurements that processes and seeds share; None: none is kept.
        num_threads: of a measurement, at least 1; None: as many as torch uses.
        device: on which compressed networks run and are trained, as torch names it (``cuda``, ``cuda:1``); None: the CPU, on which
            all else is computed in any case.

    Raises:
        TypeError: a number that is not whole, a folder that is no path, or a device that is no name.
        ValueError: a number out of range.
    """

    cache_bytes: int | None = None
    disk_cache: str | os.PathLike[str] | None = None
    num_threads: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("cache_bytes", 0), ("num_threads", 1)):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not hasattr(value, "__index__"):
                raise TypeError(f"{name} must be a whole number, got {type(value).__name__} {value!r:.80}")
            if value < least:
                raise ValueError(f"{name}={value}; at least {least} is needed")
            object.__setattr__(self, name, int(value))
        if self.disk_cache is not None:
            object.__setattr__(self, "disk_cache", _folder(self.disk_cache))
        if self.device is not None:
            object.__setattr__(self, "device", _device(self.device))


NO_LIMITS = Resources()


def _folder(value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"disk_cache must be the path of a folder, got {type(value).__name__} {value!r:.80}")
    path = Path(value).expanduser()
    if path.exists() and not path.is_dir():
        raise ValueError(f"disk_cache={str(path)!r} is a file; name a folder")
    return str(path.absolute())


def _device(value: Any) -> str | None:
    # A torch.device as well, told by its module, since torch is not imported here.
    if not isinstance(value, str) and type(value).__module__ != "torch":
        raise TypeError(f"device must be a name such as 'cuda', got {type(value).__name__} {value!r:.80}")
    return None if str(value) == "cpu" else str(value)
