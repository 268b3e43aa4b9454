"""Messages that tell the mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from numbers import Real


def unknown(what: str, given: object, known: Iterable[str], others: Iterable[str] = ()) -> ValueError:
    """A ``ValueError`` that names the known choices and the nearest to what was given; `others` are known too, but not listed."""
    names, more = list(known), list(others)
    message = f"unknown {what} {given!r}; known: {', '.join(names)}" + (f" and {len(more)} more" if more else "")
    folded = {name.casefold(): name for name in names + more}
    near = difflib.get_close_matches(str(given).casefold(), folded, n=1, cutoff=0.5)
    return ValueError(f"{message}; did you mean {folded[near[0]]!r}?" if near else message)


def number(what: str, given: object) -> float:
    """`given` as a float; a ``TypeError`` for anything but a real number (a bool is none)."""
    if isinstance(given, bool) or not isinstance(given, Real):
        raise TypeError(f"{what} must be a number, got {type(given).__name__} {given!r:.80}")
    return float(given)


def first_line(error: Exception) -> str:
    """The first line of an error's message, with its kind where that alone would say too little."""
    lines = str(error).splitlines()
    plain = isinstance(error, (RuntimeError, ValueError, TypeError, IndexError)) and lines
    return lines[0] if plain else ": ".join([type(error).__name__, *lines[:1]])
