"""The command ``steer``.

Commands import what they need when they run, and torch only after all arguments have been checked: importing torch
takes seconds, which neither ``--help`` nor a mistake should cost.
"""

import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from steering_ab.errors import ABError
from steering_profiles import __version__
from steering_profiles.errors import SteeringError
from steering_server.cli.commands.ab import ab
from steering_server.cli.commands.anatomy import anatomy
from steering_server.cli.commands.compare import compare
from steering_server.cli.commands.evaluate import evaluate
from steering_server.cli.commands.experiments import experiments
from steering_server.cli.commands.explain import explain
from steering_server.cli.commands.export import export
from steering_server.cli.commands.fit import FORMER_OPTIONS as FORMER_FIT_OPTIONS
from steering_server.cli.commands.fit import fit
from steering_server.cli.commands.keys import keys
from steering_server.cli.commands.profiles import profiles
from steering_server.cli.commands.reproduce import reproduce
from steering_server.cli.commands.serve import FORMER_OPTIONS as FORMER_SERVE_OPTIONS
from steering_server.cli.commands.serve import serve
from steering_server.cli.interrupts import Interrupted
from steering_server.cli.renaming import renaming
from steering_server.errors import ServerError


class _Commands(TyperGroup):
    """All commands. Raises an interrupt as :class:`Interrupted`; typer would exit without a message."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as exc:
            raise Interrupted from exc


app = typer.Typer(
    name="steer",
    cls=_Commands,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def steer(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Steer a language model at inference time and measure the effect."""
    if version:
        typer.echo(f"steer {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)


app.command(cls=renaming(FORMER_SERVE_OPTIONS))(serve)
app.command(cls=renaming(FORMER_FIT_OPTIONS))(fit)
for command in (compare, ab, evaluate, explain, export, profiles, anatomy, reproduce):
    app.command()(command)
app.add_typer(keys, name="keys")
app.add_typer(experiments, name="experiments")


def main() -> None:
    """Run the command line.

    An error prints one line to standard error and exits with status 1, an interrupt exits with status 130.
    """
    try:
        app()
    except (SteeringError, ServerError, ABError) as exc:
        _say("error", str(exc))
        sys.exit(1)
    except Interrupted as exc:
        _say("interrupted", str(exc))
        sys.exit(130)


def _say(what: str, why: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text.assemble((f"{what}:", "bold red"), " ", why))
