"""Load models and find their parts. The only room that knows an architecture by name."""

import steering_profiles.models.loggers  # noqa: F401  before those that it silences
from steering_profiles.models.anatomy import Anatomy, LayerAnatomy, Sizes, find_anatomy
from steering_profiles.models.contributions import LayerState, head_contributions, recorded
from steering_profiles.models.families import FAMILIES
from steering_profiles.models.identity import weights_digest
from steering_profiles.models.loading import LoadedModel, Skeleton, assemble, load_model, load_outline, load_skeleton
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
    "ModelSource",
    "Quantisation",
    "Sizes",
    "Skeleton",
    "assemble",
    "find_anatomy",
    "head_contributions",
    "load_model",
    "load_outline",
    "load_skeleton",
    "method_of",
    "quantisation_of",
    "recorded",
    "weights_digest",
]
