"""Linear layers with prepacked weights: in the order in which the CPU's matrix kernels (oneDNN) read them.

The products and numbers are the same, in about half the time that weights take which are reordered at every use.
"""

from collections import Counter

import torch
from torch import Tensor, nn

from steering_profiles.models.projections import is_dense

_TYPICAL_TOKENS = 32
"""Number of tokens in a step that the order is chosen for; other numbers run nearly as fast."""


class PrepackedLinears:
    """Prepacks the weights of a model's linear layers in place, until :meth:`close` restores them bit for bit.

    The layers stay the same modules, with their hooks. While prepacked, the ``weight`` of a layer keeps its shape but
    must not be read: it is all NaN and takes no memory. A weight that another module reads too, such as the token
    embedding's, stays and is prepacked as a copy. Layers are left unchanged where they are not on a CPU, are moved by
    accelerate, have a dtype without such kernels or are quantised.
    """

    def __init__(self, model: nn.Module) -> None:
        self._prepacked: list[tuple[nn.Linear, Tensor | None]] = []
        users = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))
        for module in model.modules():
            if type(module) is nn.Linear and _can_be_prepacked(module):
                self._prepack(module, shared=users[id(module.weight)] > 1)
        if self._prepacked:
            _detach_from_file(model)

    def close(self) -> None:
        """Restore every layer's weight."""
        while self._prepacked:
            module, prepacked = self._prepacked.pop()
            del module.forward  # the instance's attribute, which hides the class's method
            if prepacked is not None:
                module.weight.data = prepacked.to_dense()

    @torch.no_grad()
    def _prepack(self, module: nn.Linear, *, shared: bool) -> None:
        prepacked = torch.ops.mkldnn._reorder_linear_weight(module.weight.data, _TYPICAL_TOKENS)
        linear, bias = torch.ops.mkldnn._linear_pointwise, module.bias

        def forward(x: Tensor) -> Tensor:
            product: Tensor = linear(x, prepacked, bias, "none", [], "")
            return product

        module.forward = forward  # type: ignore[method-assign,assignment]
        if not shared:
            weight = module.weight.data
            module.weight.data = weight.new_full((1,), torch.nan).expand(weight.shape)
        self._prepacked.append((module, None if shared else prepacked))


def _detach_from_file(model: nn.Module) -> None:
    """Copy the weights that stay: one tensor still mapped from the checkpoint keeps the whole file in memory."""
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            takes_memory = parameter.device.type == "cpu" and parameter.stride() != (0,) * parameter.ndim
            if takes_memory and not hasattr(module, "_hf_hook"):
                parameter.data = parameter.data.clone()


def _can_be_prepacked(module: nn.Linear) -> bool:
    has_own_forward = "forward" in vars(module)  # accelerate's, which moves weights, or a quantisation library's
    if has_own_forward or not is_dense(module):
        return False
    weight = module.weight
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )
