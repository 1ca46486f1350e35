"""The forward pass of models built of gated blocks, with few and compiled operators instead of the modules' many.

The same mathematics as transformers' modules, in the same order and with the same roundings: four matrix products and
five compiled operators a layer, where the modules dispatch some eighty operators from Python. Where the products are
compiled too, all layers are one call. What steering hooks would do to the modules is called directly.
"""

from torch import Tensor, nn

from steering_profiles.models import LoadedModel
from steering_profiles.models.anatomy import GatedBlock
from steering_profiles.steering import SteeringHandle
from steering_server.engines.local import kernels
from steering_server.engines.local.attention import attend
from steering_server.engines.local.kernels import ScoreOptions
from steering_server.engines.local.kv_cache import KVCache
from steering_server.engines.local.layer_stack import (
    GatedLayer,
    LayerStack,
    Norm,
    Placement,
    StackStep,
    Stage,
    can_be_stacked,
)
from steering_server.engines.local.prepacking import PrepackedLinears, can_be_prepacked
from steering_server.engines.local.ragged import RaggedBatch
from steering_server.engines.local.rotary import Rotation


def refusal(loaded: LoadedModel, kernels_refused: str | None) -> str | None:
    """Return why a model is run by transformers' modules instead; None where it can be run from here."""
    described = loaded.anatomy.family.gated_block
    if kernels_refused is not None:
        return kernels_refused
    if described is None:
        return f"operators of {loaded.anatomy.family.name} models are not fused"
    config = loaded.model.config
    if config.hidden_act != "silu":
        return f"its MLP's activation is {config.hidden_act}, not silu"
    for layer in loaded.anatomy.layers:
        linears: list[nn.Module | None] = [
            *_attention_linears(layer.block, described),
            *_mlp_linears(layer.block, described),
            layer.head_output,
            layer.neuron_output,
        ]
        if not all(map(can_be_prepacked, linears)):
            return "some of its linear layers are quantised, moved about by accelerate or not on a CPU"
    if any(parameter.dtype != loaded.dtype for parameter in loaded.model.parameters()):
        return "its weights are of different types"
    return None


def groups(loaded: LoadedModel) -> list[list[nn.Linear]]:
    """Return the linear layers that have the same input, for :class:`.PrepackedLinears`; two groups a layer."""
    described = _described(loaded)
    return [
        group
        for layer in loaded.anatomy.layers
        for group in (_attention_linears(layer.block, described), _mlp_linears(layer.block, described))
    ]


