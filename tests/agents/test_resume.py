"""Runs that were killed go on as if nothing had happened."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from agents.__main__ import main
from agents.arguments import Options
from tests.helpers import ROOT

STEPS = 150
AGENTS = ["random", "cma-es", "sac"]

# A user's task whose metric kills the process, as kill -9 would, when it is called the KILL_AFTERth time.
TASK = """
import os, signal
import torch, reptile_env

calls = 0

def accuracy(outputs, targets):
    global calls
    calls += 1
    if calls == int(os.environ.get("KILL_AFTER", "0")):
        os.kill(os.getpid(), signal.SIGKILL)
    return (outputs.argmax(1) == targets).float().mean()

def task():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 8, generator=generator)
    y = (x @ torch.randn(8, 4, generator=generator)).argmax(1)
    with torch.random.fork_rng():
        torch.manual_seed(int(os.environ.get("WEIGHTS", "0")))
        hidden = [torch.nn.Linear(8, 24), torch.nn.ReLU(), torch.nn.Linear(24, 12), torch.nn.ReLU()]
        net = torch.nn.Sequential(*hidden, torch.nn.Linear(12, 4))
    with torch.enable_grad():
        steps = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(60):
            steps.zero_grad()
            torch.nn.functional.cross_entropy(net(x[:200]), y[:200]).backward()
            steps.step()
    return reptile_env.Task(net, (x[:200], y[:200]), (x[200:], y[200:]), metric=accuracy, name="mortal", w=0.7)
"""

# One interpreter for all, since it takes seconds to start; each run is a process of its own, which it forks.
RUNS = """
import json, os, sys
from agents.__main__ import main
from agents.arguments import Options
import agents.train, agents.sb3, agents.cma_es
import agents.outputs, reptile_env.evaluation.disk

agents.outputs._code = reptile_env.evaluation.disk._own_version = lambda: "as tested"

for arguments, kill_after in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        os.environ["KILL_AFTER"] = str(kill_after)
        os._exit(main(arguments))
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and fork")


def arguments(agent: str, folder: Path) -> list[str]:
    hyperparameters = ["--hyperparameters", "quick.yaml"] if agent == "sac" else []
    return ["train", agent, "--task", "mortal:task", "--steps", str(STEPS), "--seed", "3", "--out", str(folder), *hyperparameters]


