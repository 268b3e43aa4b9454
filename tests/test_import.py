"""Which room may look into which, and what an import costs."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT, run_python

# Lowest first; a module may import from its own room and the rooms below.
ROOMS = [
    ["reptile_env.errors"],
    ["reptile_env.tasks"],
    ["reptile_env.compression"],
    # rewards holds the formulas of utility, which the reference of an evaluator is made of.
    ["reptile_env.evaluation", "reptile_env.rewards"],
    ["reptile_env"],
    ["agents"],
    ["benchmarks"],
]
MODULES = sorted(path for room in ("reptile_env", "agents", "benchmarks") for path in (ROOT / room).rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


NAMES = {module_name(path) for path in MODULES}


def room(module: str) -> int:
    """The room with the longest name that `module` lies in."""
    fitting = [(len(name), level) for level, names in enumerate(ROOMS) for name in names if f"{module}.".startswith(f"{name}.")]
    return max(fitting)[1]


def imports(path: Path) -> Iterator[str]:
    """Modules that a file imports, at its top or inside a function; those for types alone too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they lead"
            assert node.module is not None
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                yield inside if inside in NAMES else node.module


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_one_way(path: Path) -> None:
    mine = module_name(path)
    ours = [name for name in imports(path) if name.split(".")[0] in {"reptile_env", "agents", "benchmarks"}]
    assert all(name in NAMES or importlib.util.find_spec(name) for name in ours)
    upwards = [name for name in ours if room(name) > room(mine)]
    assert not upwards, f"{mine} imports {upwards}, which lie above it"


def test_the_wall_would_notice() -> None:
    order = ["tasks.task", "compression.engine", "evaluation.live", "env"]
    levels = [room(f"reptile_env.{name}") for name in order]
    assert [*levels, room("agents.sac"), room("benchmarks")] == sorted({*levels, room("agents.sac"), room("benchmarks")})
    assert {module_name(ROOT / "reptile_env" / f"{n.replace('.', '/')}.py") for n in order} <= NAMES
    live = ROOT / "reptile_env" / "evaluation" / "live.py"
    assert {"reptile_env.compression.engine", "reptile_env.tasks.task"} <= set(imports(live))


def test_the_package_needs_no_rl_library_and_no_tests() -> None:
    foreign = {"stable_baselines3", "ray", "agents", "benchmarks", "tests", "pytest", "typer", "rich", "tensorboard", "cma"}
    for path in MODULES:
        if module_name(path).split(".")[0] == "reptile_env":
            assert not {name.split(".")[0] for name in imports(path)} & foreign, path


@pytest.mark.parametrize("module", ["reptile_env", "reptile_env.env", "reptile_env.compression.cost", "reptile_env.tasks.registry"])
def test_importing_loads_no_torch_and_prints_nothing(module: str) -> None:
    found = run_python(
        f"""
        import sys
        import {module}
        loaded = [name for name in ("torch", "sklearn", "pygame", "stable_baselines3") if name in sys.modules]
        assert not loaded, loaded
        """
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_listing_tasks_and_ids_loads_no_torch() -> None:
    found = run_python(
        """
        import sys
        import gymnasium as gym
        import reptile_env
        assert len(reptile_env.tasks()) >= 2
        assert "ReptilePrune-v0" in gym.registry
        assert {"Task", "compress", "explain", "load", "make_task", "tasks"} <= set(dir(reptile_env))
        try:
            reptile_env.nonsense
        except AttributeError as error:
            assert "nonsense" in str(error)
        assert "torch" not in sys.modules
        reptile_env.Task
        assert "torch" in sys.modules
        """
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
