"""The agents by name. Listing them imports none of them, and no torch."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reptile_env.errors import unknown

if TYPE_CHECKING:
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
    """

    path: str
    summary: str
    measure: str = "step"
    env_id: str = "ReptilePrune-v0"


_SB3 = "agents.sb3:SB3Agent"
AGENTS: dict[str, AgentSpec] = {
    "random": AgentSpec("agents.random_search:RandomSearch", "random search", "round"),
    "uniform": AgentSpec("agents.uniform:Uniform", "the same rate for every group, swept", "round"),
    "coordinate-ascent": AgentSpec("agents.coordinate_ascent:CoordinateAscent", "one rate changed at a time, restarted", "round"),
    "cma-es": AgentSpec("agents.cma_es:CmaEs", "covariance matrix adaptation evolution strategy, restarted", "round"),
    "ppo": AgentSpec(_SB3, "proximal policy optimisation, Stable-Baselines3"),
    "a2c": AgentSpec(_SB3, "advantage actor-critic, Stable-Baselines3"),
    "sac": AgentSpec(_SB3, "soft actor-critic, Stable-Baselines3"),
    "td3": AgentSpec(_SB3, "twin delayed DDPG, Stable-Baselines3"),
    "ddpg": AgentSpec(_SB3, "deep deterministic policy gradient, Stable-Baselines3"),
    "dqn": AgentSpec(_SB3, "deep Q-network, Stable-Baselines3", env_id="ReptilePruneDiscrete-v0"),
}


def agent_spec(name: str) -> AgentSpec:
    """The spec of an agent; an unknown name answers with the known ones and the nearest."""
    if name not in AGENTS:
        raise unknown("agent", name, AGENTS)
    return AGENTS[name]


def make_agent(name: str) -> Agent:
    """The agent `name`.

    Raises:
        ValueError: unknown name.
    """
    module, cls = agent_spec(name).path.split(":")
    agent: Agent = getattr(importlib.import_module(module), cls)(name)
    return agent
