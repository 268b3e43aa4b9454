"""The suites: what is compressed, under which settings, with how many evaluations and seeds. Frozen data.

Results are comparable because a suite never changes under its version: `tests/benchmarks/test_suites.py` holds the digest of each.
Whoever changes one gives it the next version, and the older one stays as long as its results are of use. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agents.registry import AGENTS, AgentSpec, agent_spec, make_agent
from reptile_env.errors import unknown
from reptile_env.tasks.transfer.members import MEMBERS

Pairs = tuple[tuple[str, Any], ...]

# What a replay needs to know is kept of these alone: decisions are made once a group, and always carried out.
SETTINGS = (
    "evaluator",
    "budget",
    "cost",
    "recovery",
    "importance",
    "components",
    "measure",
    "observation",
    "max_rate",
    "rates",
    "w",
)
CONTINUOUS, JOINT = "ReptilePrune-v0", "ReptileCompress-v0"
TRANSFER = "ReptilePruneTransfer-v0"


@dataclass(frozen=True)
class Case:
    """What an agent is scored on once a seed.

    Attributes:
        name: unique in its suite.
        task: name of a built-in task.
        evaluations: plans that an agent may evaluate: of this network, or, where the suite has others to train on, of those, all
            together.
        settings: arguments of the environment beside those of the suite.
    """

    name: str
    task: str
    evaluations: int
    settings: Pairs = ()


@dataclass(frozen=True)
class Suite:
    """A set of cases that agents are compared on.

    Attributes:
        name: of the suite.
        version: raised with every change.
        summary: one line for lists.
        cases: what agents are scored on.
        tracks: by what: ``search`` by the best plan, ``policy`` by the trained policy's own, ``transfer`` by that of a policy
            trained on other networks.
        seeds: runs of an agent on a case, with the seeds 0, 1, ...
        env_id: of the environment; agents that choose from a list act in its discrete twin.
        settings: arguments of the environment. Where they leave them open, `measure` and `observation` are the agent's own.
        training_networks: that agents are trained on before they are scored; none: they search on the network of the case itself.
        threads: of torch and BLAS.

    Raises:
        ValueError: two cases of one name, or a setting that a replay can't repeat.
    """

    name: str
    version: int
    summary: str
    cases: tuple[Case, ...]
    tracks: tuple[str, ...] = ("search", "policy")
    seeds: int = 10
    env_id: str = CONTINUOUS
    settings: Pairs = ()
    training_networks: tuple[str, ...] = ()
    threads: int = 1

    def __post_init__(self) -> None:
        names = [case.name for case in self.cases]
        if len(set(names)) < len(names):
            raise ValueError(f"suite {self.name!r} has two cases of one name")
        for key, _ in [*self.settings, *(pair for case in self.cases for pair in case.settings)]:
            if key not in SETTINGS:
                raise unknown("setting of a suite", key, SETTINGS)

    @property
    def title(self) -> str:
        """Name and version, as in results: ``core-v1``."""
        return f"{self.name}-v{self.version}"

    @property
    def digest(self) -> str:
        """SHA-256 of all that results depend on; the summary may be worded anew."""
        content = asdict(self)
        del content["summary"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def case(self, name: str) -> Case:
        """The case of a name; an unknown one answers with the known ones and the nearest."""
        for case in self.cases:
            if case.name == name:
                return case
        raise unknown(f"task of {self.title}", name, [case.name for case in self.cases])


def env_of(suite: Suite, case: Case, spec: AgentSpec) -> tuple[str, dict[str, Any]]:
    """Id and arguments of the environment that an agent is scored in, the task among them."""
    settings = spec.env_settings | dict(suite.settings) | dict(case.settings)
    split = {"split": "test"} if suite.env_id == TRANSFER else {}
    env_id = spec.env_id if suite.env_id == CONTINUOUS else suite.env_id
    return env_id, {"task": case.task, **split, **{key: _listed(value) for key, value in settings.items()}}


def training_env_of(suite: Suite, spec: AgentSpec) -> tuple[str, dict[str, Any]]:
    """Id and arguments of the environment that an agent is trained in before it is scored."""
    settings = spec.env_settings | dict(suite.settings)
    networks = {"task": list(suite.training_networks), "split": "train"}
    return suite.env_id, {**networks, **{key: _listed(value) for key, value in settings.items()}}


def _listed(value: Any) -> Any:
    """As JSON would give it back."""
    return list(value) if isinstance(value, tuple) else value


def find_suite(text: str) -> Suite:
    """The suite of a name, the newest version, or of a name with a version.

    Raises:
        ValueError: there is none.
    """
    if text in SUITES:
        return SUITES[text]
    versions = [suite for suite in SUITES.values() if suite.name == text]
    if not versions:
        raise unknown("suite", text, [suite.name for suite in SUITES.values()])
    return max(versions, key=lambda suite: suite.version)


def agents_of(suite: Suite) -> list[str]:
    """The agents that can act in a suite's environments."""
    return [name for name in AGENTS if _refusal(suite, name) is None]


