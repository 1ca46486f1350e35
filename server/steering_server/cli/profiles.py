"""``steer profiles``: what profiles there are, and what is in one."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


def profiles(
    name: Annotated[str | None, typer.Argument(help="Show this profile whole, as JSON.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--profiles", metavar="DIR", help="Folder of your own profiles, besides the shipped.")
    ] = None,
) -> None:
    """List the profiles at hand, or show one.

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
    table = Table("name", "changes", "made for", "hash", "from")
    for entry in (catalogue[each] for each in catalogue):
        profile = entry.profile
        table.add_row(
            profile.name,
            profile.summary,
            profile.model.id,
            entry.content_hash.removeprefix("sha256:")[:12],
            "shipped" if entry.shipped else str(entry.path.parent),
        )
    console.print(table)
