"""The report's files and complaints. Its numbers, its explanations and its page in a browser have test files of their own."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks.report.command import FIGURES, PAGE
from benchmarks.report.command import report as run_report
from benchmarks.results import Run, write_run
from benchmarks.results_folder import EXPLANATIONS_FILE, claim
from tests.reports import report
from tests.results import GROUPS, failed_run, made_run, many_runs, write_runs

# -- files ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results, with its report in `report`."""
    folder = tmp_path_factory.mktemp("made")
    write_runs(folder / "results", many_runs(plans=60, seeds=3))
    assert report(folder / "results", "--out", folder / "report", "--no-explain") == 0
    return folder


class Links(HTMLParser):
    """Everything in a page that could be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]


def test_the_page_holds_all_that_it_needs(made: Path) -> None:
    text = (made / "report" / PAGE).read_text(encoding="utf-8")
    links = Links()
    links.feed(text)
    assert links.found
    assert all(link.startswith("#") or link == "data:," for link in links.found)
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert "url(" not in text.replace("url(#", "")


def test_every_figure_is_there_as_picture_and_as_table(made: Path) -> None:
    folder = made / "report" / FIGURES / "made-v1"
    stems = [*(f"search/{name}" for name in ("scores", "profiles", "improvement", "anytime-evaluations", "anytime-seconds"))]
    stems += [*(f"policy/{name}" for name in ("scores", "profiles", "improvement")), "plans-task-a", "plans-task-b"]
    for stem in stems:
        with Image.open(folder / f"{stem}.png") as picture:
            assert picture.width > 300
        assert "<svg" in (folder / f"{stem}.svg").read_text(encoding="utf-8")[:1000]
        table = pd.read_csv(folder / (f"{stem}.csv.gz" if "plans" in stem else f"{stem}.csv"))
        pd.testing.assert_frame_equal(table, pd.read_parquet(folder / f"{stem}.parquet"), check_dtype=False)
        assert len(table)


def test_tables_hold_the_runs_numbers(made: Path) -> None:
    folder = made / "report" / FIGURES / "made-v1"
    runs = [run for run in many_runs(plans=60, seeds=3) if run.task == "task-a"]
    plans = pd.read_parquet(folder / "plans-task-a.parquet")
    for name in ("metric", "macs", "plan_return", "episode"):
        np.testing.assert_array_equal(plans[name], np.concatenate([run.columns[name] for run in runs]))
    np.testing.assert_array_equal(plans["width:head"], np.concatenate([run.columns["widths"][:, 3] for run in runs]))
    assert plans["group"].tolist() == [GROUPS[group] for run in runs for group in run.columns["group"]]
    scores = pd.read_parquet(folder / "search" / "scores.parquet").set_index(["task", "agent"])
    best = np.sort([run.columns["plan_return"].max() for run in runs if run.agent == "sac"])
    assert scores.loc[("task-a", "sac"), "iqm"] == pytest.approx((best.mean() - 1) / 0.6)  # of three, none is trimmed
    assert scores.loc[("task-a", "sac"), "n"] == 3
    judged_runs = pd.read_parquet(folder / "runs.parquet")
    assert len(judged_runs) == 4 * 2 * 3 + 2 * 2 * 3  # two agents are judged by their policy too


def test_the_same_runs_make_the_same_page(made: Path, tmp_path: Path) -> None:
    assert report(made / "results", "--out", tmp_path / "again", "--no-explain", "--no-figures") == 0
    assert (tmp_path / "again" / PAGE).read_bytes() == (made / "report" / PAGE).read_bytes()
    assert not (tmp_path / "again" / FIGURES).exists()


def test_what_was_run_is_told_with_every_value(made: Path) -> None:
    text = (made / "report" / PAGE).read_text(encoding="utf-8")
    summary = json.loads(text.split('id="summary">')[1].split("</script>")[0])
    told = {each["what"]: each["values"] for each in summary["suites"][0]["run"]}
    assert told["torch"] == [["2.13.0", 24]]
    assert told["git revision of the code"] == [["0123abc", 24]]
    assert told["agent: sac"] == [["learning_rate=0.001", 6]]
    assert summary["suites"][0]["counts"] == {"runs": 24, "failed": 0, "plans": 24 * 60, "agents": 4, "tasks": 2, "seeds": 3}


def test_revisions_and_hashes_of_the_code_are_told_apart(tmp_path: Path) -> None:
    run = made_run(versions={"code": "527e5b1068fff540", "torch": "2.13.0"})
    assert report(write_runs(tmp_path / "results", [run]), "--out", tmp_path / "report", "--no-explain", "--no-figures") == 0
    text = (tmp_path / "report" / PAGE).read_text(encoding="utf-8")
    facts = json.loads(text.split('id="summary">')[1].split("</script>")[0])["suites"][0]["run"]
    told = {each["what"]: each["values"] for each in facts}
    assert told["git revision of the code"] == [["0123abc", 1]]
    assert told["hash of the code (agents and package)"] == [["527e5b1068fff540", 1]]


def test_markup_in_names_stays_text(tmp_path: Path) -> None:
    write_runs(tmp_path / "results", [made_run(agent="<b>sac"), failed_run(error="</script><script>")])
    assert report(tmp_path / "results", "--out", tmp_path / "report", "--no-explain", "--no-figures") == 0
    text = (tmp_path / "report" / PAGE).read_text(encoding="utf-8")
    assert "<b>sac" not in text
    assert "</script><script>" not in text


# -- bad input -----------------------------------------------------------------------------------------------------------


def test_bad_folders_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def complaint(*arguments: object) -> str:
        assert report(*arguments) == 2
        captured = capsys.readouterr().err
        assert captured.count("\n") == 1
        return captured

    assert "is no folder" in complaint(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "holds no results" in complaint(tmp_path / "empty")
    claim(tmp_path / "claimed", "made-v1", "0" * 64)
    assert "holds no run yet" in complaint(tmp_path / "claimed")
    mixed = write_runs(tmp_path / "mixed", [made_run()])
    write_run(mixed, made_run(agent="sac", suite="other-v1"))
    assert "is a run of other-v1, not of made-v1" in complaint(mixed)
    damaged = write_runs(tmp_path / "damaged", [made_run()])
    (damaged / EXPLANATIONS_FILE).write_text("{", encoding="utf-8")
    assert f"{EXPLANATIONS_FILE} is damaged; delete it" in complaint(damaged)
    twice = write_runs(tmp_path / "twice" / "one", [made_run()]).parent
    write_runs(twice / "two", [made_run()])
    assert "both hold results of made-v1" in complaint(twice)
    good = write_runs(tmp_path / "good", [made_run()])
    assert "--plans 0: give at least 1" in complaint(good, "--plans", 0)
    assert "results are never overwritten" in complaint(good, "--out", tmp_path / "twice")


def test_several_suites_stand_beside_each_other_in_one_page(tmp_path: Path) -> None:
    write_runs(tmp_path / "all" / "one", [made_run()])
    write_runs(tmp_path / "all" / "two", [made_run(suite="other-v2", agent="sac")])
    assert report(tmp_path / "all", "--out", tmp_path / "report", "--no-explain", "--no-figures") == 0
    text = (tmp_path / "report" / PAGE).read_text(encoding="utf-8")
    summary = json.loads(text.split('id="summary">')[1].split("</script>")[0])
    assert [(each["name"], each["counts"]["runs"]) for each in summary["suites"]] == [("made-v1", 1), ("other-v2", 1)]
    assert [each["tracks"][0]["agents"] for each in summary["suites"]] == [["random"], ["sac"]]


def test_a_full_disk_is_told_in_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = write_runs(tmp_path / "results", [made_run()]), tmp_path / "out" / "report"
    arguments = (folder, "--out", out, "--no-explain")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pd.DataFrame, "to_parquet", full)
        assert report(*arguments) == 2
    captured = capsys.readouterr().err
    assert captured.count("\n") == 1
    assert "No space left on device" in captured
    assert list(out.parent.iterdir()) == []
    assert report(*arguments) == 0


def test_an_interrupted_report_leaves_nothing_and_what_a_killed_one_left_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = write_runs(tmp_path / "results", [made_run()]), tmp_path / "out" / "report"

    def interrupt(*_: object) -> None:
        assert [path.name for path in out.parent.iterdir()] == [".report.draft"]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("benchmarks.report.command.write_files", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_report(folder, out, explain=False)
    assert list(out.parent.iterdir()) == []
    left = out.parent / ".report.draft" / FIGURES
    left.mkdir(parents=True)
    (left / "half.csv").write_text("half", encoding="utf-8")
    out.mkdir()  # an empty folder may be there
    assert report(folder, "--out", out, "--no-explain") == 0
    assert [path.name for path in out.parent.iterdir()] == ["report"]
    assert sorted(path.name for path in out.iterdir()) == [FIGURES, PAGE]
    assert not list(out.rglob("half.csv"))


@pytest.mark.parametrize("runs", [[failed_run()], [made_run()], [made_run(plans=0)]], ids=["failed", "one", "no plan"])
def test_little_data_still_gives_all_files(tmp_path: Path, runs: list[Run]) -> None:
    assert report(write_runs(tmp_path / "results", runs), "--out", tmp_path / "report", "--no-explain") == 0
    assert (tmp_path / "report" / FIGURES / "made-v1" / "runs.csv").exists()
