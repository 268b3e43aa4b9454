"""One step: from what an action asks to the plan that it leads to, its measurement and its reward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from reptile_env.budget import Decision
from reptile_env.compression.plan import Plan, Request, removal_count
from reptile_env.episode import Position, Rules, Scene
from reptile_env.rewards import Reward, Transition, utility


class Outcome(NamedTuple):
    """What came of a request.

    Attributes:
        plan: after the decision.
        rate: carried out.
        bits: carried out.
        rank: carried out.
        bit: whether the budget asked for more than the action.
    """

    plan: Plan
    rate: float
    bits: int
    rank: float
    bit: bool


def left_alone(scene: Scene, at: Position, rates: Sequence[float]) -> NDArray[np.bool_]:
    """For each of `rates` whether the budget would carry it out on the current group as it is; all of them without a budget.

    Raises:
        ResetNeeded: the episode has ended.
    """
    if at.ended:
        raise ResetNeeded("the episode has ended; call reset() first")
    wall, grid, plan = scene.wall, scene.evaluator.grid, at.plan
    if wall is None:
        return np.ones(len(rates), bool)
    width, bits, rank = plan.widths[at.group], plan.bits[at.group], plan.ranks[at.group]
    counts = [removal_count(width, rate) for rate in rates]
    if grid is not None:
        counts = [grid.nearest(at.group, width, count) for count in counts]
    return np.array([wall.leaves_in_reach(plan.levels, at.group, at.round, Decision(count, bits, rank)) for count in counts])


def decide(scene: Scene, at: Position, requested: Request, carried_out: bool) -> Outcome:
    """Carry out `requested` on the current group, and more where the budget needs it.

    Compression is never undone: bits and rank stay where they are below what is asked. A group whose layers can't be factored
    stays whole. Where the evaluator knows some widths alone, the nearest of them is carried out.

    Args:
        scene: the task.
        at: where the episode stands.
        requested: what the action asks for.
        carried_out: False where chance lets the group alone; the budget is met all the same.
    """
    evaluator, group, plan = scene.evaluator, at.group, at.plan
    if group == 0 and at.round > 0:
        plan = evaluator.next_round(plan)
    width, bits, rank = plan.widths[group], plan.bits[group], plan.ranks[group]
    count, depth, fraction, bit = 0, bits, rank, False
    if carried_out:
        count, depth = removal_count(width, requested.rate), min(bits, requested.bits)
        fraction = min(rank, requested.rank) if evaluator.rankable[group] else rank
        if evaluator.grid is not None:
            count = evaluator.grid.nearest(group, width, count)
    if scene.wall is not None:
        asked = Decision(count, depth, fraction)
        done = scene.wall.decide(plan.levels, group, at.round, asked)
        count, depth, fraction, bit = done.count, done.bits, done.rank, done != asked
    plan = evaluator.cut(plan, group, count)
    if depth != bits or fraction != rank:
        plan = plan.replace(group, bits=depth, rank=fraction)
    return Outcome(plan, count / width, depth, fraction, bit)


class Step(NamedTuple):
    """What a step led to.

    Attributes:
        position: where the episode stands now.
        outcome: of the decision.
        reward: finite.
        measured: whether the plan was measured.
    """

    position: Position
    outcome: Outcome
    reward: float
    measured: bool


def take_step(scene: Scene, rules: Rules, reward: Reward, at: Position, requested: Request, carried_out: bool) -> Step:
    """Decide, measure where the rules say so, and reward.

    Raises:
        ValueError: a reward that is not finite.
    """
    evaluator, reference = scene.evaluator, scene.reference
    outcome = decide(scene, at, requested, carried_out)
    last_group = at.group + 1 == len(evaluator.sizes)
    terminated = last_group and at.round + 1 == rules.rounds
    measured = last_group or rules.measure == "step"
    plan, cost = outcome.plan, reference.cost
    if measured:
        measurement = evaluator.measure(plan)
        costs, quality = measurement.costs, reference.quality(measurement)
        relative_cost = costs[cost] / reference.dense_cost
        after = utility(reference.w, quality, relative_cost)
    else:
        measurement, quality, after, costs = at.measurement, at.quality, at.utility, evaluator.costs.all(*plan.levels)
        relative_cost = costs[cost] / reference.dense_cost
    transition = Transition(reference.dense, at.measurement, measurement, at.utility, after, reference.scale, terminated, quality)
    value = float(reward(transition))
    if not math.isfinite(value):
        raise ValueError(f"the reward of group {evaluator.group_names[at.group]!r} is {value}; it must be finite")
    position = Position(
        scene=at.scene,
        plan=plan,
        measurement=measurement,
        quality=quality,
        utility=after,
        costs=costs,
        relative_cost=relative_cost,
        group=at.group if terminated else (at.group + 1) % len(evaluator.sizes),
        round=at.round + (last_group and not terminated),
        previous_rate=outcome.rate,
        total=at.total + value,
        ended=terminated,
    )
    return Step(position, outcome, value, measured)


def start(scene: Scene, index: int) -> Position:
    """Where an episode on a scene, the one of number `index`, starts: the dense network."""
    reference, plan = scene.reference, scene.evaluator.dense
    measurement = scene.evaluator.measure(plan)
    quality, costs = reference.quality(measurement), measurement.costs
    relative_cost = costs[reference.cost] / reference.dense_cost
    return Position(index, plan, measurement, quality, utility(reference.w, quality, relative_cost), costs, relative_cost)
