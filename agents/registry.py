"""The agents by name. Listing them imports none of them, and no torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reptile_env.errors import unknown

if TYPE_CHECKING:
    from gymnasium.spaces import Space

    from agents.base import Agent


@dataclass(frozen=True)
class AgentSpec:
    """A registered agent.

    Attributes:
        path: ``module:class``, called with the agent's name.
        summary: one line for lists.
        measure: when its plans are evaluated unless asked otherwise: after every step, or once a round for those that
            learn nothing from a half-finished plan.
        env_id: the environment it acts in.
        observation: what it sees unless asked otherwise.
        reward: what it maximises unless asked otherwise.
        actions: what it can choose among: ``any`` actions, ``numbers`` (a Box) or a ``list`` (Discrete).
        weights: whether it reads the network's weights, which tables don't hold.
        searches: whether it looks at more than one plan; otherwise one episode is all it does.
        stops: whether it may be done before its evaluations are used up, though it looks at more than one plan.
    """

    path: str
    summary: str
    measure: str = "step"
    env_id: str = "ReptilePrune-v0"
    observation: str = "network"
    reward: str = "tradeoff"
    actions: str = "any"
    weights: bool = False
    searches: bool = True
    stops: bool = False

    @property
    def env_settings(self) -> dict[str, str]:
        """Arguments of its environment, unless asked otherwise."""
        return {"measure": self.measure, "observation": self.observation, "reward": self.reward}

    def check_actions(self, space: Space[Any]) -> None:
        """Refuse an environment whose actions the agent can't choose among.

        Raises:
            ValueError: names both, and an environment that fits.
        """
        from gymnasium.spaces import Discrete

        if self.actions != "any" and (self.actions == "list") != isinstance(space, Discrete):
            what = "from a list" if self.actions == "list" else "numbers"
            raise ValueError(f"the agent chooses {what}, the actions there are {space}; use {self.env_id}")


_SB3 = "agents.sb3:SB3Agent"
_DISCRETE = "ReptilePruneDiscrete-v0"
AGENTS: dict[str, AgentSpec] = {
    "random": AgentSpec("agents.random_search:RandomSearch", "random search", "round"),
    "uniform": AgentSpec("agents.uniform:Uniform", "the same rate for every group, swept", "round", stops=True),
    "global-magnitude": AgentSpec(
        "agents.one_shot:OneShot", "channels of the smallest norm in the whole network go", "round", weights=True, stops=True
    ),
    "lamp": AgentSpec("agents.one_shot:OneShot", "global ranking by LAMP scores", "round", weights=True, stops=True),
    "greedy": AgentSpec("agents.greedy:Greedy", "one group cut further at a time, the one that gains most", "round"),
    "coordinate-ascent": AgentSpec("agents.coordinate_ascent:CoordinateAscent", "one rate changed at a time, restarted", "round"),
    "cma-es": AgentSpec("agents.cma_es:CmaEs", "covariance matrix adaptation evolution strategy, restarted", "round"),
    "simulated-annealing": AgentSpec("agents.simulated_annealing:SimulatedAnnealing", "a random walk that cools down", "round"),
    "tpe": AgentSpec("agents.tpe:Tpe", "tree-structured Parzen estimator, Optuna", "round"),
    "evolution": AgentSpec("agents.evolution:RegularisedEvolution", "regularised evolution: the oldest dies", "round"),
    "beam-search": AgentSpec(
        "agents.beam_search:BeamSearch", "the best half-finished plans, a beam that widens", env_id=_DISCRETE, stops=True
    ),
    "mcts": AgentSpec("agents.mcts:Mcts", "Monte Carlo tree search", "round", env_id=_DISCRETE, stops=True),
    "q-learning": AgentSpec("agents.q_learning:QLearning", "Q-learning with a table", env_id=_DISCRETE, actions="list"),
    "sarsa": AgentSpec("agents.sarsa:Sarsa", "SARSA with a table", env_id=_DISCRETE, actions="list"),
    "sarsa-lambda": AgentSpec("agents.sarsa:Sarsa", "SARSA(lambda) with a table", env_id=_DISCRETE, actions="list"),
    "double-q-learning": AgentSpec(
        "agents.double_q_learning:DoubleQLearning", "double Q-learning with two tables", env_id=_DISCRETE, actions="list"
    ),
    "a2c": AgentSpec(_SB3, "advantage actor-critic, Stable-Baselines3"),
    "ppo": AgentSpec(_SB3, "proximal policy optimisation, Stable-Baselines3", "round"),
    "ppo-group": AgentSpec(_SB3, "PPO that sees a description of the group, for transfer", observation="group"),
    "pretrained": AgentSpec(
        "agents.pretrained:Pretrained",
        "a policy trained on other networks: one pass, no search",
        "round",
        observation="group",
        actions="numbers",
        searches=False,
    ),
    "recurrent-ppo": AgentSpec(_SB3, "PPO with an LSTM, sb3-contrib"),
    "maskable-ppo": AgentSpec(_SB3, "PPO that is shown what keeps the budget, sb3-contrib", env_id=_DISCRETE, actions="list"),
    "trpo": AgentSpec(_SB3, "trust region policy optimisation, sb3-contrib"),
    "ars": AgentSpec(_SB3, "augmented random search, sb3-contrib"),
    "sac": AgentSpec(_SB3, "soft actor-critic, Stable-Baselines3", actions="numbers"),
    "tqc": AgentSpec(_SB3, "truncated quantile critics, sb3-contrib", actions="numbers"),
    "crossq": AgentSpec(_SB3, "soft actor-critic with batch normalisation, no target networks, sb3-contrib", actions="numbers"),
    "td3": AgentSpec(_SB3, "twin delayed DDPG, Stable-Baselines3", actions="numbers"),
    "ddpg": AgentSpec(_SB3, "deep deterministic policy gradient, Stable-Baselines3", actions="numbers"),
    "dqn": AgentSpec(_SB3, "deep Q-network, Stable-Baselines3", env_id=_DISCRETE, actions="list"),
    "qr-dqn": AgentSpec(_SB3, "quantile regression DQN, sb3-contrib", env_id=_DISCRETE, actions="list"),
    "amc": AgentSpec("agents.amc:Amc", "DDPG of AMC (He et al., 2018)", "round", observation="group", actions="numbers"),
    "purl": AgentSpec("agents.purl:Purl", "DQN of PuRL (Gupta et al., 2020)", env_id=_DISCRETE, reward="purl", actions="list"),
}


def agent_spec(name: str) -> AgentSpec:
    """The spec of an agent; an unknown name answers with the known ones and the nearest."""
    if name not in AGENTS:
        raise unknown("agent", name, AGENTS)
    return AGENTS[name]


def make_agent(name: str, hyperparameters: Mapping[str, Any] | None = None) -> Agent:
    """The agent `name`.

    Args:
        name: of the agent.
        hyperparameters: used instead of those of its file, all or some.

    Raises:
        TypeError: a hyperparameter of the wrong type.
        ValueError: an unknown agent or hyperparameter, one out of bounds, or an agent without hyperparameters.
    """
    from agents.tuned import TunedAgent

    module, _, attribute = agent_spec(name).path.partition(":")
    cls = getattr(importlib.import_module(module), attribute)
    if not hyperparameters:
        agent: Agent = cls(name)
        return agent
    if not issubclass(cls, TunedAgent):
        raise ValueError(f"agent {name!r} has no hyperparameters; those that have some have a file in agents/hyperparameters/")
    return cls(name, hyperparameters)
