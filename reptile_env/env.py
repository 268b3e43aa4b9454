"""The environment: one decision for each prunable group of a trained network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from reptile_env import observations, rewards, showing
from reptile_env.actions import make_actions
from reptile_env.compression.plan import FLOAT_BITS, Plan, Request
from reptile_env.deciding import Outcome, left_alone, start, take_step
from reptile_env.episode import Position, Rules
from reptile_env.errors import number
from reptile_env.evaluation.resources import Resources
from reptile_env.evaluation.settings import Settings, make_finetune
from reptile_env.exploring import Explorable
from reptile_env.optimum import optimum
from reptile_env.rendering import RENDER_MODES, Renderer
from reptile_env.scenes import chosen_scene, make_scenes


class ReptilePruneEnv(Explorable):
    """Compress a trained network, one decision for each of its groups.

    ## Description
    A trained network is compressed group by group, in network order. After each decision the network is really shrunk, recovers
    (by default in closed form) and is measured on validation data. An episode is one or more rounds over all groups.

    Every plan is carried out anew from the dense network, in one fixed order whatever the order of decisions: prune, refit or
    recalibrate, low rank, fine-tune, quantize. Rounding comes last because nothing that follows it could keep weights on their
    grid. With ``finetune`` among the recoveries, each round after the first cuts the network that the round before it trained.

    ## Action Space
    ``ReptilePrune-v0``: ``Box(-1, 1, (1,), float32)``, read as the prune rate ``max_rate * (a + 1) / 2`` of the group's
    remaining channels. ``ReptilePruneDiscrete-v0``: ``Discrete(len(rates))``, each action a listed rate.
    ``ReptileCompress-v0``: ``Box(-1, 1, (3,), float32)``, or as many numbers as ``components`` names, in their order; -1 leaves
    each alone:

    | component | read as |
    |---|---|
    | ``rate`` | ``max_rate * (a + 1) / 2`` |
    | ``bits`` | eight equal bins: 32 (float), 8, 7, 6, 5, 4, 3, 2 bits of the group's layers' weights |
    | ``rank`` | ``1 - 0.9 * (a + 1) / 2``, three decimals: what two factors hold of a layer's parameters; 1: it stays whole |

    ``env.unwrapped.action_for(rate, bits, rank)`` goes the other way. In later rounds compression is never undone: bits and rank
    are the lower of what is asked and what is there. Groups whose layers can't be factored carry out rank 1.

    ## Observation Space
    ``Box(0, 1, (n,), float32)``. ``"network"``: sparsity of every group, one-hot of the current group, metric and cost
    relative to dense, progress, budget left: ``2 * groups + 4``. ``"group"``: a description of the current group, of the same
    length for every network: 23. Where decisions are about more than the rate, both go on: with bits, bits / 32 (of every group;
    of the current one); with rank, the rank likewise, and in ``"group"`` whether the group can be factored. With all three
    components these are ``4 * groups + 4`` and 26 numbers.

    ## Rewards
    ``"tradeoff"``: change of ``U = w * metric/metric_dense + (1 - w) * (1 - cost/cost_dense)``, divided by what the best
    uniform setting gains. The return is 0 for the dense network and 1 for the best uniform setting: the best rate among
    multiples of 0.05 up to ``max_rate`` (among the listed rates), given to all groups alike; for ``ReptileCompress-v0`` the best
    of rates 0, 0.2, 0.4, 0.6, bits 32, 8, 6, 4 and ranks 1, 0.5, as far as they are components. Others: ``"loss"``,
    ``"amc_params"``, ``"amc_macs"``, ``"accuracy"``, ``"purl"``, or a callable of a `reptile_env.rewards.Transition`.

    ## Starting State
    The dense network. With a list of tasks, one of them is drawn at each reset; ``options={"task": name}`` names it.

    ## Episode End
    Terminated after the last group of the last round. Never truncated.

    ## Budget
    ``budget=0.5`` caps the final cost. The rate of a decision is raised as far as it takes for the decisions that are left, at
    their deepest, to meet the cap; where the largest rate is not enough, its bits are lowered one by one, and then its rank.
    ``info["budget_bit"]`` says when that happened. An action that leaves the cap in reach is carried out as it is;
    ``env.unwrapped.action_masks()`` says which listed rates do.

    ## Arguments
    See below. ``info`` holds group, rate_requested, rate, measured, budget_bit, metric, loss, params, macs, bytes (and latency
    where that is the cost), utility, plan and seconds; for ``ReptileCompress-v0`` also bits_requested, bits, rank_requested and
    rank; at the end also return and score (0: best uniform rate, 1: best known plan, both under the same budget; NaN where none
    is known, as for ``ReptileCompress-v0``).

    ## Version History
    v0: first.

    Args:
        task: name of a built-in task, a `reptile_env.Task`, or a list of either (drawn at each reset).
        evaluator: ``"live"`` runs the network; ``"table"`` looks the plan up in an exhaustive table, without torch, and knows the
            widths of its grid alone: the nearest is carried out, and ``info["rate"]`` says which.
        action: ``"continuous"``, ``"discrete"`` or ``"joint"``: set by the id.
        max_rate: largest rate of a continuous action, in (0, 1); default 0.9.
        rates: rates of discrete actions, in [0, 1); default 0, 0.1, ..., 0.9.
        components: of ``ReptileCompress-v0``: which of ``"rate"``, ``"bits"``, ``"rank"`` an action decides on; default all.
        budget: cap on the final cost as a fraction of dense, in (0, 1]; see Budget.
        cost: ``"macs"``, ``"params"``, ``"bytes"`` or ``"latency"`` (seconds, from a table measured once on this machine): what
            the utility weighs and the budget caps. ``"bytes"`` for ``ReptileCompress-v0``: the others don't see bits.
        recovery: ``"reconstruct"``, ``"reconstruct-sequential"``, ``"recalibrate"``, ``"finetune"``, ``"none"``, or names joined
            by ``+``.
        importance: ``"l1"``, ``"l2"``, ``"random"``, ``"taylor"``, ``"fpgm"``, ``"lamp"``, ``"wanda"``, ``"obs"`` or ``"auto"``:
            which channels of a group go first.
        granularity: ``"structured"``: whole channels; ``"unstructured"``: single weights; ``"2:4"``: two of every four. The last
            two go with the components rate and bits alone.
        reward: a name or a callable.
        observation: ``"network"`` or ``"group"``.
        rounds: passes over all groups in an episode, at least 1.
        measure: ``"step"`` measures after every decision, ``"round"`` after the last of each round.
        prune_probability: a decision is carried out with this probability, in [0, 1]; a budget is met all the same.
        w: weight of the metric in the utility, in (0, 1); default the task's own.
        finetune: how ``"finetune"`` trains: a dict of arguments of `reptile_env.evaluation.settings.Finetune`, such as
            ``{"steps": 200, "distillation": 0.5}``.
        rounding: of quantized weights: ``"data-aware"`` (errors are passed on to the columns still to come) or ``"nearest"``.
        residual_width: make the width of a Transformer's residual stream and embeddings a group as well.
        cache_bytes: memory for what is kept from one plan to the next (activations, weights, measurements); default 1 GiB.
        disk_cache: folder of measurements, shared by processes and seeds; an entry is met again only under the same weights, data,
            code, settings, versions and machine.
        num_threads: of a measurement; default torch's own. Give 1 where as many environments run in processes as there are cores.
        device: on which compressed networks run and are trained, such as ``"cuda"``; default the CPU, which does all else.
        render_mode: ``"ansi"``, ``"rgb_array"`` or ``"human"``.

    Raises:
        ValueError: an unknown name or a number outside its range; the message says the mend.
        TypeError: a task, reward or number of the wrong type.
    """

    metadata = {  # noqa: RUF012 (declared so by gymnasium.Env)
        "render_modes": list(RENDER_MODES),
        "render_fps": 4,
    }

    def __init__(
        self,
        task: Any = "digits-cnn",
        *,
        evaluator: str = "live",
        action: str = "continuous",
        max_rate: float | None = None,
        rates: Sequence[float] | None = None,
        components: Sequence[str] | None = None,
        budget: float | None = None,
        cost: str = "macs",
        recovery: str = "reconstruct",
        importance: str = "l1",
        granularity: str = "structured",
        reward: str | rewards.Reward = "tradeoff",
        observation: str = "network",
        rounds: int = 1,
        measure: str = "step",
        prune_probability: float = 1.0,
        w: float | None = None,
        finetune: dict[str, Any] | None = None,
        rounding: str = "data-aware",
        residual_width: bool = False,
        cache_bytes: int | None = None,
        disk_cache: str | os.PathLike[str] | None = None,
        num_threads: int | None = None,
        device: str | None = None,
        render_mode: str | None = None,
    ) -> None:
        self._reward = rewards.resolve(reward)
        self._observation = observations.resolve(observation)
        self._actions = make_actions(action, max_rate, rates, components)
        rules = Rules(budget, cost, rounds, measure, self._actions.max_rate, self._actions.components)
        if not 0 <= number("prune_probability", prune_probability) <= 1:
            raise ValueError(f"prune_probability={prune_probability} is outside [0, 1]")
        self._probability = float(prune_probability)
        self.render_mode = render_mode
        self._renderer = Renderer(render_mode)
        settings = Settings(
            recovery,
            importance,
            granularity,
            train_loss=rewards.needs_train_loss(reward),
            rounding=rounding,
            finetune=make_finetune(finetune),
            latency=cost == "latency",
            residual_width=residual_width,
        )
        resources = Resources(cache_bytes, disk_cache, num_threads, device)
        super().__init__(rules, make_scenes(task, evaluator, settings, rules, self._actions.sweep, w, reward, resources))
        length = self._observation.length(len(self._scenes[0].evaluator.sizes), rules.components)
        for scene in self._scenes if self._observation.grows else ():
            if self._observation.length(len(scene.evaluator.sizes), rules.components) != length:
                raise ValueError("tasks of different numbers of groups need observation='group', which is the same for all")
        self.observation_space = spaces.Box(0.0, 1.0, (length,), np.float32)
        self.action_space = self._actions.space

    # -- Gymnasium ---------------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode from the dense network.

        Args:
            seed: of the environment's generator.
            options: ``{"task": name}`` chooses among several tasks instead of drawing.
        """
        if isinstance(seed, bool):
            raise TypeError(f"seed must be a whole number, got bool {seed}")
        index = chosen_scene(self._scenes.names, {} if options is None else options)
        super().reset(seed=seed)
        if index is None:
            index = int(self.np_random.integers(len(self._scenes))) if len(self._scenes) > 1 else 0
        self._scene = self._scenes[index]
        at = self._position = start(self._scene, index)
        self._history = [(1.0, 1.0)]
        if self.render_mode == "human":
            self.render()
        nothing = Outcome(at.plan, *Request(), bit=False)
        return self._observe(), showing.info(self._scene, self._rules, at, "", Request(), nothing, measured=True)

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Carry out one decision for the current group."""
        at = self._at
        if at.ended:
            raise ResetNeeded("the episode has ended; call reset() before step()")
        requested = self._actions.read(action)
        generator = None if self._probability >= 1 else self.np_random.bit_generator.state
        try:
            outcome = self._carry_out(at, requested)
        except BaseException:
            # A metric or reward that fails, or an interrupt, leaves the episode where it was.
            if generator is not None:
                self.np_random.bit_generator.state = generator
            raise
        if self.render_mode == "human":
            self.render()
        return outcome

    def _carry_out(self, at: Position, requested: Request) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        scene, rules = self._scene, self._rules
        carried_out = self._probability >= 1 or self.np_random.random() < self._probability
        after = take_step(scene, rules, self._reward, at, requested, carried_out)
        self._position = now = after.position
        if after.measured:
            self._remember(now)
            self._history.append((now.quality, now.relative_cost))
        name = scene.evaluator.group_names[at.group]
        info = showing.info(scene, rules, now, name, requested, after.outcome, measured=after.measured)
        if now.ended:
            info["return"] = now.total
            info["score"] = scene.anchors.score(now.total)
        return self._observe(), after.reward, now.ended, False, info

    def render(self) -> Any:
        """A string (``ansi``), an image ``(height, width, 3)`` uint8 (``rgb_array``), or None after drawing (``human``)."""
        frame = showing.frame(self._scene, self._rules, self._at, tuple(self._history))
        return self._renderer.render(frame, int(self.metadata["render_fps"]))

    def close(self) -> None:
        """Close the window, if there is one."""
        self._renderer.close()

    # -- Beyond Gymnasium: see also `Explorable` ---------------------------------------------------------------------

    @property
    def uniform_sweep(self) -> list[Request]:
        """What was asked of every group alike to find the best uniform setting."""
        return list(self._actions.sweep)

    def action_for(self, rate: float, bits: int = FLOAT_BITS, rank: float = 1.0) -> Any:
        """The action that asks for `rate` (for discrete actions: the nearest listed rate), `bits` and `rank`.

        Raises:
            ValueError: no action asks for this, or one of them is not decided on and not at its default.
        """
        return self._actions.action_for(Request(rate, bits, rank))

    def action_masks(self) -> NDArray[np.bool_]:
        """Bool ``(len(rates),)``: which actions leave the budget in reach, so that it would not raise their rate.

        At least one does. Without a budget all do. Masked algorithms (sb3-contrib's MaskablePPO) ask for this before each step.

        Raises:
            ValueError: the actions are not discrete.
            ResetNeeded: no episode, or one that has ended.
        """
        if self._actions.rates is None:
            raise ValueError("only listed rates can be masked; use ReptilePruneDiscrete-v0")
        return left_alone(self._scene, self._at, self._actions.rates)

    def optimum(self) -> tuple[Plan, float]:
        """The best plan that an episode of the current task can end with, and its return; for ``evaluator="table"``.

        Exact: every plan is in the table. It honours the largest rate or the listed ones, the rounds and the budget. A
        ``prune_probability`` below 1 is taken for 1.

        Raises:
            ValueError: the evaluator is no table.
        """
        return optimum(self._scene, self._rules, self._actions.rates)

    def _observe(self) -> NDArray[np.float32]:
        return self._observation.observe(showing.view(self._scene, self._rules, self._at))
