"""What the hyperparameters of agents may be; of those of libraries, the numbers that these take unchecked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Bound(NamedTuple):
    """What a number must be, in words and as a test."""

    words: str
    holds: Callable[[float], bool]


AT_LEAST_1 = Bound("at least 1", lambda value: value >= 1)
AT_LEAST_0 = Bound("at least 0", lambda value: value >= 0)
ABOVE_0 = Bound("above 0", lambda value: value > 0)
SHARE = Bound("from 0 to 1", lambda value: 0 <= value <= 1)
PART = Bound("above 0 and at most 1", lambda value: 0 < value <= 1)

_TABULAR: dict[str, Bound] = {
    "costs": AT_LEAST_1,
    "discount": SHARE,
    "trace_decay": SHARE,
    "epsilon.first": SHARE,
    "epsilon.last": SHARE,
    "epsilon.until": ABOVE_0,
    "step_size.first": SHARE,
    "step_size.last": SHARE,
    "step_size.until": ABOVE_0,
}
# Of each agent the numbers that are bounded; a dot leads into a mapping, and all of a list have the same bound.
BOUNDS: dict[str, dict[str, Bound]] = {
    "amc": {
        "hidden": AT_LEAST_1,
        "actor_learning_rate": AT_LEAST_0,
        "critic_learning_rate": AT_LEAST_0,
        "batch_size": AT_LEAST_1,
        "memory_episodes": AT_LEAST_1,
        "discount": SHARE,
        "target_rate": SHARE,
        "baseline_rate": SHARE,
        "warmup_episodes": AT_LEAST_0,
        "noise": AT_LEAST_0,
        "noise_decay": SHARE,
    },
    "double-q-learning": _TABULAR,
    "evolution": {"population": AT_LEAST_1, "sample": AT_LEAST_1, "step": AT_LEAST_0, "spread": AT_LEAST_0},
    "global-magnitude": {},
    # With no step or no patience a descent would end before its first plan, and the next one begin for ever.
    "greedy": {"steps": AT_LEAST_1, "patience": AT_LEAST_1, "share": PART},
    "lamp": {},
    "mcts": {"exploration": AT_LEAST_0, "temperature": ABOVE_0},
    "q-learning": _TABULAR,
    "sarsa": _TABULAR,
    "sarsa-lambda": _TABULAR,
    "simulated-annealing": {"hottest": ABOVE_0, "coolest": ABOVE_0, "step": AT_LEAST_0},
    "tpe": {"startup": AT_LEAST_0, "candidates": AT_LEAST_1},
}
# Stable-Baselines3 and sb3-contrib begin with these whatever they are, and fail, learn nothing or run for ever afterwards.
LIBRARY: dict[str, Bound] = {
    "action_noise": AT_LEAST_0,
    "batch_size": AT_LEAST_1,
    "buffer_size": AT_LEAST_1,
    "cg_max_steps": AT_LEAST_1,
    "clip_range": ABOVE_0,
    "delta_std": ABOVE_0,
    "exploration_final_eps": SHARE,
    "exploration_fraction": PART,
    "gae_lambda": SHARE,
    "gamma": SHARE,
    "gradient_steps": Bound("at least 1, or -1 for as many as there were steps", lambda value: value >= 1 or value == -1),
    "learning_rate": AT_LEAST_0,
    "learning_starts": AT_LEAST_0,
    "n_critic_updates": AT_LEAST_1,
    "n_delta": AT_LEAST_1,
    "n_epochs": AT_LEAST_1,
    "n_eval_episodes": AT_LEAST_1,
    "n_steps": AT_LEAST_1,
    "n_top": AT_LEAST_1,
    "policy_delay": AT_LEAST_1,
    "target_kl": ABOVE_0,
    "target_update_interval": AT_LEAST_1,
    "tau": PART,
    "top_quantiles_to_drop_per_net": AT_LEAST_0,
}
# Numbers in the files, and the libraries take words or pairs too, which they check.
_ALSO_OTHERS = ("target_entropy", "train_freq")
_OPTIONAL = {"until": 1.0}  # what a mapping may leave out or have beside what the file has, see `agents.tabular.Schedule`


def check(agent: str, shipped: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse hyperparameters that an agent can't run with.

    Args:
        agent: its name.
        shipped: those of its file, of whose kind the others must be.
        given: used instead of them, all or some.

    Raises:
        TypeError: of another kind than in the file.
        ValueError: out of bounds.
    """
    if agent not in BOUNDS:
        for name, value in given.items():
            # Of what the file leaves to the library the kind is not known here, and None may be its default, as it is of noise.
            known = shipped.get(name, 1.0 if name in LIBRARY else None)
            off = value is None and (name == "action_noise" or name not in shipped)
            if isinstance(known, (int, float)) and name not in _ALSO_OTHERS and not off:
                _check(f"{agent}: {name}", name, value, known, LIBRARY)
        return
    for name, value in given.items():
        _check(f"{agent}: {name}", name, value, shipped[name], BOUNDS[agent])
    if agent == "evolution":
        population, sample = ({**shipped, **given}[name] for name in ("population", "sample"))
        if sample > population:
            raise ValueError(f"evolution: sample={sample} members can't be drawn from a population of {population}; lower sample")


def _check(where: str, name: str, value: Any, known: Any, bounds: Mapping[str, Bound]) -> None:
    if isinstance(known, Mapping):
        if not isinstance(value, Mapping) or not set(known) - set(_OPTIONAL) <= set(value) <= set(known) | set(_OPTIONAL):
            raise TypeError(f"{where} must be a mapping such as {dict(known)}, got {value!r:.80}")
        for key, each in value.items():
            _check(f"{where}.{key}", f"{name}.{key}", each, known.get(key, _OPTIONAL.get(key)), bounds)
    elif isinstance(known, list):
        if not isinstance(value, (list, tuple)) or (name == "hidden" and len(value) != len(known)):
            raise TypeError(f"{where} must be a list such as {known}, got {value!r:.80}")
        for each in value:
            _check(where, name, each, known[0], bounds)
    elif known is None or isinstance(known, str):
        if not isinstance(value, str) and value is not known:
            raise TypeError(f"{where} must be text, got {type(value).__name__} {value!r:.80}")
    elif isinstance(known, bool):
        if not isinstance(value, bool):
            raise TypeError(f"{where} must be true or false, got {type(value).__name__} {value!r:.80}")
    else:
        kinds, what = ((int,), "a whole number") if isinstance(known, int) else ((int, float), "a number")
        if isinstance(value, bool) or not isinstance(value, kinds):
            written = f"; for YAML {value} is text: write it with a point, as 1.0e-3" if _is_number(value) else ""
            raise TypeError(f"{where} must be {what}, got {type(value).__name__} {value!r:.80}{written}")
        bound = bounds.get(name)
        if not math.isfinite(value) or (bound is not None and not bound.holds(value)):
            raise ValueError(f"{where}={value} must be {'finite' if bound is None else bound.words}")


def _is_number(value: Any) -> bool:
    """Whether text is a number to Python, if none to YAML: ``1e-3``."""
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False
