"""Beam search over snapshots (Lowerre, The HARPY Speech Recognition System, 1976), with a beam that gets wider."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.base import Agent, Recorder
from agents.choices import choices
from reptile_env.compression.plan import Plan


@dataclass
class Node:
    """A plan of which the first groups are decided on.

    Attributes:
        point: the snapshot there.
        plan: so far.
        total: sum of the rewards so far, by which plans of the same length are ranked.
        ended: whether all groups are decided on.
        children: one for each choice, once they were measured.
    """

    point: Any
    plan: Plan
    total: float
    ended: bool
    children: list[Node] | None = None


class BeamSearch(Agent):
    """Decides group by group: every choice is tried on every plan of the beam, and the best results are the next beam.

    A sweep with a beam of 1 is greedy in network order. When a sweep is through, the next has a beam twice as wide; what an earlier
    one measured is not measured again. It ends where all plans there are were measured.
    """

    def search(self, env: Recorder, seed: int, out: Path | None) -> None:
        """Sweep until the evaluations are used.

        Raises:
            ValueError: plans are measured at the end of a round alone.
        """
        if env.evaluations_per_episode < env.decisions:
            raise ValueError("beam search ranks half-finished plans; make the environment with measure='step'")
        env.reset(seed=seed)
        root, width = Node(env.snapshot(), env.inner.plan, 0.0, ended=False), 1
        while _sweep(env, root, width):
            width *= 2


def _sweep(env: Recorder, root: Node, width: int) -> bool:
    """Whether a wider sweep would measure more."""
    beam, narrowed = [root], False
    while not beam[0].ended:
        found: dict[Plan, Node] = {}
        for node in beam:
            if node.children is None:
                node.children = _expanded(env, node)
            for child in node.children:
                # Two choices can come to the same: where the budget raises them, or a table knows one width for both.
                found.setdefault(child.plan, child)
        if env.remaining == 0:
            return False
        beam = sorted(found.values(), key=lambda child: child.total, reverse=True)
        narrowed |= len(beam) > width
        beam = beam[:width]
    return narrowed


def _expanded(env: Recorder, node: Node) -> list[Node]:
    """What each choice leads to; those alone that there were evaluations for."""
    children = []
    for action in choices(env):
        if env.remaining == 0:
            break
        env.restore(node.point)
        _, reward, ended, _, _ = env.step(action)
        children.append(Node(env.snapshot(), env.inner.plan, node.total + float(reward), ended))
    return children
