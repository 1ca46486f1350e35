"""The same tokens in every mode of vLLM: compiled, preempted, speculating, over several workers."""

from pathlib import Path
from typing import Any

import pytest

from steering_profiles.models import LoadedModel
from tests.vllm.offline import Reference, Vllm, assert_equal_greedy, references
from tests.vllm.prompts import encoded

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ARMS = ("baseline", "final", "parentheses", "neurons@-1.5", "bracketed", "completing+numbered+parentheses")
TOKENS = 60
_BLOCK_BYTES = 30 * 2 * 3 * 64 * 4 * 32  # of 32 tokens in float32: 30 layers, keys and values, 3 heads of 64

MODES: dict[str, dict[str, Any]] = {
    "compiled": {"enforce_eager": False},
    "preempted": {"kv_cache_memory_bytes": 17 * _BLOCK_BYTES},
    "speculating": {
        "speculative_config": {
            "method": "ngram",
            "num_speculative_tokens": 3,
            "prompt_lookup_max": 3,
            "prompt_lookup_min": 1,
        }
    },
    "three workers for every layer": {"tensor_parallel_size": 3},
    "two workers, each with half of the layers": {"pipeline_parallel_size": 2, "gpu_memory_utilization": 0.15},
    "transformers' own model": {"model_impl": "transformers"},
}
_COUNTED = {"preempted": "vllm:num_preemptions", "speculating": "vllm:spec_decode_num_accepted_tokens"}
"""Metrics that must not be 0, else the mode did not happen."""


@pytest.fixture(scope="module")
def asked(embedded32: LoadedModel) -> list[tuple[list[int], str]]:
    texts = [f"#print the string {n}\nprint(str(str(str({n}" for n in (123, 7, 4567)]
    return [(encoded(embedded32.tokenizer, text), arm) for text in texts for arm in ARMS]


@pytest.fixture(scope="module")
def expected(embedded32: LoadedModel, profiles: Path, asked: list[tuple[list[int], str]]) -> list[Reference]:
    return references(embedded32, profiles, asked, TOKENS)


@pytest.mark.parametrize("mode", MODES)
def test_tokens_are_those_of_our_engine(
    mode: str,
    model: str,
    profiles: Path,
    asked: list[tuple[list[int], str]],
    expected: list[Reference],
    tmp_path: Path,
) -> None:
    requests = [{"prompt": prompt, "steering": arm, "max_tokens": TOKENS} for prompt, arm in asked]
    # The memory of the cache is given by other arguments in some modes.
    variables = {"VLLM_CACHE_ROOT": str(tmp_path / "cache")}
    if mode.startswith(("preempted", "two workers")):
        variables["VLLM_CPU_KVCACHE_SPACE"] = ""
    options = {"max_num_seqs": 12, "max_num_batched_tokens": 64, **MODES[mode]}
    with Vllm(model, profiles, tmp_path / "log", variables=variables, **options) as running:
        outputs = running.run(*requests)
        ties = assert_equal_greedy(expected, outputs, [arm for _, arm in asked])
        print(f"{mode}: parted at ties: {ties}")
        if mode in _COUNTED:
            assert running.metrics[_COUNTED[mode]] > 0
