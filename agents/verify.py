"""``python -m agents verify``: does a saved network measure what its table says?"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

import reptile_env
from agents.arguments import BadArgumentError, resolve_task
from reptile_env.errors import first_line

# Far below one example of any test split, far above the rounding of another order of summation.
TOLERANCE = 1e-5
# What another device than this one measured: there a rounding may turn an example or two.
ELSEWHERE = 5e-3


def verify(out: Path) -> int:
    """Load ``out/network`` and measure it on the test split (on the validation split where the task has none).

    Returns:
        The exit status: 0 when it measures what the table says, else 1.

    Raises:
        BadArgumentError: `out` is not a folder that ``compress`` wrote.
    """
    for name in ("run.json", "table.json", "network"):
        if not (out / name).exists():
            raise BadArgumentError(f"{out} is not a finished run of compress: it holds no {name}")
    try:
        run = json.loads((out / "run.json").read_text(encoding="utf-8"))
        results = json.loads((out / "table.json").read_text(encoding="utf-8"))
        torch.set_num_threads(run["threads"])
        device = run["others"].get("device") or "cpu"
        (chosen,) = [row for row in results["rows"] if row["chosen"]]
        network = reptile_env.load(out / "network")
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise BadArgumentError(f"{out} is not a finished run of compress: {first_line(error)}") from error
    task = resolve_task(run["task"])
    which, split = ("test", task.test_split()) if task.has_test else ("valid", task.valid)
    measured, _ = task.score(task.outputs(network.model, split), split)
    tolerance = TOLERANCE if device == "cpu" else ELSEWHERE
    same = math.isclose(measured, chosen[which], rel_tol=tolerance, abs_tol=tolerance)
    by = "" if device == "cpu" else f", which {device} measured"
    verdict = ("the same as in the table" if same else f"DIFFERENT from the table's {chosen[which]:.6f}") + by
    print(f"{out / 'network'}, loaded in a new process: {which} {results['metric']} {measured:.4f}, {verdict}")
    return 0 if same else 1
