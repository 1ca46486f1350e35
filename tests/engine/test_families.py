"""The engine runs every architecture family as transformers does, or says at start why it does not."""

from collections.abc import Sequence

import pytest
import torch

from steering_profiles.models import LoadedModel
from steering_server.engine import attention
from steering_server.engine.engine import Engine, EngineLimits
from steering_server.engine.requests import SequenceRequest
from steering_server.errors import ConfigError
from tests.builders import build_profile, greedy, steer
from tests.engine.running import GREEDY, PROMPTS, running
from tests.families import CASES, WINDOW, build_family

REFUSED = ("falcon-rw",)
SERVED = [case for case in CASES if case not in REFUSED]


@torch.no_grad()
def generated(loaded: LoadedModel, prompt: Sequence[int]) -> tuple[int, ...]:
    """What transformers' own generation makes of a prompt by itself."""
    output = loaded.model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=GREEDY.max_tokens,
        min_new_tokens=GREEDY.max_tokens,
        eos_token_id=None,
        pad_token_id=0,
    )
    return tuple(output[0, len(prompt) :].tolist())


@pytest.fixture(params=["as they come", "by products"])
def _kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to attend: the fused kernels that few tokens get, and the plain products that many get."""
    if request.param == "by products":
        monkeypatch.setattr(attention, "_MANY", 2)
        monkeypatch.setattr(attention, "_LARGE", 1)
        monkeypatch.setattr(attention, "_TILE", 5)


@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize("case", SERVED)
def test_a_mixed_batch_generates_what_transformers_does_for_each_alone(case: str):
    loaded = build_family(case)
    last = loaded.anatomy.sizes.layers - 1
    heads = steer(build_profile(loaded, "heads", heads=[(0, 1, 3.0), (1, 0, -1.0), (last, 3, 2.5)]))
    final = steer(build_profile(loaded, "final", own_attention=1.0, intercept_scale=0.7))
    arms = [(), heads, final]
    plain = [generated(loaded, prompt) for prompt in PROMPTS]
    expected = [*plain, *[tuple(greedy(loaded, prompt, arm)) for arm in arms[1:] for prompt in PROMPTS]]
    assert len(set(expected)) > 2 * len(PROMPTS), "the prompts and arms hardly differ"
    with running(loaded) as engine:
        requests = [SequenceRequest(prompt, GREEDY, arm) for arm in arms for prompt in PROMPTS]
        answers = [chunk.tokens for chunk in engine.run(*requests)]
    assert answers == expected


def test_prompts_go_beyond_the_window():
    assert max(len(prompt) for prompt in PROMPTS) > 2 * WINDOW
    assert min(len(prompt) for prompt in PROMPTS) < WINDOW


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_the_engine_cannot_run_is_refused_with_the_reason(case: str):
    loaded = build_family(case)
    before = loaded.model.config._attn_implementation
    with pytest.raises(ConfigError, match="computes attention by itself"):
        Engine(loaded, EngineLimits())
    assert loaded.model.config._attn_implementation == before


@pytest.mark.parametrize("window", [None, 1, 4, 100])
@pytest.mark.parametrize("cap", [None, 1.5])
@pytest.mark.parametrize("position", [0, 7])
@pytest.mark.parametrize("tokens", [1, 13])
def test_every_way_to_attend_sees_the_window_and_the_cap(
    tokens: int, position: int, cap: float | None, window: int | None, monkeypatch: pytest.MonkeyPatch
):
    torch.manual_seed(0)
    query = torch.randn(4, tokens, 8, dtype=torch.float64)
    key, value = torch.randn(2, 2, position + tokens, 8, dtype=torch.float64)
    scores = torch.einsum("htk,hsk->hts", query, key.repeat_interleave(2, dim=0)) * 0.5
    scores = scores if cap is None else (scores / cap).tanh() * cap
    at, of = torch.arange(position, position + tokens).unsqueeze(-1), torch.arange(position + tokens)
    seen = (of <= at) & (of > at - (window or 1000))
    weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1)
    expected = torch.einsum("hts,hsk->thk", weights, value.repeat_interleave(2, dim=0))
    scoring = attention.Scoring(0.5, window, cap)
    torch.testing.assert_close(attention._attend(query, key, value, position, scoring), expected)
    monkeypatch.setattr(attention, "_TILE", 5)
    torch.testing.assert_close(attention._attend_in_tiles(query, key, value, position, scoring), expected)
