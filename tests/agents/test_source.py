"""Versions of an agent's own code are told from each other."""

from __future__ import annotations

import inspect

import pytest

from agents import source
from agents.registry import AGENTS
from agents.source import _syntax, source_digest


def test_every_agent_has_one_and_those_of_one_module_share_it() -> None:
    digests = {name: source_digest(name) for name in AGENTS}
    assert all(len(digest) == 12 for digest in digests.values())
    assert digests["ppo"] == digests["sac"] != digests["random"]
    assert digests["q-learning"] != digests["sarsa"]


def test_comments_layout_and_docstrings_do_not_count() -> None:
    code = 'def act(x):\n    """What it does."""\n    return x + 1\n'
    assert _syntax(code) == _syntax('# why\ndef act( x ):\n    """Other words."""\n\n    return (x + 1)  # as it was\n')
    assert _syntax(code) != _syntax("def act(x):\n    return x + 2\n")


def test_a_change_of_what_it_inherits_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before, another = source_digest("q-learning"), source_digest("random")
    read = inspect.getsource

    def changed(module: object) -> str:
        text = read(module)  # type: ignore[arg-type]
        return text + "\nMORE = 1\n" if getattr(module, "__name__", "") == "agents.tabular" else text

    monkeypatch.setattr(source.inspect, "getsource", changed)
    source_digest.cache_clear()
    try:
        assert source_digest("q-learning") != before
        assert source_digest("random") == another
    finally:
        source_digest.cache_clear()
