"""200 prompts in four steerings: the same greedy tokens from both engines in float32."""

from pathlib import Path

import pytest

from steering_profiles.models import LoadedModel
from tests.vllm.offline import Vllm, assert_equal_greedy, references
from tests.vllm.prompts import encoded, texts

ARMS = ("baseline", "parentheses", "factual-recall", "neurons@-1.5")
TOKENS = 8


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_prompts_in_four_steerings(
    model: str, embedded32: LoadedModel, profiles: Path, tmp_path: Path
) -> None:
    asked = [(encoded(embedded32.tokenizer, text), arm) for text in texts(200) for arm in ARMS]
    assert len({tuple(prompt) for prompt, _ in asked}) == 200
    expected = references(embedded32, profiles, asked, TOKENS)
    with Vllm(model, profiles, tmp_path / "log", max_num_seqs=32, max_num_batched_tokens=256) as running:
        outputs = running.run(*({"prompt": prompt, "steering": arm, "max_tokens": TOKENS} for prompt, arm in asked))
    ties = assert_equal_greedy(expected, outputs, [f"{arm}: {prompt}" for prompt, arm in asked])
    print(f"{len(asked)} sequences of {TOKENS} tokens; parted at ties: {ties}")
    steered = [e.tokens for e, (_, arm) in zip(expected, asked, strict=True) if arm == "parentheses"]
    plain = [e.tokens for e, (_, arm) in zip(expected, asked, strict=True) if arm == "baseline"]
    # It takes effect only where four brackets are open.
    assert sum(one != other for one, other in zip(steered, plain, strict=True)) > 20
