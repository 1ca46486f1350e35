"""The forward pass of models built of gated blocks, with few and compiled operators instead of the modules' many.

The same mathematics as transformers' modules, in the same order and with the same roundings: four matrix products and
four compiled operators a layer, where the modules dispatch some eighty operators from Python. What steering hooks would
do to the modules is called directly.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import pad

from steering_profiles.models import LoadedModel
from steering_profiles.models.anatomy import GatedBlock
from steering_profiles.steering import SteeringHandle
from steering_server.engines.local import kernels
from steering_server.engines.local.attention import attend
from steering_server.engines.local.kernels import ScoreOptions
from steering_server.engines.local.prepacking import PrepackedLinear, PrepackedLinears, can_be_prepacked
from steering_server.engines.local.ragged import RaggedBatch

VECTOR = 32
"""Elements that PyTorch's pointwise operators compute at a time, at most."""


@dataclass(frozen=True)
class _Norm:
    gain: Tensor
    epsilon: float


@dataclass(frozen=True)
class _Block:
    """Weights and norms of one layer."""

    attention_norm: _Norm
    qkv: PrepackedLinear
    query_norm: _Norm | None
    key_norm: _Norm | None
    scores: ScoreOptions
    output: PrepackedLinear
    mlp_norm: _Norm
    gate_up: PrepackedLinear
    down: PrepackedLinear


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

    def __init__(self, loaded: LoadedModel, linears: PrepackedLinears, steering: SteeringHandle) -> None:
        """Use the weights that ``linears`` has prepacked by :func:`groups`."""
        described, model = _described(loaded), loaded.model
        self._sizes = loaded.anatomy.sizes
        self._steering = steering
        self._embedding = model.get_submodule(described.embedding)
        self._rotary = model.get_submodule(described.rotary)
        final_norm = loaded.anatomy.final_norm
        if final_norm is None:
            raise ValueError("a model of gated blocks has a final norm")
        self._final_norm = _norm(final_norm)
        self._blocks = [
            _Block(
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
            )
            for index, layer in enumerate(loaded.anatomy.layers)
        ]

    def __call__(self, tokens: Tensor, positions: Tensor, batch: RaggedBatch, wanted: Tensor) -> Tensor:
        """Return the normed final hidden states of the ``wanted`` tokens, ``[wanted, hidden_size]``.

        ``tokens`` and ``positions`` are ``[tokens]``, padding included.
        """
        stream: Tensor = self._embedding(tokens).unsqueeze(0)
        # PyTorch computes the last elements of a tensor otherwise than the rest, unless they fill a vector.
        filled = pad(positions, (0, -len(positions) % VECTOR))
        cos, sin = (part[0].contiguous() for part in self._rotary(stream, filled.unsqueeze(0)))
        added: Tensor | None = None
        for index, block in enumerate(self._blocks):
            if batch.tokens_per_layer is not None:
                if added is not None:
                    stream, added = stream + added, None
                stream = batch.enter_layer(stream, index).clone()
            added = self._layer(index, block, stream, added, cos, sin, batch)
        if added is None:
            raise ValueError("the model has no layer")
        return _add_norm(stream[0, wanted], added[0, wanted], self._final_norm)

    def _layer(
        self,
        index: int,
        block: _Block,
        stream: Tensor,
        added: Tensor | None,
        cos: Tensor,
        sin: Tensor,
        batch: RaggedBatch,
    ) -> Tensor:
        """Compute one layer on ``stream + added``, which it leaves in ``stream``; return what is to be added next.

        All are ``[1, tokens, hidden_size]``. ``cos`` and ``sin`` are ``[at least so many tokens, rotary dimensions]``.
        """
        sizes, is_last = self._sizes, index == len(self._blocks) - 1
        tokens = stream.shape[1]
        qkv = block.qkv(_add_norm(stream, added, block.attention_norm))
        query, key, value = kernels.rotate(
            qkv,
            cos,
            sin,
            sizes.heads,
            sizes.kv_heads,
            query_gain=None if block.query_norm is None else block.query_norm.gain,
            key_gain=None if block.key_norm is None else block.key_norm.gain,
            epsilon=0.0 if block.query_norm is None else block.query_norm.epsilon,
        )
        if is_last:
            self._steering.keep_own_values(value.reshape(1, tokens, -1))
        z = attend(query, key, value, batch, index, block.scores).view(1, tokens, -1)
        attention_output = block.output(self._steering.steer_heads(index, z))
        gate_up = block.gate_up(_add_norm(stream, attention_output, block.mlp_norm))
        mlp_output = block.down(self._steering.steer_neurons(index, kernels.gated_silu(gate_up)))
        return self._steering.steer_final_mlp(mlp_output) if is_last else mlp_output


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


def _norm(module: nn.Module) -> _Norm:
    gain, epsilon = module.weight, module.variance_epsilon
    if not isinstance(gain, Tensor) or not isinstance(epsilon, float):
        raise TypeError(f"{type(module).__name__} is not an RMS norm as Llama has it")
    return _Norm(gain.data.contiguous(), epsilon)


def _optional_norm(block: nn.Module, path: str | None) -> _Norm | None:
    return None if path is None else _norm(block.get_submodule(path))


def _scale(attention: nn.Module) -> float:
    scale = attention.scaling
    if not isinstance(scale, float):
        raise TypeError(f"{type(attention).__name__} has no scale of attention scores")
    return scale


def _add_norm(stream: Tensor, added: Tensor | None, norm: _Norm) -> Tensor:
    return kernels.add_norm(stream, added, norm.gain, norm.epsilon)
