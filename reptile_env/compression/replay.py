"""Running a network from the middle: what ran before the first layer that changed is put back instead of run again.

A network is a tree of calls of its modules, numbered as they start. At a boundary, the start of one call, everything that is
still to come depends on the arguments of that call and on what calls that have ended have returned. Those are held; then the
network's own Python code runs again, the ended calls give what they gave, and the real work starts at the boundary. So any
network whose calls come in the same order for all inputs can be replayed, whatever its forward method is written like.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from reptile_env.compression import nested
from reptile_env.tasks.splits import Inputs, call, map_inputs


class ReplayError(RuntimeError):
    """The network's calls did not come in the order in which they came before."""


class Stop(Exception):  # noqa: N818 (no error: raised by a hook that has seen all it needs)
    """Ends a run early; what was held until then is kept."""


@dataclass(frozen=True)
class Held:
    """What one batch left at a boundary.

    Attributes:
        boundary: number of the call.
        arguments: of that call: positional ones and those by name.
        results: by number of a call that had ended, what it returned; a few examples of it where nothing reads it any more.
    """

    boundary: int
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    results: dict[int, Any]

    def storages(self) -> dict[int, int]:
        """Bytes by address of all that is held; shared memory has one address."""
        found = {}
        for tensor in nested.tensors_in([self.arguments, self.results]):
            storage = tensor.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        return found


@dataclass(frozen=True)
class _Boundary:
    """A call to start from: the ended calls that are put back, and those of them whose results are still read."""

    ended: tuple[int, ...]
    read: frozenset[int]


@dataclass
class _Calls:
    """Calls of a network in the order in which they start."""

    paths: list[str] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)  # number of the last call within
    altered: set[tuple[bool, int]] = field(default_factory=set)  # (result?, call): written in place afterwards


class Replay:
    """Replays a network.

    Args:
        model: the network, in evaluation mode; cut versions of it are replayed too.
        inputs: of a few examples, at least three if there are as many.
    """

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        self._model, self._inputs = model, inputs
        self._calls = _Calls()
        with torch.no_grad():
            self._outputs = self._watch()
        self._first: dict[str, int] = {}
        for number, path in enumerate(self._calls.paths):
            self._first.setdefault(path, number)
        self._boundaries: dict[int, _Boundary | None] = {}

    def first_call(self, path: str) -> int:
        """Number of the first call of a module; 0, the whole network's, where it is never called itself."""
        return self._first.get(path, 0)

    def path_of(self, number: int) -> str:
        """Path of the module that is called there."""
        return self._calls.paths[number] or "the network"

    def usable(self, boundary: int) -> bool:
        """Whether the network can be run from the call `boundary`; tried out at the first question."""
        return self._boundary(boundary) is not None

    def saves(self, boundary: int) -> bool:
        """Whether any call ends before `boundary`."""
        found = self._boundary(boundary)
        return found is not None and bool(found.ended)

    def run(
        self, model: nn.Module, inputs: Inputs, start: Held | None = None, hold: Collection[int] = ()
    ) -> tuple[Any, dict[int, Held]]:
        """Outputs of a network for one batch.

        Args:
            model: the network or a cut version of it.
            inputs: the batch.
            start: what the same batch left at a boundary before which `model` has not changed; None: run everything.
            hold: usable boundaries, at or behind that of `start`, to be held for later.

        Returns:
            The outputs, None where a hook raised `Stop`, and what is held by boundary.

        Raises:
            ReplayError: the calls come in another order than they did for the first examples.
        """
        wanted = {b: found for b in hold if (found := self._boundary(b)) is not None}
        return _Run(self._calls, start, wanted).run(model, inputs)

    def _boundary(self, number: int) -> _Boundary | None:
        if number not in self._boundaries:
            self._boundaries[number] = self._try(number) if number > 0 else None
        return self._boundaries[number]

    def _try(self, number: int) -> _Boundary | None:
        """Which results are read behind a boundary, found by spoiling them; None where a replay is not the same."""
        calls = self._calls
        above = set(_ancestors(calls, number))
        ended = tuple(c for c in range(number) if calls.last[c] < number and calls.parents[c] in above)
        every = _Boundary(ended, frozenset(ended))
        with torch.no_grad(), contextlib.suppress(RuntimeError, ValueError, IndexError, TypeError):
            held = _Run(calls, None, {number: every}).run(self._model, self._inputs)[1][number]
            if not self._same(held):
                return None
            read = list(ended)
            # Most results are read by nobody behind the boundary: all are spoilt at once, then half of them, and so on.
            spoilt = self._unread(held, [c for c in ended if nested.spoilable(held.results[c])])
            read = [c for c in ended if c not in spoilt]
            return _Boundary(ended, frozenset(read))
        return None

    def _unread(self, held: Held, candidates: list[int]) -> set[int]:
        """Those of `candidates` that can be spoilt without a trace, all together."""
        if not candidates:
            return set()
        results = held.results | {c: nested.spoil(held.results[c]) for c in candidates}
        if self._same(Held(held.boundary, held.arguments, results)):
            return set(candidates)
        if len(candidates) == 1:
            return set()
        half = len(candidates) // 2
        first, second = self._unread(held, candidates[:half]), self._unread(held, candidates[half:])
        both = sorted(first | second)
        results = held.results | {c: nested.spoil(held.results[c]) for c in both}
        return set(both) if self._same(Held(held.boundary, held.arguments, results)) else set()

    def _same(self, held: Held) -> bool:
        try:
            outputs = _Run(self._calls, held, {}).run(self._model, self._inputs)[0]
        except (RuntimeError, ValueError, IndexError, TypeError):
            return False
        return nested.equal(outputs, self._outputs)

    def _watch(self) -> Any:
        """Run the examples once and write down every call."""
        calls, stack = self._calls, [-1]
        seen: list[tuple[tuple[bool, int], list[Tensor], list[Tensor]]] = []

        def watch(what: tuple[bool, int], value: Any) -> None:
            tensors = nested.tensors_in(value)
            seen.append((what, tensors, [t.clone() for t in tensors]))

        def around(path: str, original: Callable[..., Any]) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                number = len(calls.paths)
                calls.paths.append(path)
                calls.parents.append(stack[-1])
                calls.last.append(number)
                watch((False, number), (args, kwargs))
                stack.append(number)
                try:
                    result = original(*args, **kwargs)
                finally:
                    stack.pop()
                calls.last[number] = len(calls.paths) - 1
                watch((True, number), result)
                return result

            return forward

        with _wrapped(self._model, None, around):
            outputs = call(self._model, map_inputs(Tensor.clone, self._inputs))
        calls.altered = {
            what for what, now, before in seen if any(not nested.unaltered(a, b) for a, b in zip(now, before, strict=True))
        }
        return outputs


