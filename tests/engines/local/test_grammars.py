"""Sequences with a grammar generate texts of that grammar, each as it would alone, and nothing else changes."""

import asyncio
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from steering_profiles.models import LoadedModel
from steering_profiles.steering import UNSTEERED
from steering_profiles.tokenization import Vocabulary
from steering_server.engines.local.grammars.compiling import GrammarCompiler
from steering_server.engines.local.grammars.matching import constrain
from steering_server.engines.local.kv_cache import bytes_per_token
from steering_server.errors import GrammarTooComplex, RequestError
from steering_server.generation.grammars import Grammar, choice_grammar, json_grammar, regex_grammar, rules
from steering_server.generation.json_schemas import enforceable
from steering_server.generation.requests import Chunk, GenerationRequest, SamplingParams
from steering_server.generation.tool_calls import Function, call_rules
from tests.builders import build_model, build_sentencepiece_tokenizer, build_tokenizer, every_effect
from tests.engines.local.running import PROMPTS, Running, running

PERSON = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": -99, "maximum": 999}, "ok": {"type": "boolean"}},
    "required": ["age", "ok"],
}
GREEDY = SamplingParams(max_tokens=80, temperature=0)
SAMPLED = SamplingParams(max_tokens=80, seed=7, top_p=0.9, top_k=40)


def schema(given: Any) -> Grammar:
    return json_grammar(enforceable(given, "schema"), "schema")


def regex(pattern: str) -> Grammar:
    return regex_grammar(pattern, "regex")


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return build_model("llama", dtype=torch.float32)


@pytest.fixture(scope="module")
def at_work(model: LoadedModel) -> Iterator[Running]:
    with running(model, ends=True) as one:
        yield one


def one(at_work: Running, sampling: SamplingParams, prompt: tuple[int, ...] = PROMPTS[0]) -> Chunk:
    (result,) = at_work.run(GenerationRequest(prompt, sampling))
    return result


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_text_follows_its_schema_and_stops_at_its_end(at_work: Running, sampling: SamplingParams):
    free = one(at_work, sampling)
    result = one(at_work, replace(sampling, grammar=schema(PERSON)))
    assert result.finish_reason == "stop"
    person = json.loads(result.text)
    assert person.keys() == {"age", "ok"}
    assert -99 <= person["age"] <= 999
    assert free.text != result.text


@pytest.mark.parametrize("space", [" ", "\n", "\t"])
def test_json_of_a_model_that_prefers_white_space_comes_to_its_end(at_work: Running, model: LoadedModel, space: str):
    (token,) = model.tokenizer.encode(space)
    result = one(at_work, replace(GREEDY, grammar=schema(PERSON), logit_bias=((token, 100.0),), max_tokens=250))
    assert result.finish_reason == "stop"
    assert json.loads(result.text).keys() == {"age", "ok"}


def test_a_mixed_batch_equals_the_solo_runs(at_work: Running, model: LoadedModel):
    grammars = [None, schema(PERSON), regex("[a-f]{5,30}"), choice_grammar(["yes", "no, never"], "choice")]
    steerings = [UNSTEERED, *every_effect(model).values()]
    requests = [
        GenerationRequest(prompt, replace(sampling, grammar=grammar, max_tokens=30), steering)
        for prompt, steering in zip(PROMPTS, steerings, strict=False)
        for sampling in (GREEDY, SAMPLED)
        for grammar in grammars
    ]
    alone = [at_work.run(request)[0] for request in requests]
    assert len({result.tokens for result in alone}) > len(requests) // 2
    together = at_work.run(*requests)
    assert [result.tokens for result in together] == [result.tokens for result in alone]


def test_a_preempted_sequence_continues_its_text():
    model = build_model("llama", dtype=torch.float32)
    wanted = replace(SAMPLED, grammar=regex("[0-9]{60}"), max_tokens=64)
    requests = [GenerationRequest(prompt, replace(wanted, seed=seed)) for seed, prompt in enumerate(PROMPTS)]
    with running(model, ends=True) as roomy:
        expected = [result.text for result in roomy.run(*requests)]
    assert len(set(expected)) == len(expected)
    with running(model, ends=True, max_length=128, kv_cache_memory=256 * bytes_per_token(model)) as tight:
        results = tight.run(*requests)
    assert [result.text for result in results] == expected
    assert all(re.fullmatch("[0-9]{60}", result.text) for result in results)


