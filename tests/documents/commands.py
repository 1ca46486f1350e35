"""The command ``steer`` in the test's own process: torch is imported once, not once per command."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import typer
from typer.core import TyperGroup

from steering_server.cli import app
from steering_server.cli.commands import fit, serve


@cache
def known() -> dict[str, Any]:
    """Return all commands by name."""
    steer = typer.main.get_command(app)
    assert isinstance(steer, TyperGroup)
    return dict(steer.commands)


def arguments_of(words: Sequence[str]) -> list[str] | None:
    """Return the arguments of a command line that runs ``steer``; None if it runs something else."""
    rest = list(words)
    while rest and re.match(r"[A-Z_]+=", rest[0]):
        rest.pop(0)
    return rest[1:] if rest and rest[0].rpartition("/")[2] == "steer" else None


def parse(arguments: Sequence[str]) -> None:
    """Parse a command line as ``steer`` does, and run nothing.

    Raises:
        click.UsageError: an option or a value is not allowed, or one is missing.
    """
    name, *rest = arguments
    known()[name].make_context(name, list(rest))


def run(arguments: Sequence[str]) -> None:
    """Run ``steer`` with these arguments; an error is raised."""
    typer.main.get_command(app).main(list(arguments), prog_name="steer", standalone_mode=False)


def flags(name: str) -> set[str]:
    """Return all options of a command."""
    command = known()[name]
    several = command.commands.values() if isinstance(command, TyperGroup) else [command]
    options = [option for one in several for option in one.params]
    return {"--help"} | {flag for option in options for flag in (*option.opts, *option.secondary_opts)}


@cache
def all_flags() -> set[str]:
    """Return all options of all commands, and their former names."""
    former = {*fit.FORMER_OPTIONS, *serve.FORMER_OPTIONS}
    return {"--version"} | former | {flag for name in known() for flag in flags(name)}
