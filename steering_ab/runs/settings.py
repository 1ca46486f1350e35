"""The settings of a run: what must stay the same for its answers to be compared."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

VERSION = 1


class RunSettings(BaseModel):
    """Everything that answers depend on besides the items."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    version: int = VERSION
    dataset: str
    """Name of the data set."""
    arms: Mapping[str, str]
    """What each arm asks for, by its label."""
    described: Mapping[str, Any]
    """What each arm is: hashes of its profiles, or the model that it names."""
    model: str
    where: str
    temperature: float
    max_tokens: int
    seed: int
    repeats: int
    chat: bool

    def difference(self, other: "RunSettings") -> str | None:
        """Return the first setting in which ``other`` differs, as text; None if none does.

        The name of the data set may differ: answers belong to items, whatever their file is called.
        """
        for name in type(self).model_fields:
            if name != "dataset" and getattr(self, name) != getattr(other, name):
                return f"{name} is {_shown(getattr(other, name))}, and was {_shown(getattr(self, name))}"
        return None

    @property
    def key(self) -> str:
        """Hash of all settings."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:10]


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:199] + "…"
