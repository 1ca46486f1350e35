"""Loading of models from the hub, a folder, a GGUF file or the embedded default, placed by accelerate."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GgufConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from steering_profiles.models.adapters import require_none_applied
from steering_profiles.models.anatomy import find_anatomy
from steering_profiles.models.families import FAMILIES
from steering_profiles.models.identity import identify
from steering_profiles.models.locating import Location
from steering_profiles.models.memory import require_memory
from steering_profiles.models.meta_model import ModelWithAnatomy, without_weights
from steering_profiles.models.offloading import offload_folder
from steering_profiles.models.placement import DISK, explicit_map
from steering_profiles.models.quantised import quantisation_of
from steering_profiles.models.reading import found, load_dtype, read_config, requested_dtype
from steering_profiles.models.tokenizers import read_tokenizer
from steering_profiles.models.weights import check_weights
from steering_profiles.schema import ModelIdentity
from steering_profiles.source import AUTOMATIC, ModelSource


@dataclass(frozen=True)
class LoadedModel(ModelWithAnatomy):
    """A model with its weights, its tokenizer and its anatomy, ready to run."""

    tokenizer: PreTrainedTokenizerBase
    identity: ModelIdentity

    @property
    def end_tokens(self) -> frozenset[int]:
        """End tokens of the generation config and of the tokenizer."""
        listed = getattr(self.model.generation_config, "eos_token_id", None)
        several = listed if isinstance(listed, list) else [listed]
        return frozenset(token for token in (*several, self.tokenizer.eos_token_id) if isinstance(token, int))

    @property
    def input_device(self) -> torch.device:
        """Device of the token ids."""
        return _used_on(self.model.get_input_embeddings())

    @property
    def layer_devices(self) -> tuple[torch.device, ...]:
        """Device on which each layer computes."""
        return tuple(_used_on(layer.head_output) for layer in self.anatomy.layers)


def _used_on(module: torch.nn.Module) -> torch.device:
    # Accelerate moves offloaded weights to their execution device when they are used.
    device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    return next(chain(module.parameters(), module.buffers())).device if device is None else torch.device(device)


def load_model(source: ModelSource) -> LoadedModel:
    """Load the model that ``source`` names, in evaluation mode.

    Raises:
        ModelLoadError: the model cannot be found or read; the message says what to do.
        UnknownArchitecture: its architecture has no known anatomy. This is checked before the weights are read.
    """
    requested = requested_dtype(source)
    with found(source, "model") as location, offload_folder(source.cache) as offload:
        config = read_config(location)
        quantisation = quantisation_of(config)
        if quantisation is not None and quantisation.refused is not None:
            raise ValueError(f"it {quantisation.refused}")
        dtype = load_dtype(config, requested)
        placement = _placement(source, config, dtype, from_gguf=location.gguf is not None)
        if location.folder is not None:
            check_weights(location.folder)
        tokenizer = read_tokenizer(location, config)
        model = _load_weights(location, {"dtype": dtype, "offload_folder": offload.path, **placement})
        offload.keep_for(model)
        loaded = assemble(location.name, model, tokenizer)
        if quantisation is not None:
            _run_once(loaded)
        return loaded


def assemble(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> LoadedModel:
    """Return a model that is already in memory as a :class:`LoadedModel`.

    A model whose attention scores have a soft cap computes its attention eagerly from then on, if it did by PyTorch's
    fused attention: transformers before 5.21 leaves the cap out there, without a warning.

    Raises:
        UnknownArchitecture: its architecture has no known anatomy.
    """
    _keep_soft_cap(model)
    anatomy = find_anatomy(model, FAMILIES)
    identity = identify(name, type(model).__name__, model.config.get_text_config(), tokenizer, anatomy)
    return LoadedModel(name, model, anatomy, tokenizer, identity)


def _keep_soft_cap(model: PreTrainedModel) -> None:
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None
    if capped and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")


def _load_weights(location: Location, placement: Mapping[str, Any]) -> PreTrainedModel:
    """Load a model with its weights, in evaluation mode.

    Raises:
        ValueError: weights are missing or do not fit the config, or an adapter was applied.
    """
    if location.gguf is not None:
        placement = {**placement, "quantization_config": GgufConfig(dequantize=True)}
    model, report = AutoModelForCausalLM.from_pretrained(
        location.path,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        trust_remote_code=False,
        # If peft is installed, the search for an adapter ignores the other options.
        adapter_kwargs={"local_files_only": location.options.get("local_files_only", False)},
        **placement,
        **location.options,
    )
    require_none_applied(model)
    _require_all_weights(report)
    model.name_or_path = model.config.name_or_path = location.origin
    evaluated: PreTrainedModel = model.eval()
    return evaluated


@torch.no_grad()
def _run_once(loaded: LoadedModel) -> None:
    """Make a first pass, in which quantisation libraries unpack weights and select kernels."""
    loaded.model(input_ids=torch.tensor([[0, 0]], device=loaded.input_device), use_cache=False)


def _require_all_weights(report: Mapping[str, Any]) -> None:
    """Check that the checkpoint has all weights: transformers initialises missing ones at random.

    Raises:
        ValueError: weights are missing or have another shape.
    """
    fault = "the weights do not fit the config"
    if report["mismatched_keys"]:
        name, stored, expected = min(report["mismatched_keys"])
        raise ValueError(f"{fault}: {name} has shape {list(stored)}; the config needs {list(expected)}")
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ValueError(f"{fault}: {len(missing)} tensors are missing, such as {missing[0]}")


def _placement(source: ModelSource, config: PretrainedConfig, dtype: torch.dtype, *, from_gguf: bool) -> dict[str, Any]:
    """Return the arguments with which transformers places the parts of a model on devices.

    Raises:
        ValueError: the device map is invalid, or a device has too little memory.
    """
    if isinstance(source.device_map, str) and source.device_map in AUTOMATIC:
        limits = {} if source.max_memory is None else {"max_memory": dict(source.max_memory)}
        return {"device_map": source.device_map, **limits}
    meta = without_weights(config, dtype)
    alone = "cuda:0" if torch.cuda.is_available() else "cpu"
    whole = explicit_map(meta, alone if source.device_map is None else source.device_map)
    if from_gguf and DISK in whole.values():
        raise ValueError(
            "the device map puts parts on disk, which is not supported for GGUF files; put them on other devices, or "
            "use the model's safetensors files"
        )
    require_memory(meta, dtype, whole)
    return {} if source.device_map is None and alone == "cpu" else {"device_map": whole}
