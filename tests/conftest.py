"""Fixtures that every folder of tests shares."""

import pytest
from hypothesis import settings
from transformers import PreTrainedTokenizerFast

from steering_profiles.models import LoadedModel, ModelSource, load_model
from steering_server.logs import configure_logs
from tests.builders import FAMILIES, build_model, build_tokenizer

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


@pytest.fixture(scope="session", autouse=True)
def _quiet_logs() -> None:
    configure_logs("error")
