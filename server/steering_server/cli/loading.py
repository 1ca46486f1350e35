"""Load the model of a command that serves none."""

from typing import TYPE_CHECKING

from rich.console import Console

from steering_profiles.source import ModelSource, require_possible

if TYPE_CHECKING:
    from steering_profiles.models import LoadedModel


def open_model(source: ModelSource) -> "LoadedModel":
    """Load a model, and say so meanwhile. That nothing is where it should be is known before torch is imported.

    Raises:
        SteeringError: it cannot be loaded.
    """
    require_possible(source)
    with Console(stderr=True).status("loading the model"):
        from steering_profiles.models import load_model

        return load_model(source)
