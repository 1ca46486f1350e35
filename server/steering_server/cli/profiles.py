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

    [dim]steer profiles[/]                       the shipped ones
    [dim]steer profiles --profiles my-profiles[/]  and your own
    [dim]steer profiles parentheses[/]           one, with the figures it was chosen by
    """
    from steering_profiles.store import Catalogue

    catalogue = Catalogue.open(folder)
    console = Console()
    if name is not None:
        console.print_json(catalogue[name].profile.model_dump_json())
        return
    table = Table("name", "model", "method", "changes", "hash", "from", "description")
    for entry in (catalogue[each] for each in catalogue):
        profile = entry.profile
        table.add_row(
            profile.name,
            profile.model.id,
            profile.method,
            profile.summary,
            entry.content_hash.removeprefix("sha256:")[:12],
            "shipped" if entry.shipped else str(entry.path.parent),
            profile.description,
        )
    console.print(table)
