"""Tells versions of an agent's algorithm from each other, so that their runs are not taken for those of one agent."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import inspect

from agents.registry import agent_spec

_SHARED = ("agents.base", "agents.tuned")  # how all agents are called; no algorithm is in there


@functools.cache
def source_digest(name: str) -> str:
    """A hash of the modules that define an agent's class and those it inherits from; comments, layout and docstrings don't count.

    What other modules do for it is not seen.

    Raises:
        ValueError: an unknown agent.
    """
    module, _, attribute = agent_spec(name).path.partition(":")
    classes = inspect.getmro(getattr(importlib.import_module(module), attribute))
    package = module.partition(".")[0]
    own = {each.__module__ for each in classes if each.__module__.partition(".")[0] == package} - set(_SHARED)
    hasher = hashlib.sha256()
    for each in sorted(own):
        hasher.update(each.encode() + b"\0" + _syntax(inspect.getsource(importlib.import_module(each))).encode())
    return hasher.hexdigest()[:12]


def _syntax(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:]
    return ast.dump(tree)
