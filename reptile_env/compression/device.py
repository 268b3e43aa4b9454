"""The device on which compressed networks run: over the data of a measurement, and while they are trained.

Cutting, refitting and rounding stay on the CPU, where they are small work on small matrices; a copy of the finished network goes
to the device, and only its outputs come back.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from reptile_env.errors import first_line
from reptile_env.tasks.splits import Inputs, Split, call, map_inputs

CPU = "cpu"
BATCH_SIZE = 512  # examples at a time: the time of a small network goes into starting its kernels


class Device:
    """A device beside the CPU.

    Args:
        name: as torch names it, such as ``cuda`` or ``cuda:1``.

    Raises:
        ValueError: torch knows no such device, or it can't be used here.
    """

    def __init__(self, name: str) -> None:
        try:
            asked = torch.device(name)
        except RuntimeError as error:
            raise ValueError(f"device={name!r} is none that torch knows: {first_line(error)}; give 'cpu' or 'cuda'") from error
        try:
            there = torch.ones(1, device=asked)
            there.cpu()
        except (RuntimeError, AssertionError, ImportError) as error:
            raise ValueError(
                f"device={name!r} can't be used here: {first_line(error)}; give device='cpu', or install a torch built for it"
            ) from error
        self.device = there.device
        self.name = str(there.device)

    @property
    def model_name(self) -> str:
        """What the device is, such as the name of the GPU: other ones round differently."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.name

    def batches(self, split: Split) -> list[Inputs]:
        """Inputs of a split in batches, on the device."""
        return [self._moved(batch.inputs) for batch in split.batches(BATCH_SIZE)]

    def outputs(self, model: nn.Module, batches: Sequence[Inputs]) -> list[Any]:
        """Outputs of a network for each batch, on the CPU. The network is left as it is."""
        with exactly():
            there = self.copy(model)
            return [on_cpu(call(there, inputs)) for inputs in batches]

    def check(self, name: str, model: nn.Module, examples: Split) -> None:
        """Refuse a network that does not run on the device, before anything is computed.

        Raises:
            ValueError: it does not.
        """
        try:
            with torch.inference_mode():
                self.outputs(model, self.batches(examples))
        except Exception as error:  # whatever the network raises
            raise ValueError(
                f"task {name!r}: the network runs on the CPU and not on {self.name}: {first_line(error)}; let it make tensors on "
                "the device of its input, keep those that it holds as buffers (register_buffer), or give device='cpu'"
            ) from error

    @contextlib.contextmanager
    def holding(self, model: nn.Module, seed: int) -> Iterator[None]:
        """A network on the device, to be trained there; afterwards it is on the CPU again. No other may share its tensors."""
        with exactly(), self._own_generator(seed):
            try:
                model.to(self.device)
                yield
            finally:
                model.to(CPU)

    def call(self, model: nn.Module, inputs: Inputs) -> Any:
        """Outputs of a network that is on the device, on the CPU; gradients go through."""
        return on_cpu(call(model, self._moved(inputs)))

    @contextlib.contextmanager
    def _own_generator(self, seed: int) -> Iterator[None]:
        """What is drawn on the device meanwhile, by dropout, is drawn from `seed` and leaves its generator as it was."""
        if self.device.type == CPU:
            yield
            return
        there = torch.get_device_module(self.device)
        chosen = there.device(self.device) if hasattr(there, "device") else contextlib.nullcontext()  # of MPS there is but one
        with torch.random.fork_rng([self.device], device_type=self.device.type), chosen:
            there.manual_seed(seed)
            yield

    def _moved(self, inputs: Inputs) -> Inputs:
        return map_inputs(lambda t: t.to(self.device), inputs)

    def copy(self, model: nn.Module) -> nn.Module:
        """A copy of a network on the device."""
        # deepcopy takes for copied what the memo holds: no tensor is copied on the CPU first, and tied ones stay tied.
        memo: dict[int, Any] = {}
        for tensor in itertools.chain(model.parameters(), model.buffers()):
            moved = tensor.detach().to(self.device, copy=True)
            memo[id(tensor)] = nn.Parameter(moved, requires_grad=False) if isinstance(tensor, nn.Parameter) else moved
        there = copy.deepcopy(model, memo)
        for module in there.modules():
            if isinstance(module, nn.RNNBase):
                module.flatten_parameters()  # as cuDNN wants them; elsewhere it does nothing
        return there


def make_device(name: str | None) -> Device | None:
    """The device of that name; None for the CPU, on which nothing has to be moved."""
    return None if name in (None, CPU) else Device(name)


def on_cpu(outputs: Any) -> Any:
    """Outputs of a network, whatever they are nested in, on the CPU."""
    return pytree.tree_map_only(Tensor, lambda t: t.to(CPU), outputs)


@contextlib.contextmanager
def exactly() -> Iterator[None]:
    """Float32 in full and the same kernels each time: a measurement is to be a pure function of its plan."""
    if not torch.backends.cudnn.is_available():  # type: ignore[no-untyped-call]
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
