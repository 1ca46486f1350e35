"""The command ``steer``.

Commands import what they need when they run: the library behind them takes seconds to import, ``--help`` should not.
"""

import sys

import typer
from rich.console import Console

from steering_client import SteeringClientError
from steering_profiles.errors import SteeringError
from steering_server.cli.anatomy import anatomy
from steering_server.cli.compare import compare
from steering_server.cli.evaluate import evaluate
from steering_server.cli.explain import explain
from steering_server.cli.export import export
from steering_server.cli.fit import fit
from steering_server.cli.profiles import profiles
from steering_server.cli.reproduce import reproduce
from steering_server.cli.serve import serve
from steering_server.errors import ServerError

app = typer.Typer(
    name="steer",
    help="Steer a language model at inference time, and prove that it helps.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (serve, compare, fit, evaluate, explain, export, profiles, anatomy, reproduce):
    app.command()(command)


def main() -> None:
    """Run the command line; an error ends in one line on standard error and exit status 1."""
    try:
        app()
    except (SteeringError, ServerError, SteeringClientError) as exc:
        Console(stderr=True, highlight=False, soft_wrap=True).print("[bold red]error:[/]", str(exc).replace("[", r"\["))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
