"""A task that can't be compressed sensibly is refused when it is made, with the mend."""

from __future__ import annotations

import math
import threading
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import reptile_env
from reptile_env.tasks.metrics import accuracy
from tests.helpers import classes, generator_states, small_network

NAN = float("nan")
X, Y = classes(40)
LOCKED = small_network()
LOCKED.lock = threading.Lock()  # type: ignore[assignment]
BROKEN = small_network()
with torch.no_grad():
    BROKEN[2].weight[3, 5] = NAN
INFINITE = small_network()
with torch.no_grad():
    INFINITE[0].bias[3] = -math.inf


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise LookupError("nothing here")


class Drawing(nn.Module):
    """Samples in evaluation mode too."""

    def __init__(self, noise: float = 1.0) -> None:
        super().__init__()
        self.layers, self.noise = small_network(), noise

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y + self.noise * torch.randn_like(y)


class Squeezing(nn.Module):
    """Drops every dimension of size 1, that of a batch of one example among them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).squeeze()


def weight_normed() -> nn.Module:
    """A network whose first weight is made anew at every call, as the old way of norming weights has it."""
    model = small_network()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # there is a newer way
        nn.utils.weight_norm(model[0])
    model(X)
    return model


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": None}, TypeError, "torch.nn.Module, got NoneType"),
        ({"model": LOCKED}, ValueError, "the network can't be copied: cannot pickle .*such as locks"),
        ({"model": weight_normed()}, ValueError, "the network can't be copied: .*remove torch.nn.utils.weight_norm"),
        # This device stands for whatever is not the CPU.
        ({"model": small_network().to("meta")}, ValueError, "0.weight is on meta; .*give model.cpu"),
        ({"train": (X[:20].to("meta"), Y[:20])}, ValueError, r"train: tensors are on meta; .*give tensor.cpu\(\)"),
        ({"valid": (X[20:], Y[20:].to("meta"))}, ValueError, "valid: tensors are on meta"),
        ({"model": INFINITE}, ValueError, "0.bias holds NaN or infinity"),
        ({"model": BROKEN}, ValueError, "2.weight holds NaN or infinity; train or load the network again"),
        ({"model": nn.Linear(3, 4)}, ValueError, r"does not run on the first examples of train: .*they are torch.float32 of shape"),
        ({"train": (X[:20].double(), Y[:20])}, ValueError, r"they are torch.float64 of shape \(20, 8\): give .*kind of number"),
        ({"train": (X[:0], Y[:0])}, ValueError, "train: the split has size 0; give it at least one example"),
        ({"valid": (X[:0], Y[:0])}, ValueError, "valid: the split has size 0"),
        ({"test": (X[:0], Y[:0])}, ValueError, "test: the split has size 0"),
        ({"train": DataLoader(TensorDataset(X[:0], Y[:0]))}, ValueError, "train: the split has size 0"),
        ({"train": (X[20:], Y[20:])}, ValueError, "train and valid share 20 examples; split the data"),
        ({"test": (X[15:25], Y[15:25])}, ValueError, "train and test share 5 examples"),
        ({"train": (X[:10], Y[:9])}, ValueError, r"train: inputs \(10, 8\) and targets \(9,\) differ"),
        ({"train": ((X[:10], X[:9]), Y[:10])}, ValueError, "train: inputs .* differ"),
        ({"train": (X[:10] * NAN, Y[:10])}, ValueError, "train: inputs hold NaN or infinity; clean the data"),
        ({"train": None}, TypeError, r"train: expected \(inputs, targets\), a Dataset or a DataLoader, got NoneType"),
        ({"valid": X}, TypeError, r"valid: expected \(inputs, targets\)"),
        ({"train": ("abc", Y[:3])}, TypeError, "train: inputs must be tensors or arrays of numbers, got str"),
        ({"train": (X[:3], "abc")}, TypeError, "train: targets must be tensors or arrays of numbers, got str"),
        ({"train": ([["a"]], Y[:1])}, TypeError, "train: inputs must be tensors, got list"),
        ({"train": TensorDataset(X[:20])}, TypeError, r"every item must be an \(inputs, target\) pair"),
        ({"metric": "acc"}, ValueError, "unknown metric 'acc'; known: accuracy, mse, mae, .*; did you mean 'accuracy'"),
        ({"metric": 3}, TypeError, r"metric must be a name or a callable\(outputs, targets\), got int"),
        ({"metric": lambda o, t: NAN}, ValueError, "metric .* returned nan; it must be finite"),
        ({"metric": lambda o, t: o}, ValueError, "one number for the whole split, got a tensor of shape"),
        ({"metric": lambda o, t: None}, ValueError, "one number, got NoneType"),
        ({"metric": lambda o, t: o @ o}, ValueError, r"metric .* can't score outputs \(20, 4\) against targets \(20,\)"),
        ({"metric": lambda o, t: {}["f1"]}, ValueError, r"metric .* can't score outputs .*KeyError: 'f1'"),
        ({"metric": lambda o, t: 1 / 0}, ValueError, r"metric .* can't score outputs .*ZeroDivisionError"),
        ({"model": Failing()}, ValueError, "does not run on the first examples of train: nothing here"),
        ({"model": Drawing()}, ValueError, r"different outputs for the same input.*only when self\.training"),
        ({"model": Drawing(1e-6)}, ValueError, "different outputs for the same input"),
        ({"metric": "mse"}, ValueError, r"metric 'mse' can't score outputs \(20, 4\) against targets \(20,\)"),
        ({"model": nn.Linear(8, 1), "loss": lambda o, t: o.mean()}, ValueError, "one logit tells no classes apart"),
        ({"valid": (X[20:], Y[20:, None])}, ValueError, r"give all splits the same kind"),
        ({"loss": "crossentropy"}, ValueError, "unknown loss 'crossentropy'.*did you mean 'cross_entropy'"),
        ({"loss": 3}, TypeError, "loss must be a name or a callable"),
        ({"loss": lambda o, t: math.inf}, ValueError, "loss returned inf"),
        ({"loss": "bce_with_logits"}, ValueError, "loss can't score outputs"),
        ({"train": (X[:20], Y[:20] + 1)}, ValueError, r"train holds labels from 1 to 4, .* 4 logits, for 0 to 3; mend the labels"),
        ({"valid": (X[20:], Y[20:] + 1)}, ValueError, "valid holds labels from 1 to 4"),
        ({"test": (X[:9] * 2, Y[:9] * 0 - 1)}, ValueError, "test holds labels from -1 to -1"),
        ({"w": 0.0}, ValueError, r"w=0.0 is outside \(0, 1\)"),
        ({"w": "high"}, TypeError, "w must be a number, got str 'high'"),
    ],
)
def test_a_bad_task_is_refused_when_it_is_made(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    good = {"model": small_network(), "train": (X[:20], Y[:20]), "valid": (X[20:], Y[20:])}
    with pytest.raises(error, match=message):
        reptile_env.Task(**{**good, **arguments})


def test_labels_that_cross_entropy_leaves_out_are_no_error_and_not_counted() -> None:
    network = small_network()
    with torch.no_grad():
        masked = network(X).argmax(1)
    masked[10:15] = masked[30:35] = -100
    task = reptile_env.Task(network, (X[:20], masked[:20]), (X[20:], masked[20:]))
    assert task.score(task.outputs(task.model, task.valid), task.valid)[0] == 1
    bytes_ = torch.full((2,), 156, dtype=torch.uint8)  # -100 to whoever takes them for signed
    assert accuracy(torch.eye(200)[156:158], bytes_) == 0.5


def test_examples_are_known_again_whatever_the_order_of_their_names() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = small_network()

        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            y: Tensor = self.layers(first + second)
            return y

    other = X.flip(0)
    with pytest.raises(ValueError, match="train and valid share 40 examples"):
        reptile_env.Task(Named(), ({"first": X, "second": other}, Y), ({"second": other, "first": X}, Y))


def test_outputs_of_another_shape_than_the_targets_never_broadcast() -> None:
    # torch's own mse_loss of (n, 1) and (n,) is a mean over n * n pairs.
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 1))
    for name in ("mse", "mae"):
        with pytest.raises(ValueError, match=r"\(20, 1\) and \(20,\) differ; reshape the targets"):
            reptile_env.Task(model, (X[:20], X[:20, 0]), (X[20:], X[20:, 0]), metric=name, loss=name)


def test_a_network_that_fails_on_later_examples_is_refused() -> None:
    x, _ = classes(297)  # 40 to train on and 257: a batch of 256 and one of a single example
    whole = {"model": Squeezing(), "train": (x[:40], x[:40, 0]), "metric": "mse", "loss": "mse"}
    with pytest.raises(ValueError, match="runs on the first examples of valid, but not on all: zero-dimensional"):
        reptile_env.Task(valid=(x[40:], x[40:, 0]), **whole)
    reptile_env.Task(valid=(x[41:], x[41:, 0]), **whole)


def test_a_network_is_probed_without_touching_generators() -> None:
    before = generator_states()
    with pytest.raises(ValueError, match="different outputs"):
        reptile_env.Task(Drawing(), (X[:20], Y[:20]), (X[20:], Y[20:]))
    assert generator_states() == before
