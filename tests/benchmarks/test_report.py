"""The report's numbers, files and complaints. What the page shows in a browser is test_report_page.py's."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import reptile_env
from agents.cli import run as run_command
from benchmarks.__main__ import app
from benchmarks.execution import Job, execute
from benchmarks.report.cases import Suite, by_suite, judged
from benchmarks.report.command import FIGURES, PAGE
from benchmarks.report.estimates import ALL, anytime, lines, results, scopes, winner
from benchmarks.report.explanations import Explanations, best_plans
from benchmarks.report.packing import pack, unpack
from benchmarks.report.thinning import rows_on_page
from benchmarks.results import Run, from_bytes, write_run
from benchmarks.results_folder import EXPLANATIONS_FILE, claim
from benchmarks.statistics.pareto import front
from benchmarks.suites import Case as SuiteCase
from benchmarks.suites import Suite as SuiteData
from tests.results import GROUPS, failed_run, made_run, many_runs, with_returns, write_runs
from tests.tables import NAME, write_tiny

NAN = math.nan


def report(*arguments: object) -> int:
    """Exit status of the command."""
    return run_command(app, "python -m benchmarks", "report", ["report", *map(str, arguments)])


def suite_of(*runs: Run) -> Suite:
    """The suite that the runs belong to."""
    (suite,) = by_suite(runs)
    return suite


def line_of(suite: Suite, agent: str, scope: str = ALL, track: str = "search") -> Any:
    """What is said about an agent."""
    chosen = next(each for each in scopes(suite, track) if each.name == scope)
    return next(line for line in lines(chosen) if line.agent == agent)


# -- numbers -------------------------------------------------------------------------------------------------------------


def test_a_run_is_scored_by_its_best_plan_within_the_budget() -> None:
    within = np.array([True, True, False])
    run = with_returns([0.4, 1.3, 1.5], columns={"within_budget": within})
    (case,) = suite_of(run).cases
    assert case.best(run) == 1
    assert judged(case, run, "search", "score") == pytest.approx((1.3 - 1) / (1.6 - 1))
    nothing = with_returns([0.4], columns={"within_budget": np.array([False])})
    assert math.isnan(judged(suite_of(nothing).cases[0], nothing, "search", "score"))


def test_a_policy_is_scored_by_its_own_return_and_searches_without_one_are_not() -> None:
    runs = [with_returns([1.5], agent="sac", policy_return=1.15), with_returns([1.6], agent="random")]
    suite = suite_of(*runs)
    assert suite.tracks == ["search", "policy"]
    (scope,) = scopes(suite, "policy")
    assert scope.agents == ("sac",)
    assert line_of(suite, "sac", "task-a", "policy").main.value == pytest.approx(0.25)


def test_returns_on_different_scales_are_compared_on_one() -> None:
    # The listed rates of a discrete environment miss the best uniform rate: the same gain is a larger return there.
    fine = with_returns([1.2], agent="sac", scale=made_run().scale | {"scale": 0.05})
    coarse = with_returns([1.5], agent="dqn", scale=made_run().scale | {"scale": 0.04}, best_known_return=NAN, uniform_return=NAN)
    (case,) = suite_of(fine, coarse).cases
    assert judged(case, coarse, "search", "return") == pytest.approx(1.2)
    assert judged(case, coarse, "search", "score") == pytest.approx(judged(case, fine, "search", "score"))


def test_regret_is_known_on_tables_alone() -> None:
    settings = {"task": "task-a", "evaluator": "table"}
    runs = [with_returns([best], seed=seed, settings=settings) for seed, best in enumerate([1.6, 1.6, 1.4, 1.5])]
    found = line_of(suite_of(*runs), "random", "task-a")
    assert found.regret.value == pytest.approx(0.05)
    assert found.optimal == 0.5
    live = line_of(suite_of(with_returns([1.6])), "random", "task-a")
    assert live.regret is None
    assert live.optimal is None


def test_tasks_without_a_best_known_plan_are_told_by_return_and_pooled_with_none() -> None:
    unknown = {"uniform_return": NAN, "best_known_return": NAN}
    suite = suite_of(with_returns([1.3]), with_returns([9.0], task="mine", **unknown))
    whole, *_ = scopes(suite, "search")
    assert whole.left_out == ("mine",)
    assert line_of(suite, "random").main.value == pytest.approx(0.5)
    assert line_of(suite, "random", "mine").main.value == 9.0
    alone = suite_of(*(with_returns([2.0], task=task, **unknown) for task in ("mine", "yours")))
    whole, *_ = scopes(alone, "search")
    assert (whole.number, whole.left_out) == ("return", ())


def test_runs_that_were_not_made_failed_or_found_nothing_are_missing_and_no_winner_is_marked() -> None:
    better = [with_returns([1.5 + 0.001 * seed], agent="sac", seed=seed) for seed in range(4)]
    worse = [with_returns([1.0 + 0.001 * seed], seed=seed) for seed in range(4)]
    suite = suite_of(*better, *worse)
    (scope,) = scopes(suite, "search")
    assert winner(lines(scope)) == "sac"
    for missing in ([], [failed_run(seed=3)], [with_returns([2.0], seed=3, columns={"within_budget": np.array([False])})]):
        (scope,) = scopes(suite_of(*better, *worse[:3], *missing), "search")
        found = {line.agent: (line.main.n, line.planned) for line in lines(scope)}
        assert found == {"sac": (4, 4), "random": (3, 4)}
        assert winner(lines(scope)) is None
    assert line_of(suite_of(*better, failed_run()), "random", "task-a").main.n == 0


def test_overlapping_intervals_have_no_winner() -> None:
    runs = [
        with_returns([1.2 + 0.1 * seed + skill], agent=agent, seed=seed)
        for agent, skill in (("a", 0), ("b", 0.1))
        for seed in range(4)
    ]
    (each,) = results(suite_of(*runs), "search")
    assert each.winner is None
    assert each.improvement["a", "b"].value < 0.5


def test_agents_that_learnt_on_test_networks_are_scored_nowhere() -> None:
    cheated = with_returns([1.6], agent="cheat", on_test=True)
    suite = suite_of(with_returns([1.1]), cheated)
    assert [run.agent for case in suite.cases for run in case.runs] == ["random"]
    assert suite.on_test == [cheated]


def test_anytime_curves_end_where_the_first_run_does() -> None:
    runs = [with_returns([1.0, 1.2, 1.1, 1.4]), with_returns([1.1, 1.0], seed=1)]
    (scope,) = scopes(suite_of(*runs), "search")
    curve = anytime(scope, "evaluations", "return")
    band = curve.lines["random"]
    assert curve.points.tolist() == [1, 2, 3, 4]
    assert band.value.tolist() == pytest.approx([1.05, 1.15, NAN, NAN], nan_ok=True)
    seconds = anytime(scope, "seconds", "return")
    assert seconds.points[-1] == runs[0].columns["simulated_seconds"][-1]


def test_suites_are_never_mixed() -> None:
    found = by_suite([made_run(), made_run(suite="other-v2")])
    assert [(suite.name, len(suite.runs)) for suite in found] == [("made-v1", 1), ("other-v2", 1)]


columns = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.one_of(
        st.lists(st.integers(0, 2**53), max_size=9).map(lambda each: np.array(each, np.int64)),
        st.lists(st.booleans(), max_size=9).map(lambda each: np.array(each, bool)),
        st.lists(st.floats(width=32), max_size=9).map(lambda each: np.array(each, np.float64)),
    ),
)


@given(columns)
def test_packed_columns_come_back_as_they_were(given_columns: dict[str, Any]) -> None:
    listed, text = pack(given_columns)
    assert all(each["offset"] % 8 == 0 for each in listed)
    for name, column in unpack(listed, text).items():
        np.testing.assert_array_equal(column.astype(np.float64), given_columns[name].astype(np.float64))


def test_a_thinned_page_holds_whole_episodes_the_best_plans_and_every_agents_front() -> None:
    (case,) = suite_of(*many_runs(plans=2000, seeds=3, tasks=["task-a"])).cases
    total, held = 12 * 2000, rows_on_page(case, 4000)
    assert sum(map(len, held)) == pytest.approx(4000, rel=0.03)
    for run, rows in zip(case.runs, held, strict=True):
        assert (np.diff(rows) > 0).all()
        assert case.best(run) in rows
        episodes = np.unique(run.columns["episode"][rows])
        assert rows.tolist() == np.flatnonzero(np.isin(run.columns["episode"], episodes)).tolist()
        assert np.diff(episodes).max() < 20  # from the beginning of the run to its end
    for agent in ("cma-es", "sac"):
        own = [(run, rows) for run, rows in zip(case.runs, held, strict=True) if run.agent == agent]
        metric, macs = (np.concatenate([run.columns[name] for run, _ in own]) for name in ("metric", "macs"))
        kept = np.concatenate([np.isin(np.arange(run.evaluated), rows) for run, rows in own])
        assert kept[front(macs, metric)].all()
    assert sum(map(len, rows_on_page(case, total))) == total
    assert min(map(len, rows_on_page(case, 1))) > 0  # what matters is never left out


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
    assert told["code"] == [["0123abc", 24]]
    assert told["agent: sac"] == [["learning_rate=0.001", 6]]
    assert summary["suites"][0]["counts"] == {"runs": 24, "failed": 0, "plans": 24 * 60, "agents": 4, "tasks": 2, "seeds": 3}


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


@pytest.mark.parametrize("runs", [[failed_run()], [made_run()], [made_run(plans=0)]], ids=["failed", "one", "no plan"])
def test_little_data_still_gives_all_files(tmp_path: Path, runs: list[Run]) -> None:
    assert report(write_runs(tmp_path / "results", runs), "--out", tmp_path / "report", "--no-explain") == 0
    assert (tmp_path / "report" / FIGURES / "made-v1" / "runs.csv").exists()


# -- explanations --------------------------------------------------------------------------------------------------------


@pytest.fixture
def explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Real runs of two agents on the small table."""
    monkeypatch.setenv("REPTILE_TABLES", str(tmp_path))
    monkeypatch.setenv("REPTILE_CACHE", str(tmp_path / "cache"))
    write_tiny(tmp_path)
    settings = (("evaluator", "table"),)
    suite = SuiteData("tiny", 1, "for a test", (SuiteCase(NAME, NAME, 12, settings),), seeds=1)
    claim(tmp_path / "results", suite.title, suite.digest)
    for agent in ("random", "uniform"):
        (data,) = execute(Job(suite, agent, suite.cases, 0)).files.values()
        write_run(tmp_path / "results", from_bytes(data))
    return tmp_path / "results"