class FusedModel:
    """The layers of one model, up to the final norm."""

    def __init__(
        self, loaded: LoadedModel, linears: PrepackedLinears, steering: SteeringHandle, kv_cache: KVCache
    ) -> None:
        """Use the weights that ``linears`` has prepacked by :func:`groups`."""
        described, model = _described(loaded), loaded.model
        self._sizes = loaded.anatomy.sizes
        self._steering = steering
        self._embedding = model.get_submodule(described.embedding)
        self._rotation = Rotation(model.get_submodule(described.rotary), model.config, loaded.dtype, kv_cache.length)
        final_norm = loaded.anatomy.final_norm
        if final_norm is None:
            raise ValueError("a model of gated blocks has a final norm")
        self._final_norm = _norm(final_norm)
        self._layers = [
            GatedLayer(
                attention_norm=_norm(layer.block.get_submodule(described.attention_norm)),
                qkv=linears.groups[2 * index],
                query_norm=_optional_norm(layer.block, described.query_norm),
                key_norm=_optional_norm(layer.block, described.key_norm),
                scores=ScoreOptions(
                    scale=_scale(loaded.anatomy.attention(index)),
                    window=described.window(loaded.anatomy.attention(index)),
                ),
                output=linears.of(layer.head_output),
                mlp_norm=_norm(layer.block.get_submodule(described.mlp_norm)),
                gate_up=linears.groups[2 * index + 1],
                down=linears.of(loaded.anatomy.neuron_output(index)),
                cache=kv_cache.layers[index],
            )
            for index, layer in enumerate(loaded.anatomy.layers)
        ]
        self.in_one_call = True
        """Whether all layers are one call if they can be, in which no product's input is padded by itself."""
        self._stack = LayerStack(self._layers, self._sizes, loaded.dtype) if can_be_stacked(self._layers) else None

    def __call__(self, tokens: Tensor, positions: Tensor, batch: RaggedBatch, wanted: Tensor) -> Tensor:
        """Return the normed final hidden states of the ``wanted`` tokens, ``[wanted, hidden_size]``.

        ``tokens`` and ``positions`` are ``[tokens]``, padding included.
        """
        stream: Tensor = self._embedding(tokens).unsqueeze(0)
        cos, sin = self._rotation(positions)
        if self._stack is not None and self.in_one_call:
            stream, mlp_output = self._by_stack(self._stack, stream, cos, sin, batch)
        else:
            stream, mlp_output = self._by_operators(stream, cos, sin, batch)
        added = self._steering.steer_final_mlp(mlp_output)
        return _add_norm(stream[0, wanted], added[0, wanted], self._final_norm)

    def _by_stack(
        self, stack: LayerStack, stream: Tensor, cos: Tensor, sin: Tensor, batch: RaggedBatch
    ) -> tuple[Tensor, Tensor]:
        """Compute all layers on ``stream``; return the residual stream, and what is still to be added to it.

        All are ``[1, tokens, hidden_size]``. ``cos`` and ``sin`` are ``[at least so many tokens, rotary dimensions]``.
        """
        steering, last = self._steering, len(self._layers) - 1
        step: StackStep | None = None
        for index in range(len(self._layers)):
            if step is None or batch.changes_at(index):
                if step is not None:
                    step.advance(index, Stage.ATTENTION)
                    stream = step.stream + step.mlp_output
                stream = batch.enter_layer(stream, index).contiguous()
                placement = Placement(
                    cos=cos,
                    sin=sin,
                    slots=batch.slots,
                    positions=batch.positions,
                    sources=batch.cache_sources(index),
                    segments=batch.segments_of(stream.shape[1]),
                    silent_layer=last if batch.self_only else None,
                )
                step = stack.begin(stream, placement, index)
            if steering.changes_heads(index):
                step.advance(index, Stage.NEURONS)
                if index == last:
                    steering.keep_own_values(step.own_values)
                step.z.copy_(steering.steer_heads(index, step.z))
            if steering.changes_neurons(index):
                step.advance(index, Stage.OUTPUT)
                step.activations.copy_(steering.steer_neurons(index, step.activations))
        if step is None:
            raise ValueError("the model has no layer")
        step.advance(last + 1, Stage.ATTENTION)
        return step.stream, step.mlp_output

    def _by_operators(self, stream: Tensor, cos: Tensor, sin: Tensor, batch: RaggedBatch) -> tuple[Tensor, Tensor]:
        """Compute the same by one call of each operator."""
        added: Tensor | None = None
        for index, layer in enumerate(self._layers):
            if batch.tokens_per_layer is not None:
                if added is not None:
                    stream, added = stream + added, None
                stream = batch.enter_layer(stream, index).clone()
            added = self._layer(index, layer, stream, added, cos, sin, batch)
        if added is None:
            raise ValueError("the model has no layer")
        return stream, added

    def _layer(
        self,
        index: int,
        layer: GatedLayer,
        stream: Tensor,
        added: Tensor | None,
        cos: Tensor,
        sin: Tensor,
        batch: RaggedBatch,
    ) -> Tensor:
        """Compute one layer on ``stream + added``, which it leaves in ``stream``; return what is to be added next.

        All are ``[1, tokens, hidden_size]``. ``cos`` and ``sin`` are ``[at least so many tokens, rotary dimensions]``.
        """
        sizes, is_last = self._sizes, index == len(self._layers) - 1
        tokens = stream.shape[1]
        qkv = layer.qkv(_add_norm(stream, added, layer.attention_norm))
        query, key, value = kernels.rotate(
            qkv,
            cos,
            sin,
            sizes.heads,
            sizes.kv_heads,
            query_gain=None if layer.query_norm is None else layer.query_norm.gain,
            key_gain=None if layer.key_norm is None else layer.key_norm.gain,
            epsilon=0.0 if layer.query_norm is None else layer.query_norm.epsilon,
        )
        if is_last:
            self._steering.keep_own_values(value.reshape(1, tokens, -1))
        z = attend(query, key, value, batch, index, layer.scores).view(1, tokens, -1)
        attention_output = layer.output(self._steering.steer_heads(index, z))
        gate_up = layer.gate_up(_add_norm(stream, attention_output, layer.mlp_norm))
        return layer.down(self._steering.steer_neurons(index, kernels.gated_silu(gate_up)))


def _described(loaded: LoadedModel) -> GatedBlock:
    described = loaded.anatomy.family.gated_block
    if described is None:
        raise ValueError(f"{loaded.anatomy.family.name} models are not built of gated blocks")
    return described


def _attention_linears(block: nn.Module, described: GatedBlock) -> list[nn.Linear]:
    return [_linear(block, path) for path in (described.query, described.key, described.value)]


def _mlp_linears(block: nn.Module, described: GatedBlock) -> list[nn.Linear]:
    return [_linear(block, path) for path in (described.gate, described.up)]


def _linear(block: nn.Module, path: str) -> nn.Linear:
    module: nn.Module = block.get_submodule(path)
    return module  # type: ignore[return-value]  # see can_be_prepacked


def _norm(module: nn.Module) -> Norm:
    gain, epsilon = module.weight, module.variance_epsilon
    if not isinstance(gain, Tensor) or not isinstance(epsilon, float):
        raise TypeError(f"{type(module).__name__} is not an RMS norm as Llama has it")
    return Norm(gain.data.contiguous(), epsilon)


def _optional_norm(block: nn.Module, path: str | None) -> Norm | None:
    return None if path is None else _norm(block.get_submodule(path))


def _scale(attention: nn.Module) -> float:
    scale = attention.scaling
    if not isinstance(scale, float):
        raise TypeError(f"{type(attention).__name__} has no scale of attention scores")
    return scale


def _add_norm(stream: Tensor, added: Tensor | None, norm: Norm) -> Tensor:
    return kernels.add_norm(stream, added, norm.gain, norm.epsilon)
