"""The command line: ``python -m agents``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

import reptile_env
from agents.arguments import DEFAULT_TASK, Options, read_hyperparameters, read_others, task_or_default
from agents.cli import BadArgumentError, run
from agents.outputs import free_folder
from agents.registry import AGENTS, agent_spec
from agents.replay import ReplayError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="Agents that compress networks.")

DEFAULT_STEPS = 2000
PRETRAINING_STEPS = 200_000
TUNING_SEED = 1000  # benchmarks report seeds from 0
CONFIRMING_SEED = 2000

Algorithm = Annotated[str, typer.Argument(help="an agent; list shows them", show_default=False)]
MaybeAlgorithm = Annotated[str | None, typer.Argument(help="an agent; list shows them", show_default=False)]
Searcher = Annotated[str, typer.Option("--agent", help="an agent; list shows them")]
Task = Annotated[str, typer.Option(help="a built-in task, or module:function that returns a reptile_env.Task")]
MaybeTask = Annotated[str | None, typer.Option(help="a task; default: digits-cnn, or all that the environment draws")]
Tasks = Annotated[list[str] | None, typer.Option("--task", help="a task, as for train; may be given several times")]
Steps = Annotated[int, typer.Option(help="plans to evaluate")]
Seed = Annotated[int, typer.Option(help="of everything that is drawn")]
Budget = Annotated[float | None, typer.Option(help="cap on the final cost, as a fraction of the dense network's")]
Cost = Annotated[str | None, typer.Option(help="what is saved: macs, params, bytes or latency; default: the environment's own")]
Recovery = Annotated[str, typer.Option(help="what follows a cut: reconstruct, recalibrate, none, or names joined by +")]
Rounds = Annotated[int, typer.Option(help="passes over all groups in an episode")]
Measure = Annotated[str | None, typer.Option(help="evaluate the agent's plans after every step, or once a round; default: its own")]
Evaluator = Annotated[str, typer.Option(help="live runs the network; table looks plans up, for tasks that have a table")]
Threads = Annotated[int, typer.Option(help="torch threads; more than 1 pays for large networks")]
Out = Annotated[Path | None, typer.Option(help="a new or empty folder; default: one under runs/")]
Env = Annotated[str | None, typer.Option("--env", help="id of an environment, such as ReptileCompress-v0; default: the agent's")]
Observation = Annotated[str | None, typer.Option(help="network or group; default: the agent's own")]
Reward = Annotated[str | None, typer.Option(help="what the agent maximises; default: its own")]
Others = Annotated[list[str] | None, typer.Option("--set", help="another argument of the environment, NAME=VALUE; repeatable")]
Hyperparameters = Annotated[Path | None, typer.Option(help="YAML of hyperparameters used instead of the agent's own")]
Resume = Annotated[Path | None, typer.Option(help="folder of an interrupted run, which goes on; all other options are its own")]


@app.command("list")
def list_() -> None:
    """List agents and built-in tasks."""
    for title, rows in (
        ("agents", [(name, spec.env_id, f"evaluates each {spec.measure}", spec.summary) for name, spec in AGENTS.items()]),
        ("\ntasks", [(row["name"], row["family"], row["split"], row["data"]) for row in reptile_env.tasks()]),
    ):
        print(title)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
        for *cells, last in rows:
            print("  " + "".join(f"{cell:{width + 2}}" for cell, width in zip(cells, widths, strict=True)) + last)


@app.command()
def train(
    context: typer.Context,
    algorithm: MaybeAlgorithm = None,
    task: MaybeTask = None,
    budget: Budget = None,
    cost: Cost = None,
    steps: Steps = DEFAULT_STEPS,
    seed: Seed = 0,
    recovery: Recovery = "reconstruct",
    rounds: Rounds = 1,
    measure: Measure = None,
    env: Env = None,
    observation: Observation = None,
    reward: Reward = None,
    others: Others = None,
    hyperparameters: Hyperparameters = None,
    threads: Threads = 1,
    evaluator: Evaluator = "live",
    out: Out = None,
    resume: Resume = None,
) -> int:
    """Run one agent on a task: trace, best plan, TensorBoard logs, trained policy and checkpoints."""
    if resume is not None:
        _check_alone(context)

        def go_on() -> int:
            from agents.train import resume as run_command

            return run_command(resume)

        return _keeping(resume, go_on)
    if algorithm is None:
        raise BadArgumentError("missing argument 'algorithm': name an agent, which list shows, or --resume a run")
    given = (read_others(others or []), read_hyperparameters(hyperparameters))
    chosen = (task_or_default(task, env), steps, seed, budget, cost, recovery, rounds, measure, threads, evaluator)
    options = Options(*chosen, env, observation, reward, *given)
    _check_agent(algorithm)
    folder = free_folder(out, f"{algorithm}-{options.task or 'transfer'}")

    def work() -> int:
        from agents.train import train as run_command

        return run_command(algorithm, options, folder)

    return _keeping(folder, work)


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="a folder that train wrote", show_default=False)],
    task: Annotated[str | None, typer.Option(help="another network to play the policy on; default: the run's own")] = None,
    evaluator: Annotated[str | None, typer.Option(help="live or table; default: the run's own")] = None,
    policy: Annotated[Path | None, typer.Option(help="file of the policy, such as a checkpoint; default: the final one")] = None,
    device: Annotated[str | None, typer.Option(help="where networks run, such as cpu; default: the run's own")] = None,
    out: Annotated[Path | None, typer.Option(help="a new folder for the table as JSON and CSV; default: none")] = None,
) -> int:
    """Replay a run's best plan, play its trained policy, and report validation and test metrics."""
    free = None if out is None else free_folder(out, "")
    from agents.evaluate import evaluate as run_command

    return run_command(folder, task, evaluator, policy, device, free)


