"""``steer experiments``: define, run and read experiments of a running server."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

if TYPE_CHECKING:
    from steering_client import SteeringClient
    from steering_client.experiment_types import Experiment, ExperimentReport

experiments = typer.Typer(no_args_is_help=True, help="Define, run and read the experiments of a running server.")

Url = Annotated[str, typer.Option("--url", metavar="URL", help="URL of the server, with or without /v1.")]
Key = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="STEERING_API_KEY",
        show_envvar=True,
        help="A key with the role admin, if the server has keys.",
    ),
]
Name = Annotated[str, typer.Argument(help="Name of the experiment.", show_default=False)]

_LOCAL = "http://127.0.0.1:8000"
_COLOURS = {
    "better": "green", "worse": "red", "kept": "green", "violated": "red", "running": "green", "archived": "dim",
}  # fmt: skip


@experiments.command("list")
def list_(
    state: Annotated[
        str | None, typer.Option(metavar="draft|running|stopped|archived", help="Only those in this state.")
    ] = None,
    url: Url = _LOCAL,
    api_key: Key = None,
) -> None:
    """List the experiments, the newest first."""
    with _client(url, api_key) as client:
        found = client.experiments.all(state)
    if not found:
        typer.echo("no experiments")
        return
    table = Table(Column("name", no_wrap=True), "state", "requests", "unit", "outcome", "arms")
    for one in found:
        arms = ", ".join(f"{arm.name} {arm.weight:.0%}" for arm in one.arms)
        table.add_row(
            escape(one.name),
            _coloured(one.state),
            one.requests,
            escape(one.unit),
            escape(one.outcome.name),
            escape(arms),
        )
    Console().print(table)


@experiments.command()
def create(
    file: Annotated[
        Path,
        typer.Argument(help="JSON file with the body of POST /v1/experiments.", exists=True, dir_okay=False),
    ],
    start_: Annotated[bool, typer.Option("--start", help="Start it at once.")] = False,
    url: Url = _LOCAL,
    api_key: Key = None,
) -> None:
    """Define an experiment by a file.

    [dim]steer experiments create greeting.json --start[/]
    """
    body = _read(file)
    with _client(url, api_key) as client:
        name, arms, outcome = (body.pop(field, None) for field in ("name", "arms", "outcome"))
        made = client.experiments.create(name, arms or [], outcome, **body)  # the server says what is missing
        if start_:
            made = client.experiments.start(made.name)
    _say(
        f"{made.name} is {made.state}; its least effect needs {made.planned_units} units in a treatment and the control"
    )


@experiments.command()
def show(name: Name, url: Url = _LOCAL, api_key: Key = None) -> None:
    """Show the definition of an experiment and every change of it."""
    with _client(url, api_key) as client:
        found = client.experiments.show(name)
    console = Console(highlight=False)
    _print_definition(console, found)
    table = Table("when", "who", "what", "details")
    for change in found.changes or ():
        weights = change.details.get("weights", {})
        details = ", ".join(f"{arm} {weight:.1%}" for arm, weight in weights.items())
        table.add_row(_time(change.at), escape(change.by or "-"), change.action, escape(details))
    console.print(table)


@experiments.command()
def report(
    name: Name,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    url: Url = _LOCAL,
    api_key: Key = None,
) -> None:
    """Compare the arms of an experiment by everything that is stored.

    It may be looked at every day: the intervals hold at all times together.
    """
    with _client(url, api_key) as client:
        found = client.experiments.report(name)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    _print_report(Console(highlight=False), found)


@experiments.command()
def start(name: Name, url: Url = _LOCAL, api_key: Key = None) -> None:
    """Begin to assign requests, or go on after a stop."""
    with _client(url, api_key) as client:
        _say(f"{name} is {client.experiments.start(name).state}")


@experiments.command()
def stop(name: Name, url: Url = _LOCAL, api_key: Key = None) -> None:
    """Assign no more requests; outcomes are still taken."""
    with _client(url, api_key) as client:
        _say(f"{name} is {client.experiments.stop(name).state}")


@experiments.command()
def archive(name: Name, url: Url = _LOCAL, api_key: Key = None) -> None:
    """Close an experiment for good; its report stays."""
    with _client(url, api_key) as client:
        _say(f"{name} is {client.experiments.archive(name).state}")


@experiments.command()
def weights(
    name: Name,
    arms: Annotated[list[str], typer.Argument(metavar="ARM=WEIGHT...", help="Weight of every arm; they add up to 1.")],
    url: Url = _LOCAL,
    api_key: Key = None,
) -> None:
    """Change the weights of the arms.

    [dim]steer experiments weights greeting control=0.1 warm=0.9[/]
    """
    given = _parse_weights(arms)
    with _client(url, api_key) as client:
        changed = client.experiments.set_weights(name, given)
    _say(f"{name}: " + ", ".join(f"{arm.name} {arm.weight:.1%}" for arm in changed.arms))


@contextmanager
def _client(url: str, api_key: str | None) -> "Iterator[SteeringClient]":
    """Open a client of the server; its errors become one line."""
    from steering_server.errors import ConfigError, ServerError

    try:
        from steering_client import SteeringClient, SteeringClientError
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"steer experiments needs the package steering-client ({exc}); "
            "install it with: pip install steering-client, or in a checkout: pip install ./client"
        ) from exc
    try:
        with SteeringClient(url, api_key=api_key, timeout=60) as client:
            yield client
    except SteeringClientError as exc:
        raise ServerError(str(exc)) from exc


def _read(file: Path) -> dict[str, Any]:
    from steering_server.errors import ConfigError

    try:
        body = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{file} cannot be read as JSON: {exc}") from exc
    if not isinstance(body, dict):
        raise ConfigError(f"{file} must hold a JSON object, the body of POST /v1/experiments")
    return body


def _parse_weights(arms: Sequence[str]) -> dict[str, float]:
    from steering_server.errors import ConfigError

    parsed: dict[str, float] = {}
    for entry in arms:
        name, _, weight = entry.rpartition("=")
        try:
            parsed[name] = float(weight)
        except ValueError:
            name = ""
        if not name:
            raise ConfigError(f"{entry!r} is no weight of an arm; it must be ARM=WEIGHT, such as control=0.5")
    return parsed


def _say(text: str) -> None:
    Console(highlight=False).print(escape(text), soft_wrap=True)


def _print_definition(console: Console, found: "Experiment") -> None:
    console.print(f"[bold]{escape(found.name)}[/] on {escape(found.model)}: {_coloured(found.state)}", soft_wrap=True)
    if found.description:
        console.print(escape(found.description))
    unit, outcome = escape(found.unit), found.outcome
    console.print(f"requests: {found.requests}; assigned by {unit}; outcome: {escape(outcome.name)} ({outcome.kind})")


def _print_report(console: Console, found: "ExperimentReport") -> None:
    _print_definition(console, found.experiment)
    for warning in found.warnings:
        console.print(f"[bold yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    outcome = found.experiment.outcome
    as_text = _percent if outcome.kind == "rate" else _number
    arms = Table(
        "arm", "steering", *(Column(name, justify="right") for name in ("weight", "exposures", "units", "outcomes")),
        escape(outcome.name), Column("latency", justify="right"), Column("errors", justify="right"),
    )  # fmt: skip
    for arm in found.arms:
        mean = "-" if arm.mean is None else f"{as_text(arm.mean)} {_interval(arm.interval, as_text)}"
        numbers = (f"{arm.weight:.1%}", str(arm.exposures), str(arm.units), str(arm.outcomes))
        latency, errors = _or_dash(arm.latency, lambda s: f"{s:.2f} s"), _or_dash(arm.errors, _percent)
        arms.add_row(escape(arm.name), escape(arm.steering), *numbers, mean, latency, errors)
    console.print(arms)
    signed = _points if outcome.kind == "rate" else _signed
    for one in found.comparisons:
        pair = escape(f"{one.treatment} - {one.control}")
        if one.difference is None or one.interval is None:
            console.print(f"{pair}: too few units yet", soft_wrap=True)
        else:
            level = 1 - found.experiment.alpha / len(found.comparisons)
            console.print(
                f"{pair}: {signed(one.difference)}, {level:.4g} always-valid interval "
                f"{_interval(one.interval, signed)}: {_coloured(one.verdict)}",
                soft_wrap=True,
            )
        missing = f"{one.units_missing} more units needed" if one.units_missing else "as many units as planned"
        console.print(f"  {one.units} of {one.units_needed} units; {missing}", soft_wrap=True)
    for guardrail in found.guardrails:
        means = f"{_or_dash(guardrail.control_mean, _number)} -> {_or_dash(guardrail.treatment_mean, _number)}"
        what = escape(f"{guardrail.metric} in {guardrail.treatment}")
        console.print(f"guardrail {what}: {means}: {_coloured(guardrail.status)}", soft_wrap=True)


def _coloured(word: str) -> str:
    colour = _COLOURS.get(word)
    return f"[{colour}]{word}[/]" if colour else word


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f} points"


def _signed(difference: float) -> str:
    return f"{difference:+.3g}"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _or_dash(value: float | None, as_text: Callable[[float], str]) -> str:
    return "-" if value is None else as_text(value)


def _interval(interval: tuple[float, float], as_text: Callable[[float], str]) -> str:
    return escape(f"[{as_text(interval[0])} .. {as_text(interval[1])}]")
