"""The recovery that CONTRIBUTING.md shows, as a contributor would write it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import reptile_env
from reptile_env.compression import recovery
from reptile_env.evaluation import settings

SIZES = {1: 256, 3: 16, 5: 192, 7: 12, 9: 96}  # of the groups of digits-mlp


def test_the_recovery_of_the_recipe_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n((?:(?!```).)*?def rescale.*?)```", page, re.DOTALL)
    assert code is not None
    names: dict[str, Any] = dict(vars(recovery))
    exec(code[1], names)
    monkeypatch.setitem(recovery.RECOVERIES, "rescale", names["rescale"])
    monkeypatch.setattr(settings, "RECOVERY_NAMES", (*settings.RECOVERY_NAMES, "rescale"))
    plan = {f"layers.{number}": {"keep": list(range(size // 2))} for number, size in SIZES.items()}
    losses = {name: reptile_env.compress("digits-mlp", plan, recovery=name).measurement.loss for name in ("none", "rescale")}
    assert losses["rescale"] != losses["none"]
