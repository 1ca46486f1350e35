"""A profile as weights: a standard checkpoint with the scales folded into its projections."""

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

    The folder is a checkpoint as transformers writes it (config, safetensors, tokenizer, generation config), in the
    type that the model is loaded in, and beside it ``steering.json``, which says what was folded in. The products are
    computed in float64 and rounded once; columns that nothing scales keep their bits. ``loaded`` is not touched.

    Raises:
        ExportError: weights cannot carry the profile, the model's are quantised or not in memory, or ``out`` is not
            empty or cannot be written.
        ProfileMismatch: the profile does not fit the model; ``force`` lifts that where shapes permit.
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
        except (SafetensorError, ValueError) as exc:  # the disk is full; a generation config that contradicts itself
            raise ExportError(f"model {loaded.name} cannot be saved: {exc}") from exc
    return out


def _folded(projection: ScaledProjection) -> Tensor:
    scaled = projection.stored(projection.weight() * projection.factors.unsqueeze(-1))
    return (scaled if isinstance(projection.module, Conv1D) else scaled.T).contiguous()


def _shell_of(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model without its weights.

    Saving a model notes things in its config, and warns of placements; the shell has its own config and no placement.
    """
    with torch.device("meta"):
        shell: PreTrainedModel = AutoModelForCausalLM.from_config(copy.deepcopy(model.config), dtype=model.dtype)
    shell.generation_config = copy.deepcopy(model.generation_config)
    return shell


def _require_in_memory(loaded: LoadedModel) -> None:
    for name, parameter in loaded.model.named_parameters():
        if parameter.is_meta:
            raise ExportError(
                f"model {loaded.name} is not whole in memory: accelerate keeps {name} elsewhere until it is used; load "
                "it on devices that hold it, or export the profile as lora"
            )
