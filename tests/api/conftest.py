"""One server over a small model for the whole folder."""

from collections.abc import Iterator

import httpx
import pytest
import torch

from steering_profiles.models import LoadedModel
from steering_profiles.schema import Profile
from tests.builders import build_model, build_profile
from tests.serving import serving


@pytest.fixture(scope="session")
def model() -> LoadedModel:
    return build_model("llama", dtype=torch.float32)


def profiles_for(model: LoadedModel) -> list[Profile]:
    """The server's profiles ``heads`` and ``final``."""
    return [
        build_profile(model, "heads", heads=[(0, 1, 4.0), (1, 2, -2.0), (2, 0, 3.0)]),
        build_profile(model, "final", self_only_attention=1.0, intercept_scale=0.9),
    ]


@pytest.fixture(scope="session")
def url(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(model, tmp_path_factory.mktemp("profiles"), profiles_for(model)) as url:
        yield url


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client