@app.command()
def tune(
    context: typer.Context,
    algorithm: MaybeAlgorithm = None,
    tasks: Tasks = None,
    trials: Annotated[int, typer.Option(help="settings to try")] = 50,
    seeds: Annotated[int, typer.Option(help="runs of each setting on each task")] = 2,
    value: Annotated[str, typer.Option(help="what is maximised: the best plan found, or the final policy's")] = "best",
    budget: Budget = None,
    cost: Cost = None,
    steps: Steps = DEFAULT_STEPS,
    seed: Seed = TUNING_SEED,
    recovery: Recovery = "reconstruct",
    rounds: Rounds = 1,
    measure: Measure = None,
    env: Env = None,
    observation: Observation = None,
    reward: Reward = None,
    others: Others = None,
    threads: Threads = 1,
    evaluator: Evaluator = "live",
    out: Out = None,
    resume: Resume = None,
) -> int:
    """Tune an agent's hyperparameters with Optuna, never on networks that are kept for tests."""
    if resume is not None:
        _check_alone(context)

        def go_on() -> int:
            from agents.tune import resume as run_command

            return run_command(resume)

        return _keeping(resume, go_on)
    if algorithm is None:
        raise BadArgumentError("missing argument 'algorithm': name an agent, which list shows, or --resume a study")
    from agents.tune import Study
    from agents.tune import tune as run_command

    _check_agent(algorithm)
    study = Study(algorithm, tuple(tasks or [DEFAULT_TASK]), trials, seeds, value)
    chosen = (study.tasks[0], steps, seed, budget, cost, recovery, rounds, measure, threads, evaluator)
    options = Options(*chosen, env, observation, reward, read_others(others or []))
    folder = free_folder(out, f"tune-{algorithm}")
    return _keeping(folder, lambda: run_command(study, options, folder))


@app.command()
def confirm(
    folder: Annotated[Path, typer.Argument(help="a folder that tune wrote", show_default=False)],
    tasks: Tasks = None,
    seed: Seed = CONFIRMING_SEED,
    seeds: Annotated[int, typer.Option(help="runs of each setting on each task")] = 2,
) -> int:
    """Compare a study's best setting with the shipped one on networks and seeds that the study did not see."""
    from agents.confirm import confirm as run_command

    return _keeping(folder, lambda: run_command(folder, tasks or [], seed, seeds))


@app.command()
def compress(
    task: Task = DEFAULT_TASK,
    agent: Searcher = "sac",
    budget: Budget = None,
    cost: Cost = None,
    steps: Steps = DEFAULT_STEPS,
    seed: Seed = 0,
    recovery: Recovery = "reconstruct",
    rounds: Rounds = 1,
    measure: Measure = None,
    env: Env = None,
    observation: Observation = None,
    others: Others = None,
    threads: Threads = 1,
    out: Out = None,
) -> int:
    """Compress a task's network with an agent and with random search; save, reload and compare the best."""
    chosen = (task, steps, seed, budget, cost, recovery, rounds, measure, threads, "live")
    options = Options(*chosen, env, observation, None, read_others(others or []))
    _check_agent(agent)
    folder = free_folder(out, f"compress-{task}")

    def work() -> int:
        from agents.compress import compress as run_command

        return run_command(agent, options, folder)

    return _keeping(folder, work)


@app.command()
def pretrain(
    steps: Annotated[int, typer.Option(help="decisions to learn from")] = PRETRAINING_STEPS,
    seed: Seed = 0,
    networks: Annotated[
        list[str] | None, typer.Option("--network", help="one to train on, repeatable; default: all 48 of the training split")
    ] = None,
    out: Out = None,
) -> int:
    """Train the policy of agent pretrained on the training networks of the transfer family."""
    if steps < 1:
        raise BadArgumentError(f"--steps {steps}: give at least 1")
    if not 0 <= seed < 2**32:
        raise BadArgumentError(f"--seed {seed}: give a number from 0 to 2**32 - 1")
    folder = free_folder(out, "pretrain")

    def work() -> int:
        from agents.pretrain import FILE
        from agents.pretrain import pretrain as run_command

        try:
            run_command(steps, seed, folder, networks)
        except ValueError as error:
            raise BadArgumentError(str(error)) from error
        print(f"policy: {folder / FILE}")
        return 0

    return _keeping(folder, work)


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="a folder that compress wrote", show_default=False)]) -> int:
    """Load a compressed network and measure it again."""
    from agents.verify import verify as check

    return check(folder)


def _check_agent(name: str) -> None:
    try:
        agent_spec(name)
    except ValueError as error:
        raise BadArgumentError(str(error)) from error


def _check_alone(context: typer.Context) -> None:
    """Refuse options beside --resume: a run goes on as it began."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name != "resume" and source is not None and source.name == "COMMANDLINE":
            typed = parameter.opts[0]  # of an option its dashes too
            raise BadArgumentError(f"--resume goes on with what the run was started with; leave out {typed!r}")


def _keeping(folder: Path, work: Callable[[], int]) -> int:
    """The status of `work`; on Ctrl-C says where the results so far are, on a failed replay what differs."""
    try:
        return work()
    except ReplayError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        kept = f"what there is so far is in {folder}" if folder.exists() else "nothing was evaluated yet"
        print(f"interrupted; {kept}", file=sys.stderr)
        return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 failed, 2 bad arguments."""
    return run(app, "python -m agents", "list, train, evaluate, tune, confirm, compress, pretrain or verify", arguments)


if __name__ == "__main__":
    sys.exit(main())
