"""Load models and find their parts. The only room that knows an architecture by name."""

from steering_profiles.models.anatomy import Anatomy, LayerAnatomy, Sizes, find_anatomy
from steering_profiles.models.contributions import LayerState, head_contributions, recorded
from steering_profiles.models.families import FAMILIES
from steering_profiles.models.identity import weights_digest
from steering_profiles.models.loading import (
    DTYPES,
    EMBEDDED,
    LoadedModel,
    ModelSource,
    Skeleton,
    assemble,
    load_model,
    load_outline,
    load_skeleton,
)

__all__ = [
    "DTYPES",
    "EMBEDDED",
    "FAMILIES",
    "Anatomy",
    "LayerAnatomy",
    "LayerState",
    "LoadedModel",
    "ModelSource",
    "Sizes",
    "Skeleton",
    "assemble",
    "find_anatomy",
    "head_contributions",
    "load_model",
    "load_outline",
    "load_skeleton",
    "recorded",
    "weights_digest",
]
