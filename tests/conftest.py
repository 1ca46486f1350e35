"""Fixtures that every folder of tests shares."""

from collections.abc import Iterator

import httpx
import pytest
import torch
from hypothesis import settings
from transformers import PreTrainedTokenizerFast

from steering_profiles.models import LoadedModel, ModelSource, load_model
from steering_server.logs import configure_logs
from tests.builders import FAMILIES, build_model, build_tokenizer, profiles_for
from tests.serving import serving

# How long one example takes says how busy the machine is, nothing about the code.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.fixture
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the small models: any text, byte by byte, and a token for one to four closing parentheses."""
    return build_tokenizer()


@pytest.fixture(params=FAMILIES)
def tiny(request: pytest.FixtureRequest) -> LoadedModel:
    """A small float64 model of random weights, one per architecture family."""
    return build_model(request.param)


@pytest.fixture(scope="session")
def embedded() -> LoadedModel:
    """The real default model."""
    return load_model(ModelSource())


@pytest.fixture(scope="session")
def model() -> LoadedModel:
    """The model of :func:`url`."""
    return build_model("llama", dtype=torch.float32)


@pytest.fixture(scope="session")
def url(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server over a small model, for all tests that do not change it."""
    with serving(model, tmp_path_factory.mktemp("profiles"), profiles_for(model)) as url:
        yield url


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    """A client of :func:`url`."""
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session", autouse=True)
def _quiet_logs() -> None:
    configure_logs("error")
