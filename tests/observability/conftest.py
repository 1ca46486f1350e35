"""Fixtures of the tests of metrics and traces."""

from collections.abc import Iterator

import pytest
import torch

from steering_profiles.models import LoadedModel
from steering_server.experiments.database import Database, parse_database_url, sqlite_url
from steering_server.experiments.live import Experiments
from tests.builders import build_model, profiles_for
from tests.serving import serving


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that only these tests ask, since they look at all that it has counted."""
    model = build_model("llama", dtype=torch.float32)
    folder = tmp_path_factory.mktemp("server")
    experiments = Experiments(Database(parse_database_url(sqlite_url(folder / "experiments.sqlite"))))
    with serving(model, folder / "profiles", profiles_for(model), experiments=experiments) as url:
        yield url


@pytest.fixture
def another() -> LoadedModel:
    """A model for a server of a test's own; one model has room for one engine."""
    return build_model("llama", dtype=torch.float32)
