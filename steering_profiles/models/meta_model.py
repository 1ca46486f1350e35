"""Models on the meta device: config, sizes and parts of a model, known before any weights are read."""

from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from steering_profiles.models.anatomy import Anatomy, find_anatomy
from steering_profiles.models.families import FAMILIES
from steering_profiles.models.identity import identify
from steering_profiles.models.quantised import Quantisation, quantisation_of
from steering_profiles.models.reading import dtype_name, found, load_dtype, read_config, requested_dtype
from steering_profiles.models.tokenizers import read_tokenizer
from steering_profiles.schema import ModelIdentity
from steering_profiles.source import ModelSource


@dataclass(frozen=True)
class ModelWithAnatomy:
    """A transformers model and where its parts are."""

    name: str
    model: PreTrainedModel
    anatomy: Anatomy

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type that the model computes in."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def dtype_name(self) -> str:
        """Name of that type, such as ``bfloat16``."""
        return dtype_name(self.dtype)

    @property
    def context_length(self) -> int:
        """Maximum number of tokens, prompt and completion together, that the model accepts."""
        return int(self.model.config.get_text_config().max_position_embeddings)


@dataclass(frozen=True)
class MetaModel(ModelWithAnatomy):
    """A model whose parameters are on the meta device: they have shapes and a dtype, but no values."""

    quantisation: Quantisation | None
    """Quantisation of the checkpoint; None where its weights are plain."""
    tokenizer: PreTrainedTokenizerBase | None
    """None if it was not read."""

    @property
    def identity(self) -> ModelIdentity:
        """Sizes and fingerprint of the model; without a tokenizer the fingerprint covers the config only."""
        config = self.model.config.get_text_config()
        return identify(self.name, type(self.model).__name__, config, self.tokenizer, self.anatomy)


def load_meta_model(source: ModelSource, *, with_tokenizer: bool = True) -> MetaModel:
    """Build the model that ``source`` names on the meta device, from its config and, if asked for, its tokenizer.

    Raises:
        ModelLoadError: the config or the tokenizer cannot be found or read; the message says what to do.
        UnknownArchitecture: the model's architecture has no known anatomy.
    """
    requested = requested_dtype(source)
    with found(source, "model" if with_tokenizer else "the config of model") as location:
        config = read_config(location)
        model = without_weights(config, load_dtype(config, requested))
        tokenizer = read_tokenizer(location, config) if with_tokenizer else None
        return MetaModel(location.name, model, find_anatomy(model, FAMILIES), quantisation_of(config), tokenizer)


def without_weights(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Build a model of ``config`` on the meta device."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    return model
