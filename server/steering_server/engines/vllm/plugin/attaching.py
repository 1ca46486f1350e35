"""Putting the steering tables into a model of vLLM, by the paths that the model's family has in transformers."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from steering_profiles.models import Anatomy
from steering_profiles.models.anatomy import Family
from steering_server.engines.vllm.plugin import modules
from steering_server.engines.vllm.plugin.tables import Part, Share, SteeringTables, TokenRows
from steering_server.errors import ConfigError

_BLOCKS = {"gemma3-with-vision": "language_model.model.layers"}
"""List of blocks in vLLM's models of families where it is called otherwise."""

_MLPS = {"mixtral": "block_sparse_moe"}
"""The MLP there."""


@dataclass(frozen=True)
class Rank:
    """This worker among those that share every layer (tensor parallelism)."""

    rank: int
    size: int


def attach(
    model: nn.Module, anatomy: Anatomy, parts: tuple[Part, ...], tables: SteeringTables, rows: TokenRows, rank: Rank
) -> None:
    """Add a table for each of ``parts`` whose layer is in ``model``, and let its module read it.

    With pipeline parallelism the other layers are in other workers.

    Raises:
        ConfigError: a module is not where the model's family says, or is not built as expected.
    """
    blocks = _blocks(model, anatomy.family, anatomy.sizes.layers)
    for part in parts:
        block = blocks[part.layer]
        if not _is_missing(block):
            _Attaching(model, anatomy, tables, rows, rank).attach(part, block)


class _Attaching:
    def __init__(self, model: nn.Module, anatomy: Anatomy, tables: SteeringTables, rows: TokenRows, rank: Rank) -> None:
        self._model = model
        self._anatomy = anatomy
        self._family = anatomy.family
        self._tables = tables
        self._rows = rows.buffer
        self._rank = rank

    def attach(self, part: Part, block: nn.Module) -> None:
        sizes = self._anatomy.sizes
        if part.kind == "heads":
            projection = _submodule(block, self._family.head_output, part)
            share = self._share(projection, sizes.heads, sizes.head_dim, part)
            modules.steer_heads(projection, self._tables.add(part, share), self._rows)
        elif part.kind == "neurons":
            assert isinstance(self._family.neuron_output, str), "profiles that scale experts' neurons are refused"
            projection = _submodule(block, self._family.neuron_output, part)
            share = self._share(projection, sizes.neurons, 1, part)
            modules.steer_neurons(projection, self._tables.add(part, share), self._rows)
        elif part.kind == "self_only_attention":
            attention = _attention(self._model, part)
            modules.steer_own_values(attention, self._tables.add(part, Share(slice(0, 1), 1)), self._rows)
        else:
            output = _submodule(block, self._output_path(), part)
            table = self._tables.add(part, Share(slice(0, sizes.hidden_size), sizes.hidden_size))
            modules.steer_output(output, table, self._rows)

    def _output_path(self) -> str:
        """Return the path of the module whose output joins the residual stream."""
        family = self._family
        if family.mlp_norm is not None and not family.norms_on_residual_stream:
            return family.mlp_norm
        return _MLPS.get(family.name, family.mlp)

    def _share(self, projection: nn.Module, count: int, width: int, part: Part) -> Share:
        """Return this worker's share of ``count`` heads or neurons, ``width`` features each, by the layer's input."""
        features = _input_features(projection, part)
        if features == count * width:
            return Share(slice(0, count), count)
        if features * self._rank.size != count * width or features % width:
            raise ConfigError(
                f"{part} cannot be steered: {type(projection).__name__} takes {features} features on this worker, of "
                f"{count * width} over {self._rank.size} workers"
            )
        here = features // width
        return Share(slice(self._rank.rank * here, (self._rank.rank + 1) * here), count)


def is_reduced(model: nn.Module, anatomy: Anatomy) -> bool:
    """Return whether the last MLP's output is summed over the workers before it leaves the module."""
    path = anatomy.family.neuron_output
    block = _blocks(model, anatomy.family, anatomy.sizes.layers)[-1]
    if not isinstance(path, str) or _is_missing(block):
        return True
    projection = block.get_submodule(path)
    return bool(getattr(_base(projection), "reduce_results", True))


def _blocks(model: nn.Module, family: Family, layers: int) -> list[nn.Module]:
    # In vLLM's models that are transformers' own, the base model is always called ``model``.
    paths = (_BLOCKS.get(family.name, family.blocks), f"model.{family.blocks.partition('.')[2]}")
    for path in paths:
        try:
            found = model.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(found, nn.ModuleList) and len(found) == layers:
            return list(found)
    raise ConfigError(
        f"{type(model).__name__} of vLLM cannot be steered: it has no {layers} blocks at {' or '.join(paths)}"
    )


def _submodule(block: nn.Module, path: str, part: Part) -> nn.Module:
    try:
        return block.get_submodule(path)
    except AttributeError as exc:
        raise ConfigError(f"{part} cannot be steered: {type(block).__name__} of vLLM has no module {path}") from exc


def _attention(model: nn.Module, part: Part) -> nn.Module:
    from vllm.model_executor.layers.attention import Attention
    from vllm.model_executor.models.utils import extract_layer_index

    found = [
        module
        for module in model.modules()
        if isinstance(module, Attention) and extract_layer_index(module.layer_name) == part.layer
    ]
    if len(found) != 1:
        raise ConfigError(f"{part} cannot be steered: {type(model).__name__} has {len(found)} Attention modules there")
    attention: nn.Module = found[0]
    return attention


def _input_features(projection: nn.Module, part: Part) -> int:
    base = _base(projection)
    for name in ("input_size_per_partition", "input_size", "in_features"):
        if isinstance(features := getattr(base, name, None), int):
            return features
    raise ConfigError(f"{part} cannot be steered: {type(projection).__name__} does not tell the size of its input")


def _base(module: nn.Module) -> Any:
    """Return the layer inside of a wrapper for LoRA adapters, or the layer itself."""
    return getattr(module, "base_layer", module)


def _is_missing(block: nn.Module) -> bool:
    return type(block).__name__ == "PPMissingLayer"
