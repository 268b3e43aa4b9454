"""A task: what is compressed."""

from __future__ import annotations

import copy
import itertools
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reptile_env.errors import first_line, number
from reptile_env.tasks.metrics import Score, counted, resolve_loss, resolve_metric, score
from reptile_env.tasks.splits import Split, as_split, call, own_generators, tensors_of

BATCH_SIZE = 256
_unnamed = itertools.count()


class Task:
    """A trained network, its data, its metric and its loss. It knows nothing of compression.

    The network is copied, put in evaluation mode and frozen: what happens later to yours changes nothing here.

    Args:
        model: a trained network.
        train: examples for recovery, calibration and sensitivity: ``(inputs, targets)`` tensors, a Dataset or a
            DataLoader. Inputs may be a tensor, a tuple of tensors (``model(*inputs)``) or a dict (``model(**inputs)``).
        valid: examples for rewards and observations; not used to train the network.
        test: examples for reports, read by one function alone; optional.
        metric: ``"accuracy"``, ``"mse"``, ``"mae"``, ``"spearman"``, ``"negative_elbo"``, ``"negative_elbo_with_logits"``
            or a callable ``(outputs, targets) -> number``, given the outputs of a whole split, such as a `FrechetDistance`.
        loss: ``"cross_entropy"``, ``"mse"``, ``"mae"``, ``"bce_with_logits"``, ``"negative_elbo"``, ``"negative_elbo_with_logits"``
            or such a callable.
        name: shown in reports; generated when left out.
        family: kind of network, shown in lists.
        higher_is_better: direction of a callable metric (default: its attribute of that name, else True).
        w: weight of the metric in the utility, in (0, 1); chosen from the uniform sweep when left out.

    Raises:
        TypeError: `model`, data, metric or loss of the wrong type.
        ValueError: NaN or infinite weights, weights or examples that are not on the CPU, an empty split, splits that share
            examples, labels out of range, a network that fails or gives different outputs for the same input, outputs that the
            metric or loss cannot score, `w` outside (0, 1).
    """

    def __init__(
        self,
        model: nn.Module,
        train: Any,
        valid: Any,
        test: Any = None,
        metric: str | Score = "accuracy",
        loss: str | Score = "cross_entropy",
        *,
        name: str | None = None,
        family: str = "user",
        higher_is_better: bool | None = None,
        w: float | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        for what, value, kind in (("name", name, str), ("family", family, str), ("higher_is_better", higher_is_better, bool)):
            if value is not None and not isinstance(value, kind):
                raise TypeError(f"{what} must be a {kind.__name__}, got {type(value).__name__} {value!r:.80}")
        self.name = name or f"user-task-{next(_unnamed)}"
        for key, tensor in model.state_dict().items():
            if tensor.device.type != "cpu":
                raise ValueError(f"task {self.name!r}: {key} is on {tensor.device}; measurements are the CPU's: give model.cpu()")
            if is_broken(tensor):
                raise ValueError(f"task {self.name!r}: {key} holds NaN or infinity; train or load the network again")
        if w is not None and not 0 < number("w", w) < 1:
            raise ValueError(f"w={w} is outside (0, 1); it weighs the metric against the cost")
        try:
            self.model = copy.deepcopy(model).eval().requires_grad_(False)
        except Exception as error:  # whatever a part of the network raises
            raise ValueError(
                f"task {self.name!r}: the network can't be copied: {first_line(error)}; remove torch.nn.utils.weight_norm and the "
                "like first, and what is no part of its numbers, such as locks and open files"
            ) from error
        self.train = as_split(train, "train")
        self.valid = as_split(valid, "valid")
        self._test = None if test is None else as_split(test, "test")
        self.metric_name, self.metric, self.higher_is_better = resolve_metric(metric, higher_is_better)
        self.loss = resolve_loss(loss)
        self.family = family
        self.w = None if w is None else float(w)
        self.registered = False
        # What others derive from the task and keep for as long as it lives; no part of its value.
        self.kept: dict[Any, Any] = {}
        self._check_overlap()
        for split_name, split in self._splits().items():
            self._probe(split_name, split)
        self.score(self._dense_outputs(), self.valid)

    @property
    def has_test(self) -> bool:
        """Whether a test split was given."""
        return self._test is not None

    def test_split(self) -> Split:
        """The test split: for reports alone, never for a reward, an observation or a choice.

        Raises:
            ValueError: the task was made without one.
        """
        if self._test is None:
            raise ValueError(f"task {self.name!r} has no test split; give Task(..., test=...)")
        return self._test

    @property
    def skipped(self) -> dict[str, str]:
        """Layers with weights that can't be cut, each with the reason, as the environment or evaluator made last found them.

        Raises:
            ValueError: none was made for this task yet.
        """
        if "skipped" not in self.kept:
            raise ValueError(
                f"task {self.name!r}: which layers can't be cut is found when an environment is made for the task; "
                "call gym.make(..., task=task) or reptile_env.compress first"
            )
        return dict(self.kept["skipped"])

    def score(self, outputs: Any, split: Split) -> tuple[float, float]:
        """Metric and loss of the outputs of a whole split.

        Raises:
            ValueError: the metric or loss fails on them, or does not return one finite number.
        """
        with torch.no_grad():
            metric = score(self.metric, f"metric {self.metric_name!r}", outputs, split.targets)
            return metric, score(self.loss, "loss", outputs, split.targets)

    def outputs(self, model: nn.Module, split: Split) -> Any:
        """Outputs of a network of this task for a whole split."""
        with torch.inference_mode():
            return concatenate([call(model, batch.inputs) for batch in split.batches(BATCH_SIZE)])

    def _dense_outputs(self) -> Any:
        """What the network makes of the whole of valid; `_probe` has seen it run on the first examples."""
        try:
            return self.outputs(self.model, self.valid)
        except Exception as error:  # whatever the network raises
            raise ValueError(
                f"task {self.name!r}: the network runs on the first examples of valid, but not on all: {first_line(error)}; mend "
                f"the examples, or let it take any batch, from {BATCH_SIZE} examples to a last one alone, and return a row for each"
            ) from error

    def _splits(self) -> dict[str, Split]:
        return {"train": self.train, "valid": self.valid} | ({"test": self._test} if self._test is not None else {})

    def _probe(self, name: str, split: Split) -> None:
        """Refuse a split that the network does not run on now, and not when everything else is done."""
        if split.targets.shape[1:] != self.valid.targets.shape[1:] or split.targets.dtype != self.valid.targets.dtype:
            theirs, ours = self.valid.targets, split.targets
            raise ValueError(
                f"task {self.name!r}: targets of {name} are {ours.dtype} of shape {tuple(ours.shape)}, "
                f"those of valid {theirs.dtype} of shape {tuple(theirs.shape)}; give all splits the same kind"
            )
        with torch.no_grad(), own_generators():
            try:
                outputs, again = (call(self.model, split[:2].inputs) for _ in range(2))
            except Exception as error:  # whatever the network raises
                kinds = ", ".join(f"{tensor.dtype} of shape {tuple(tensor.shape)}" for tensor in tensors_of(split.inputs))
                raise ValueError(
                    f"task {self.name!r}: the network does not run on the first examples of {name}: {error}; they are {kinds}: "
                    "give inputs as the network was trained on, its weights' kind of number included (.float())"
                ) from error
        if not _are_equal(outputs, again):
            raise ValueError(
                f"task {self.name!r}: the network gives different outputs for the same input, so no measurement could be repeated; "
                "let it sample (dropout, latent variables) only when self.training: F.dropout(x, p, self.training)"
            )
        self._check_labels(name, split.targets, outputs)

    def _check_labels(self, name: str, labels: Tensor, outputs: Any) -> None:
        """Refuse classes that the network has no logit for: the loss would fail on them, of test data when all is done."""
        if self.loss is not functional.cross_entropy or labels.is_floating_point():
            return
        if not isinstance(outputs, Tensor) or outputs.dim() < 2:
            return
        classes = outputs.shape[1]
        labels = labels[counted(labels)]
        if labels.numel() and not (labels.min() >= 0 and labels.max() < classes):
            raise ValueError(
                f"task {self.name!r}: {name} holds labels from {labels.min()} to {labels.max()}, and the network has {classes} "
                f"logits, for 0 to {classes - 1}; mend the labels, or give the network as many logits"
            )

    def _check_overlap(self) -> None:
        splits = self._splits()
        seen = {name: split.fingerprints() for name, split in splits.items()}
        for first, second in itertools.combinations(seen, 2):
            shared = len(seen[first] & seen[second])
            if shared > 0.01 * min(len(splits[first]), len(splits[second])):
                raise ValueError(
                    f"task {self.name!r}: {first} and {second} share {shared} examples; split the data so that they are disjoint"
                )
            if shared:
                warnings.warn(f"task {self.name!r}: {first} and {second} share {shared} examples", stacklevel=3)

    def __deepcopy__(self, memo: dict[int, Any]) -> Task:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"kept": {}}

    def __reduce__(self) -> Any:
        if self.registered:
            from reptile_env.tasks.registry import make_task

            return make_task, (self.name,)
        return super().__reduce__()

    def __repr__(self) -> str:
        parameters = sum(p.numel() for p in self.model.parameters())
        return f"Task({self.name!r}, {type(self.model).__name__}, {parameters:,} params, {len(self.valid)} validation examples)"


def is_broken(tensor: Tensor) -> bool:
    """Whether a tensor of a network holds NaN or infinity; a mask that attention adds, of 0 and minus infinity alone, may."""
    if not tensor.is_floating_point() or torch.isfinite(tensor).all():
        return False
    return not bool(((tensor == 0) | (tensor == -torch.inf)).all())


def _are_equal(first: Any, second: Any) -> bool:
    """Whether two outputs hold the same numbers; NaN equals NaN."""
    pairs = zip(*(torch.utils._pytree.tree_leaves(outputs) for outputs in (first, second)), strict=False)
    tensors = [(a, b) for a, b in pairs if isinstance(a, Tensor) and isinstance(b, Tensor)]
    return all(a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in tensors)


def concatenate(outputs: list[Any]) -> Any:
    """Outputs of consecutive batches as those of one batch: tensors, or tuples or dicts of tensors."""
    first = outputs[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.cat(outputs)
    if isinstance(first, dict):
        return {key: concatenate([o[key] for o in outputs]) for key in first}
    if isinstance(first, (tuple, list)):
        return tuple(concatenate([o[i] for o in outputs]) for i in range(len(first)))
    raise ValueError(f"the network returned {type(first).__name__}; it must return tensors, or tuples or dicts of tensors")
