"""Logits in float32, whatever the model computes in: rounded to bfloat16, the likeliest tokens would often be equal."""

from torch import Tensor, nn

from steering_profiles.models import LoadedModel
from steering_profiles.models.projections import is_dense
from steering_server.engines.local import kernels


class Float32Unembedding:
    """Lets a model's unembedding return logits that are summed up and kept in float32, until :meth:`close`."""

    def __init__(self, module: nn.Linear) -> None:
        self._module = module
        self._bias = None if module.bias is None else module.bias.data.float()
        module.forward = self  # type: ignore[method-assign,assignment]

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return ``[..., vocab]`` of ``[..., hidden_size]``."""
        logits = kernels.unembed(hidden.reshape(-1, hidden.shape[-1]), self._module.weight)
        if self._bias is not None:
            logits += self._bias
        return logits.view(*hidden.shape[:-1], self._module.out_features)

    def close(self) -> None:
        """Give the module its own forward method back."""
        del self._module.forward


def float32_unembedding(loaded: LoadedModel, kernels_refused: str | None) -> Float32Unembedding | None:
    """Take over the unembedding of a model; None where the compiled kernels cannot compute it."""
    module = loaded.anatomy.unembedding
    if kernels_refused is not None or type(module) is not nn.Linear or "forward" in vars(module):
        return None
    weight = module.weight
    is_usable = is_dense(module) and weight.device.type == "cpu" and weight.dtype == loaded.dtype
    return Float32Unembedding(module) if is_usable and weight.is_contiguous() else None
