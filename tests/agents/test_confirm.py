"""``python -m agents confirm``: what a study's best setting is worth elsewhere."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import agents.confirm
from agents.__main__ import main
from agents.confirm import gain_of, read_rows, settings
from agents.registry import make_agent
from agents.space import read_space, shipped, suggest

STUDY = ["--task", "transfer-mlp-1", "--evaluator", "table", "--steps", "40", "--trials", "6", "--seeds", "1", "--seed", "1005"]
OTHERS = ["--task", "transfer-mlp-2", "--task", "transfer-mlp-3"]


@pytest.fixture(scope="module")
def first_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose best setting is not the shipped one."""
    folder = tmp_path_factory.mktemp("study")
    assert main(["tune", "ars", *STUDY, "--out", str(folder)]) == 0
    shipped, best = settings(folder, "ars")
    assert shipped != best, "this study is of no use here; take another seed"
    return folder


@pytest.fixture
def study(first_study: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    folder.mkdir()
    for path in first_study.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_both_settings_run_as_they_would_by_train(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["confirm", str(study), *OTHERS, "--seeds", "2"]) == 0
    told = capsys.readouterr().out
    rows = read_rows(study / "confirmation")
    assert [(row["task"], row["seed"]) for row in rows] == [
        ("transfer-mlp-2", "2000"),
        ("transfer-mlp-2", "2001"),
        ("transfer-mlp-3", "2000"),
        ("transfer-mlp-3", "2001"),
    ]
    for column, more in (("shipped", []), ("best", ["--hyperparameters", str(study / "best.yaml")])):
        out = tmp_path / column
        run = ["train", "ars", "--task", "transfer-mlp-3", "--evaluator", "table", "--steps", "40", "--seed", "2001", *more]
        assert main([*run, "--out", str(out)]) == 0
        capsys.readouterr()
        best = json.loads((out / "best_plan.json").read_text(encoding="utf-8"))["plan_return"]
        assert float(rows[3][column]) == pytest.approx(score("transfer-mlp-3", best), abs=1e-6)
    gain = gain_of(rows)
    means = [np.mean([float(row[name]) for row in rows]) for name in ("shipped", "best")]
    assert (gain.shipped, gain.best, gain.gain) == pytest.approx((*means, means[1] - means[0]))
    assert f"shipped {means[0]:.3f}, best of the study {means[1]:.3f}" in told
    assert f"gain {gain.gain:+.3f}, 95 % interval over networks {gain.low:+.3f} to {gain.high:+.3f}" in told


def score(task: str, plan_return: float) -> float:
    import gymnasium as gym

    return float(gym.make("ReptilePrune-v0", task=task, evaluator="table").unwrapped.score(plan_return))  # type: ignore[attr-defined]


def test_the_settings_are_the_shipped_one_and_the_best_of_the_table(study: Path) -> None:
    shipped, best = settings(study, "ars")
    assert shipped == {name: make_agent("ars").settings[name] for name in read_space("ars")}
    table = list(csv.DictReader((study / "trials.csv").open(encoding="utf-8")))
    row = max(table, key=lambda each: float(each["value"]))
    assert {name: row[name] for name in best} == {name: str(value) for name, value in best.items()}


def test_a_confirmation_that_was_killed_goes_on(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["confirm", str(study), *OTHERS]) == 0
    whole = (study / "confirmation" / "runs.csv").read_text(encoding="utf-8")
    for kept in (0, 3, len(whole) - 30, len(whole)):  # a torn head, a torn line, nothing left to do
        (study / "confirmation" / "runs.csv").write_text(whole[:kept], encoding="utf-8")
        with monkeypatch.context() as patched:
            patched.setattr(agents.confirm, "reached", counted := Counted(agents.confirm.reached))
            assert main(["confirm", str(study), *OTHERS]) == 0
        assert (study / "confirmation" / "runs.csv").read_text(encoding="utf-8") == whole
        assert counted.calls == 2 * (4 - max(whole[:kept].count("\n") - 1, 0))


class Counted:
    """Counts the calls of a function."""

    def __init__(self, of: Callable[..., Any]) -> None:
        self.calls, self._of = 0, of

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        return self._of(*args)


def test_a_setting_that_fails_elsewhere_gains_nothing(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, best = settings(study, "ars")

    def failing(asked: Any, options: Any, env: Any, setting: dict[str, Any], seed: int) -> float:
        if setting == best and seed == 2001:
            raise RuntimeError("weights are NaN")
        return 0.5

    monkeypatch.setattr(agents.confirm, "reached", failing)
    assert main(["confirm", str(study), *OTHERS]) == 0
    told = capsys.readouterr().out
    assert told.count("ars, seed 2001, failed with") == 2
    assert "weights are NaN" in told
    gain = gain_of(read_rows(study / "confirmation"))
    assert gain.shipped == 0.5
    assert np.isnan([gain.best, gain.gain, gain.low, gain.high]).all()


def test_where_the_shipped_setting_fails_nothing_is_said_of_the_other(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped, _ = settings(study, "ars")

    def failing(asked: Any, options: Any, env: Any, setting: dict[str, Any], seed: int) -> float:
        if setting == shipped:
            raise RuntimeError("no memory")
        return 0.5

    monkeypatch.setattr(agents.confirm, "reached", failing)
    with pytest.raises(RuntimeError, match="no memory"):
        main(["confirm", str(study), *OTHERS])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--task", "transfer-mlp-1", "--task", "transfer-mlp-2"],
            "transfer-mlp-1: the study chose its setting there",
        ),
        (["--task", "transfer-mlp-2"], "name two other tasks at least"),
        ([], "name two other tasks at least"),
        (["--task", "transfer-mlp-2", "--task", "transfer-mlp-2"], "name each task once"),
        (["--task", "transfer-mlp-2", "--task", "transfer-mlp-7"], "transfer-mlp-7: this network is kept for tests"),
        ([*OTHERS, "--seed", "1004"], "--seed 1004: the study chose its setting with seeds from 1005"),
        ([*OTHERS, "--seed", "1005", "--seeds", "1"], "--seed 1005: the study chose its setting with seeds from 1005"),
        ([*OTHERS, "--seeds", str(10**12)], f"the last of {10**12} --seeds is above 2**32 - 1"),
        ([*OTHERS, "--seeds", "0"], "--seeds 0: give at least 1"),
        ([*OTHERS, "--seed", "-4"], "--seed -4: give a number from 0"),
        ([*OTHERS, "--seed", str(2**32 - 1)], "the last of 2 --seeds is above 2**32 - 1"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], message: str, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["confirm", str(study), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (study / "confirmation").exists()


def test_a_confirmation_of_other_networks_is_not_gone_on_with(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["confirm", str(study), *OTHERS, "--seeds", "1"]) == 0
    before = (study / "confirmation" / "runs.csv").read_bytes()
    assert main(["confirm", str(study), *OTHERS, "--seeds", "2"]) == 2
    error = capsys.readouterr().err
    assert f"confirm {study / 'confirmation'}: seeds was 1 when the run began and is 2 now" in error
    assert f"move {study / 'confirmation'} away to confirm anew" in error
    assert (study / "confirmation" / "runs.csv").read_bytes() == before


def test_a_study_without_a_gain_or_a_trial_has_nothing_to_confirm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = tmp_path / "one"
    assert main(["tune", "ars", *STUDY, "--trials", "1", "--out", str(one)]) == 0
    assert main(["confirm", str(one), *OTHERS]) == 2
    assert "no setting of this study is better than the shipped one" in capsys.readouterr().err
    (one / "study.log").unlink()
    assert main(["confirm", str(one), *OTHERS]) == 2
    assert "no trial of this study has ended; `python -m agents tune --resume" in capsys.readouterr().err
    assert not (one / "study.log").exists()
    assert main(["confirm", str(tmp_path / "none"), *OTHERS]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err


def test_a_study_cut_off_before_its_first_trial_has_nothing_to_confirm(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / "study.log").write_text("", encoding="utf-8")
    assert main(["confirm", str(study), *OTHERS]) == 2
    assert "no trial of this study has ended; `python -m agents tune --resume" in capsys.readouterr().err


def test_a_value_of_nought_is_better_than_one_below(tmp_path: Path) -> None:
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.log")))
    kept = optuna.create_study(storage=storage, study_name="ars", direction="maximize")
    space, first = read_space("ars"), shipped("ars", read_space("ars"))
    for value, setting in ((-0.2, first), (0.0, first | {"learning_rate": 0.5}), (-0.1, first | {"learning_rate": 0.7})):
        kept.enqueue_trial(setting)
        trial = kept.ask()
        suggest(trial, space)
        kept.tell(trial, value)
    assert settings(tmp_path, "ars")[1]["learning_rate"] == 0.5


def test_a_damaged_log_or_another_space_is_told_of(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    space = read_space("ars")
    with monkeypatch.context() as patched:
        patched.setattr(agents.confirm, "read_space", lambda agent: space | {"momentum": {"low": 0.1, "high": 0.2}})
        assert main(["confirm", str(study), *OTHERS]) == 2
    assert "spaces.yaml has changed since: The value of the parameter 'momentum' is not found" in capsys.readouterr().err
    lines = (study / "study.log").read_text(encoding="utf-8").splitlines(keepends=True)
    (study / "study.log").write_text("".join([*lines[:3], "{\n", *lines[3:]]), encoding="utf-8")
    assert main(["confirm", str(study), *OTHERS]) == 2
    assert "study.log is damaged: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "task,seed,shipped\nx,1,2\n",
        "task,seed,shipped,best\nx,1\n",
        "task,seed,shipped,best\nx,y,1,2\n",
        "task,seed,shipped,best\nx,1,q,2\n",
    ],
)
def test_damaged_runs_are_told_of(text: str, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["confirm", str(study), *OTHERS, "--seeds", "1"]) == 0
    rows = study / "confirmation" / "runs.csv"
    rows.write_text(text, encoding="utf-8")
    assert main(["confirm", str(study), *OTHERS, "--seeds", "1"]) == 2
    assert f"{rows} is damaged: " in capsys.readouterr().err
    (study / "confirmation" / "run.json").unlink()
    assert main(["confirm", str(study), *OTHERS, "--seeds", "1"]) == 2
    assert "holds runs.csv and no run.json" in capsys.readouterr().err
    assert rows.read_text(encoding="utf-8") == text