def kill(folder: Path, runs: list[tuple[list[str], int]]) -> None:
    """Runs, each of which ends by SIGKILL when the network is measured for the given time."""
    command = [sys.executable, "-c", RUNS, json.dumps(runs)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{folder}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert [line for line in done.stdout.split("\n") if line.lstrip("-").isdigit()] == ["-9"] * len(runs), done.stderr


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the task and a run of each agent, killed in the middle; SAC's went on and was killed again."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "mortal.py").write_text(TASK)
    (folder / "quick.yaml").write_text("learning_starts: 20\nbatch_size: 16\n")
    # An agent that learns asks for many plans again, which are then not measured again.
    once = [(arguments(agent, folder / agent), 45 if agent == "sac" else 100) for agent in AGENTS]
    kill(folder, [*once, (["train", "--resume", str(folder / "sac")], 30)])
    return folder


@pytest.fixture
def at_home(killed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder is the one of the runs."""
    monkeypatch.chdir(killed)
    monkeypatch.syspath_prepend(str(killed))
    # Somebody may be editing the code while it is tested.
    monkeypatch.setattr("agents.outputs._code", lambda: "as tested")
    monkeypatch.setattr("reptile_env.evaluation.disk._own_version", lambda: "as tested")
    yield killed
    sys.modules.pop("mortal", None)


def records(folder: Path, agent: str) -> list[dict[str, Any]]:
    """The lines of a trace, without what differs from run to run."""
    lines = (folder / f"trace-{agent}.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def copy(source: Path, target: Path) -> Path:
    target.mkdir()
    for path in source.iterdir():
        if path.is_file():
            (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize("name", AGENTS)
def test_a_killed_run_ends_as_if_it_had_not_been(name: str, at_home: Path, tmp_path: Path) -> None:
    folder = copy(at_home / name, tmp_path / "killed")
    before = records(folder, name)
    assert 10 < len(before) < STEPS
    assert main(["train", "--resume", str(folder)]) == 0
    assert main(arguments(name, tmp_path / "whole")) == 0
    after, whole = records(folder, name), records(tmp_path / "whole", name)
    assert after == whole
    assert after[: len(before)] == before
    kept = [json.loads((each / "best_plan.json").read_text()) for each in (folder, tmp_path / "whole")]
    assert kept[0]["plan"] == kept[1]["plan"]
    assert list((folder / "tensorboard").rglob("events.out.tfevents.*"))
    if name == "sac":
        assert whole[-1]["type"] == "policy"
    # Once more: it is played again from its trace, and there is nothing to add.
    assert main(["train", "--resume", str(folder)]) == 0
    assert records(folder, name) == whole


def test_a_torn_line_is_dropped(at_home: Path, tmp_path: Path) -> None:
    folder = copy(at_home / "random", tmp_path / "torn")
    path = folder / "trace-random.jsonl"
    whole = path.read_text().splitlines(keepends=True)[:40]
    path.write_text("".join(whole)[:-30])
    assert main(["train", "--resume", str(folder)]) == 0
    assert main(arguments("random", tmp_path / "whole")) == 0
    assert records(folder, "random") == records(tmp_path / "whole", "random")


def test_what_was_measured_is_not_measured_again(at_home: Path, tmp_path: Path) -> None:
    mortal: Any = importlib.import_module("mortal")
    folder = copy(at_home / "cma-es", tmp_path / "again")
    known = len(records(folder, "cma-es")) - 1
    assert main(["train", "--resume", str(folder)]) == 0
    uniform = 20  # the sweep, the dense network, and what a task and its evaluator check in the beginning
    assert mortal.calls <= STEPS - known + uniform


@pytest.mark.parametrize(("key", "value"), [("rate", 0.123), ("metric", 0.5), ("episode_return", 7.0), ("evaluation", 77)])
def test_another_past_is_refused(key: str, value: float, at_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copy(at_home / "random", tmp_path / "changed")
    path = folder / "trace-random.jsonl"
    lines = path.read_text().splitlines()
    lines[20] = json.dumps(json.loads(lines[20]) | {key: value})
    path.write_text("\n".join(lines) + "\n")
    assert main(["train", "--resume", str(folder)]) == 1
    told = capsys.readouterr().err
    assert re.search(r"line 21: \w+ was .* and is .* now", told)
    assert path.read_text().splitlines() == lines, "the trace was written on"


@pytest.mark.parametrize("what", ["versions", "code", "weights", "seed", "steps"])
def test_other_conditions_are_refused(
    what: str, at_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(at_home / "random", tmp_path / "changed")
    run = json.loads((folder / "run.json").read_text())
    if what == "weights":
        monkeypatch.setenv("WEIGHTS", "1")
        expected = "conditions was"
    elif what == "versions":
        run["versions"]["torch"] = "1.0"
        expected = "versions torch was '1.0' when the run began"
    elif what == "code":
        run["versions"]["code"] = "another"
        expected = "versions code was 'another'"
    else:
        run[what] += 1
        expected = {"seed": "seed was 3 and is 4 now", "steps": "evaluations was 150 and is 151 now"}[what]
    (folder / "run.json").write_text(json.dumps(run))
    before = (folder / "trace-random.jsonl").read_text()
    status = main(["train", "--resume", str(folder)])
    assert status == (1 if what in ("seed", "steps") else 2)
    assert expected in capsys.readouterr().err
    assert (folder / "trace-random.jsonl").read_text() == before


def test_two_processes_never_write_the_same_run(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FileLock(at_home / "random" / ".lock"):
        assert main(["train", "--resume", str(at_home / "random")]) == 2
    assert "another process is at work" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--steps", "9"], "leave out '--steps'"),
        (["--set", "max_rate=0.5"], "leave out '--set'"),
        (["random"], "leave out 'algorithm'"),
    ],
)
def test_a_run_goes_on_as_it_began(more: list[str], message: str, at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", str(at_home / "random"), *more]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err
    (tmp_path / "run.json").write_text("{")
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert "damaged" in capsys.readouterr().err
    (tmp_path / "run.json").write_text('{"command": "train", "agent": "sac"}')
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert "another version wrote it" in capsys.readouterr().err
    (tmp_path / "run.json").write_text('{"command": "train", "agent": "scs"}')
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert "there is no agent 'scs'" in capsys.readouterr().err
    options = dataclasses.asdict(Options("digits-mlp", 5))
    for damage in ({"steps": "five"}, {"others": ["device"]}, {"hyperparameters": None}):
        (tmp_path / "run.json").write_text(json.dumps(options | {"command": "train", "agent": "sac"} | damage))
        assert main(["train", "--resume", str(tmp_path)]) == 2
        assert "damaged" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