def test_a_text_cut_off_by_the_limit_ends_with_length(at_work: Running):
    result = one(at_work, replace(GREEDY, grammar=regex("[a-z]{50}"), max_tokens=10))
    assert result.finish_reason == "length"
    assert re.fullmatch("[a-z]{10}", result.text)


def test_an_end_token_is_allowed_only_where_the_text_is_complete(at_work: Running, model: LoadedModel):
    (end,) = model.end_tokens
    wants_to_end = replace(GREEDY, logit_bias=((end, 100.0),))
    assert one(at_work, wants_to_end).tokens == (end,)
    result = one(at_work, replace(wants_to_end, grammar=regex("[a-z]{3}|[a-z]{5}[0-9]*")))
    assert re.fullmatch("[a-z]{3}", result.text)
    assert result.tokens[-1] == end
    assert result.finish_reason == "stop"


def test_min_tokens_and_ignore_eos_delay_the_end_but_never_leave_the_grammar(at_work: Running, model: LoadedModel):
    (end,) = model.end_tokens
    ends = replace(GREEDY, logit_bias=((end, 100.0),), grammar=regex("[a-z]{2,9}"))
    assert len(one(at_work, ends).text) == 2
    assert len(one(at_work, replace(ends, min_tokens=6)).text) == 6
    assert len(one(at_work, replace(ends, min_tokens=40)).text) == 9
    assert len(one(at_work, replace(ends, ignore_eos=True)).text) == 9


def test_biases_and_penalties_act_within_the_grammar(at_work: Running, model: LoadedModel):
    b = model.tokenizer.encode("b")[0]
    biased = one(at_work, replace(GREEDY, grammar=regex("[abc]{12}"), logit_bias=((b, 50.0), (ord("z"), 100.0))))
    assert biased.text == "b" * 12
    varied = one(at_work, replace(GREEDY, grammar=regex("[abc]{12}"), logit_bias=((b, 1.0),), frequency_penalty=2.0))
    assert set(varied.text) == set("abc")


def test_a_stop_string_ends_a_text_inside_its_grammar(at_work: Running):
    result = one(at_work, replace(GREEDY, grammar=schema(PERSON), stop=('"age"',)))
    assert result.finish_reason == "stop"
    assert result.text.strip() == "{"


def test_log_probabilities_are_those_of_the_model_without_the_grammar(at_work: Running):
    scored = replace(GREEDY, grammar=regex("[xyz]{6}"), logprobs=3)
    result = one(at_work, scored)
    prompt = PROMPTS[0] + result.tokens
    again = one(at_work, SamplingParams(max_tokens=0, logprobs=3, prompt_logprobs_from=len(PROMPTS[0])), prompt)
    assert again.prompt_logprobs is not None
    expected = [token.logprob for token in again.prompt_logprobs if token is not None]
    assert [token.logprob for token in result.logprobs] == pytest.approx(expected, abs=1e-5)
    likeliest = {token for scored_token in result.logprobs for token, _ in scored_token.top}
    assert not likeliest <= set(result.tokens)


def test_characters_of_several_tokens_are_whole(at_work: Running):
    result = one(at_work, replace(SAMPLED, grammar=choice_grammar(["größer", "größte", "日本語"], "choice")))
    assert result.text in ("größer", "größte", "日本語")


def test_without_grammars_logits_are_not_touched():
    logits = torch.randn(3, 10)
    assert constrain(logits, [None, None, None]) is logits


@pytest.fixture(scope="module")
def compiler() -> Iterator[GrammarCompiler]:
    tokenizer = build_tokenizer()
    compiler = GrammarCompiler(Vocabulary(tokenizer), len(tokenizer) + 12, [tokenizer.eos_token_id])
    yield compiler
    compiler.close()


