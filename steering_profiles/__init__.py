"""Library of steering profiles: their format, applying them to a model, and fitting them.

from steering_profiles import find_profile

profile = find_profile("parentheses")
with profile.apply(model):
    model.generate(...)
"""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steering_profiles.schema import Profile
    from steering_profiles.store import Catalogue, find_profile, load_profile, save_profile

__version__ = version("steering-server")
__all__ = ["Catalogue", "Profile", "__version__", "find_profile", "load_profile", "save_profile"]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that the command line starts without pydantic and numpy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from steering_profiles import schema, store

    return schema.Profile if name == "Profile" else getattr(store, name)
