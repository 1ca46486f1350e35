"""Fixtures of the tests with a running vLLM. Without vLLM no test is collected."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from steering_profiles.models import LoadedModel, ModelSource, load_model
from steering_profiles.models.embedded import prepare
from steering_profiles.store import save_profile
from tests.builders import build_profile
from tests.vllm.offline import Vllm

collect_ignore_glob = [] if find_spec("vllm") else ["test_*.py"]


@pytest.fixture(scope="session")
def embedded32() -> LoadedModel:
    """The real default model in float32, in which engines that order sums differently agree to 5e-5."""
    return load_model(ModelSource(dtype="float32"))


@pytest.fixture(scope="session")
def model() -> str:
    """Folder of the default model."""
    return str(prepare(ModelSource().cache))


@pytest.fixture(scope="session")
def profiles(embedded32: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Profiles beside the shipped ones: neurons in four layers, and one with a gate."""
    folder = tmp_path_factory.mktemp("profiles")
    neurons = [(layer, 7 * index + layer, -2.0 + index / 2) for layer in (3, 10, 20, 29) for index in range(15)]
    save_profile(build_profile(embedded32, "neurons", neurons=neurons), folder)
    save_profile(build_profile(embedded32, "gated", self_only_attention=1.0, gate=(0.1, 0.5)), folder)
    return folder


@pytest.fixture(scope="session")
def offline(model: str, profiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    """A running vLLM: few sequences and short steps, so that prompts come in pieces and rows are used again."""
    log = tmp_path_factory.mktemp("offline") / "log"
    with Vllm(model, profiles, log, max_num_seqs=8, max_num_batched_tokens=64) as running:
        yield running