def test_best_plans_are_explained_by_measuring_their_neighbours(explained: Path) -> None:
    out = explained.parent / "report"
    assert report(explained, "--out", out) == 0
    why = pd.read_csv(out / FIGURES / "tiny-v1" / "why.csv")
    assert set(why["agent"]) == {"random", "uniform"}
    env: Any = gym.make("ReptilePrune-v0", task=NAME, evaluator="table").unwrapped
    grid = env.evaluator.grid
    for agent in ("random", "uniform"):
        rows = why[why["agent"] == agent].to_dict("records")
        widths = [row["kept"] for row in rows]
        here = env.measure(grid.plan_of(widths))

        def neighbour(place: int, width: int, widths: list[int] = widths) -> Any:
            return env.measure(grid.plan_of([*widths[:place], width, *widths[place + 1 :]]))

        for place, row in enumerate(rows):
            undone = neighbour(place, row["size"])
            assert row["undo_metric"] == pytest.approx(undone.metric - here.metric)
            assert row["undo_return"] == pytest.approx(env.reference.return_of(undone) - env.reference.return_of(here))
            deeper = [neighbour(place, width).metric - here.metric for width in grid.levels[place] if width < row["kept"]]
            if deeper:
                assert any(row["deeper_metric"] == pytest.approx(each) for each in deeper)
                assert row["deeper_cost"] < 0
            else:
                assert (row["deeper_metric"], row["deeper_cost"]) == (0, 0)


