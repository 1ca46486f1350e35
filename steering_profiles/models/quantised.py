"""Quantised checkpoints: their method, and whether they can be loaded on this machine."""

import copy
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.quantizers.auto import AutoHfQuantizer

_PACKAGES = {
    "aqlm": ("aqlm", "aqlm[cpu]"),
    "auto-round": ("auto_round", "auto-round"),
    "awq": ("gptqmodel", "gptqmodel"),
    "bitsandbytes": ("bitsandbytes", "bitsandbytes"),
    "compressed-tensors": ("compressed_tensors", "compressed-tensors"),
    "gptq": ("gptqmodel", "gptqmodel optimum"),
    "hqq": ("hqq", "hqq"),
    "quanto": ("optimum.quanto", "optimum-quanto"),
    "torchao": ("torchao", "torchao"),
}
"""Module that runs each method, and the packages that pip installs for it."""

_ON_GPUS = ("eetq", "fbgemm_fp8", "fp_quant", "higgs", "nvfp4", "spqr", "vptq")
"""Methods without kernels for a CPU."""


@dataclass(frozen=True)
class Quantisation:
    """Quantisation of a checkpoint."""

    method: str
    """Name of the method in transformers, such as ``bitsandbytes``."""
    refused: str | None
    """Reason why the checkpoint cannot be loaded here, with the remedy, to follow the model's name; None if it can."""
    dequantised: bool
    """Whether the weights are dequantised while loading, so that the loaded model is a plain one."""


def method_of(config: PretrainedConfig) -> str | None:
    """Return the quantisation method of a checkpoint or model with this config; None if it is not quantised."""
    settings = _settings(config)
    if settings is None:
        return None
    # bitsandbytes did not write its name at first
    method = settings.get("quant_method", "bitsandbytes" if _is_bitsandbytes(settings) else "unknown")
    return str(getattr(method, "value", method))


def quantisation_of(config: PretrainedConfig) -> Quantisation | None:
    """Return the quantisation of a checkpoint or model with this config; None if its weights are plain.

    Whether the method runs here is determined by the check of transformers that precedes the reading of weights.
    """
    settings, method = _settings(config), method_of(config)
    if settings is None or method is None:
        return None
    missing = _missing(method)
    if missing is not None:
        return Quantisation(method, f"is quantised (method {method}), {missing}", dequantised=False)
    try:
        quantizer = AutoHfQuantizer.from_config(settings, pre_quantized=True)
        quantizer.validate_environment(device_map=None, weights_only=True)
    except (AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError) as exc:
        says = " ".join(str(exc).split()) or type(exc).__name__
        return Quantisation(method, f"is quantised (method {method}), which cannot run here: {says}", False)
    return Quantisation(method, None, bool(getattr(quantizer.quantization_config, "dequantize", False)))


@contextmanager
def differentiable(model: PreTrainedModel) -> Iterator[None]:
    """Make a model use kernels with a derivative inside this context.

    On some CPUs bitsandbytes packs 4-bit weights for a kernel without a derivative that rounds to bfloat16. Its layers
    do not use it in training mode, which has no other effect on them, and ``state_dict`` unpacks their weights. This
    rounds the scales of doubly quantised weights, so the packed weights are restored afterwards.
    """
    if method_of(model.config) != "bitsandbytes":
        yield
        return
    from bitsandbytes.nn import Linear4bit

    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    before = [(layer, layer.training, layer.weight.data, copy.deepcopy(layer.weight.quant_state)) for layer in layers]
    for layer in layers:
        layer.state_dict()
        layer.training = True
    try:
        yield
    finally:
        for layer, training, data, state in before:
            layer.training = training
            layer.weight.data, layer.weight.quant_state = data, state


def _settings(config: PretrainedConfig) -> dict[str, Any] | None:
    for owner in (config, config.get_text_config()):
        settings = getattr(owner, "quantization_config", None)
        if settings is not None:
            return copy.deepcopy(settings if isinstance(settings, dict) else vars(settings))
    return None


def _is_bitsandbytes(settings: dict[str, Any]) -> bool:
    return bool(settings.get("load_in_8bit") or settings.get("load_in_4bit"))


def _missing(method: str) -> str | None:
    """Return what a method needs that is missing here, with the remedy; None if nothing is known to be missing."""
    if method in _ON_GPUS and not (torch.cuda.is_available() or torch.xpu.is_available()):
        return "which needs a GPU, and there is none here; load the unquantised checkpoint"
    module, packages = _PACKAGES.get(method, (None, None))
    if module is not None and not _is_installed(module):
        return f"which needs a package that is not installed; install it with: pip install {packages}"
    return None


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False
