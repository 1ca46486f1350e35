"""``steer profiles``: the list of profiles, and the content of one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

if TYPE_CHECKING:
    from steering_profiles.schema import Profile
    from steering_profiles.store import Entry


def profiles(
    name: Annotated[str | None, typer.Argument(help="Name of the profile to print as JSON.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--profiles", metavar="DIR", help="Folder of your own profiles, in addition to the shipped ones."),
    ] = None,
) -> None:
    """List the available profiles, or print one of them.

    The side effects are those that were measured when a profile was fitted;
    texts whose NLL increase is above the limit are named. steer evaluate
    measures them again.

    [dim]steer profiles[/]
    [dim]steer profiles parentheses[/]
    [dim]steer profiles --profiles my-profiles[/]
    """
    from steering_profiles.store import Catalogue

    catalogue = Catalogue.open(folder)
    console = Console()
    if name is not None:
        console.print_json(catalogue[name].profile.model_dump_json())
        return
    names = Column("name", no_wrap=True)  # other commands take the name, so it is never truncated
    table = Table(names, "changes", "made for", "side effects", "hash", "from")
    for entry in (catalogue[each] for each in catalogue):
        profile = entry.profile
        table.add_row(
            profile.name,
            profile.brief,
            profile.model.id,
            _side_effects(profile),
            entry.content_hash.removeprefix("sha256:")[:12],
            _origin(entry),
        )
    console.print(table)


def _origin(entry: "Entry") -> str:
    if entry.path is None or entry.shipped:
        return "shipped"
    return f"{entry.path.parent}{', replaces the shipped one' * (entry.replaced is not None)}"


def _side_effects(profile: "Profile") -> str:
    from steering_profiles.side_effect_warnings import NLL_LIMIT, is_measured, percent, side_effect_warnings

    if not is_measured(profile):
        return "not measured"
    beyond = side_effect_warnings(profile)
    return f"[bold yellow]{escape(', '.join(beyond))}[/]" if beyond else f"within {percent(NLL_LIMIT)}"
