"""Checkpoints of quantised weights, made small and at random: by the libraries themselves, or written by hand."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TorchAoConfig

from steering_profiles.models import LoadedModel, ModelSource, load_model
from steering_profiles.models.quiet import quietly
from tests.families import CASES, build_family

WIDTHS = {"hidden_size": 64, "intermediate_size": 128}
"""Sizes that are multiples of 32 and 64, the block sizes of quantised weights."""

Parts = Callable[[Tensor], dict[str, Tensor]]

BY_LIBRARY: dict[str, Any] = {
    "bitsandbytes-nf4": BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
    ),
    "bitsandbytes-int8": BitsAndBytesConfig(load_in_8bit=True),
    "torchao-int8": TorchAoConfig(Int8WeightOnlyConfig()),
    "torchao-int8-activations": TorchAoConfig(Int8DynamicActivationInt8WeightConfig()),
}
BY_HAND = ("compressed-tensors-w4", "compressed-tensors-w8a8", "fp8")
METHODS = (*BY_LIBRARY, *BY_HAND)
ROUND_THEIR_INPUTS = ("bitsandbytes-int8", "torchao-int8-activations", "compressed-tensors-w8a8")
"""Methods that round the inputs of products to 8 bits, so that they are not linear maps."""


def save_plain(case: str, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Save a small model of a family, in float32, the way a hub model is."""
    head_dim = {"head_dim": 32} if "head_dim" in CASES[case][2] else {}
    loaded = build_family(case, dtype=dtype, **WIDTHS, **head_dim)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def save_quantised(case: str, method: str, folder: Path) -> Path:
    """Save a small model of a family with quantised weights, the way a hub model is."""
    plain = save_plain(case, folder.parent / f"{folder.name}-plain")
    if method in BY_LIBRARY:
        with quietly():
            model = AutoModelForCausalLM.from_pretrained(
                plain, quantization_config=BY_LIBRARY[method], dtype=torch.float32
            )
            shutil.copytree(plain, folder)
            model.save_pretrained(folder)
        return folder
    shutil.copytree(plain, folder)
    parts, settings = _HANDMADE[method]
    tensors: dict[str, Tensor] = {}
    for name, tensor in load_file(plain / "model.safetensors").items():
        module, _, kind = name.rpartition(".")
        if kind == "weight" and tensor.ndim == 2 and ".layers." in name:
            tensors |= {f"{module}.{part}": value.contiguous() for part, value in parts(tensor).items()}
        else:
            tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    rewrite_config(folder, quantization_config=settings)
    return folder


def rewrite_config(folder: Path, **changes: Any) -> None:
    """Change settings of a saved model."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def load(folder: Path, **options: Any) -> LoadedModel:
    """Load a saved model as a user does, by its path."""
    return load_model(ModelSource(model=str(folder), **options))


def _packed_in_4_bits(weight: Tensor) -> dict[str, Tensor]:
    blocks = weight.unflatten(1, (-1, 32))
    scales = blocks.abs().amax(dim=2) / 7
    integers = ((blocks / scales.unsqueeze(2)).round().clamp(-8, 7) + 8).flatten(1).int()
    packed = sum((integers[:, i::8] << 4 * i for i in range(8)), torch.zeros_like(integers[:, ::8]))
    return {"weight_packed": packed, "weight_scale": scales, "weight_shape": torch.tensor(weight.shape)}


def _in_8_bits(weight: Tensor) -> dict[str, Tensor]:
    scales = weight.abs().amax(dim=1, keepdim=True) / 127
    return {"weight": (weight / scales).round().to(torch.int8), "weight_scale": scales}


def _in_8_bit_floats(weight: Tensor) -> dict[str, Tensor]:
    blocks = weight.unflatten(1, (-1, 32)).unflatten(0, (-1, 32))
    scales = blocks.abs().amax(dim=(1, 3)) / 448
    floats = (blocks / scales[:, None, :, None]).reshape(weight.shape).to(torch.float8_e4m3fn)
    return {"weight": floats, "weight_scale_inv": scales}


def _compressed(form: str, weights: dict[str, Any], inputs: dict[str, Any] | None) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }


_INTEGERS = {"num_bits": 8, "type": "int", "symmetric": True}
_HANDMADE: dict[str, tuple[Parts, dict[str, Any]]] = {
    "compressed-tensors-w4": (
        _packed_in_4_bits,
        _compressed("pack-quantized", _INTEGERS | {"num_bits": 4, "strategy": "group", "group_size": 32}, None),
    ),
    "compressed-tensors-w8a8": (
        _in_8_bits,
        _compressed(
            "int-quantized", _INTEGERS | {"strategy": "channel"}, _INTEGERS | {"strategy": "token", "dynamic": True}
        ),
    ),
    "fp8": (
        _in_8_bit_floats,
        {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [32, 32]},
    ),
}
