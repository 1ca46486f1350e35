"""200 prompts in five steerings: the same greedy tokens from both engines in float32."""

import shutil
from pathlib import Path

import pytest

from steering_profiles.models import LoadedModel
from steering_profiles.store import find_profile, save_profile
from tests.vllm.offline import Vllm, assert_equal_greedy, references
from tests.vllm.prompts import encoded, texts

ARMS = ("baseline", "parentheses", "final", "neurons@-1.5", "everywhere")
TOKENS = 8


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_prompts_in_five_steerings(
    model: str, embedded32: LoadedModel, profiles: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(profiles, tmp_path / "profiles")
    everywhere = find_profile("parentheses").split()[0].model_copy(update={"name": "everywhere", "when": None})
    save_profile(everywhere, folder)
    asked = [(encoded(embedded32.tokenizer, text), arm) for text in texts(200) for arm in ARMS]
    assert len({tuple(prompt) for prompt, _ in asked}) == 200
    expected = references(embedded32, folder, asked, TOKENS)
    with Vllm(model, folder, tmp_path / "log", max_num_seqs=32, max_num_batched_tokens=256) as running:
        outputs = running.run(*({"prompt": prompt, "steering": arm, "max_tokens": TOKENS} for prompt, arm in asked))
    ties = assert_equal_greedy(expected, outputs, [f"{arm}: {prompt}" for prompt, arm in asked])
    print(f"{len(asked)} sequences of {TOKENS} tokens; parted at ties: {ties}")
    by_arm = {name: [e.tokens for e, (_, arm) in zip(expected, asked, strict=True) if arm == name] for name in ARMS}
    changed = {
        name: [n for n, (one, other) in enumerate(zip(tokens, by_arm["baseline"], strict=True)) if one != other]
        for name, tokens in by_arm.items()
    }
    assert len(changed["everywhere"]) > 40
    opened = [text.count("(") for text in texts(200)]
    # The profile holds where three calls were opened too, which the model mostly closes by itself.
    assert {n for n, count in enumerate(opened) if count == 4} <= set(changed["parentheses"])
    assert set(changed["parentheses"]) <= {n for n, count in enumerate(opened) if count >= 3}
