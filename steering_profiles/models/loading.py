"""Load a model: hub id, local folder, GGUF file, or the embedded default; placed by accelerate."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GgufConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from steering_profiles.errors import ModelLoadError
from steering_profiles.models.adapters import require_none_applied
from steering_profiles.models.anatomy import Anatomy, family_of, find_anatomy
from steering_profiles.models.families import FAMILIES
from steering_profiles.models.faults import CANNOT_LOAD, fault, in_one_line
from steering_profiles.models.identity import identify
from steering_profiles.models.locating import Location, located
from steering_profiles.models.memory import require_memory
from steering_profiles.models.offloading import offload_folder
from steering_profiles.models.placement import DISK, explicit_map, require_max_memory
from steering_profiles.models.quantised import Quantisation, quantisation_of
from steering_profiles.models.quiet import quietly
from steering_profiles.models.tokenizers import read_tokenizer
from steering_profiles.models.weights import check_weights
from steering_profiles.schema import ModelIdentity
from steering_profiles.source import AUTOMATIC, DTYPES, ModelSource


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run: weights, tokenizer, and where its parts are."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    anatomy: Anatomy
    identity: ModelIdentity

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type that the model computes in."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def dtype_name(self) -> str:
        """That type's name: ``bfloat16``."""
        return _name(self.dtype)

    @property
    def end_tokens(self) -> frozenset[int]:
        """The tokens that end a text: those that the generation config lists, and the tokenizer's own."""
        listed = getattr(self.model.generation_config, "eos_token_id", None)
        several = listed if isinstance(listed, list) else [listed]
        return frozenset(token for token in (*several, self.tokenizer.eos_token_id) if isinstance(token, int))

    @property
    def input_device(self) -> torch.device:
        """Where token ids are expected."""
        return _used_on(self.model.get_input_embeddings())

    @property
    def layer_devices(self) -> tuple[torch.device, ...]:
        """Where each layer computes."""
        return tuple(_used_on(layer.head_output) for layer in self.anatomy.layers)

    @property
    def context_length(self) -> int:
        """The most tokens, prompt and completion together, that the model takes."""
        return int(self.model.config.get_text_config().max_position_embeddings)


def _used_on(module: torch.nn.Module) -> torch.device:
    # Weights that accelerate keeps on the CPU or on disk come to where they are used for the moment of their use.
    device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    return next(chain(module.parameters(), module.buffers())).device if device is None else torch.device(device)


def load_model(source: ModelSource) -> LoadedModel:
    """Load the model that ``source`` names, in evaluation mode.

    Raises:
        ModelLoadError: it cannot be found or read; the message says what to do.
        UnknownArchitecture: its architecture has no known anatomy. Found out before the weights are read.
    """
    asked = _dtype(source)
    with _located(source, "model") as location, offload_folder(source.cache) as offload:
        config = _known_config(location)
        quantisation = quantisation_of(config)
        if quantisation is not None and quantisation.refused is not None:
            raise ValueError(f"it {quantisation.refused}")
        dtype = _computed_in(config, asked)
        placement = _placement(source, config, dtype, from_gguf=location.gguf is not None)
        if location.folder is not None:
            check_weights(location.folder)
        tokenizer = read_tokenizer(location, config)
        model = _weighted(location, {"dtype": dtype, "offload_folder": offload.path, **placement})
        offload.keep_for(model)
        loaded = assemble(location.name, model, tokenizer)
        if quantisation is not None:
            _run_once(loaded)
        return loaded


def load_outline(source: ModelSource) -> LoadedModel:
    """Return the model that ``source`` names, in its dtype and with its tokenizer, but without its weights: unread.

    Raises:
        ModelLoadError: config or tokenizer cannot be found or read; the message says what to do.
        UnknownArchitecture: its architecture has no known anatomy.
    """
    asked = _dtype(source)
    with _located(source, "model") as location:
        config = _known_config(location)
        model = _without_weights(config, _computed_in(config, asked))
        return assemble(location.name, model, read_tokenizer(location, config))


@dataclass(frozen=True)
class Skeleton:
    """A model without its weights: what can be said of it from its config alone."""

    name: str
    model: PreTrainedModel
    """On the meta device."""
    anatomy: Anatomy
    quantisation: Quantisation | None
    """How the checkpoint's weights are kept; None where they are plain ones."""


def load_skeleton(source: ModelSource) -> Skeleton:
    """Build the model that ``source`` names without its weights, which are not read.

    Raises:
        ModelLoadError: its config cannot be found or read; the message says what to do.
        UnknownArchitecture: its architecture has no known anatomy.
    """
    asked = _dtype(source)
    with _located(source, "the config of model") as location:
        config = _known_config(location)
        model = _without_weights(config, _computed_in(config, asked))
        return Skeleton(location.name, model, find_anatomy(model, FAMILIES), quantisation_of(config))


