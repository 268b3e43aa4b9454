"""An agent of one's own: the recipe that the README leads to makes runs that validation confirms."""

from __future__ import annotations

import re
import sys
from types import ModuleType

import pytest

from agents.registry import AGENTS, AgentSpec
from benchmarks.checks import problems_of
from tests.helpers import ROOT
from tests.suites import TINY, made

RECIPES = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
NAME, MODULE = "one-plus-one", "agents.one_plus_one"


def test_the_readme_leads_to_the_recipe() -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Benchmark your own agent")[1].split("\n## ")[0]
    assert "(CONTRIBUTING.md#add-an-agent)" in section
    assert "\n## Add an agent\n" in RECIPES


def test_the_agent_of_the_recipe_is_run_and_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPES.split("\n## Add an agent\n")[1]
    (code,) = re.findall(r"^```python\n(.*?)^```$", recipe, re.MULTILINE | re.DOTALL)
    ((path, summary, measure),) = re.findall(rf'^\+ +"{NAME}": AgentSpec\("(.*)", "(.*)", "(.*)"\),$', recipe, re.MULTILINE)
    module = ModuleType(MODULE)
    exec(code, module.__dict__)
    monkeypatch.setitem(sys.modules, MODULE, module)
    monkeypatch.setitem(AGENTS, NAME, AgentSpec(path, summary, measure))
    run = made(NAME)
    assert run.evaluated == TINY.cases[0].evaluations
    assert problems_of(run, TINY, range(run.evaluated)) == []
