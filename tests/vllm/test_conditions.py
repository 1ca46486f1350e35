"""Profiles with conditions inside vLLM take effect at the same tokens as in this project's own engine."""

from pathlib import Path

import pytest

from steering_profiles.models import LoadedModel
from steering_profiles.steering import ProfileAtStrength, Steering, TextReader
from steering_profiles.store import Catalogue
from tests.vllm.conftest import CONDITIONAL
from tests.vllm.offline import TIE, Reference, Vllm, assert_equal_greedy, references
from tests.vllm.prompts import encoded, long, texts

pytestmark = pytest.mark.timeout(900)

TOKENS = 16
ARMS = (
    "baseline",
    "parentheses",
    "bracketed",
    "completing",
    "parted",
    "starting",
    "numbered@-1",
    "bracketed+numbered",
    "bracketed+completing+final+numbered@0.7",
)

Asked = list[tuple[list[int], str]]


def held(loaded: LoadedModel, folder: Path, name: str, prompt: list[int], reference: Reference) -> list[int]:
    """Whether the condition of a profile holds at each position of a prompt and what was generated after it."""
    steering = Steering((ProfileAtStrength(Catalogue.open(folder)[name].profile),))
    trace = TextReader(loaded.tokenizer).trace(steering, len(prompt))
    assert trace is not None
    tokens = [*prompt, *reference.tokens]
    return trace.held(tokens, 0, len(tokens))


def test_log_probabilities_are_those_of_our_engine(offline: Vllm, embedded32: LoadedModel, profiles: Path) -> None:
    asked: Asked = [(encoded(embedded32.tokenizer, text), arm) for text in texts(4) for arm in ARMS]
    expected = references(embedded32, profiles, asked, TOKENS)
    outputs = offline.run(*({"prompt": prompt, "steering": arm, "max_tokens": TOKENS} for prompt, arm in asked))
    ties = assert_equal_greedy(expected, outputs, [arm for _, arm in asked])
    print(f"parted at ties: {ties}")
    scored = offline.run(*({"prompt": prompt, "steering": arm, "prompt_logprobs": 0} for prompt, arm in asked))
    for reference, output in zip(expected, scored, strict=True):
        assert output["prompt_logprobs"][1:] == pytest.approx(reference.prompt_logprobs, abs=TIE)
    changed = {reference.logprobs for reference in expected[: len(ARMS)]}
    assert len(changed) == len(ARMS)  # else the comparison would prove nothing


@pytest.mark.parametrize("name", [name for name, _, _ in CONDITIONAL])
def test_conditions_that_come_and_go_while_tokens_are_generated(
    offline: Vllm, embedded32: LoadedModel, profiles: Path, name: str
) -> None:
    asked: Asked = [(encoded(embedded32.tokenizer, text), name) for text in texts(6)]
    expected = references(embedded32, profiles, asked, 2 * TOKENS)
    changes = 0
    for (prompt, _), reference in zip(asked, expected, strict=True):
        where = held(embedded32, profiles, name, prompt, reference)
        # The completion begins at the last token of the prompt, and lasts.
        of_part = name in ("completing", "starting")
        generated = where[len(prompt) - 2 :] if of_part else where[len(prompt) :]
        changes += len({*generated}) == 2
    assert changes, "the condition makes no difference between the tokens that were generated"
    outputs = offline.run(*({"prompt": prompt, "steering": arm, "max_tokens": 2 * TOKENS} for prompt, arm in asked))
    assert_equal_greedy(expected, outputs, [f"{name}: {n}" for n in range(len(asked))])


def test_prompts_in_pieces_share_the_prefix_cache_only_under_the_same_conditions(
    offline: Vllm, embedded32: LoadedModel, profiles: Path
) -> None:
    prompt = encoded(embedded32.tokenizer, "# conditions\n" + long())
    further = [*prompt, *encoded(embedded32.tokenizer, "))))\n")]
    asked: Asked = [
        *((prompt, arm) for arm in ("baseline", "bracketed", "bracketed", "completing", "bracketed+final")),
        # With another length of the prompt other tokens are in the completion.
        *((further, arm) for arm in ("bracketed", "completing", "completing")),
    ]
    outputs = [offline.run({"prompt": tokens, "steering": arm})[0] for tokens, arm in asked]
    assert [output["cached"] > 0 for output in outputs] == [False, False, True, False, True, True, False, True]
    expected = references(embedded32, profiles, asked, 1)
    found = [output["logprobs"][0] for output in outputs]
    assert found == pytest.approx([reference.logprobs[0] for reference in expected], abs=TIE)


def test_more_combinations_than_rows_are_as_each_alone(offline: Vllm, embedded32: LoadedModel) -> None:
    prompt = encoded(embedded32.tokenizer, "print(str(12), 3, str(the 4")
    label = "bracketed+completing+numbered+parentheses"
    asked = [{"prompt": prompt, "steering": label, "strength": 0.1 * n, "max_tokens": 3 + n % 5} for n in range(1, 21)]
    mixed = offline.run(*asked)
    alone = [offline.run(one)[0] for one in asked]
    assert len({output["logprobs"][0] for output in alone}) == len(asked)
    for together, single in zip(mixed, alone, strict=True):
        assert together["logprobs"] == pytest.approx(single["logprobs"], abs=TIE)


def test_a_vllm_that_cannot_test_conditions_refuses_them_by_name(model: str, profiles: Path, tmp_path: Path) -> None:
    with Vllm(model, profiles, tmp_path / "log", skip_tokenizer_init=True, max_num_seqs=2) as running:
        with pytest.raises(ValueError, match=r"profile completing cannot be applied: when .*: skip_tokenizer_init"):
            running.run({"prompt": [1, 2, 3], "steering": "completing", "detokenize": False})
        running.run({"prompt": [1, 2, 3], "steering": "neurons", "detokenize": False})