def check_agent(suite: Suite, name: str) -> None:
    """Refuse an agent that can't act in a suite's environments.

    Raises:
        ValueError: no such agent, or one that can't.
    """
    agent_spec(name)
    refusal = _refusal(suite, name)
    if refusal is not None:
        raise ValueError(f"agent {name!r} can't run {suite.title}: {refusal}; those that can: {', '.join(agents_of(suite))}")


def _refusal(suite: Suite, name: str) -> str | None:
    if suite.env_id != CONTINUOUS and AGENTS[name].actions == "list":
        return f"it chooses from a list of actions, and those of {suite.env_id} are numbers"
    if AGENTS[name].weights and any(("evaluator", "table") in suite.settings + case.settings for case in suite.cases):
        return "it reads the network's weights, which a table does not hold"
    if suite.env_id == JOINT and not AGENTS[name].searches:
        return "its policy decides on rates alone"
    if suite.training_networks and make_agent(name).policy_file is None:
        return "it learns no policy on the suite's networks"
    return None


EPISODES = 300  # that an agent which measures every decision is allowed
PLANS_OF_REAL = 600  # evaluated ones, where a measurement takes from tenths of a second to seconds

# Built-in tasks and their groups, so as many evaluations an episode.
_CORE = {
    "digits-mlp": 5,
    "digits-cnn": 7,
    "digits-resnet": 7,
    "digits-mobilenet": 8,
    "digits-vae": 8,
    "digits-gan": 5,
    "mnist1d-cnn": 6,
    "mnist1d-lstm": 6,
    "mnist1d-gru": 5,
    "mnist1d-transformer": 7,
    "vowels-rnn": 5,
}
_TABLES = ("digits-mlp", "digits-cnn", "mnist1d-cnn", "mnist1d-lstm", "mnist1d-gru", "mnist1d-transformer")
_REAL = (
    "fashion-resnet20",
    "fashion-mobilenetv2",
    "mnist-lenet5",
    "mnist-gan",
    "mnist-vae",
    "fsdd-cnn",
    "fsdd-lstm",
    "fsdd-bcresnet",
    "trec-transformer",
    "minilm-stsb",
)


def _cases(tasks: Sequence[str], settings: Pairs = (), suffix: str = "") -> tuple[Case, ...]:
    return tuple(Case(f"{task}{suffix}", task, EPISODES * _CORE[task], settings) for task in tasks)


def _members(split: str) -> tuple[str, ...]:
    return tuple(name for name, member in MEMBERS.items() if member.split == split)


_BUDGETED = tuple(
    case for budget in (0.25, 0.5, 0.75) for case in _cases(list(_CORE), (("budget", budget),), suffix=f"@{budget:g}")
)
_ALL = (
    Suite(
        "smoke",
        1,
        "does everything run? one task, from its table and live; a minute",
        (Case("digits-mlp@table", "digits-mlp", 60, (("evaluator", "table"),)), Case("digits-mlp", "digits-mlp", 60)),
        seeds=2,
    ),
    Suite("core", 1, "the tasks that need no data of their own, with the running network", _cases(list(_CORE))),
    Suite("budget", 1, "as budget-v2, with five seeds", _BUDGETED, seeds=5),
    Suite("budget", 2, "the core tasks with 25, 50 and 75 % of the MACs", _BUDGETED),
    Suite("joint", 1, "rate, bits and rank of every group, against bytes", _cases(list(_CORE)), seeds=5, env_id=JOINT),
    Suite("table", 1, "the tasks whose every plan was measured: the regret is exact", _cases(_TABLES, (("evaluator", "table"),))),
    Suite(
        "transfer",
        1,
        "trained on 48 networks, scored on 16 others, of each of which one plan is measured",
        tuple(Case(name, name, 20_000) for name in _members("test")),
        tracks=("transfer",),
        seeds=5,
        env_id=TRANSFER,
        settings=(("observation", "group"),),
        training_networks=_members("train"),
    ),
    Suite(
        "real",
        1,
        "larger networks and data, which are read from the data folder or downloaded",
        tuple(Case(task, task, PLANS_OF_REAL) for task in _REAL),
        seeds=3,
    ),
)
SUITES = {suite.title: suite for suite in _ALL}
