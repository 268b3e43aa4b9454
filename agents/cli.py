"""How a Typer application becomes a command: exit status 0, 1 or 2, and one line for every bad argument."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer

# The base of every complaint about arguments, whichever parser this version of Typer brings.
_UsageError: Any = typer.BadParameter.__mro__[1]


class BadArgumentError(Exception):
    """What was asked for can't be done; the message is one line that says the mend."""


def run(app: typer.Typer, program: str, commands: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command of `app`; returns the exit status: 0 done, 1 failed, 2 bad arguments.

    Args:
        app: the application.
        program: what the user typed to start it.
        commands: its commands, as a list for the message when none is given.
        arguments: default the process's own.
    """
    try:
        status = typer.main.get_command(app).main(arguments, prog_name=program, standalone_mode=False)
    except BadArgumentError as error:
        message = str(error)
    except _UsageError as error:
        message = error.format_message()
        if message.startswith("Missing command"):
            message = f"missing command; give {commands}"
    else:
        return int(status or 0)
    # One line, whatever the message held.
    print(f"{program}: " + " ".join(message.split()), file=sys.stderr)
    return 2
