"""The command line: ``python -m agents``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

import reptile_env
from agents.arguments import Options
from agents.cli import BadArgumentError, run
from agents.outputs import free_folder
from agents.registry import AGENTS, agent_spec

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="Agents that compress networks.")

DEFAULT_STEPS = 2000

Algorithm = Annotated[str, typer.Argument(help="an agent; list shows them", show_default=False)]
Searcher = Annotated[str, typer.Option("--agent", help="an agent; list shows them")]
Task = Annotated[str, typer.Option(help="a built-in task, or module:function that returns a reptile_env.Task")]
Steps = Annotated[int, typer.Option(help="plans to evaluate")]
Seed = Annotated[int, typer.Option(help="of everything that is drawn")]
Budget = Annotated[float | None, typer.Option(help="cap on the final cost, as a fraction of the dense network's")]
Cost = Annotated[str, typer.Option(help="what is saved: macs, params, bytes or latency")]
Recovery = Annotated[str, typer.Option(help="what follows a cut: reconstruct, recalibrate, none, or names joined by +")]
Rounds = Annotated[int, typer.Option(help="passes over all groups in an episode")]
Measure = Annotated[str | None, typer.Option(help="evaluate the agent's plans after every step, or once a round; default: its own")]
Evaluator = Annotated[str, typer.Option(help="live runs the network; table looks plans up, for tasks that have a table")]
Threads = Annotated[int, typer.Option(help="torch threads; more than 1 pays for large networks")]
Out = Annotated[Path | None, typer.Option(help="a new or empty folder; default: one under runs/")]


@app.command("list")
def list_() -> None:
    """List agents and built-in tasks."""
    print("agents")
    for name, spec in AGENTS.items():
        print(f"  {name:18}{spec.env_id:26}evaluates each {spec.measure:7}{spec.summary}")
    print("\ntasks")
    for row in reptile_env.tasks():
        print(f"  {row['name']:18}{row['family']:26}{row['split']:22}{row['data']}")


@app.command()
def train(
    algorithm: Algorithm,
    task: Task = "digits-cnn",
    budget: Budget = None,
    cost: Cost = "macs",
    steps: Steps = DEFAULT_STEPS,
    seed: Seed = 0,
    recovery: Recovery = "reconstruct",
    rounds: Rounds = 1,
    measure: Measure = None,
    threads: Threads = 1,
    evaluator: Evaluator = "live",
    out: Out = None,
) -> int:
    """Run one agent on a task: trace, best plan, TensorBoard logs, trained model."""
    options = Options(task, steps, seed, budget, cost, recovery, rounds, measure, threads, evaluator)
    _check_agent(algorithm)
    folder = free_folder(out, f"{algorithm}-{task}")

    def work() -> int:
        from agents.train import train as run_command

        return run_command(algorithm, options, folder)

    return _keeping(folder, work)


@app.command()
def compress(
    task: Task = "digits-cnn",
    agent: Searcher = "sac",
    budget: Budget = None,
    cost: Cost = "macs",
    steps: Steps = DEFAULT_STEPS,
    seed: Seed = 0,
    recovery: Recovery = "reconstruct",
    rounds: Rounds = 1,
    measure: Measure = None,
    threads: Threads = 1,
    out: Out = None,
) -> int:
    """Compress a task's network with an agent and with random search; save, reload and compare the best."""
    options = Options(task, steps, seed, budget, cost, recovery, rounds, measure, threads)
    _check_agent(agent)
    folder = free_folder(out, f"compress-{task}")

    def work() -> int:
        from agents.compress import compress as run_command

        return run_command(agent, options, folder)

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


def _keeping(folder: Path, work: Callable[[], int]) -> int:
    """The status of `work`; on Ctrl-C says where the results so far are."""
    try:
        return work()
    except KeyboardInterrupt:
        kept = f"the traces and the best plan so far are in {folder}" if folder.exists() else "nothing was evaluated yet"
        print(f"interrupted; {kept}", file=sys.stderr)
        return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 failed, 2 bad arguments."""
    return run(app, "python -m agents", "list, train, compress or verify", arguments)


if __name__ == "__main__":
    sys.exit(main())
