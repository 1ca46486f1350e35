"""Linear layers with prepacked weights: in the order in which the CPU's matrix kernels read them.

These are the compiled kernels where the processor has at least AVX2, else oneDNN's. Either take about half the time of
products with weights that are reordered at every use, and ours two thirds of oneDNN's where there are few tokens.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from steering_profiles.models.projections import features, input_major, is_dense
from steering_server.engines.local import kernels
from steering_server.engines.local.huge_pages import HugePages

LinearLayer: TypeAlias = nn.Linear | Conv1D
"""Layers whose weights are prepacked; a :class:`Conv1D` is GPT-2's linear layer, with ``weight`` as ``[in, out]``."""

_TYPICAL_TOKENS = 32
"""Number of tokens in a step that the order is chosen for; other numbers run nearly as fast."""


class OneDNNWeight:
    """The weight of a linear layer in the order in which oneDNN reads it."""

    def __init__(self, weight: Tensor) -> None:
        """Copy ``weight``, ``[out_features, in_features]``."""
        self._reordered: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _TYPICAL_TOKENS)

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``[..., out_features]`` of ``[..., in_features]``, with ``bias`` (``[out_features]``) added."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, self._reordered, bias, "none", [], "")
        return product

    def unpacked(self) -> Tensor:
        """Return the weight as it was, ``[out_features, in_features]``."""
        return self._reordered.to_dense()


class PrepackedLinear:
    """The product with one prepacked weight, that of one linear layer or of several with the same input."""

    def __init__(self, layers: Sequence[LinearLayer], memory: HugePages, *, shared: bool = False) -> None:
        """Take over the weights of ``layers``, one below the other, until :meth:`restore`; ``memory`` holds the copy.

        With ``shared`` the weight stays, since something else reads it, and is prepacked as a copy.
        """
        self.layers = layers
        self.min_tokens = 1
        """Number of tokens below which the input is padded, see :mod:`.invariance`."""
        self._shared = shared
        weights = [input_major(layer).data.T.contiguous() for layer in layers]
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        self.shape = tuple(weight.shape)
        self.bias = _joined_bias(layers)
        """``[out_features]``, or None."""
        self.weight: kernels.PackedWeight | OneDNNWeight = (
            kernels.PackedWeight(weight, memory) if kernels.can_multiply(weight.dtype) else OneDNNWeight(weight)
        )
        if not shared:
            for layer in layers:
                layer.weight.data = layer.weight.data.new_full((1,), torch.nan).expand(layer.weight.shape)

    @property
    def has_bias(self) -> bool:
        """Whether something is added to the product."""
        return self.bias is not None

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``[..., tokens, out_features]`` of ``[..., tokens, in_features]``."""
        tokens = x.shape[-2]
        if tokens < self.min_tokens:
            repeats = -(-self.min_tokens // tokens)  # padded with the tokens themselves, which is the quickest way
            return self.weight.multiply(torch.cat([x] * repeats, dim=-2), self.bias).narrow(-2, 0, tokens)
        return self.weight.multiply(x, self.bias)

    def restore(self) -> None:
        """Give every layer its weight back, bit for bit."""
        if self._shared:
            return
        weights = self.weight.unpacked().split([features(layer)[1] for layer in self.layers])
        for layer, weight in zip(self.layers, weights, strict=True):
            if isinstance(layer, Conv1D):
                layer.weight.data = weight.T.contiguous()
            else:
                layer.weight.data = weight if len(self.layers) == 1 else weight.clone()


class PrepackedLinears:
    """Prepacks the weights of a model's linear layers in place, until :meth:`close` restores them bit for bit.

    The layers stay the same modules, with their hooks. While prepacked, the ``weight`` of a layer keeps its shape but
    must not be read: it is all NaN and takes no memory. A weight that another module reads too, such as the token
    embedding's, stays and is prepacked as a copy. Layers are left unchanged where they are not on a CPU, are moved by
    accelerate, have a dtype without such kernels or are quantised.
    """

    def __init__(
        self, model: nn.Module, groups: Sequence[Sequence[LinearLayer]] = (), *, without: Sequence[nn.Module] = ()
    ) -> None:
        """Prepack all layers but those ``without``; those of each of ``groups`` as one, in :attr:`groups`.

        The layers of a group cannot be called by themselves.
        """
        memory = HugePages()
        users = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))
        self.groups = [PrepackedLinear(group, memory) for group in groups]
        """The layers of each group in one product, in the order of ``groups``."""
        taken = {id(layer) for group in groups for layer in group} | {id(module) for module in without}
        self._single: list[PrepackedLinear] = []
        for module in model.modules():
            if isinstance(module, LinearLayer) and id(module) not in taken and can_be_prepacked(module):
                linear = PrepackedLinear([module], memory, shared=users[id(module.weight)] > 1)
                module.forward = linear  # type: ignore[method-assign]
                self._single.append(linear)
        if self.all:
            _detach_from_file(model, memory)

    @property
    def all(self) -> list[PrepackedLinear]:
        """Every product."""
        return [*self.groups, *self._single]

    def of(self, module: nn.Module) -> PrepackedLinear:
        """Return the product of one layer that is in no group.

        Raises:
            KeyError: it is not prepacked.
        """
        for linear in self._single:
            if linear.layers[0] is module:
                return linear
        raise KeyError(module)

    def close(self) -> None:
        """Restore every layer's weight."""
        for linear in self._single:
            del linear.layers[0].forward  # the instance's attribute, which hides the class's method
        for linear in self.all:
            linear.restore()
        self.groups, self._single = [], []


def can_be_prepacked(module: nn.Module | None) -> bool:
    """Whether a module is a linear layer whose weight this module can take over."""
    if module is None or type(module) not in (nn.Linear, Conv1D) or "forward" in vars(module):
        return False  # a forward of its own is accelerate's, which moves weights, or a quantisation library's
    if not is_dense(module):
        return False
    weight = module.weight
    if weight.device.type != "cpu":
        return False
    if kernels.can_multiply(weight.dtype):
        return True
    if not torch.backends.mkldnn.is_available():
        return False
    return weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def _joined_bias(layers: Sequence[LinearLayer]) -> Tensor | None:
    """Return the biases of ``layers`` in one; zeros for a layer that has none, if another has."""
    if all(layer.bias is None for layer in layers):
        return None
    return torch.cat(
        [layer.weight.new_zeros(features(layer)[1]) if layer.bias is None else layer.bias.data for layer in layers]
    )


def _detach_from_file(model: nn.Module, memory: HugePages) -> None:
    """Copy the weights that stay: one tensor still mapped from the checkpoint keeps the whole file in memory."""
    copied: set[int] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            takes_memory = parameter.device.type == "cpu" and parameter.stride() != (0,) * parameter.ndim
            if takes_memory and not hasattr(module, "_hf_hook") and id(parameter) not in copied:
                # Quantisation libraries have tensors of their own kinds.
                is_plain = type(parameter.data) is Tensor
                parameter.data = memory.copy(parameter.data) if is_plain else parameter.data.clone()
                copied.add(id(parameter))
