"""Fixtures of the tests with a running vLLM. Without vLLM no test is collected."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from steering_profiles.models import LoadedModel, ModelSource, load_model
from steering_profiles.models.embedded import prepare
from steering_profiles.store import save_profile
from tests.builders import Scaled, build_profile
from tests.vllm.offline import Vllm

CONDITIONAL: tuple[tuple[str, dict[str, object], dict[str, Any]], ...] = (
    (
        "bracketed",
        {"matches": r"\([^()\n]*"},
        {"heads": [(5, 1, 0.3), (7, 0, 0.2), (11, 2, 2.0)], "self_only_attention": 0.3, "intercept_scale": 0.02},
    ),
    ("completing", {"part": "completion"}, {"heads": [(3, 0, 2.0), (15, 3, -0.5)]}),
    (
        "starting",
        {"part": "last_prompt_token"},
        {"heads": [(4, 2, 2.5)], "self_only_attention": 1.0, "intercept_scale": -0.3},
    ),
    (
        "numbered",
        {"any": [{"matches": r"\d"}, {"ends_with": ["))", " the"]}]},
        {"neurons": [(layer, 11 * index + layer, -2.0 + index / 2) for layer in (4, 12) for index in range(9)]},
    ),
)
"""Name, condition and changes of profiles that come and go within a text."""

FINAL: dict[str, Any] = {"self_only_attention": 0.5, "intercept_scale": 0.1}
"""Changes of the final layer at every position, without a gate, which vLLM refuses."""

PARTED: tuple[Scaled, ...] = (
    *((5, head, 2.0 - head, {"matches": r"\([^()\n]*"}) for head in (1, 4)),
    *((layer, 4, 2.5, {"part": "completion"}) for layer in (5, 9)),
    (20, 0, 0.5),
)
"""Heads of a profile whose scales have conditions of their own; one head is scaled under two."""

LAYERED: tuple[tuple[float, float, dict[str, object]], ...] = (
    (0.5, -0.3, {"matches": r"\([^()\n]*"}),
    (0.2, 0.2, {"part": "completion"}),
)
"""Final layers of the same profile, with conditions of their own."""

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
    """Profiles beside the shipped ones: neurons, the final layer, one with a gate, and five with conditions."""
    folder = tmp_path_factory.mktemp("profiles")
    neurons = [(layer, 7 * index + layer, -2.0 + index / 2) for layer in (3, 10, 20, 29) for index in range(15)]
    save_profile(build_profile(embedded32, "neurons", neurons=neurons), folder)
    save_profile(build_profile(embedded32, "final", **FINAL), folder)
    save_profile(build_profile(embedded32, "gated", self_only_attention=1.0, gate=(0.1, 0.5)), folder)
    for name, when, changes in CONDITIONAL:
        save_profile(build_profile(embedded32, name, when=when, **changes), folder)
    save_profile(build_profile(embedded32, "parted", heads=PARTED, final_layers=LAYERED), folder)
    return folder


@pytest.fixture(scope="session")
def offline(model: str, profiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    """A running vLLM: few sequences and short steps, so that prompts come in pieces and rows are used again."""
    log = tmp_path_factory.mktemp("offline") / "log"
    with Vllm(model, profiles, log, max_num_seqs=8, max_num_batched_tokens=64) as running:
        yield running
