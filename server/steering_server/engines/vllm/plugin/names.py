"""Names of steered models: the name of a served model and a label, as in ``model+profile@0.5``."""

from collections.abc import Iterable

from steering_profiles.labels import SEPARATOR


class ModelNames:
    """The names of the models that this process serves."""

    def __init__(self) -> None:
        self._served: set[str] = set()

    def learn(self, names: Iterable[str]) -> None:
        """Add names of served models."""
        self._served.update(names)

    def label_of(self, name: str | None) -> str | None:
        """Return the label in the name of a steered model; None where ``name`` is that of no steered model."""
        if not name or name in self._served:
            return None
        # The longest served name that begins it, since a served name may have the separator in it.
        bases = [base for base in self._served if name.startswith(base + SEPARATOR)]
        return name[len(max(bases, key=len)) + 1 :] if bases else None


def steered_name(served: str, profile: str) -> str:
    """Return the name by which requests select ``profile`` of the model with the name ``served``."""
    return f"{served}{SEPARATOR}{profile}"
