"""``steer reproduce``: the paper's experiment, with the published and the measured figures side by side."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from steering_server.cli.destinations import require_writable_file
from steering_server.cli.interrupts import report_saved
from steering_server.cli.model_options import CacheDir, DeviceMap, Dtype, MaxMemory, model_settings
from steering_server.cli.progress import progress_bars

if TYPE_CHECKING:
    from steering_profiles.fitting import FitResult
    from steering_profiles.published import Published


def reproduce(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="Models of the paper's table, by name or hub id. (default: those whose weights are on this machine)",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="File to write the figures to.")] = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    max_memory: MaxMemory = None,
    cache_dir: CacheDir = None,
) -> None:
    """Run the paper's experiment and compare with the published figures.

    The task is balanced parentheses, the method the paper's: attention heads
    are ranked by F1, k and alpha are chosen from its grid on dev prompts, and
    accuracy is measured on test prompts. A model is downloaded only if it is
    named.

    [dim]steer reproduce[/]
    [dim]steer reproduce "GPT-2 XL" Qwen/Qwen2.5-3B[/]
    """
    from steering_profiles.errors import SteeringError
    from steering_server.config import load_model_source

    chosen = _choose(models or ())
    base = load_model_source(**model_settings(None, dtype, device_map, max_memory, cache_dir))
    if output is not None:
        require_writable_file("--json", output)

    from steering_profiles.fitting import FitSettings, fit
    from steering_profiles.models import load_model
    from steering_profiles.tasks import parentheses

    console, errors = Console(), Console(stderr=True, highlight=False)
    records: list[dict[str, object]] = []
    with report_saved(lambda: _kept(records, output)):
        for published in chosen:
            try:
                with errors.status(f"loading {published.model}"):
                    loaded = load_model(replace(base, model=published.source))
                with progress_bars() as progress:
                    result = fit(
                        loaded,
                        parentheses(loaded.tokenizer),
                        name="reproduced",
                        command="steer reproduce",
                        settings=FitSettings(method="paper"),
                        progress=progress,
                    )
            except SteeringError as exc:
                if models:
                    raise
                errors.print(f"{published.model} left out: {exc}", style="yellow", markup=False)
                continue
            console.print(_table(published, result))
            records.append(_record(published, result))
            if output is not None:  # after every model, because the next one may take hours
                output.write_text(json.dumps(records, indent=2) + "\n")


def _kept(records: Sequence[object], output: Path | None) -> str:
    if output is None or not records:
        return "no results are saved"
    return f"{output} has the figures of {len(records)} of the models"


def _choose(names: "list[str] | tuple[str, ...]") -> "list[Published]":
    from steering_profiles.published import PUBLISHED, is_available
    from steering_server.errors import ConfigError

    if not names:
        return [published for published in PUBLISHED if is_available(published)]
    by_name = {name.lower(): published for published in PUBLISHED for name in (published.model, published.source)}
    for name in names:
        if name.lower() not in by_name:
            known = ", ".join(f"{published.model} ({published.source})" for published in PUBLISHED)
            raise ConfigError(f"model is {name!r}, for which the paper has no figures; allowed: {known}")
    return [by_name[name.lower()] for name in names]


def _table(published: "Published", result: "FitResult") -> Table:
    facts = result.choice.facts
    table = Table(
        "",
        *(f"{count} to close" for count in range(1, 5)),
        title=f"{published.model}: test accuracy, %",
        caption=f"published: {published.note}; ours: the top {facts['k']} heads by {facts['alpha']:g}",
    )
    before, after = result.before.percent, result.after.percent
    groups = [")" * count for count in range(1, 5)]
    table.add_row("published, plain", *map(_figure, published.before))
    table.add_row("ours, plain", *(_figure(before.get(group)) for group in groups))
    table.add_row("published, steered", *map(_figure, published.after))
    table.add_row("ours, steered", *(_figure(after.get(group)) for group in groups))
    return table


def _figure(percent: float | None) -> str:
    return "-" if percent is None else f"{percent:.1f}"


def _record(published: "Published", result: "FitResult") -> dict[str, object]:
    return {
        "model": published.model,
        "source": published.source,
        "published": {"before": published.before, "after": published.after, "note": published.note},
        "ours": {"before": result.before.percent, "after": result.after.percent, "chosen": result.choice.facts},
    }
