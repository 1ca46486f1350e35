"""Load models and find their parts. The only room that knows an architecture by name."""

from steering_profiles.models.anatomy import Anatomy, LayerAnatomy, Sizes, find_anatomy
from steering_profiles.models.families import FAMILIES
from steering_profiles.models.identity import weights_digest
from steering_profiles.models.loading import (
    DTYPES,
    EMBEDDED,
    LoadedModel,
    ModelSource,
    assemble,
    identify_model,
    load_model,
)

__all__ = [
    "DTYPES",
    "EMBEDDED",
    "FAMILIES",
    "Anatomy",
    "LayerAnatomy",
    "LoadedModel",
    "ModelSource",
    "Sizes",
    "assemble",
    "find_anatomy",
    "identify_model",
    "load_model",
    "weights_digest",
]