def compile_one(compiler: GrammarCompiler, grammar: Grammar) -> Any:
    return asyncio.run(compiler.matchers([SamplingParams(max_tokens=9, grammar=grammar)]))[0]


def test_ids_without_a_token_are_never_allowed(compiler: GrammarCompiler):
    matcher = compile_one(compiler, rules("start: /(.|\\n)*/", "grammar"))
    assert len(matcher.allowed) == len(build_tokenizer()) + 12
    assert matcher.allowed[:200].any()
    assert not matcher.allowed[len(build_tokenizer()) :].any()


HOSTILE = {
    "intersected patterns": {"allOf": [{"type": "string", "pattern": f".*k{i}.*"} for i in range(40)]},
    "a large divisor": {"type": "integer", "multipleOf": 999_983},
    "no finite value": {"$ref": "#"},
    "a cycle": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    "a product of alternatives": {
        "allOf": [{"anyOf": [{"properties": {f"p{i}{j}": True}} for j in range(9)]} for i in range(12)]
    },
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_grammar_that_cannot_be_compiled_in_time_is_refused_and_the_next_one_works(
    compiler: GrammarCompiler, hostile: Any
):
    compile_one(compiler, schema(PERSON))
    started = time.process_time()
    with pytest.raises(RequestError) as refused:
        compile_one(compiler, schema(hostile))
    assert time.process_time() - started < 1
    assert refused.value.param == "schema"
    assert len(str(refused.value)) < 500
    assert compile_one(compiler, schema({"type": "object"})).allowed.any()


def test_a_grammar_that_becomes_too_complex_fails_its_request_only(at_work: Running, model: LoadedModel):
    letters = tuple((token, 100.0) for token in model.tokenizer.encode("ab"))
    hard = replace(SAMPLED, grammar=regex("(.*a.{0,200}){30}"), max_tokens=200, logit_bias=letters)
    with pytest.raises(GrammarTooComplex):
        at_work.run(GenerationRequest(PROMPTS[0], hard), GenerationRequest(PROMPTS[0], SAMPLED))
    assert one(at_work, replace(GREEDY, grammar=schema(PERSON))).finish_reason == "stop"


def test_a_vocabulary_of_sentencepiece_spells_spaces_and_bytes():
    tokenizer = build_sentencepiece_tokenizer()
    vocabulary = Vocabulary(tokenizer)
    compiler = GrammarCompiler(vocabulary, len(tokenizer), [tokenizer.eos_token_id])
    try:
        matcher = compile_one(compiler, choice_grammar([" the é"], "choice"))
        text, tokens = b"", []
        while not matcher.is_complete:
            token = int(matcher.allowed.nonzero()[-1])
            tokens.append(token)
            text += vocabulary.bytes_of(token)
            matcher.push(token)
    finally:
        compiler.close()
    assert text.decode() == " the é"
    assert len(tokens) == 4  # the word with its space, a space, the two bytes of the letter


@pytest.mark.parametrize(
    ("text", "may_go_on"),
    [
        ("I do not know <tool", True),
        ("Let me see. <tool_call>", True),
        ("<tool_call>x", False),
        ('<tool_call>\n{"name": "h', False),
        ('<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>', True),
        ('<tool_call>\n{"name": "f", "arguments": {"b": 1', False),
        ('<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>\n<tool_call>\n{"name": "f', True),
        ('<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call> more', False),
    ],
)
def test_text_is_free_until_a_call_begins_and_then_follows_the_tools(compiler: GrammarCompiler, text, may_go_on):
    functions = [
        Function("f", enforceable({"type": "object", "properties": {"a": {"type": "integer"}}}, "f")),
        Function("g", {"type": "object"}),
    ]
    matcher = compile_one(compiler, rules(call_rules(functions, required=False, several=True), "tools"))
    for token in build_tokenizer().encode(text):
        if not matcher.allowed[token]:
            assert not may_go_on
            return
        matcher.push(token)
    assert may_go_on
