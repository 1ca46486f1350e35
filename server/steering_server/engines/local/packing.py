"""Linear layers with their weights in the order in which the CPU's matrix kernels (oneDNN) read them.

The same products of the same numbers, at about half the time of weights that are reordered at every use.
"""

from collections import Counter

import torch
from torch import Tensor, nn

from steering_profiles.models.projections import is_dense

_TYPICAL_ROWS = 32
"""Tokens of a step that the order is chosen for; the others are served nearly as well."""


class PackedLinears:
    """Takes over the weights of a model's linear layers, in place, until :meth:`close` gives them back bit for bit.

    The layers stay the modules they are, hooks and all. While packed, the ``weight`` of one has its shape but is
    not to be read: it is all NaN and takes no memory. A weight that something else reads too, such as the token
    embedding's, stays and is packed as a copy. Layers that are not on a CPU, that accelerate moves about, of a type
    without such kernels, or quantised are left alone: they compute as they did.
    """

    def __init__(self, model: nn.Module) -> None:
        self._packed: list[tuple[nn.Linear, Tensor | None]] = []
        users = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))
        for module in model.modules():
            if type(module) is nn.Linear and _is_packable(module):
                self._pack(module, shared=users[id(module.weight)] > 1)
        if self._packed:
            _leave_file(model)

    def close(self) -> None:
        """Give every layer its own weight back."""
        while self._packed:
            module, packed = self._packed.pop()
            del module.forward  # the instance's; the class's shows again
            if packed is not None:
                module.weight.data = packed.to_dense()

    @torch.no_grad()
    def _pack(self, module: nn.Linear, *, shared: bool) -> None:
        packed = torch.ops.mkldnn._reorder_linear_weight(module.weight.data, _TYPICAL_ROWS)
        linear, bias = torch.ops.mkldnn._linear_pointwise, module.bias

        def forward(x: Tensor) -> Tensor:
            product: Tensor = linear(x, packed, bias, "none", [], "")
            return product

        module.forward = forward  # type: ignore[method-assign,assignment]
        if not shared:
            weight = module.weight.data
            module.weight.data = weight.new_full((1,), torch.nan).expand(weight.shape)
        self._packed.append((module, None if shared else packed))


def _leave_file(model: nn.Module) -> None:
    """Copy the weights that stay: a single one that is still read from the checkpoint keeps all of it in memory."""
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            takes_memory = parameter.device.type == "cpu" and parameter.stride() != (0,) * parameter.ndim
            if takes_memory and not hasattr(module, "_hf_hook"):
                parameter.data = parameter.data.clone()


def _is_packable(module: nn.Linear) -> bool:
    has_own_way = "forward" in vars(module)  # accelerate's to bring weights in, or a quantisation library's
    if has_own_way or not is_dense(module):
        return False
    weight = module.weight
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )
