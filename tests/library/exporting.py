"""Exporting profiles, and running what was exported."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from steering_profiles.export import export_lora, export_weights
from steering_profiles.models import LoadedModel
from tests.library.running import TOKENS

HEADS = [(0, 1, 3.0), (1, 0, 0.0), (1, 2, 1.7), (2, 3, -2.0)]
NEURONS = [(0, 5, 4.0), (1, 7, 0.0), (2, 39, -3.0)]
CHANGES = {"heads": {"heads": HEADS}, "neurons": {"neurons": NEURONS}, "both": {"heads": HEADS, "neurons": NEURONS}}
STRENGTHS = [-1.0, 0.5, 1.0, 2.0]
EXPORTS = {"weights": export_weights, "lora": export_lora}
Export = Callable[..., Path]

both_forms = pytest.mark.parametrize("export", EXPORTS.values(), ids=EXPORTS)
every_change = pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)


@torch.no_grad()
def outputs(model: PreTrainedModel | PeftModel) -> Tensor:
    result: Tensor = model(input_ids=TOKENS, use_cache=False).logits
    return result


def checkpoint(folder: Path, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """An exported checkpoint, as anyone loads one."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, experts_implementation="eager")
    return model.eval()


def adapted(loaded: LoadedModel, folder: Path) -> PeftModel:
    """An exported adapter on a copy of the plain model, as anyone loads one."""
    return PeftModel.from_pretrained(copy.deepcopy(loaded.model), folder).eval()


def run(loaded: LoadedModel, folder: Path) -> Tensor:
    """The logits of what was exported to ``folder``, whichever form it has."""
    is_adapter = (folder / "adapter_config.json").exists()
    if is_adapter:
        return outputs(adapted(loaded, folder))
    model = checkpoint(folder, loaded.dtype)
    if loaded.model.config._attn_implementation == "eager":
        model.set_attn_implementation("eager")  # transformers before 5.21 leaves out Gemma 2's soft cap otherwise
    return outputs(model)


def settings_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
    return content


def layer_of(path: str) -> int:
    return next(int(part) for part in path.split(".") if part.isdigit())
