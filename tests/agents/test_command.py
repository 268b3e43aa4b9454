"""``python -m agents``: what it writes, what it refuses."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import reptile_env
from agents.__main__ import main
from agents.trace import Trace
from tests.helpers import ROOT


def test_list_names_agents_and_tasks_without_torch(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; from agents.__main__ import main; main(['list']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(word in done.stdout for word in ("sac", "dqn", "random", "digits-cnn"))
    agents = done.stdout.split("\ntasks\n")[0].splitlines()[1:]
    assert len({line.index("Reptile") for line in agents}) == 1  # in straight columns, whatever the longest name


@pytest.mark.parametrize("algorithm", ["ppo", "dqn", "random"])
def test_train_writes_trace_plan_logs_and_model(algorithm: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main(["train", algorithm, "--task", "digits-mlp", "--steps", "40", "--out", str(out)]) == 0
    trace = Trace.load(out / f"trace-{algorithm}.jsonl")
    assert len(trace.rows) == 40
    assert trace.best is not None
    kept = json.loads((out / "best_plan.json").read_text())
    assert reptile_env.Plan.from_dict(kept["plan"]) == trace.best.plan
    assert list((out / "tensorboard").rglob("events.out.tfevents.*"))
    assert (out / f"{algorithm}.zip").exists() == (algorithm != "random")


def test_compress_from_end_to_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["compress", "--task", "digits-mlp", "--steps", "40", "--out", str(out)]) == 0
    printed = capfd.readouterr().out
    assert "the same as in the table" in printed
    assert (out / "picture.png").stat().st_size > 10_000
    rows = json.loads((out / "table.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["dense", "best uniform", "random search", "sac"]
    assert rows[0]["plan_return"] == 0
    assert rows[1]["plan_return"] == pytest.approx(1)
    with (out / "table.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4
    network = reptile_env.load(out / "network")
    evaluator = reptile_env.compress("digits-mlp", network.plan)
    assert evaluator.measurement == network.measurement


@pytest.mark.slow
def test_compress_on_another_device_says_which_one_measured(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    on = ["--set", "device=cpu:0", "--recovery", "reconstruct+finetune", "--set", "finetune={steps: 5}"]
    assert main(["compress", "--task", "digits-mlp", "--agent", "random", "--steps", "4", *on, "--out", str(out)]) == 0
    assert "the same as in the table, which cpu:0 measured" in capfd.readouterr().out
    table = json.loads((out / "table.json").read_text())
    for row in table["rows"]:
        row["test"] -= 0.01  # more than what another device rounds otherwise
    (out / "table.json").write_text(json.dumps(table))
    assert main(["verify", str(out)]) == 1


@pytest.mark.slow
def test_verify_finds_a_network_that_measures_something_else(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["compress", "--task", "digits-mlp", "--agent", "random", "--steps", "5", "--out", str(out)]) == 0
    table = json.loads((out / "table.json").read_text())
    for row in table["rows"]:
        row["test"] -= 0.01
    (out / "table.json").write_text(json.dumps(table))
    assert main(["verify", str(out)]) == 1
    assert "DIFFERENT" in capfd.readouterr().out
    for name, text in (
        ("table.json", '{"rows": []}'),
        ("table.json", "{"),
        ("run.json", "{}"),
        ("run.json", '{"threads": 1, "others": []}'),
    ):
        kept = (out / name).read_text()
        (out / name).write_text(text)
        assert main(["verify", str(out)]) == 2
        told = capfd.readouterr().err
        assert "is not a finished run of compress" in told
        assert told.count("\n") == 1
        (out / name).write_text(kept)


def test_own_task_without_a_test_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own_compressible.py").write_text(
        "import torch, reptile_env\n"
        "def task():\n"
        "    torch.manual_seed(0)\n"
        "    x, y = torch.randn(200, 6), torch.randint(0, 3, (200,))\n"
        "    net = torch.nn.Sequential(torch.nn.Linear(6, 20), torch.nn.ReLU(), torch.nn.Linear(20, 3))\n"
        "    return reptile_env.Task(net, (x[:100], y[:100]), (x[100:], y[100:]), name='own')\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = ["--task", "own_compressible:task", "--agent", "random", "--steps", "20", "--budget", "0.5", "--out", "run"]
    assert main(["compress", *arguments]) == 0
    assert "valid accuracy" in capfd.readouterr().out
    assert json.loads((tmp_path / "run" / "table.json").read_text())["rows"][-1]["macs"] <= 90


OWN_TRAINED = """
import torch, reptile_env

def task():
    x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    y = (x @ torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).argmax(1)
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(2)
        hidden = [torch.nn.Linear(8, 24), torch.nn.ReLU(), torch.nn.Linear(24, 12), torch.nn.ReLU()]
        net = torch.nn.Sequential(*hidden, torch.nn.Linear(12, 4))
        steps = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(200):
            steps.zero_grad()
            torch.nn.functional.cross_entropy(net(x[:200]), y[:200]).backward()
            steps.step()
    return reptile_env.Task(net, (x[:200], y[:200]), (x[200:], y[200:]), name="trained", w=0.9)
