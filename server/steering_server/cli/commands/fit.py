"""``steer fit``: make a profile for a task."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from steering_server.cli.destinations import require_writable_folder
from steering_server.cli.fit_options import FINAL_LAYER, ComponentOptions, FinalLayerOptions
from steering_server.cli.model_options import CacheDir, DeviceMap, Dtype, MaxMemory, Model, model_settings, that_load
from steering_server.cli.options import Option, warn_renamed, words
from steering_server.errors import ConfigError

_SEARCH = "Search"
_FINAL = "Search of method final-layer"


def fit(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write NAME.json and its report to.")],
    task: Annotated[
        str | None,
        typer.Argument(
            metavar="[TASK]",
            help="What the model should get right: parentheses, arithmetic, factual-recall or one of its domains.",
        ),
    ] = None,
    task_file: Annotated[
        str | None,
        typer.Option("--task", metavar="TASK", help="The same as TASK; also a file of your own: FILE.jsonl."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The profile's name. (default: the task's)")] = None,
    seed: Annotated[int, typer.Option(help="Decides which prompts are train, dev and test.")] = 0,
    method: Annotated[
        str | None,
        typer.Option(
            help="stepwise raises each scale by what the answers gain; paper, circuit and random take the k best of an "
            "order and one scale for all: RASteer's, that of activation patching, a random one. final-layer scales "
            "nothing: it makes the last layer less hesitant. (default: final-layer for facts, else stepwise)",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    components: Annotated[
        str, typer.Option(help="heads, neurons or both.", rich_help_panel=_SEARCH)
    ] = ComponentOptions.components,
    max_components: Annotated[
        int,
        typer.Option("--max-components", min=1, help="Stepwise: scale no more than these.", rich_help_panel=_SEARCH),
    ] = ComponentOptions.max_components,
    max_scale: Annotated[
        float, typer.Option("--max-scale", help="Stepwise: scale nothing by more.", rich_help_panel=_SEARCH)
    ] = ComponentOptions.max_scale,
    metric: Annotated[
        str, typer.Option(help="What components are ranked by: f1, recall or precision.", rich_help_panel=_SEARCH)
    ] = ComponentOptions.metric,
    accuracy_threshold: Annotated[
        float,
        typer.Option(
            help="Accuracy from which a component counts as right on a sub-task. The paper's code has 0.9.",
            rich_help_panel=_SEARCH,
        ),
    ] = ComponentOptions.accuracy_threshold,
    k: Annotated[
        list[int] | None,
        typer.Option(
            help="Numbers of components to try, may be repeated. (default: the paper's)", rich_help_panel=_SEARCH
        ),
    ] = None,
    alpha: Annotated[
        list[float] | None,
        typer.Option(help="Scales to try, may be repeated. (default: the paper's)", rich_help_panel=_SEARCH),
    ] = None,
    self_only_attention: Annotated[
        list[float] | None,
        typer.Option(help="Shares of self-only attention to try, may be repeated.", rich_help_panel=_FINAL),
    ] = None,
    own_attention: Annotated[list[float] | None, typer.Option("--own-attention", hidden=True)] = None,
    lambdas: Annotated[
        list[float] | None,
        typer.Option(
            "--lambda",
            help="Shares of the intercept to subtract, may be repeated and less than 0.",
            rich_help_panel=_FINAL,
        ),
    ] = None,
    intercept: Annotated[
        list[str] | None,
        typer.Option(help="regression or mean, may be repeated. (default: both are tried)", rich_help_panel=_FINAL),
    ] = None,
    gates: Annotated[
        bool,
        typer.Option(
            "--gates",
            help="Also try to change only what is predicted with a probability in some band.",
            rich_help_panel=_FINAL,
        ),
    ] = False,
    max_lost: Annotated[
        float,
        typer.Option("--max-lost", help="Percentage points a sub-task may lose on dev.", rich_help_panel=_FINAL),
    ] = FinalLayerOptions.max_lost,
    max_nll_increase: Annotated[
        float,
        typer.Option(
            "--max-nll-increase",
            help="Share by which the NLL of other text may increase.",
            rich_help_panel=_FINAL,
        ),
    ] = FinalLayerOptions.max_nll_increase,
    max_drift: Annotated[float | None, typer.Option("--max-drift", hidden=True)] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Search with the other methods too and show them side by side.")
    ] = False,
    model: Model = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    max_memory: MaxMemory = None,
    cache_dir: CacheDir = None,
) -> None:
    """Fit a steering profile: find the components that promote the right answer.

    Attention heads (or neurons) are ranked on the task's train prompts. Which
    of them to scale, and by how much, is chosen on its dev prompts. For facts,
    two settings of the last layer are chosen instead. The figures printed are
    those of the test prompts, which nothing else saw. A report beside the
    profile shows all of it. A fit that was interrupted goes on where it was.

    [dim]steer fit parentheses --out my-profiles[/]
    [dim]steer fit factual-recall --out my-profiles[/]
    [dim]steer fit --task my-questions.jsonl --out my-profiles[/]
    [dim]steer serve --profiles my-profiles[/]
    """
    from steering_profiles.tasks import RECALL_TASKS, require_known, task_name
    from steering_server.cli.fitting import Asked, checked_name, make_profile, way_of
    from steering_server.config import load_model_source

    if max_drift is not None:
        warn_renamed("--max-drift", "--max-nll-increase")
        max_nll_increase = max_drift
    if own_attention:
        warn_renamed("--own-attention", "--self-only-attention")
        self_only_attention = [*(self_only_attention or ()), *own_attention]
    source = _named_once(task, task_file)
    require_known(source)
    profile_name = checked_name(name or task_name(source))
    usual = FINAL_LAYER if source in RECALL_TASKS else "stepwise"
    method = usual if method is None else method
    of_components = ComponentOptions(
        components, max_components, max_scale, metric, accuracy_threshold, tuple(k or ()), tuple(alpha or ())
    )
    of_final_layer = FinalLayerOptions(
        tuple(self_only_attention or ()),
        tuple(lambdas or ()),
        tuple(intercept or ()),
        gates,
        max_lost,
        max_nll_increase,
    )
    way = way_of(method, of_components, of_final_layer, compare=compare)
    of_model = load_model_source(**model_settings(model, dtype, device_map, max_memory, cache_dir))
    require_writable_folder("--out", out)
    options = [
        Option("--name", name),
        Option("--seed", seed, 0),
        Option("--method", method, usual),
        *of_components.all,
        *of_final_layer.all,
        *that_load(of_model),
    ]
    task_words = ["--task", source] if source.endswith(".jsonl") else [source]
    command = shlex.join(["steer", "fit", *task_words, "--out", str(out), *words(options)])
    make_profile(Asked(source, profile_name, seed, way, of_model, out, command))


def _named_once(task: str | None, task_file: str | None) -> str:
    if (task is None) == (task_file is None):
        said = "neither is given" if task is None else f"given are {task!r} and {task_file!r}"
        raise ConfigError(f"the task is named once, as TASK or as --task TASK: {said}")
    return task or task_file or ""
