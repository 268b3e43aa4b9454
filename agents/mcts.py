"""Monte Carlo tree search over snapshots (Kocsis & Szepesvári, ECML 2006) with prior choices (PUCT: Rosin, AMAI 2011)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.base import Recorder
from agents.choices import choices, uniform_choice
from agents.tuned import TunedAgent


class Node:
    """A plan of which the first groups are decided on.

    Args:
        point: the snapshot there.
        reward: sum of the rewards so far.
        depth: decisions so far.
        count: of choices.

    Attributes:
        children: one for each choice; None: not tried, or the end of an episode.
        visits: simulations that took each choice.
        returns: sum of what they returned.
        best: the most that one of them returned.
        closed: of each choice, whether nothing below it is left to evaluate.
    """

    def __init__(self, point: Any, reward: float, depth: int, count: int) -> None:
        self.point, self.reward, self.depth = point, reward, depth
        self.children: list[Node | None] = [None] * count
        self.visits, self.returns, self.best = np.zeros(count), np.zeros(count), np.full(count, -np.inf)
        self.closed = np.zeros(count, bool)


class Mcts(TunedAgent):
    """Every simulation ends with a complete plan, whose return counts for all choices on the way.

    Inside the tree choices are weighed by PUCT; beyond it they are drawn by habit: the likelier, the more they returned at this
    decision so far (move-average sampling: Finnsson & Björnsson, AAAI 2008). Habit is the prior of PUCT too, and starts from the
    best uniform setting. The evaluations are shared out over the decisions: after its share a decision is made, for the choice
    under which the best plan was found, and the search goes on below it. What is left at the end goes to another search from the
    root, in the same tree.
    """

    def search(self, env: Recorder, seed: int, out: Path | None) -> None:
        """Simulate until the evaluations are used, or all plans are evaluated."""
        env.reset(seed=seed)
        tree = _Tree(env, self.hyperparameters, np.random.default_rng(seed))
        while env.remaining > 0 and not tree.root.closed.all():
            path: list[tuple[Node, int]] = []
            node: Node | None = tree.root
            while node is not None:
                share = max(env.remaining // (env.decisions - node.depth), 1)
                for _ in range(share):
                    if env.remaining > 0 and not node.closed.all():
                        tree.simulate(path, node)
                path.append((node, int(np.argmax(node.best))))
                node = node.children[path[-1][1]]


class _Tree:
    def __init__(self, env: Recorder, hyperparameters: dict[str, Any], rng: np.random.Generator) -> None:
        self._env, self._actions, self._rng = env, choices(env), rng
        self._exploration, self._temperature, self._floor = (
            float(hyperparameters[key]) for key in ("exploration", "temperature", "floor")
        )
        count = len(self._actions)
        self.root = Node(env.snapshot(), 0.0, 0, count)
        # As if each choice had been taken once, and returned 1 where it is the best uniform setting's, else 0.
        self._taken = np.ones((env.decisions, count))
        self._returned = np.zeros((env.decisions, count))
        self._returned[:, uniform_choice(env)] = 1.0

    def simulate(self, path: list[tuple[Node, int]], node: Node) -> None:
        """Evaluate one more plan below `node`, which `path` leads to."""
        env, path = self._env, [*path, (node, self._selected(node))]
        while (child := path[-1][0].children[path[-1][1]]) is not None:
            path.append((child, self._selected(child)))
        node, choice = path[-1]
        env.restore(node.point)
        _, reward, ended, _, _ = env.step(self._actions[choice])
        total = node.reward + float(reward)
        if ended:
            node.closed[choice] = True
        else:
            node.children[choice] = Node(env.snapshot(), total, node.depth + 1, len(self._actions))
        drawn = [choice for _, choice in path]
        while not ended and env.remaining > 0:
            drawn.append(int(self._rng.choice(len(self._actions), p=self._habit(len(drawn)))))
            _, reward, ended, _, _ = env.step(self._actions[drawn[-1]])
            total += float(reward)
        if ended:
            self._learn(path, drawn, total)

    def _selected(self, node: Node) -> int:
        tried = node.visits > 0
        # What was not tried is expected to return what its siblings did.
        means = np.full(len(tried), node.returns.sum() / max(node.visits.sum(), 1.0))
        means[tried] = node.returns[tried] / node.visits[tried]
        bonus = self._exploration * self._habit(node.depth) * np.sqrt(node.visits.sum() + 1) / (1 + node.visits)
        return int(np.argmax(np.where(node.closed, -np.inf, means + bonus)))

    def _habit(self, depth: int) -> NDArray[np.float64]:
        """Probabilities of the choices at a decision."""
        means = self._returned[depth] / self._taken[depth]
        weights = np.exp((means - means.max()) / self._temperature)
        return weights / weights.sum()

    def _learn(self, path: list[tuple[Node, int]], drawn: list[int], total: float) -> None:
        value = max(total, self._floor)
        for depth, choice in enumerate(drawn):
            self._taken[depth, choice] += 1
            self._returned[depth, choice] += value
        for node, choice in reversed(path):
            node.visits[choice] += 1
            node.returns[choice] += value
            node.best[choice] = max(node.best[choice], total)
            child = node.children[choice]
            node.closed[choice] = node.closed[choice] or (child is not None and child.closed.all())
