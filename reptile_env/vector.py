"""Thousands of episodes on a table in one numpy call, for ``gym.make_vec``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from reptile_env.batch import Batch, Episodes
from reptile_env.batch_views import OBSERVERS, Infos, spread
from reptile_env.env import ReptilePruneEnv
from reptile_env.evaluation.table import TableEvaluator
from reptile_env.scenes import chosen_scene
from reptile_env.worth import PAYOFFS, Ints

# Arguments of gym.make that the environment itself does not know.
_OF_MAKE = ("disable_env_checker", "max_episode_steps")

Step = tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]


def make_vector(num_envs: int = 1, *, autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP, **kwargs: Any) -> Any:
    """What ``gym.make_vec`` gives: a `ReptileVectorEnv` where there can be one, else Gymnasium's ``SyncVectorEnv``.

    ``SyncVectorEnv`` serves the running network, several tasks, rewards that are callables, and rendering.

    Args:
        num_envs: how many environments.
        autoreset_mode: how episodes start anew.
        **kwargs: of `ReptilePruneEnv`, and ``max_episode_steps`` and ``disable_env_checker`` as ``gym.make`` takes them.
    """
    ours = {name: value for name, value in kwargs.items() if name not in _OF_MAKE}
    if kwargs.get("evaluator") == "table" and kwargs.get("max_episode_steps") is None and _refusal(ReptilePruneEnv(**ours)) is None:
        return ReptileVectorEnv(num_envs, autoreset_mode=autoreset_mode, **ours)
    # The other ids are this one with other defaults, which kwargs hold.
    return SyncVectorEnv([lambda: gym.make("ReptilePrune-v0", **kwargs)] * num_envs, autoreset_mode=autoreset_mode)


class ReptileVectorEnv(VectorEnv[NDArray[np.float32], NDArray[Any], NDArray[Any]]):
    """`ReptilePruneEnv` on a table, many at once: row by row the same floats as that many environments in ``SyncVectorEnv``.

    ``gym.make_vec("ReptilePrune-v0", num_envs=4096, task="digits-mlp", evaluator="table")`` gives one.

    Observations, rewards, ends and seeds (``seed + i``) are those of ``SyncVectorEnv``; so is ``info``, an array and a mask for
    each key, but for ``plan``: many plans as dicts would cost more than all the rest. Its row of the table is there instead:
    ``envs.unwrapped.evaluator.grid.plan(infos["row"][i])`` is the plan.

    Args:
        num_envs: how many environments, at least 1.
        autoreset_mode: ``"NextStep"``, ``"SameStep"`` or ``"Disabled"``, as Gymnasium defines them. With the last,
            ``reset(options={"reset_mask": mask})`` starts some episodes anew.
        **kwargs: of `ReptilePruneEnv`.

    Attributes:
        single: an environment made alike, which answers what is the same for all: ``groups``, ``reference``, ``optimum()``,
            ``action_for(rate)``.

    Raises:
        ValueError: what can't be played in one call; the message says why.
    """

    def __init__(self, num_envs: int = 1, *, autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP, **kwargs: Any) -> None:
        if isinstance(num_envs, bool) or not isinstance(num_envs, (int, np.integer)):
            raise TypeError(f"num_envs must be a whole number, got {type(num_envs).__name__} {num_envs!r:.80}")
        if num_envs < 1:
            raise ValueError(f"num_envs={num_envs}; at least 1 is needed")
        self.single = single = ReptilePruneEnv(**kwargs)
        refusal = _refusal(single)
        if refusal is not None:
            raise ValueError(f"{refusal}; use gym.make_vec(..., vectorization_mode='sync')")
        self.num_envs, self._mode = int(num_envs), AutoresetMode(autoreset_mode)
        self.metadata = {"autoreset_mode": self._mode, "render_modes": []}
        self.single_observation_space, self.single_action_space = single.observation_space, single.action_space
        self.observation_space = batch_space(single.observation_space, self.num_envs)
        self.action_space = batch_space(single.action_space, self.num_envs)
        self._batch = Batch(single._scene, single._rules, single._reward)
        self._observe, self._infos = OBSERVERS[single._observation.observe](self._batch), Infos(self._batch)
        self._at: Episodes | None = None
        self._seeds: list[int | None] = [None] * self.num_envs
        self._generators: list[np.random.Generator | None] = [None] * self.num_envs

    @property
    def evaluator(self) -> TableEvaluator:
        """The table."""
        return self._batch.evaluator

    @property  # type: ignore[misc]  # it has a setter there
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]  # as SyncVectorEnv
        """The generator of each environment."""
        return tuple(self._generator(i) for i in range(self.num_envs))

    @property
    def np_random_seed(self) -> tuple[int | None, ...]:  # type: ignore[override]
        """The seed of each environment's generator."""
        _ = self.np_random
        return tuple(self._seeds)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start every episode anew, or those of ``options={"reset_mask": mask}``.

        Args:
            seed: of the first environment's generator, one more for each of the others; or a list of seeds.
            options: ``reset_mask``, bool ``(num_envs,)``; ``task`` may name the one that there is.
        """
        given = {} if options is None else options
        mask = given.get("reset_mask") if isinstance(given, dict) else None
        rest = given if mask is None else {key: value for key, value in given.items() if key != "reset_mask"}
        chosen_scene([self.evaluator.name], rest)
        which = np.arange(self.num_envs) if mask is None else self._masked(mask)
        for i, each in zip(which.tolist(), self._seeds_of(seed)[which], strict=True):
            if each is not None:
                self._seeds[i], self._generators[i] = each, None
        if mask is None:
            self._at = Episodes.start(self.num_envs)
            return self._observe(self._at), self._infos(self._at)
        self._started.put(which, Episodes.start(len(which)))
        return self._observe(self._started), spread(self._infos(self._started.of(which)), which, self.num_envs)

    def step(self, actions: NDArray[Any]) -> Step:
        """Carry out one decision in each environment."""
        at = self._started
        ended = at.made == self._batch.steps
        acting = np.flatnonzero(~ended)
        if self._mode is AutoresetMode.DISABLED and len(acting) < self.num_envs:
            raise ResetNeeded("some episodes have ended; start them anew with reset(options={'reset_mask': mask})")
        rates = self.single._actions.read_rates(actions, self.num_envs, acting)
        rewards = np.zeros(self.num_envs)
        if len(acting) == self.num_envs:
            self._at, rewards = self._batch.advance(at, rates, self._drawn(acting))
        else:
            if len(acting):
                part, rewards[acting] = self._batch.advance(at.of(acting), rates, self._drawn(acting))
                at.put(acting, part)
            starting = np.flatnonzero(ended)
            at.put(starting, Episodes.start(len(starting)))
        terminated = self._started.made == self._batch.steps
        final = self._finished(terminated) if self._mode is AutoresetMode.SAME_STEP and terminated.any() else {}
        return self._observe(self._started), rewards, terminated, np.zeros(self.num_envs, bool), final | self._infos(self._started)

    def _finished(self, terminated: NDArray[np.bool_]) -> dict[str, Any]:
        """Where episodes that have ended stood; they start anew."""
        which = np.flatnonzero(terminated)
        last = self._started.of(which)
        observations = np.full(self.num_envs, None, object)
        observations[which] = list(self._observe(last))
        infos = {"final_obs": observations, "final_info": spread(self._infos(last), which, self.num_envs)}
        self._started.put(which, Episodes.start(len(which)))
        return infos | {f"_{name}": terminated.copy() for name in infos}

    @property
    def _started(self) -> Episodes:
        if self._at is None:
            raise ResetNeeded("call reset() first")
        return self._at

    def _drawn(self, acting: Ints) -> NDArray[np.bool_] | None:
        """Which decisions are carried out."""
        probability = self.single._probability
        if probability >= 1:
            return None
        return np.array([self._generator(i).random() for i in acting.tolist()]) < probability

    def _generator(self, index: int) -> np.random.Generator:
        known = self._generators[index]
        if known is None:
            known, self._seeds[index] = seeding.np_random(self._seeds[index])
            self._generators[index] = known
        return known

    def _masked(self, mask: Any) -> Ints:
        if not isinstance(mask, np.ndarray) or mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise ValueError(
                f"reset_mask must be a bool array of shape ({self.num_envs},) with at least one True, got {mask!r:.80}"
            )
        return np.flatnonzero(mask)

    def _seeds_of(self, seed: Any) -> NDArray[Any]:
        if isinstance(seed, bool):
            raise TypeError(f"seed must be a whole number, got bool {seed}")
        if seed is None or isinstance(seed, (int, np.integer)):
            seed = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"a list of seeds needs one for each of the {self.num_envs} environments, got {len(seed)}")
        return np.array([*seed, None], object)[:-1]  # the None keeps numpy from making numbers of them


def _refusal(env: ReptilePruneEnv) -> str | None:
    """Why environments made like this one can't be played in one numpy call."""
    if len(env._scenes) > 1:
        return "a vector of episodes is played on one task, not on a list of several"
    if not isinstance(env.evaluator, TableEvaluator):
        return "only the plans of a table are looked up in one call (evaluator='table'); the network itself measures one by one"
    if env._reward not in PAYOFFS:
        return "a reward that is a callable sees one decision at a time; give reward= by name"
    if env.render_mode is not None:
        return f"render_mode={env.render_mode!r}: a vector of episodes is not drawn"
    return None
