"""``steer explain``: the role of one layer in a task."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from steering_server.cli.destinations import require_writable_folder
from steering_server.cli.loading import open_model
from steering_server.cli.model_options import (
    CacheDir,
    DeviceMap,
    Dtype,
    MaxMemory,
    Model,
    model_identity_options,
    model_settings,
)
from steering_server.cli.options import Option, words
from steering_server.cli.progress import progress_bars
from steering_server.cli.report_plots import can_draw_plots

_MOST_HEADS = 10


def explain(
    task: Annotated[
        str,
        typer.Option(help="Task whose prompts are asked: one that can be fitted, or a file of your own, FILE.jsonl."),
    ] = "capitals",
    layer: Annotated[int, typer.Option(help="Layer to explain; 0 is the first, -1 the last.")] = -1,
    ridge: Annotated[
        float,
        typer.Option(
            help="Ridge penalty that shrinks the coefficients, as a share of each input's variance. 0 is least squares."
        ),
    ] = 0.0,
    prompts: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Use only the first N prompts of each split. (default: all)")
    ] = None,
    argument_heads: Annotated[
        bool,
        typer.Option(
            "--argument-heads/--no-argument-heads",
            help="Whether to search all layers for the heads that move the topic to the last position. This takes "
            "the longest.",
        ),
    ] = True,
    seed: Annotated[int, typer.Option(help="Seed of the split into train, dev and test prompts.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write explain-TASK-layer-N.html and .md to.")
    ] = None,
    model: Model = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    max_memory: MaxMemory = None,
    cache_dir: CacheDir = None,
) -> None:
    """Explain what a layer's MLP does on a task, and find the heads that move the topic.

    In "The capital of France is" some heads move France to the last position,
    an MLP turns it into Paris, and the final layer makes Paris less likely
    again (Lv et al., arXiv:2403.19521). This command fits the MLP's output as a
    linear combination of what each head and the residual stream gave it: a
    coefficient above 0 amplifies that input, one below 0 erases it. R² says how
    much this explains, on the prompts of the fit and on others. The intercept
    is what the MLP adds for any input, shown as the tokens that it promotes and
    demotes. The next table shows what each part adds to the right answer's
    logit. The last one lists the heads whose output, replaced by that on a
    prompt about another topic, lowers P(answer) most.

    [dim]steer explain[/]
    [dim]steer explain --layer 22 --task capitals --out my-reports[/]
    [dim]steer explain --task my-questions.jsonl --layer -2 --ridge 0.01[/]
    """
    from steering_profiles.fit_settings import require_ridge
    from steering_profiles.tasks import make_task, require_known, require_next_tokens
    from steering_server.cli.tables import on_terminal
    from steering_server.config import load_model_source

    require_known(task)
    require_next_tokens(task, "an explanation")
    require_ridge(ridge)
    source = load_model_source(**model_settings(model, dtype, device_map, max_memory, cache_dir))
    if out is not None:
        require_writable_folder("--out", out)
    console = Console()
    plots = out is not None and can_draw_plots(console)
    loaded = open_model(source)

    from steering_profiles.fitting import explain as run_explain
    from steering_profiles.fitting.decomposition import find_layer
    from steering_profiles.reports import explanation_tables as tables
    from steering_profiles.reports import write_explanation
    from steering_profiles.reports.explanation_page import CAUTION, explains_nothing

    layer = find_layer(loaded, layer)
    made = make_task(task, loaded.tokenizer, seed, loaded.context_length)
    with progress_bars() as progress:
        explanation = run_explain(
            loaded,
            made,
            layer,
            ridge=ridge,
            most_prompts=prompts,
            argument_heads=argument_heads,
            progress=progress,
        )
    for reason in explanation.left_out:
        console.print(f"left out: {reason}", style="yellow", markup=False)
    console.print(on_terminal(tables.quality_table(explanation)))
    if explains_nothing(explanation):
        console.print(CAUTION, style="yellow", markup=False)
    for table in (
        tables.coefficients_table(explanation),
        tables.tokens_table(explanation),
        tables.answer_table(explanation),
    ):
        console.print(on_terminal(table))
    if explanation.argument_heads is not None:
        console.print(on_terminal(tables.argument_table(explanation.argument_heads, _MOST_HEADS)))
    if out is not None:
        options = [
            Option("--task", task),
            Option("--layer", layer),
            Option("--out", out),
            Option("--ridge", ridge, 0.0),
            Option("--prompts", prompts),
            Option("--seed", seed, 0),
            *model_identity_options(source),
            Option("--no-argument-heads", not argument_heads, False),
        ]
        page, _ = write_explanation(explanation, shlex.join(["steer", "explain", *words(options)]), out, plots)
        console.print(f"wrote {page}", soft_wrap=True)
