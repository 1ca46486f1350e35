"""Steering inside vLLM, request by request, against this project's own engine."""

from pathlib import Path

import pytest

from steering_profiles.models import LoadedModel
from tests.vllm.offline import TIE, Vllm, assert_equal_greedy, references
from tests.vllm.prompts import FOUR, encoded, long, texts

pytestmark = pytest.mark.timeout(900)

ARMS = ("baseline", "parentheses", "final", "neurons@-1.5", "final+neurons+parentheses@0.5")


def test_log_probabilities_are_those_of_our_engine(offline: Vllm, embedded32: LoadedModel, profiles: Path) -> None:
    asked = [(encoded(embedded32.tokenizer, text), arm) for text in texts(6) for arm in ARMS]
    expected = references(embedded32, profiles, asked, max_tokens=4)
    outputs = offline.run(*({"prompt": prompt, "steering": arm, "max_tokens": 4} for prompt, arm in asked))
    assert_equal_greedy(expected, outputs, [arm for _, arm in asked])
    scored = offline.run(*({"prompt": prompt, "steering": arm, "prompt_logprobs": 0} for prompt, arm in asked))
    for reference, output in zip(expected, scored, strict=True):
        assert output["prompt_logprobs"][1:] == pytest.approx(reference.prompt_logprobs, abs=TIE)
    changed = {reference.logprobs for reference in expected[: len(ARMS)]}
    assert len(changed) == len(ARMS)  # else the comparison would prove nothing


def test_one_batch_mixes_steered_and_unsteered_requests(offline: Vllm, embedded32: LoadedModel) -> None:
    prompt = encoded(embedded32.tokenizer, FOUR)
    outputs = offline.run(*({"prompt": prompt, "steering": ("baseline", "parentheses")[n % 2]} for n in range(40)))
    texts = [embedded32.tokenizer.decode(output["tokens"]) for output in outputs]
    assert texts == [")))", "))))"] * 20


def test_prompts_that_come_in_pieces_share_only_what_is_equal(
    offline: Vllm, embedded32: LoadedModel, profiles: Path
) -> None:
    prompt = encoded(embedded32.tokenizer, long())
    asked = ("baseline", "parentheses", "baseline", "parentheses", "parentheses@0.5", "final")
    cached, logprobs = [], []
    for arm in (*asked, "final+parentheses"):
        (output,) = offline.run({"prompt": prompt, "steering": arm})
        cached.append(output["cached"])
        logprobs.append(output["logprobs"][0])
    # The final layer's effects change no key or value, so those requests share what is there without them.
    assert cached == [0, 0, 256, 256, 0, 256, 256]
    expected = references(embedded32, profiles, [(prompt, arm) for arm in (*asked, "final+parentheses")], 1)
    assert logprobs == pytest.approx([reference.logprobs[0] for reference in expected], abs=TIE)


def test_more_strengths_than_rows_are_as_each_alone(offline: Vllm, embedded32: LoadedModel) -> None:
    prompt = encoded(embedded32.tokenizer, FOUR)
    asked = [{"prompt": prompt, "steering": "parentheses", "strength": n / 10, "max_tokens": 2 + n % 5}
             for n in range(-5, 20)]  # fmt: skip
    mixed = offline.run(*asked)
    alone = [offline.run(one)[0] for one in asked]
    assert len({output["logprobs"][0] for output in alone}) == len(asked)
    for together, single in zip(mixed, alone, strict=True):
        assert together["logprobs"] == pytest.approx(single["logprobs"], abs=TIE)


@pytest.mark.parametrize(
    ("steering", "message"),
    [
        (
            "nope",
            "no profile named 'nope'; this server has: bracketed, completing, factual-recall, final",
        ),
        ("gated", "profile gated cannot be applied: final_layer.gate is 0.1..0.5: a gate needs two passes"),
        ("parentheses@11", "the strength after @ is '11'"),
    ],
)
def test_what_cannot_be_applied_is_refused(offline: Vllm, steering: str, message: str) -> None:
    with pytest.raises(ValueError, match="VLLMValidationError") as refused:
        offline.run({"prompt": [1, 2, 3], "steering": steering})
    assert message in str(refused.value)