"""


@pytest.fixture
def own_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of a compression of a small network with two groups."""
    (tmp_path / "own_trained.py").write_text(OWN_TRAINED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return ["compress", "--task", "own_trained:task", "--out", str(tmp_path / "run")]


@pytest.mark.slow
def test_the_uniform_sweep_is_whole_however_it_is_measured(own_trained: list[str], tmp_path: Path) -> None:
    assert main([*own_trained, "--agent", "uniform", "--measure", "step", "--budget", "0.5", "--steps", "4"]) == 0
    trace = Trace.load(tmp_path / "run" / "trace-uniform.jsonl")
    assert len(trace.rows) == 2 * 18
    assert trace.rows[-1].plan.widths == (2, 1)  # of 24 and 12 channels, at a rate of 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "steps", "best"), [(0, 10, "random"), (2, 5, "uniform")])
def test_the_best_plan_is_the_one_whose_network_is_saved(
    seed: int, steps: int, best: str, own_trained: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The best uniform rate, 0.35, is none that tree search can choose: its returns are on another scale than the others'."""
    assert main([*own_trained, "--agent", "mcts", "--steps", str(steps), "--seed", str(seed)]) == 0
    assert "1 the best uniform rate that mcts can choose." in capfd.readouterr().out
    kept = json.loads((tmp_path / "run" / "best_plan.json").read_text())
    (chosen,) = [row for row in json.loads((tmp_path / "run" / "table.json").read_text())["rows"] if row["chosen"]]
    assert kept["agent"] == best
    assert kept["plan"] == chosen["plan"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_interrupted_run_keeps_its_trace_and_best_plan(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "agents", "train", "random", "--task", "digits-mlp", "--steps", "1000000", "--out", str(out)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (out / "best_plan.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted" in errors
    assert str(out) in errors
    assert "Traceback" not in errors
    rows = Trace.load(out / "trace-random.jsonl").rows
    kept = json.loads((out / "best_plan.json").read_text())["utility"]
    # The row that was cut off may be better than the plan kept; no earlier one is.
    assert kept in [row.utility for row in rows]
    assert all(kept >= row.utility for row in rows[:-1])


BAD = {
    "unknown agent": (["train", "sca"], "did you mean 'sac'"),
    "unknown task": (["train", "sac", "--task", "digit-cnn"], "did you mean 'digits-cnn'"),
    "no steps": (["train", "sac", "--steps", "0"], "evaluate at least 1 plan"),
    "steps no number": (["train", "sac", "--steps", "many"], "valid integer"),
    "bad seed": (["train", "sac", "--seed", "-1"], "2**32 - 1"),
    "bad budget": (["compress", "--budget", "1.5"], "outside (0, 1]"),
    "unreachable budget": (["compress", "--budget", "0.0001"], "the smallest that can is"),
    "bad cost": (["compress", "--cost", "mac"], "did you mean 'macs'"),
    "no such module": (["compress", "--task", "nowhere_at_all:task"], "there is no module"),
    "no such function": (["compress", "--task", "json:lods"], "did you mean 'loads'"),
    "not a task": (["compress", "--task", "platform:machine"], "must return a reptile_env.Task"),
    "function with an argument": (["compress", "--task", "json:dumps"], "must take no argument"),
    "a file above": (["train", "random", "--out", "/dev/null/run"], "is a file, not a folder"),
    "an empty folder name": (["train", "random", "--out", ""], "names no folder of its own"),
    "unknown option": (["train", "sac", "--stesp", "3"], "--stesp"),
    "unknown command": (["compres"], "compres"),
    "no command": ([], "missing command"),
    "no algorithm": (["train"], "'algorithm'"),
    "no run": (["verify", "nowhere"], "not a finished run"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD[name]
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["train", "random"], ["compress"]])
@pytest.mark.parametrize("error", [ConnectionError, FileNotFoundError, ImportError, ValueError])
def test_a_task_without_its_data_or_packages_says_what_to_do_in_a_line(
    command: list[str],
    error: type[Exception],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing(name: str) -> None:
        raise error(f"{name}: what to do")

    monkeypatch.setattr(reptile_env, "make_task", failing)
    assert main([*command, "--task", "mnist-lenet5", "--out", str(tmp_path / "run")]) == 2
    printed = capsys.readouterr().err
    assert "--task mnist-lenet5: mnist-lenet5: what to do" in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_older_run_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    assert main(["train", "random", "--out", str(tmp_path)]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_network_that_cant_be_saved_is_refused_before_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_branching.py").write_text(
        "import torch, reptile_env\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__(); self.a, self.b = torch.nn.Linear(6, 20), torch.nn.Linear(20, 3)\n"
        "    def forward(self, x):\n"
        "        x = torch.relu(self.a(x))\n"
        "        return self.b(x * 2 if x.sum() > 0 else x)\n"
        "def task():\n"
        "    x, y = torch.randn(200, 6), torch.randint(0, 3, (200,))\n"
        "    return reptile_env.Task(Net(), (x[:100], y[:100]), (x[100:], y[100:]), name='branching')\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["compress", "--task", "own_branching:task", "--steps", "100000", "--out", "run"]) == 2
    told = capsys.readouterr().err
    assert "torch.export can't follow this network" in told
    assert "with_program=False" in told  # the mend
    assert not (tmp_path / "run").exists()


def test_an_agent_trains_on_a_table_without_the_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPTILE_CACHE", str(tmp_path / "cache"))
    arguments = ["train", "random", "--task", "digits-mlp", "--evaluator", "table", "--steps", "300"]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 0
    trace = Trace.load(tmp_path / "run" / "trace-random.jsonl")
    assert trace.env_settings["evaluator"] == "table"
    assert trace.best is not None
    live = reptile_env.compress("digits-mlp", trace.best.plan).measurement
    assert trace.best.metric == pytest.approx(live.metric, abs=1 / 450 + 1e-9)
    assert main([*arguments, "--recovery", "none", "--out", str(tmp_path / "other")]) == 2
    assert "it has: recovery='reconstruct'" in capsys.readouterr().err
