"""Export of a profile as a LoRA adapter in PEFT's format, for servers that choose an adapter per request.

Scaling adds ``W diag(s) - W = W diag(s - 1)`` to a weight, a matrix whose rank is at most the number of scaled inputs.
It is exactly ``B A`` with ``B = W[:, scaled] * (s - 1)[scaled]`` and rows of the identity as ``A``. PEFT is not needed
to write it.

All modules have the same rank, the largest that any of them needs; the other matrices are padded with zeros. Servers
multiply ``B A`` by ``lora_alpha`` over the rank, and differ in the rank that they use: that of the config, that of
``rank_pattern`` or that of the tensors. With equal ranks the factor is 1 for all of them.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from steering_profiles.errors import ExportError
from steering_profiles.export.destination import base_model_of, new_folder, record_of
from steering_profiles.export.folding import ScaledProjection, scaled_projections
from steering_profiles.models import LoadedModel
from steering_profiles.schema import Profile
from steering_profiles.steering import ProfileAtStrength

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class AdapterConfig:
    """Content of ``adapter_config.json``: the settings of PEFT's ``LoraConfig`` that an adapter's effect depends on."""

    base_model_name_or_path: str
    r: int
    """Rank of all modules."""
    lora_alpha: int
    """Equal to the rank, so that the factor is 1."""
    target_modules: tuple[str, ...]
    """Full paths of the scaled modules; PEFT also matches paths that end in ``.`` and one of them."""
    fan_in_fan_out: bool
    """Whether the modules store their weights as ``[in, out]``; used when an adapter is merged."""
    peft_type: Literal["LORA"] = "LORA"
    task_type: Literal["CAUSAL_LM"] = "CAUSAL_LM"
    inference_mode: bool = True
    bias: Literal["none"] = "none"
    lora_dropout: float = 0.0
    use_rslora: bool = False
    use_dora: bool = False


def export_lora(
    loaded: LoadedModel, profile: Profile, out: Path, strength: float = 1.0, *, force: bool = False
) -> Path:
    """Write ``profile`` as a LoRA adapter for ``loaded`` to the folder ``out``, and return ``out``.

    The folder has ``adapter_config.json``, ``adapter_model.safetensors`` (in the dtype of ``loaded``) and
    ``steering.json``, which describes the export. The rank is the largest number of scaled inputs of a module: heads
    times ``head_dim`` for the output projection, neurons for the down projection. Modules with fewer scaled inputs are
    padded to this rank, which makes the file larger. ``loaded`` is not changed.

    Raises:
        ExportError: weights cannot express the profile, the model is quantised, or ``out`` is not empty or cannot be
            written.
        ProfileMismatch: the profile was made for another model; ``force`` accepts it if the shapes permit it.
        StrengthError: ``strength`` is not a finite number in the allowed range.
    """
    applied = ProfileAtStrength(profile, strength)
    projections = scaled_projections(loaded, applied, force=force)
    rank = max(len(projection.columns) for projection in projections)
    with new_folder(out, record_of(loaded, applied, "lora")):
        tensors: dict[str, Tensor] = {}
        for projection in projections:
            prefix = f"base_model.model.{projection.path}"
            tensors[f"{prefix}.lora_A.weight"], tensors[f"{prefix}.lora_B.weight"] = _factorised(projection, rank)
        try:
            save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as exc:
            raise ExportError(f"{str(out / WEIGHTS)!r} cannot be written: {exc}") from exc
        config = AdapterConfig(
            base_model_name_or_path=base_model_of(loaded),
            r=rank,
            lora_alpha=rank,
            target_modules=tuple(projection.path for projection in projections),
            fan_in_fan_out=any(isinstance(projection.module, Conv1D) for projection in projections),
        )
        (out / CONFIG).write_text(json.dumps(asdict(config), indent=2) + "\n", encoding="utf-8")
    return out


def _factorised(projection: ScaledProjection, rank: int) -> tuple[Tensor, Tensor]:
    """Return ``A``, ``[rank, in]``, and ``B``, ``[out, rank]``, with ``B A = W diag(s - 1)``."""
    columns, weight = projection.columns, projection.weight()
    used = torch.arange(len(columns))
    a = torch.zeros(rank, weight.shape[0], dtype=torch.float64)
    a[used, columns] = 1
    b = torch.zeros(weight.shape[1], rank, dtype=torch.float64)
    b[:, used] = (weight[columns] * (projection.factors[columns] - 1).unsqueeze(-1)).T
    return projection.stored(a), projection.stored(b)