def assemble(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> LoadedModel:
    """Find the parts of a model that is already in memory.

    Raises:
        UnknownArchitecture: its architecture has no known anatomy.
    """
    anatomy = find_anatomy(model, FAMILIES)
    identity = identify(name, type(model).__name__, model.config.get_text_config(), tokenizer, anatomy)
    return LoadedModel(name, model, tokenizer, anatomy, identity)


def fast_dtype() -> torch.dtype:
    """Return bfloat16 where the hardware multiplies it fast, else float32."""
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    supports = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    fast = supports.get("avx512_bf16") or supports.get("amx_bf16") or supports.get("bf16")
    return torch.bfloat16 if fast else torch.float32


@contextmanager
def _located(source: ModelSource, what: str) -> Iterator[Location]:
    """Find a model, and quietly load ``what`` of it.

    Raises:
        ModelLoadError: it cannot be found or read, or not as ``source`` says; the message says what to do.
    """
    location: Location | None = None
    try:
        if source.max_memory is not None:
            require_max_memory(source.max_memory, source.device_map)
        with quietly(), located(source.model, source.cache) as location:
            yield location
    except CANNOT_LOAD as exc:
        says = fault(exc, source.model)
        if location is not None:
            says = location.without_temporary(says)
        raise ModelLoadError(f"cannot load {what} {source.model!r}: {says}") from exc


def _weighted(location: Location, placement: Mapping[str, Any]) -> PreTrainedModel:
    """Load a model with its weights, in evaluation mode.

    Raises:
        ValueError: they are not all of its weights, or not alone.
    """
    if location.gguf is not None:
        placement = {**placement, "quantization_config": GgufConfig(dequantize=True)}
    model, report = AutoModelForCausalLM.from_pretrained(
        location.path,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        trust_remote_code=False,
        # Where peft is installed an adapter is looked for beside the model, and that does not heed the rest.
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
    """Have a quantised model do now what its library leaves to the first pass: unpack weights, look for kernels."""
    loaded.model(input_ids=torch.tensor([[0, 0]], device=loaded.input_device), use_cache=False)


def _known_config(location: Location) -> PretrainedConfig:
    """Read a model's config.

    Raises:
        UnknownArchitecture: it names an architecture that is not known.
        ValueError: something in it is of a kind that it cannot be.
    """
    try:
        config = AutoConfig.from_pretrained(location.path, trust_remote_code=False, **location.options)
    except (AttributeError, TypeError) as exc:
        raise ValueError(f"its config holds what no config of a model does: {in_one_line(exc)}") from exc
    for architecture in config.architectures or ():
        family_of(architecture, config, FAMILIES)
    config.name_or_path = location.origin
    return config


def _without_weights(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    return model


def _require_all_weights(report: Mapping[str, Any]) -> None:
    """Refuse a model that transformers has filled up with random weights where the checkpoint had none that fit.

    Raises:
        ValueError: it has.
    """
    fault = "the weights do not fit the config"
    if report["mismatched_keys"]:
        name, stored, expected = min(report["mismatched_keys"])
        raise ValueError(f"{fault}: {name} has shape {list(stored)}, where {list(expected)} is expected")
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ValueError(f"{fault}: it names {len(missing)} tensors that are not there, such as {missing[0]}")


def _computed_in(config: PretrainedConfig, asked: torch.dtype | None) -> torch.dtype:
    """Return the type to load a model in: what is asked for, or the fast one; for quantised weights their own.

    Some libraries keep scales, and all that is not quantised, in the type that a checkpoint was made for, whatever is
    asked for.

    Raises:
        ValueError: the weights are quantised, and made for another type than is asked for.
    """
    own = (config.dtype or config.get_text_config().dtype) if quantisation_of(config) is not None else None
    if own is not None and asked not in (None, own):
        raise ValueError(f"its quantised weights are made for {_name(own)}; dtype is {_name(asked)}: leave it at auto")
    return own or asked or fast_dtype()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(source: ModelSource) -> torch.dtype | None:
    """Return the type that is asked for; None if any will do."""
    if source.dtype == "auto":
        return None
    dtype = getattr(torch, source.dtype, None)
    if source.dtype not in DTYPES or not isinstance(dtype, torch.dtype):
        raise ModelLoadError(f"dtype is {source.dtype!r}; allowed: {', '.join(DTYPES)}")
    return dtype


def _placement(source: ModelSource, config: PretrainedConfig, dtype: torch.dtype, *, from_gguf: bool) -> dict[str, Any]:
    """Return where transformers is to put the parts of a model.

    Raises:
        ValueError: they cannot go there.
    """
    if isinstance(source.device_map, str) and source.device_map in AUTOMATIC:
        limits = {} if source.max_memory is None else {"max_memory": dict(source.max_memory)}
        return {"device_map": source.device_map, **limits}
    outline = _without_weights(config, dtype)
    alone = "cuda:0" if torch.cuda.is_available() else "cpu"
    whole = explicit_map(outline, alone if source.device_map is None else source.device_map)
    if from_gguf and DISK in whole.values():
        raise ValueError(
            "the device map puts parts on disk, where a GGUF file's are not as they are needed; put them on other "
            "devices, or take the model's safetensors files"
        )
    require_memory(outline, dtype, whole)
    return {} if source.device_map is None and alone == "cpu" else {"device_map": whole}
