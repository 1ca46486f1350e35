"""Loading models and finding their parts. The only package that knows architectures by name."""

import steering_profiles.models.loggers  # noqa: F401  imported before the libraries that it silences
from steering_profiles.models.anatomy import Anatomy, LayerAnatomy, Sizes, find_anatomy
from steering_profiles.models.contributions import LayerState, head_contributions, recorded
from steering_profiles.models.families import FAMILIES
from steering_profiles.models.identity import weights_digest
from steering_profiles.models.loading import LoadedModel, assemble, load_model
from steering_profiles.models.meta_model import MetaModel, ModelWithAnatomy, load_meta_model
from steering_profiles.models.quantised import Quantisation, method_of, quantisation_of
from steering_profiles.source import DTYPES, EMBEDDED, ModelSource

__all__ = [
    "DTYPES",
    "EMBEDDED",
    "FAMILIES",
    "Anatomy",
    "LayerAnatomy",
    "LayerState",
    "LoadedModel",
    "MetaModel",
    "ModelSource",
    "ModelWithAnatomy",
    "Quantisation",
    "Sizes",
    "assemble",
    "find_anatomy",
    "head_contributions",
    "load_meta_model",
    "load_model",
    "method_of",
    "quantisation_of",
    "recorded",
    "weights_digest",
]
