"""Export of a profile as weights: a standard checkpoint with the scales folded into its projections."""

import copy
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from steering_profiles.errors import ExportError
from steering_profiles.export.destination import new_folder, record_of
from steering_profiles.export.folding import ScaledProjection, scaled_projections
from steering_profiles.models import LoadedModel
from steering_profiles.models.quiet import quietly
from steering_profiles.schema import Profile
from steering_profiles.steering import ProfileAtStrength


def export_weights(
    loaded: LoadedModel, profile: Profile, out: Path, strength: float = 1.0, *, force: bool = False
) -> Path:
    """Write ``loaded`` with ``profile`` folded in to the folder ``out``, and return ``out``.

    The folder is a checkpoint as written by transformers (config, safetensors, tokenizer, generation config), in the
    dtype of ``loaded``, with ``steering.json``, which describes the export. The products are computed in float64 and
    rounded once; columns that are not scaled stay bit-identical. ``loaded`` is not changed.

    Raises:
        ExportError: weights cannot express the profile, the model is quantised or not fully in memory, or ``out`` is
            not empty or cannot be written.
        ProfileMismatch: the profile was made for another model; ``force`` accepts it if the shapes permit it.
        StrengthError: ``strength`` is not a finite number in the allowed range.
    """
    applied = ProfileAtStrength(profile, strength)
    projections = scaled_projections(loaded, applied, force=force)
    _require_in_memory(loaded)
    with new_folder(out, record_of(loaded, applied, "weights")):
        weights: dict[str, Tensor] = loaded.model.state_dict()
        weights |= {f"{projection.path}.weight": _folded(projection) for projection in projections}
        try:
            with quietly():
                _shell_of(loaded.model).save_pretrained(out, state_dict=weights)
                loaded.tokenizer.save_pretrained(out)
        except (SafetensorError, ValueError) as exc:  # a full disk, or an inconsistent generation config
            raise ExportError(f"model {loaded.name} cannot be saved: {exc}") from exc
    return out


def _folded(projection: ScaledProjection) -> Tensor:
    scaled = projection.stored(projection.weight() * projection.factors.unsqueeze(-1))
    return (scaled if isinstance(projection.module, Conv1D) else scaled.T).contiguous()


def _shell_of(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of the model without weights, to save them with.

    Saving changes the config of a model and warns about offloaded weights; the copy has its own config and no hooks.
    """
    with torch.device("meta"):
        shell: PreTrainedModel = AutoModelForCausalLM.from_config(copy.deepcopy(model.config), dtype=model.dtype)
    shell.generation_config = copy.deepcopy(model.generation_config)
    return shell


def _require_in_memory(loaded: LoadedModel) -> None:
    for name, parameter in loaded.model.named_parameters():
        if parameter.is_meta:
            raise ExportError(
                f"model {loaded.name} is not whole in memory: accelerate has offloaded {name}; load the model on "
                "devices with enough memory, or export the profile as lora"
            )
