"""``steer anatomy``: the sizes of a model, and the effects and uses that it supports."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

if TYPE_CHECKING:
    from steering_profiles.models import MetaModel

_Row = tuple[str, str | None, str]
"""An effect or use, the reason if it is not supported, and the module that the hook attaches to."""


def anatomy(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Model to read: hub id, folder or .gguf file. (default: the embedded SmolLM2-135M-Instruct)"
        ),
    ] = None,
) -> None:
    """Show a model's anatomy: its sizes, where the hooks go, what can be steered.

    Reads only the model's config, so it takes little time and memory for a
    model of any size.

    [dim]steer anatomy[/]
    [dim]steer anatomy Qwen/Qwen3-30B-A3B[/]
    """
    from steering_profiles.source import EMBEDDED, ModelSource, require_possible

    source = ModelSource(model or EMBEDDED)
    require_possible(source)

    from steering_profiles.models import load_meta_model

    meta = load_meta_model(source, with_tokenizer=False)
    console = Console()
    sizes = meta.anatomy.sizes
    facts = Table.grid(padding=(0, 2))
    for name, value in (
        ("model", f"{meta.name} ({type(meta.model).__name__})"),
        ("family", f"{meta.anatomy.family.name}: {meta.anatomy.family.models}"),
        ("layers", f"{sizes.layers}"),
        ("heads", f"{sizes.heads} of size {sizes.head_dim}, sharing the values of {sizes.kv_heads}"),
        ("neurons", f"{sizes.neurons:,} a layer"),
        ("hidden size", f"{sizes.hidden_size:,}"),
        ("vocabulary", f"{sizes.vocab_size:,}"),
        ("to residual stream", _path_to_residual_stream(meta)),
        ("weights", _weights(meta)),
    ):
        facts.add_row(f"[dim]{name}[/]", escape(value))
    console.print(facts)
    table = Table("effect or use", "supported", Column("hook", overflow="fold"))
    for what, refused, hook in _rows(meta):
        table.add_row(what, "[green]yes[/]" if refused is None else f"[yellow]no[/]: {escape(refused)}", escape(hook))
    console.print(table)


def _path_to_residual_stream(meta: "MetaModel") -> str:
    """Say what stands between what a component computes and the residual stream."""
    family, layer = meta.anatomy.family, meta.anatomy.final_layer
    parts = []
    if layer.head_joining.norm is not None:
        where = "on the residual stream, after" if family.norms_on_residual_stream else "through"
        parts.append(f"{where} {family.attention_norm} (heads) and {family.mlp_norm} (neurons)")
    if layer.head_joining.multiplier != 1:
        parts.append(f"times {layer.head_joining.multiplier:g}")
    return ", ".join(parts) or "as it is"


def _weights(meta: "MetaModel") -> str:
    quantisation = meta.quantisation
    if quantisation is None:
        return "plain"
    made_plain = ", made plain ones on loading" if quantisation.dequantised else ""
    return f"quantised (method {quantisation.method}){made_plain}"


def _rows(meta: "MetaModel") -> Iterator[_Row]:
    from steering_profiles.export import quantised_reason
    from steering_profiles.models.anatomy import Experts
    from steering_server.engines.local.attention import refusal
    from steering_server.engines.local.invariance import rules_out_invariance

    anatomy = meta.anatomy
    family, layer, last = anatomy.family, anatomy.final_layer, anatomy.sizes.layers - 1
    each, final = f"{family.blocks}.*", f"{family.blocks}.{last}"
    no_neurons = anatomy.neurons_refused
    down = "" if isinstance(family.neuron_output, Experts) else f"into {each}.{family.neuron_output}"
    joins = next(name for name, module in layer.block.named_modules() if module is layer.mlp)
    quantisation = meta.quantisation
    exported = (
        None if quantisation is None or quantisation.dequantised else f"it {quantised_reason(quantisation.method)}"
    )
    if quantisation is not None:
        yield "loading here", None if quantisation.refused is None else f"it {quantisation.refused}", ""
    yield "heads", None, f"into {each}.{family.head_output}"
    yield "neurons", no_neurons, down
    yield "self-only attention", None, f"out of {final}.{family.values}, into {final}.{family.head_output}"
    yield "intercept", None, f"out of {final}.{joins}"
    yield "fitting heads (ranking, gradients)", None, ""
    yield "fitting neurons", no_neurons, ""
    yield "export as weights", exported, ""
    yield "export as LoRA", exported, ""
    yield "serving by the engine", refusal(meta.model, anatomy), ""
    yield "batch invariance on this CPU", rules_out_invariance(meta), "measured when the server starts"
