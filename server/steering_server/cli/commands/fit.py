"""``steer fit``: fit a profile to a task."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from steering_server.cli.destinations import require_writable_folder
from steering_server.cli.fit_options import FINAL_LAYER, ComponentOptions, FinalLayerOptions
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
from steering_server.errors import ConfigError

_SEARCH = "Search"
_FINAL = "Search of method final-layer"
_LIMITS = "What may get worse"

FORMER_OPTIONS = {"--max-drift": "--max-nll-increase", "--own-attention": "--self-only-attention"}


def fit(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder to write the profile, NAME.json, and its report to.")
    ],
    task: Annotated[
        str | None,
        typer.Argument(
            metavar="[TASK]",
            help="Task to fit: parentheses, arithmetic, arithmetic-whole (answers of several tokens), factual-recall "
            "or one of its domains (such as capitals).",
        ),
    ] = None,
    task_file: Annotated[
        str | None,
        typer.Option("--task", metavar="TASK", help="The same as TASK, or a file of your own, FILE.jsonl."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the profile. (default: the task's)")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split into train, dev and test prompts.")] = 0,
    method: Annotated[
        str | None,
        typer.Option(
            help="stepwise moves the scales of a few components at a time, by what the right answers gain. paper, "
            "circuit and random scale the k best components of an order by the same factor; the order is RASteer's, "
            "that of activation patching, or random. final-layer changes the attention and the MLP output of the last "
            "layer and scales no component. (default: final-layer for facts, otherwise stepwise)",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    components: Annotated[
        str, typer.Option(help="Components to scale: heads, neurons or both.", rich_help_panel=_SEARCH)
    ] = ComponentOptions.components,
    max_components: Annotated[
        int,
        typer.Option(
            "--max-components", min=1, help="Maximum number of scaled components (stepwise).", rich_help_panel=_SEARCH
        ),
    ] = ComponentOptions.max_components,
    max_scale: Annotated[
        float, typer.Option("--max-scale", help="Maximum scale of a component (stepwise).", rich_help_panel=_SEARCH)
    ] = ComponentOptions.max_scale,
    margin: Annotated[
        float,
        typer.Option(
            "--margin",
            help="Lead over the likeliest other token that answers are to have, as a difference of logits (stepwise).",
            rich_help_panel=_SEARCH,
        ),
    ] = ComponentOptions.margin,
    metric: Annotated[
        str, typer.Option(help="Measure that ranks the components: f1, recall or precision.", rich_help_panel=_SEARCH)
    ] = ComponentOptions.metric,
    accuracy_threshold: Annotated[
        float,
        typer.Option(
            help="Accuracy from which a component counts as reliable on a sub-task. The paper's code uses 0.9.",
            rich_help_panel=_SEARCH,
        ),
    ] = ComponentOptions.accuracy_threshold,
    k: Annotated[
        list[int] | None,
        typer.Option(
            help="Number of components to try; may be repeated. (default: the paper's grid)", rich_help_panel=_SEARCH
        ),
    ] = None,
    alpha: Annotated[
        list[float] | None,
        typer.Option(help="Scale to try; may be repeated. (default: the paper's grid)", rich_help_panel=_SEARCH),
    ] = None,
    self_only_attention: Annotated[
        list[float] | None,
        typer.Option(help="Share of self-only attention to try, from 0 to 1; may be repeated.", rich_help_panel=_FINAL),
    ] = None,
    lambdas: Annotated[
        list[float] | None,
        typer.Option(
            "--lambda",
            help="Share of the intercept to subtract; may be repeated, and negative to add it.",
            rich_help_panel=_FINAL,
        ),
    ] = None,
    intercept: Annotated[
        list[str] | None,
        typer.Option(
            help="Estimate of the intercept: regression or mean; may be repeated. (default: both)",
            rich_help_panel=_FINAL,
        ),
    ] = None,
    positions: Annotated[
        list[str] | None,
        typer.Option(
            help="Positions at which the final layer is changed: all, or last for the last token of the prompt alone; "
            "may be repeated. (default: both)",
            rich_help_panel=_FINAL,
        ),
    ] = None,
    gates: Annotated[
        bool,
        typer.Option(
            "--gates",
            help="Also try gates: change only predictions whose top probability lies in a band.",
            rich_help_panel=_FINAL,
        ),
    ] = False,
    per_group: Annotated[
        bool,
        typer.Option(
            "--per-group",
            help="Choose settings, and an intercept, for each sub-task alone, by cross-validation on train and dev. "
            "They apply at the last token of prompts of that sub-task, recognised by their text.",
            rich_help_panel=_FINAL,
        ),
    ] = False,
    max_lost: Annotated[
        float | None,
        typer.Option(
            "--max-lost",
            help="Percentage points of accuracy that a sub-task may lose: on dev with final-layer, where the default "
            "is 1, and in each choosing format with stepwise, which by default does not look at them.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    conditions: Annotated[
        bool,
        typer.Option(
            "--conditions",
            help="Also try the task's conditions, under which the profile takes effect at some positions only "
            "(final-layer, and stepwise with --max-lost).",
            rich_help_panel=_LIMITS,
        ),
    ] = False,
    in_turn: Annotated[
        bool,
        typer.Option(
            "--in-turn",
            help="Search under one condition after the other, the narrowest first, and keep what each search finds "
            "(stepwise, with --conditions).",
            rich_help_panel=_LIMITS,
        ),
    ] = False,
    max_nll_increase: Annotated[
        float,
        typer.Option(
            "--max-nll-increase",
            help="Relative increase of the NLL of other text that is allowed, such as 0.01 for 1%.",
            rich_help_panel=_FINAL,
        ),
    ] = FinalLayerOptions.max_nll_increase,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also search with the other methods and show the results side by side.")
    ] = False,
    model: Model = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    max_memory: MaxMemory = None,
    cache_dir: CacheDir = None,
) -> None:
    """Fit a steering profile: find the components that promote the right answer.

    The fit ranks attention heads (or neurons) on the task's train prompts and
    chooses on its dev prompts which of them to scale, and by how much. For
    facts it chooses two settings of the last layer instead. The printed
    accuracy is that of the test prompts, which the fit does not use. A report
    beside the profile shows the search and all measurements. If a fit is
    interrupted, run the same command again to continue it.

    [dim]steer fit parentheses --out my-profiles[/]
    [dim]steer fit factual-recall --out my-profiles[/]
    [dim]steer fit --task my-questions.jsonl --out my-profiles[/]
    [dim]steer serve --profiles my-profiles[/]
    """
    from steering_profiles.tasks import (
        RECALL_TASKS,
        require_conditions,
        require_group_conditions,
        require_known,
        require_next_tokens,
        task_name,
    )
    from steering_server.cli.fitting import FitPlan, checked_name, make_profile, method_fit
    from steering_server.config import load_model_source

    source = _task_source(task, task_file)
    require_known(source)
    profile_name = checked_name(name or task_name(source))
    usual = FINAL_LAYER if source in RECALL_TASKS else "stepwise"
    method = usual if method is None else method
    of_components = ComponentOptions(
        components,
        max_components,
        max_scale,
        metric,
        accuracy_threshold,
        tuple(k or ()),
        tuple(alpha or ()),
        max_lost if method != FINAL_LAYER else None,
        conditions if method != FINAL_LAYER else False,
        in_turn,
        margin,
    )
    of_final_layer = FinalLayerOptions(
        tuple(self_only_attention or ()),
        tuple(lambdas or ()),
        tuple(intercept or ()),
        tuple(positions or ()),
        conditions if method == FINAL_LAYER else False,
        gates,
        max_lost if method == FINAL_LAYER else None,
        max_nll_increase,
        per_group,
    )
    chosen = method_fit(method, of_components, of_final_layer, compare=compare)
    if conditions:
        require_conditions(source)
    if per_group:
        require_group_conditions(source)
    if method == FINAL_LAYER:
        require_next_tokens(source, "method final-layer")
    of_model = load_model_source(**model_settings(model, dtype, device_map, max_memory, cache_dir))
    require_writable_folder("--out", out)
    options = [
        Option("--name", name),
        Option("--seed", seed, 0),
        Option("--method", method, usual),
        *of_components.all,
        *of_final_layer.all,
        *model_identity_options(of_model),
    ]
    task_words = ["--task", source] if source.endswith(".jsonl") else [source]
    command = shlex.join(["steer", "fit", *task_words, "--out", str(out), *words(options)])
    make_profile(FitPlan(source, profile_name, seed, chosen, of_model, out, command))


def _task_source(task: str | None, task_file: str | None) -> str:
    if (task is None) == (task_file is None):
        given = "neither is given" if task is None else f"both are given: {task!r} and {task_file!r}"
        raise ConfigError(f"the task must be given once, as TASK or as --task TASK; {given}")
    return task or task_file or ""
