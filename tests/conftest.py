"""Fixtures that every folder of tests shares."""

import pytest

from steering_profiles.models import LoadedModel, ModelSource, load_model
from steering_server.logs import configure_logs
from tests.builders import FAMILIES, build_model


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
