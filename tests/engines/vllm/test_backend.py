"""The backend on vLLM, with a stand-in for vLLM's engine: what its outputs become."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from steering_profiles.composition import Steering
from steering_profiles.leaving_out import leave_out
from steering_profiles.models import LoadedModel
from steering_profiles.source import ModelSource
from steering_profiles.steering import ProfileAtStrength
from steering_profiles.store import content_hash
from steering_profiles.tokenization import Vocabulary
from steering_server.engines.local.grammars.compiling import GrammarCompiler
from steering_server.engines.vllm import backend as module
from steering_server.engines.vllm.applicable import Applicable
from steering_server.engines.vllm.backend import VllmBackend
from steering_server.engines.vllm.counting import Counted
from steering_server.engines.vllm.opening import require_vllm
from steering_server.engines.vllm.plugin.requests import requested_steering
from steering_server.engines.vllm.sampling import prompt_logprobs, steering_arguments, token_logprob
from steering_server.errors import ConfigError, EngineError, Overloaded, RequestError
from steering_server.generation.grammars import choice_grammar, regex_grammar
from steering_server.generation.requests import Chunk, GenerationRequest, SamplingParams
from steering_server.limits import EngineLimits
from tests.builders import build_model, build_profile
from tests.engines.vllm.standins import served

Deltas = list[tuple[list[int], str | None]]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return build_model("llama")


def logprob(value: float, rank: int) -> Any:
    return SimpleNamespace(logprob=value, rank=rank)


class Engine:
    """Answers every request with the same tokens, in deltas, and notes which requests were left early."""

    def __init__(self, deltas: Deltas) -> None:
        self.deltas = deltas
        self.left: list[str] = []

    def shutdown(self) -> None:
        """Nothing runs."""

    async def generate(self, prompt: Any, sampling: Any, request_id: str) -> AsyncIterator[Any]:
        finished = False
        try:
            for tokens, reason in self.deltas:
                await asyncio.sleep(0)
                finished = reason is not None
                completion = SimpleNamespace(token_ids=tokens, logprobs=None, finish_reason=reason)
                scored = [None, *({token: logprob(-1.0, 1)} for token in prompt["prompt_token_ids"][1:])]
                yield SimpleNamespace(outputs=[completion], prompt_logprobs=scored, metrics=None)
        finally:
            if not finished:
                self.left.append(request_id)


def backend(loaded: LoadedModel, engine: Engine, **limits: int) -> VllmBackend:
    parts: list[Any] = [engine, None, None, Vocabulary(loaded.tokenizer), None]
    vocabulary, ends = Vocabulary(loaded.tokenizer), loaded.end_tokens
    grammars = GrammarCompiler(vocabulary, loaded.identity.vocab_size, ends)
    return VllmBackend(*parts, Applicable(loaded.anatomy, None), Counted(), EngineLimits(**limits), grammars)


def run(running: VllmBackend, *sampling: SamplingParams) -> list[Chunk]:
    async def collect() -> list[Chunk]:
        results = [Chunk() for _ in sampling]
        requests = [GenerationRequest((72, 73), one) for one in sampling]
        try:
            async for index, chunk in running.generate(requests):
                results[index] += chunk
        finally:
            await running.close()
        return results

    return asyncio.run(collect())


@pytest.fixture(autouse=True)
def _without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "vllm_sampling", lambda request: request.sampling)


def tokens(loaded: LoadedModel, text: str) -> list[int]:
    ids: list[int] = loaded.tokenizer.encode(text, add_special_tokens=False)
    return ids


def test_text_is_made_from_token_ids(loaded: LoadedModel) -> None:
    a, b, c = tokens(loaded, "abc")
    engine = Engine([([a], None), ([], None), ([b, c], "length")])
    one, two = run(backend(loaded, engine), SamplingParams(max_tokens=3), SamplingParams(max_tokens=3))
    assert (one.text, one.tokens, one.finish_reason) == ("abc", (a, b, c), "length")
    assert two.text == "abc"
    assert engine.left == []


def test_the_end_token_adds_no_text(loaded: LoadedModel) -> None:
    (a,), end = tokens(loaded, "a"), loaded.tokenizer.eos_token_id
    (chunk,) = run(backend(loaded, Engine([([a], None), ([end], "stop")])), SamplingParams(max_tokens=9))
    assert (chunk.text, chunk.tokens, chunk.finish_reason) == ("a", (a, end), "stop")


def test_a_stop_string_ends_the_sequence_in_vllm_too(loaded: LoadedModel) -> None:
    engine = Engine([([token], None) for token in tokens(loaded, "abcdef")])
    (chunk,) = run(backend(loaded, engine), SamplingParams(max_tokens=9, stop=("cd",)))
    assert (chunk.text, chunk.finish_reason) == ("ab", "stop")
    assert len(engine.left) == 1


def test_a_prompt_is_scored_without_a_token(loaded: LoadedModel) -> None:
    asked = SamplingParams(max_tokens=0, prompt_logprobs_from=0)
    (chunk,) = run(backend(loaded, Engine([(tokens(loaded, "a"), "length")])), asked)
    assert (chunk.text, chunk.tokens, chunk.finish_reason) == ("", (), "length")
    assert chunk.prompt_logprobs is not None
    assert chunk.prompt_logprobs[0] is None
    assert chunk.prompt_logprobs[1] is not None
    assert chunk.prompt_logprobs[1].logprob == -1.0


def test_a_text_that_its_grammar_lets_go_on_no_more_ends_in_vllm_too(loaded: LoadedModel) -> None:
    engine = Engine([([token], None) for token in tokens(loaded, "abcdef")])
    (chunk,) = run(backend(loaded, engine), SamplingParams(max_tokens=9, grammar=choice_grammar(["abc"], "choice")))
    assert (chunk.text, chunk.finish_reason) == ("abc", "stop")
    assert len(engine.left) == 1


def test_a_text_may_end_where_its_grammar_allows_it(loaded: LoadedModel) -> None:
    end = loaded.tokenizer.eos_token_id
    engine = Engine([(tokens(loaded, "ab"), None), ([end], "stop")])
    (chunk,) = run(backend(loaded, engine), SamplingParams(max_tokens=9, grammar=regex_grammar("ab*", "regex")))
    assert (chunk.text, chunk.finish_reason) == ("ab", "stop")


@pytest.mark.parametrize("text", ["abx", "ab<end>"])
def test_a_text_that_does_not_follow_its_grammar_is_an_error(loaded: LoadedModel, text: str) -> None:
    # vLLM ends a text where it cannot follow the grammar any more, as if it were complete.
    ids = tokens(loaded, text)
    engine = Engine([(ids[:2], None), (ids[2:], "stop")])
    with pytest.raises(EngineError, match="does not follow the grammar"):
        run(backend(loaded, engine), SamplingParams(max_tokens=9, grammar=choice_grammar(["abc"], "choice")))


def test_a_grammar_that_is_not_valid_is_refused_before_vllm_gets_it(loaded: LoadedModel) -> None:
    engine = Engine([(tokens(loaded, "a"), "length")])
    with pytest.raises(RequestError, match=r"^regex: ") as refused:
        run(backend(loaded, engine), SamplingParams(max_tokens=9, grammar=regex_grammar("(", "regex")))
    assert refused.value.param == "regex"
    assert engine.left == []


def test_leaving_the_answer_cancels_all_sequences(loaded: LoadedModel) -> None:
    engine = Engine([([token], None) for token in tokens(loaded, "abcdef")])

    async def leave() -> None:
        requests = [GenerationRequest((72, 73), SamplingParams(max_tokens=9))] * 2
        answers = backend(loaded, engine).generate(requests)
        await anext(answers)
        await answers.aclose()

    asyncio.run(leave())
    assert len(engine.left) == 2


def test_a_sequence_that_vllm_aborts_is_an_error(loaded: LoadedModel) -> None:
    with pytest.raises(EngineError, match="vLLM ended a sequence: abort"):
        run(backend(loaded, Engine([([1], "abort")])), SamplingParams(max_tokens=9))


def test_a_full_queue_refuses_requests_but_not_the_rest_of_one_that_it_let_in(loaded: LoadedModel) -> None:
    full = backend(loaded, Engine([(tokens(loaded, "a"), "length")]), max_num_seqs=1, max_queue=0)
    # With a grammar, which is compiled before anything runs: places are taken at once all the same.
    asked = [GenerationRequest((72, 73), SamplingParams(max_tokens=1, grammar=regex_grammar("a", "regex")))]

    async def ask(*, admitted: bool = False) -> int:
        return len([chunk async for _, chunk in full.generate(asked, admitted=admitted)])

    async def both() -> None:
        try:
            first, second = await asyncio.gather(ask(), ask(), return_exceptions=True)
            assert first
            assert isinstance(second, Overloaded)
            first, second = await asyncio.gather(ask(), ask(admitted=True))
            assert first
            assert second
        finally:
            await full.close()

    asyncio.run(both())


def test_a_full_queue_refuses(loaded: LoadedModel) -> None:
    small = backend(loaded, Engine([]), max_num_seqs=1, max_queue=1)
    with pytest.raises(Overloaded, match="this request has 3 sequences, and the queue holds 2"):
        run(small, *[SamplingParams(max_tokens=1)] * 3)


def test_alternatives_are_the_likeliest_in_order() -> None:
    given = {7: logprob(-3.0, 9), 5: logprob(-0.5, 1), 6: logprob(-1.0, 2)}
    found = token_logprob(7, given, 2, ranked=True)
    assert found is not None
    assert (found.token, found.logprob, found.top, found.rank) == (7, -3.0, ((5, -0.5), (6, -1.0)), 9)
    assert token_logprob(7, None, 2) is None
    scored = prompt_logprobs((1, 7), [None, given], SamplingParams(max_tokens=0, prompt_logprobs_from=1))
    assert [one and (one.token, one.top) for one in scored] == [(7, ())]


def test_a_vllm_that_has_ended_is_reported_unless_it_was_closed(loaded: LoadedModel) -> None:
    engine: Any = Engine([])
    running = backend(loaded, engine)
    engine.errored, engine.shutdown = False, lambda: None
    assert running.failure() is None
    engine.errored = True
    assert "vLLM's engine has ended" in str(running.failure())
    asyncio.run(running.close())
    assert running.failure() is None


def test_profiles_and_strengths_reach_the_plugin(loaded: LoadedModel) -> None:
    a, b = (build_profile(loaded, name, heads=[(0, 1, 2.0)]) for name in "ab")
    applied = (ProfileAtStrength(a, 0.5), ProfileAtStrength(b, 0.0))
    assert steering_arguments(Steering(applied)) == {"steering": ["a"], "strength": [0.5]}
    assert steering_arguments(Steering()) == {}


def test_components_that_are_left_out_reach_the_plugin(loaded: LoadedModel) -> None:
    a = build_profile(loaded, "a", heads=[(0, 1, 2.0), (1, 0, 2.0)], self_only_attention=1.0)
    b = build_profile(loaded, "b", heads=[(0, 1, 3.0), (1, 1, 2.0)])
    asked = Steering(leave_out([ProfileAtStrength(a), ProfileAtStrength(b)], ["final_layer", "L0H1"]))
    arguments = steering_arguments(asked)
    assert arguments["except"] == ["L0H1", "final_layer.own_attention"]
    understood = requested_steering(arguments, served(loaded, a, b))
    assert [one.key for one in understood] == [one.key for one in asked]


def test_profiles_that_came_after_the_start_are_refused(loaded: LoadedModel) -> None:
    first, later = (build_profile(loaded, name, heads=[(0, 1, 2.0)]) for name in ("first", "later"))
    gated = build_profile(loaded, self_only_attention=1.0, gate=(0.1, 0.5))
    applicable = Applicable(loaded.anatomy, None)
    assert applicable.refuses(later) is None
    applicable.seal([content_hash(first)])
    assert applicable.refuses(first) is None
    assert "start it again" in str(applicable.refuses(later))
    assert "a gate needs two passes" in str(applicable.refuses(gated))


def test_profiles_with_conditions_are_refused_only_by_a_vllm_that_cannot_test_them(loaded: LoadedModel) -> None:
    conditional = build_profile(loaded, heads=[(0, 1, 2.0)], when={"from_position": 4})
    assert Applicable(loaded.anatomy, None).refuses(conditional) is None
    reason = str(Applicable(loaded.anatomy, "it has no tokens").refuses(conditional))
    assert reason == "when (the position is 4 or later): this vLLM cannot test a condition: it has no tokens"


@pytest.mark.parametrize(
    ("source", "limits", "message"),
    [
        (ModelSource(device_map="auto"), EngineLimits(), "device_map is a setting of the local engine"),
        (ModelSource(), EngineLimits(batch_invariant="require"), "batch_invariant is require"),
    ],
)
def test_settings_of_the_local_engine_are_refused(
    monkeypatch: pytest.MonkeyPatch, source: ModelSource, limits: EngineLimits, message: str
) -> None:
    monkeypatch.setattr("steering_server.engines.vllm.opening.find_spec", lambda name: object())
    with pytest.raises(ConfigError, match=message):
        require_vllm(source, limits)


def test_a_missing_vllm_is_named_with_the_command_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steering_server.engines.vllm.opening.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="vLLM is not installed; install it with: pip install"):
        require_vllm(ModelSource(), EngineLimits())
