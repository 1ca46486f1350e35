"""Greedy completion of a batch with different steering for each sequence."""

import pytest
import torch

from steering_profiles.evaluation.decoding import GreedyDecoder
from steering_profiles.final_layer_fields import Gate
from steering_profiles.models import LoadedModel
from steering_profiles.steering import UNSTEERED
from tests.builders import CONTEXT, build_model, build_profile, every_effect, greedy, steer
from tests.library.running import steered_logits

PROMPTS = ["def f(x):", "print(str(1", "x", "a longer prompt than the others, so that those are padded"]


def expected(loaded: LoadedModel, prompt: str, steering, tokens: int) -> str:
    ids = loaded.tokenizer.encode(prompt)
    written = greedy(loaded, ids, steering, tokens)
    if loaded.tokenizer.eos_token_id in written:
        written = written[: written.index(loaded.tokenizer.eos_token_id)]
    return loaded.tokenizer.decode([*ids, *written], skip_special_tokens=True)[len(prompt) :]


def test_each_sequence_of_a_batch_is_completed_as_it_is_alone(tiny: LoadedModel):
    """Compared with greedy decoding without a cache, a batch or padding."""
    effects = every_effect(tiny)
    steerings = [effects[name] for name in ("plain", "heads", "self-only attention", "all")]
    apart = {expected(tiny, PROMPTS[0], steering, 24) for steering in steerings}
    assert len(apart) > 1, "the steerings change nothing, so this would prove nothing"
    prompts = [prompt for prompt in PROMPTS for _ in steerings]
    with GreedyDecoder(tiny) as decoder:
        texts = decoder.complete(prompts, steerings * len(PROMPTS), 24)
    assert texts == [expected(tiny, p, s, 24) for p, s in zip(prompts, steerings * len(PROMPTS), strict=True)]


def test_a_gate_decides_at_every_token_beside_sequences_without_one(tiny: LoadedModel):
    band, settings = Gate(low=0.05, high=0.09), {"self_only_attention": 1.0, "intercept_scale": 0.7}
    gated, ungated = (steer(build_profile(tiny, **settings, gate=gate)) for gate in ((band.low, band.high), None))

    def slowly(prompt: str) -> tuple[str, list[bool]]:
        ids, opened = tiny.tokenizer.encode(prompt), []
        for _ in range(24):
            closed, steered = steered_logits(tiny, UNSTEERED, ungated, tokens=torch.tensor([ids]))[:, -1]
            opened.append(band.low <= float(closed.float().softmax(dim=-1).max()) <= band.high)
            ids.append(int((steered if opened[-1] else closed).argmax()))
        if tiny.tokenizer.eos_token_id in ids:
            ids = ids[: ids.index(tiny.tokenizer.eos_token_id)]
        return tiny.tokenizer.decode(ids, skip_special_tokens=True)[len(prompt) :], opened

    found, opened = zip(*map(slowly, PROMPTS), strict=True)
    assert 0.2 < sum(map(sum, opened)) / (24 * len(PROMPTS)) < 0.8
    with GreedyDecoder(tiny) as decoder:
        texts = decoder.complete(PROMPTS * 3, [gated, UNSTEERED, ungated, gated] * 3, 24)
    steerings = [gated, UNSTEERED, ungated, gated] * 3
    for prompt, steering, text in zip(PROMPTS * 3, steerings, texts, strict=True):
        wanted = found[PROMPTS.index(prompt)] if steering is gated else expected(tiny, prompt, steering, 24)
        assert text == wanted


def test_a_completion_ends_before_the_first_stop_string_and_the_others_go_on(tiny: LoadedModel):
    whole = expected(tiny, PROMPTS[0], UNSTEERED, 40)
    stop = whole[7:9]
    with GreedyDecoder(tiny) as decoder:
        stopped, other = decoder.complete(PROMPTS[:2], [UNSTEERED] * 2, 40, ["never this", stop])
    assert stopped == whole[: whole.index(stop)]
    goes_on = expected(tiny, PROMPTS[1], UNSTEERED, 40)
    assert other == (goes_on[: goes_on.index(stop)] if stop in goes_on else goes_on)


def test_a_completion_ends_at_the_context_length():
    loaded = build_model("gpt2")
    nearly, full = "x" * (CONTEXT - 2), "x" * CONTEXT
    with GreedyDecoder(loaded) as decoder:
        texts = decoder.complete([nearly, full], [UNSTEERED] * 2, 40)
    assert texts == [expected(loaded, nearly, UNSTEERED, 2), ""]


@pytest.mark.parametrize("most", [1, 5])
def test_at_most_the_given_number_of_tokens_is_generated(most: int):
    loaded = build_model("llama")
    with GreedyDecoder(loaded) as decoder:
        assert decoder.complete([PROMPTS[0]], [UNSTEERED], most) == [expected(loaded, PROMPTS[0], UNSTEERED, most)]
