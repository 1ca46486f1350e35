"""Small models of other families: their modules are found in vLLM, and steering is that of our engine."""

from pathlib import Path
from typing import Any

import pytest
import torch

from steering_profiles.models import LoadedModel
from steering_profiles.store import save_profile
from tests.builders import build_profile
from tests.families import build_family
from tests.vllm.offline import Vllm, assert_equal_greedy, references

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TOKENS = 12
_HEADS: dict[str, Any] = {"hidden_size": 128, "head_dim": 32}  # vLLM has no narrower heads on CPUs
_NATIVE: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 128},
    "opt": {"hidden_size": 128, "word_embed_proj_dim": 128},
    "falcon-7b": {"hidden_size": 128, "ffn_hidden_size": 512},  # vLLM's Falcon has four times the hidden size
    "qwen3": _HEADS,
    "gemma2": {"head_dim": 32, "query_pre_attn_scalar": 32},  # with a larger hidden size one token is all but certain
    "phi3": {"hidden_size": 128},
    "granite": {"hidden_size": 128},
}
_TRANSFORMERS: dict[str, dict[str, Any]] = {"pythia": {"hidden_size": 128}, "olmo2": {"hidden_size": 128}}
CASES = _NATIVE | _TRANSFORMERS


@pytest.mark.parametrize("case", CASES)
def test_a_family_is_steered_as_by_our_engine(case: str, tmp_path: Path) -> None:
    loaded = build_family(case, dtype=torch.float32, **CASES[case])
    folder, profiles = tmp_path / "model", tmp_path / "profiles"
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    save_profile(everything(loaded), profiles)
    asked = [
        (list(range(40 + n, 60 + n)), arm) for n in range(4) for arm in ("baseline", "everything", "everything@-1")
    ]
    expected = references(loaded, profiles, asked, TOKENS)
    assert expected[0].tokens != expected[1].tokens
    arguments: dict[str, Any] = {"max_model_len": 128, "max_num_seqs": 8, "max_num_batched_tokens": 64}
    with Vllm(str(folder), profiles, tmp_path / "log", **arguments) as running:
        outputs = running.run(*({"prompt": prompt, "steering": arm, "max_tokens": TOKENS} for prompt, arm in asked))
    assert_equal_greedy(expected, outputs, [arm for _, arm in asked])


def everything(loaded: LoadedModel) -> Any:
    """A profile with every kind of effect."""
    return build_profile(
        loaded,
        "everything",
        heads=[(0, 1, 2.0), (1, 3, -1.0), (2, 0, 0.5)],
        neurons=[(0, 5, 3.0), (2, 7, -2.0)],
        self_only_attention=0.5,
        intercept_scale=0.2,
    )
