"""The tree-structured Parzen estimator over complete plans (Bergstra et al., NIPS 2011), Optuna's."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna

from agents.base import Recorder, play
from agents.tuned import TunedAgent


class Tpe(TunedAgent):
    """Models the rates of good and of bad plans by densities and asks for the plan that is likeliest to be good.

    The first plan is the best uniform setting, a few random ones follow.
    """

    def search(self, env: Recorder, seed: int, out: Path | None) -> None:
        """Ask for plans until the evaluations are used."""
        env.reset(seed=seed)
        names = [f"{decision}" for decision in range(len(env.tops))]
        with _quiet():
            sampler = optuna.samplers.TPESampler(
                seed=seed,
                n_startup_trials=self.hyperparameters["startup"],
                n_ei_candidates=self.hyperparameters["candidates"],
                multivariate=self.hyperparameters["multivariate"],
            )
            study = optuna.create_study(direction="maximize", sampler=sampler)
            study.enqueue_trial(dict(zip(names, env.uniform.tolist(), strict=True)))
            while env.remaining > 0:
                trial = study.ask()
                total = play(env, [trial.suggest_float(name, 0, top) for name, top in zip(names, env.tops, strict=True)])
                if total is not None:
                    study.tell(trial, total)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna tells of every trial, and that joint densities are an experimental feature of it."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
