"""Changes of weights and attention masks that are equivalent to steering."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from steering_profiles.final_layer_fields import INTERCEPT_TENSOR
from steering_profiles.models import LoadedModel
from steering_profiles.models.projections import input_major
from steering_profiles.schema import Profile
from tests.library.running import TOKENS, logits

Scales = Sequence[tuple[int, int, float]]


def scale_head_weights(loaded: LoadedModel, scales: Scales, strength: float = 1.0) -> None:
    size = loaded.anatomy.sizes.head_dim
    for layer, head, scale in scales:
        rows = slice(head * size, (head + 1) * size)
        input_major(loaded.anatomy.layers[layer].head_output)[rows] *= 1 + strength * (scale - 1)


def scale_neuron_weights(loaded: LoadedModel, scales: Scales, strength: float = 1.0) -> None:
    for layer, neuron, scale in scales:
        output = loaded.anatomy.layers[layer].neuron_output
        assert output is not None
        input_major(output)[neuron] *= 1 + strength * (scale - 1)


def add_to_final_bias(loaded: LoadedModel, vector: Tensor) -> None:
    """Add to the bias of the last down projection, or behind the norm or the experts that the last MLP ends in."""
    final = loaded.anatomy.final_layer
    vector = vector / final.mlp_joining.multiplier
    down = final.neuron_output
    if down is not None and (final.mlp_joining.norm is None or final.mlp_joining.on_residual_stream):
        old = down.bias if isinstance(down.bias, Tensor) else torch.zeros_like(vector)
        down.bias = nn.Parameter(old + vector)
    else:
        path = next(name for name, module in final.block.named_modules() if module is final.mlp)
        final.block.set_submodule(path, nn.Sequential(final.mlp, Shift(vector)))


class Shift(nn.Module):
    """Adds a vector to what passes."""

    def __init__(self, vector: Tensor) -> None:
        super().__init__()
        self.vector = vector

    def forward(self, values: Tensor) -> Tensor:
        return values + self.vector


def intercept_of(profile: Profile) -> Tensor:
    return profile.final_layer.intercept_scale * torch.from_numpy(profile.tensors[INTERCEPT_TENSOR]).double()


def eager(loaded: LoadedModel) -> LoadedModel:
    """The model with the attention that takes any mask; its softmax is in float32, so it is compared with itself."""
    loaded.model.set_attn_implementation("eager")
    return loaded


def logits_under_self_only_mask(loaded: LoadedModel, share: float) -> Tensor:
    """The stock attention does the work, under a mask that leaves each position only itself, then mixed by hand."""
    projection = loaded.anatomy.final_layer.head_output
    masked: list[Tensor] = []
    with self_only_mask(loaded), forward_hook(projection, lambda output: masked.append(output)):
        logits(loaded)
    with forward_hook(projection, lambda output: (1 - share) * output + share * masked[0]):
        return logits(loaded)


@contextmanager
def self_only_mask(loaded: LoadedModel) -> Iterator[None]:
    """Mask the final layer's attention, and no other's, so that each position attends to itself only."""
    length = TOKENS.shape[1]
    mask = torch.full((length, length), float("-inf"), dtype=loaded.dtype).fill_diagonal_(0.0)
    path = loaded.anatomy.family.head_output.rpartition(".")[0]
    handle = loaded.anatomy.final_layer.block.get_submodule(path).register_forward_pre_hook(
        lambda module, args, kwargs: (args, kwargs | {"attention_mask": mask[None, None]}), with_kwargs=True
    )
    yield
    handle.remove()


@contextmanager
def forward_hook(module: nn.Module, change: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    handle = module.register_forward_hook(lambda module, args, output: change(output))
    yield
    handle.remove()
