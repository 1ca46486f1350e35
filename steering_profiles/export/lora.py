"""A profile as a LoRA adapter in PEFT's format, for servers that choose an adapter per request.

Scaling adds ``W diag(s) - W = W diag(s - 1)`` to a weight, whose rank is at most the number of scaled inputs. With
``B = W[:, scaled] * (s - 1)[scaled]`` and rows of the identity as ``A`` that is ``B A``, exactly. PEFT itself is not
needed to write it.
"""

import json
from collections.abc import Sequence
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
from steering_profiles.steering import AppliedProfile

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class AdapterConfig:
    """``adapter_config.json``: the settings of PEFT's ``LoraConfig`` that decide what an adapter computes."""

    base_model_name_or_path: str
    r: int
    """The largest rank: servers that know no ``rank_pattern`` take it for the room that the adapter needs."""
    lora_alpha: int
    """The same, so that the factor ``lora_alpha / r`` is 1 for servers that know no ``alpha_pattern`` too."""
    rank_pattern: dict[str, int]
    """By the module's path. PEFT reads the key as a pattern of a path's end; a whole path is the end of no other."""
    alpha_pattern: dict[str, int]
    target_modules: tuple[str, ...]
    """The paths of the scaled modules, whole: PEFT takes each for itself and for paths that end in ``.`` and it."""
    fan_in_fan_out: bool
    """Whether the modules keep their weights as ``[in, out]``; matters where an adapter is merged."""
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

    The folder holds ``adapter_config.json``, ``adapter_model.safetensors`` (in the type that the model is loaded in)
    and ``steering.json``, which says what the adapter is. A layer's rank is the number of inputs that are scaled:
    heads times ``head_dim`` for the output projection, neurons for the down projection. ``loaded`` is not touched.

    Raises:
        ExportError: weights cannot carry the profile, the model's are quantised, or ``out`` is not empty or cannot be
            written.
        ProfileMismatch: the profile does not fit the model; ``force`` lifts that where shapes permit.
        StrengthError: ``strength`` is not a finite number in the allowed range.
    """
    applied = AppliedProfile(profile, strength)
    projections = scaled_projections(loaded, applied, force=force)
    with new_folder(out, record_of(loaded, applied, "lora")):
        tensors: dict[str, Tensor] = {}
        for projection in projections:
            prefix = f"base_model.model.{projection.path}"
            tensors[f"{prefix}.lora_A.weight"], tensors[f"{prefix}.lora_B.weight"] = _factorised(projection)
        try:
            save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as exc:
            raise ExportError(f"{str(out / WEIGHTS)!r} cannot be written: {exc}") from exc
        config = _config(base_model_of(loaded), projections)
        (out / CONFIG).write_text(json.dumps(asdict(config), indent=2) + "\n", encoding="utf-8")
    return out


def _factorised(projection: ScaledProjection) -> tuple[Tensor, Tensor]:
    """Return ``A``, ``[rank, in]``, and ``B``, ``[out, rank]``, with ``B A = W diag(s - 1)``."""
    columns = projection.columns
    a = torch.zeros(len(columns), len(projection.factors), dtype=torch.float64)
    a[torch.arange(len(columns)), columns] = 1
    change = projection.weight()[columns] * (projection.factors[columns] - 1).unsqueeze(-1)
    return projection.stored(a), projection.stored(change).T.contiguous()


def _config(base_model: str, projections: Sequence[ScaledProjection]) -> AdapterConfig:
    ranks = {projection.path: len(projection.columns) for projection in projections}
    largest = max(ranks.values())
    return AdapterConfig(
        base_model_name_or_path=base_model,
        r=largest,
        lora_alpha=largest,
        rank_pattern=ranks,
        alpha_pattern=ranks,
        target_modules=tuple(ranks),
        fan_in_fan_out=any(isinstance(projection.module, Conv1D) for projection in projections),
    )
