"""The page: one file of HTML that holds its style, its scripts and its data, and fetches nothing."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

FOLDER = Path(__file__).parent / "page"
# In the order in which they need each other.
SCRIPTS = (
    *("dom.js", "agents.js", "axes.js", "lines.js", "blocks.js", "scores.js"),
    *("dots.js", "plans.js", "episodes.js", "why.js", "main.js"),
)


def page(summary: Mapping[str, Any], blocks: Mapping[str, str]) -> str:
    """The page of a report.

    Args:
        summary: see `benchmarks.report.summary.page_data`.
        blocks: packed plans, by name.
    """
    scripts = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return Template((FOLDER / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(str(summary["title"])),
        style=(FOLDER / "style.css").read_text(encoding="utf-8"),
        summary=_inside_script(summary),
        script=f'(() => {{\n"use strict";\n{scripts}}})();',
        blocks="\n".join(f'<script type="application/octet-stream" id="{name}">{text}</script>' for name, text in blocks.items()),
    )


def _inside_script(data: Mapping[str, Any]) -> str:
    """JSON in which nothing ends the element that holds it: names and tracebacks may contain markup."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