class _Run:
    """One pass, from a boundary or from the beginning, that may hold others."""

    def __init__(self, calls: _Calls, start: Held | None, wanted: Mapping[int, _Boundary]) -> None:
        self._calls, self._start, self._wanted = calls, start, wanted
        self._back = start.results if start else {}
        self._at = start.boundary if start else -1
        # A result that is there already is handed on; the others are caught when their call ends.
        self._catch = {c for b in wanted.values() for c in b.ended} - self._back.keys()
        self._caught: dict[int, Any] = {}
        self._arguments: dict[int, Any] = {}
        self._coming: list[int] = []
        self._next = 0

    def run(self, model: nn.Module, inputs: Inputs) -> tuple[Any, dict[int, Held]]:
        calls = self._calls
        touched = {calls.paths[c] for c in {*self._back, *self._catch, *self._wanted} | ({self._at} if self._start else set())}
        inside = [range(c + 1, calls.last[c] + 1) for c in self._back]
        hidden = set(itertools.chain.from_iterable(inside))
        self._coming = [c for c, path in enumerate(calls.paths) if path in touched and c not in hidden]
        outputs = None
        with _wrapped(model, touched, self._around), self._entered(model), contextlib.suppress(Stop):
            outputs = call(model, inputs)
        return outputs, {number: self._held(number, found) for number, found in self._wanted.items() if number in self._arguments}

    @contextlib.contextmanager
    def _entered(self, model: nn.Module) -> Iterator[None]:
        """Give the call at the boundary its arguments, before any other hook sees them."""
        if self._start is None:
            yield
            return
        start, place = self._start, model.get_submodule(self._calls.paths[self._start.boundary])

        def hook(module: nn.Module, args: Any, kwargs: Any) -> Any:
            here = self._next < len(self._coming) and self._coming[self._next] == start.boundary
            return self._fresh(False, start.boundary, start.arguments) if here else None

        handle = place.register_forward_pre_hook(hook, prepend=True, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def _around(self, path: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._next >= len(self._coming) or self._calls.paths[self._coming[self._next]] != path:
                raise ReplayError(f"{path or 'the network'} was called where it was not called before")
            number = self._coming[self._next]
            self._next += 1
            if number in self._back:
                return self._fresh(True, number, self._back[number])
            if number in self._wanted:
                self._arguments[number] = self._fresh(False, number, (args, kwargs))
            result = original(*args, **kwargs)
            if number in self._catch:
                self._caught[number] = self._fresh(True, number, result)
            return result

        return forward

    def _fresh(self, result: bool, number: int, value: Any) -> Any:
        """The value, or a copy where the network writes it in place afterwards."""
        return nested.each_tensor(Tensor.clone, value) if (result, number) in self._calls.altered else value

    def _held(self, number: int, boundary: _Boundary) -> Held:
        results = {c: self._back[c] if c in self._back else self._caught[c] for c in boundary.ended}
        kept = {c: value if c in boundary.read else nested.each_tensor(nested.few, value) for c, value in results.items()}
        return Held(number, self._arguments[number], kept)


@contextlib.contextmanager
def _wrapped(
    model: nn.Module, paths: Collection[str] | None, around: Callable[[str, Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Put a function around the forward methods of some modules (None: of all) for a while."""
    modules = list(model.named_modules()) if paths is None else [(path, model.get_submodule(path)) for path in paths]
    own = [(module, module.__dict__.get("forward")) for _, module in modules]
    try:
        for path, module in modules:
            module.__dict__["forward"] = around(path, module.forward)
        yield
    finally:
        for module, before in own:
            if before is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = before


def _ancestors(calls: _Calls, number: int) -> Iterator[int]:
    while number >= 0:
        number = calls.parents[number]
        yield number