def test_explanations_are_measured_once_and_kept(explained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert report(explained, "--out", explained.parent / "first", "--no-figures") == 0
    assert (explained / EXPLANATIONS_FILE).exists()
    first = (explained.parent / "first" / PAGE).read_bytes()
    monkeypatch.setattr("benchmarks.report.explanations.gym.make", lambda *_, **__: pytest.fail("measured again"))
    assert report(explained, "--out", explained.parent / "second", "--no-figures") == 0
    assert (explained.parent / "second" / PAGE).read_bytes() == first
    kept = json.loads((explained / EXPLANATIONS_FILE).read_text(encoding="utf-8"))
    assert kept["version"] == reptile_env.__version__


def test_what_cannot_be_explained_is_told(tmp_path: Path) -> None:
    suite = suite_of(made_run())  # of a task that is not there
    plans = best_plans(suite.cases)
    explanations = Explanations(tmp_path)
    explanations.measure(plans)
    groups, error = explanations.of(plans[0])
    assert groups is None
    assert error is not None
    assert "task-a" in error
    assert not (tmp_path / EXPLANATIONS_FILE).exists()


def test_a_plan_that_measures_otherwise_here_is_not_explained(explained: Path) -> None:
    run = from_bytes((explained / "random" / f"{NAME}.0.run").read_bytes())
    run.columns["metric"][:] += 0.1
    plans = best_plans(suite_of(run).cases)
    explanations = Explanations(explained)
    explanations.measure(plans)
    assert "is it the same network?" in str(explanations.of(plans[0])[1])


def test_a_folder_that_may_only_be_read_is_reported_on_all_the_same(
    explained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("benchmarks.report.explanations.write_over", refuse)
    assert report(explained, "--out", explained.parent / "report", "--no-figures") == 0
    assert "explanations are not kept" in capsys.readouterr().out
