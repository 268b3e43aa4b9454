"""A built-in task of one's own: the recipe of CONTRIBUTING.md fits the code that it is for."""

from __future__ import annotations

import re
import sys
from types import ModuleType

import pytest
import torch

from benchmarks.__main__ import app
from reptile_env.evaluation.live import structure_of
from reptile_env.tasks import recipe as recipes
from reptile_env.tasks import registry
from reptile_env.tasks.catalogue import core
from tests.helpers import ROOT

RECIPE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n## Add a task\n")[1].split("\n## ")[0]


def test_the_lines_around_the_new_one_are_those_of_the_catalogue() -> None:
    (catalogue, lines) = re.findall(r"^`(\S+)`:\n\n```diff\n(.*?)^```$", RECIPE, re.MULTILINE | re.DOTALL)[0]
    around = [line[1:] for line in lines.splitlines() if line.startswith(" ")]
    assert around
    assert set(around) <= set((ROOT / catalogue).read_text(encoding="utf-8").splitlines())


def test_the_task_of_the_recipe_is_trained_and_made(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", RECIPE, re.MULTILINE | re.DOTALL)
    ((line,)) = re.findall(r"^\+ +(TaskSpec.*),$", RECIPE, re.MULTILINE)
    spec = eval(line, vars(core))
    path = spec.builder.partition(":")[0]
    module = ModuleType(path)
    monkeypatch.setitem(sys.modules, path, module)
    exec(code, module.__dict__)
    module.RECIPE.training["epochs"] = 1
    with pytest.raises(FileNotFoundError, match=f"no checkpoint yet; python -m benchmarks checkpoints {spec.name} --train-only"):
        registry.resolve(spec.builder)(spec.name)
    before = torch.get_rng_state()
    trained = registry.resolve(spec.trainer)(spec.name, lambda done: None)
    monkeypatch.setattr(recipes, "load_checkpoint", lambda name: trained.state_dict())
    made = registry.resolve(spec.builder)(spec.name)
    assert torch.equal(torch.get_rng_state(), before)
    assert (made.name, made.family) == (spec.name, spec.family)
    # What tests ask of every core task.
    sizes = structure_of(made).sizes
    assert 5 <= len(sizes) <= 8
    assert max(sizes) >= 3 * min(sizes)
    assert 20_000 < sum(p.numel() for p in made.model.parameters()) < 150_000


def test_the_commands_of_the_recipe_are_there() -> None:
    named = set(re.findall(r"python -m benchmarks (\S+)", RECIPE))
    assert named == {"checkpoints", "choose-w", "tasks-page"}
    assert named <= {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
