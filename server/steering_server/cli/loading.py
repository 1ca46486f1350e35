"""Loading the model of a command that does not serve it."""

from typing import TYPE_CHECKING

from rich.console import Console

from steering_profiles.source import ModelSource, require_possible

if TYPE_CHECKING:
    from steering_profiles.models import LoadedModel


def open_model(source: ModelSource) -> "LoadedModel":
    """Load a model while a spinner is shown. A model that does not exist is refused before torch is imported.

    Raises:
        SteeringError: the model cannot be loaded.
    """
    require_possible(source)
    with Console(stderr=True).status("loading the model"):
        from steering_profiles.models import load_model

        return load_model(source)
