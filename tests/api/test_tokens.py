"""Tokens listed in answers: all that were generated, under distinct names, adding up to the text."""

from collections.abc import Iterator

import httpx
import pytest
import torch
from openai import OpenAI
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from steering_client import SteeringClient
from steering_profiles.models import LoadedModel
from steering_profiles.tokenization import Vocabulary
from tests.api.test_completions import complete, events
from tests.builders import CHAT_TEMPLATE, build_model, build_profile, build_sentencepiece_tokenizer
from tests.serving import serving

PROMPT = "print(str(1"
EMOJI = "🙂".encode()


@pytest.fixture(scope="module")
def words() -> LoadedModel:
    """A model with a tokenizer like Llama 2's."""
    tokenizer = build_sentencepiece_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    return build_model("llama", dtype=torch.float32, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def words_http(words: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    profiles = [build_profile(words, "heads", heads=[(0, 1, 4.0)])]
    with (
        serving(words, tmp_path_factory.mktemp("profiles"), profiles) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


def forced(*tokens: int) -> dict[str, float]:
    """A bias that excludes all other tokens."""
    return {str(token): 100 for token in tokens}


def chat(http: httpx.Client, **body) -> dict:
    body = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 4} | body
    response = http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def end_token(model: LoadedModel) -> int:
    return model.tokenizer.eos_token_id


# --- the token that ends a text --------------------------------------------------------------------------------------


def test_a_generated_end_token_is_listed_without_text_and_counted(http, model):
    answer = complete(http, logit_bias=forced(end_token(model)), logprobs=2)
    (choice,) = answer["choices"]
    columns = choice["logprobs"]
    assert (choice["text"], choice["finish_reason"]) == ("", "stop")
    assert (columns["tokens"], columns["text_offset"]) == ([""], [0])
    assert columns["token_logprobs"][0] == columns["top_logprobs"][0][""] < 0
    assert len(columns["top_logprobs"][0]) in (2, 3)
    assert answer["usage"] == {"prompt_tokens": 11, "completion_tokens": 1, "total_tokens": 12}


def test_an_echo_with_one_token_has_an_entry_for_the_end_token(http, model):
    """As in an evaluation harness, which drops the last entry and treats the others as the prompt's."""
    body = {"echo": True, "logprobs": 1, "max_tokens": 1}
    ended = complete(http, logit_bias=forced(end_token(model)), **body)["choices"][0]["logprobs"]
    went_on = complete(http, **body)["choices"][0]["logprobs"]
    assert len(ended["tokens"]) == len(went_on["tokens"]) == len(PROMPT) + 1
    assert ended["token_logprobs"][:-1] == pytest.approx(went_on["token_logprobs"][:-1], abs=1e-5, nan_ok=True)
    assert {len(column) for column in ended.values()} == {len(PROMPT) + 1}


def test_the_end_tokens_logprob_is_the_models(http, model):
    answer = complete(http, logit_bias=forced(end_token(model)), logprobs=1)
    with torch.no_grad():
        logits = model.tokenizer.encode(PROMPT)
        fresh = build_model("llama", dtype=torch.float32)
        expected = fresh.model(torch.tensor([logits])).logits[0, -1].log_softmax(-1)[end_token(model)].item()
    assert answer["choices"][0]["logprobs"]["token_logprobs"] == pytest.approx([expected], abs=1e-4)


def test_a_streamed_end_token_is_listed_and_counted(http, model):
    body = {"logit_bias": forced(end_token(model)), "logprobs": 1, "stream_options": {"include_usage": True}}
    *chunks, last = events(http, **body)
    tokens = [token for chunk in chunks for choice in chunk["choices"] for token in choice["logprobs"]["tokens"]]
    assert tokens == [""]
    assert last["usage"]["completion_tokens"] == 1


def test_chat_lists_and_counts_the_end_token(http, model):
    answer = chat(http, logit_bias=forced(end_token(model)), logprobs=True, top_logprobs=2)
    (entry,) = answer["choices"][0]["logprobs"]["content"]
    assert (entry["token"], entry["bytes"]) == ("", [])
    assert ("", entry["logprob"]) in [(top["token"], top["logprob"]) for top in entry["top_logprobs"]]
    assert answer["usage"]["completion_tokens"] == 1


def test_a_comparison_scores_the_end_token_under_each_arm(http, model):
    answer = complete(http, arms=["baseline", "heads"], logprobs=0, logit_bias=forced(end_token(model)))
    (pair,) = answer["comparison"]["pairs"]
    assert {len(scored) for under in pair["logprobs"].values() for scored in under.values()} == {1}
    assert answer["usage"]["completion_tokens"] == 2


def test_both_clients_see_the_end_token(url, model):
    body = {"max_tokens": 3, "temperature": 0, "logprobs": 1}
    bias = forced(end_token(model))
    with OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        theirs = client.completions.create(model="tiny-llama", prompt=PROMPT, logit_bias=bias, **body)
    with SteeringClient(url) as client:
        ours = client.complete(PROMPT, logit_bias=bias, **body)
    assert theirs.usage.completion_tokens == ours.usage.completion_tokens == 1
    assert theirs.choices[0].logprobs.tokens == list(ours.choices[0].logprobs.tokens) == [""]


def test_tokens_of_a_stop_string_are_listed_without_text_and_counted(http):
    text = complete(http, max_tokens=30)["choices"][0]["text"]
    answer = complete(http, max_tokens=30, stop=[text[4:6]], logprobs=0)
    (choice,) = answer["choices"]
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
    assert answer["usage"]["completion_tokens"] == len(choice["logprobs"]["tokens"])


# --- min_tokens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("least", [0, 1, 6])
def test_stop_strings_are_ignored_before_min_tokens(http, model, least):
    (star,) = model.tokenizer.encode("*")
    body = {"max_tokens": 12, "stop": ["*"], "min_tokens": least, "logit_bias": forced(star)}
    answer = complete(http, **body)
    assert (answer["choices"][0]["text"], answer["choices"][0]["finish_reason"]) == ("*" * least, "stop")
    assert "".join(event["choices"][0]["text"] for event in events(http, **body)) == "*" * least


# --- names of tokens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["the the", "th 1", "é the"])
@pytest.mark.parametrize("echo", [False, True])
def test_words_keep_their_spaces_and_add_up_to_the_text(words_http, prompt, echo):
    (choice,) = complete(words_http, prompt=prompt, echo=echo, logprobs=4, max_tokens=12)["choices"]
    columns = choice["logprobs"]
    assert "".join(columns["tokens"]) == choice["text"]
    assert columns["text_offset"] == [len("".join(columns["tokens"][:at])) for at in range(len(columns["tokens"]))]
    for token, logprob, top in zip(columns["tokens"], columns["token_logprobs"], columns["top_logprobs"], strict=True):
        assert logprob is None or (top[token] == logprob and len(top) in (4, 5))


def test_a_token_before_any_text_is_echoed_as_empty_text(words_http):
    (choice,) = complete(words_http, prompt="the the", echo=True, logprobs=1, max_tokens=0)["choices"]
    assert choice["text"] == "the the"
    assert choice["logprobs"]["tokens"] == ["", "the", " the"]
    assert choice["logprobs"]["text_offset"] == [0, 0, 3]


def test_an_echo_of_token_ids_is_that_of_their_text(words, words_http):
    body = {"echo": True, "logprobs": 3, "max_tokens": 4}
    ids = words.tokenizer.encode("the the")
    by_ids = complete(words_http, prompt=ids, **body)["choices"][0]
    assert by_ids == complete(words_http, prompt="the the", **body)["choices"][0]


def test_tokens_that_differ_in_a_space_have_different_names(words, words_http):
    pair = words.tokenizer.convert_tokens_to_ids(["▁the", "the"])
    for prompt in ("the a", ""):  # within a text, and where its first space is dropped
        answer = complete(words_http, prompt=prompt, logit_bias=forced(*pair), logprobs=5, max_tokens=3)
        assert all(len(top) >= 5 for top in answer["choices"][0]["logprobs"]["top_logprobs"])


def test_the_generated_token_is_listed_among_the_likeliest_even_if_it_is_not(http, model):
    (star,) = model.tokenizer.encode("*")
    columns = complete(http, logit_bias=forced(star), logprobs=2, max_tokens=3)["choices"][0]["logprobs"]
    assert columns["tokens"] == ["*"] * 3
    for logprob, top in zip(columns["token_logprobs"], columns["top_logprobs"], strict=True):
        assert top["*"] == logprob
        assert len(top) == 3
    answer = chat(http, logit_bias=forced(star), logprobs=True, top_logprobs=2)
    assert all(len(entry["top_logprobs"]) == 3 for entry in answer["choices"][0]["logprobs"]["content"])


def test_offsets_in_a_stream_continue_from_the_previous_chunk(words_http):
    body = {"prompt": "the", "echo": True, "logprobs": 1, "max_tokens": 12}
    whole = complete(words_http, **body)["choices"][0]["logprobs"]
    chunks = [chunk["choices"][0]["logprobs"] for chunk in events(words_http, **body)]
    for column in ("tokens", "text_offset"):
        assert [value for chunk in chunks for value in chunk[column]] == whole[column]


# --- parts of characters ---------------------------------------------------------------------------------------------


def of_bytes(loaded: LoadedModel, raw: bytes) -> list[int]:
    vocabulary = Vocabulary(loaded.tokenizer)
    single = {vocabulary.bytes_of(token): token for token in range(len(loaded.tokenizer)) if token > 2}
    return [single[bytes([code])] for code in raw]


@pytest.mark.parametrize("which", ["byte level", "SentencePiece"])
def test_a_byte_that_is_not_a_character_is_named_by_its_value(which, http, model, words, words_http):
    http, loaded = (http, model) if which == "byte level" else (words_http, words)
    tokens = of_bytes(loaded, b"\xf0\xf1\xf2\xf3")
    answer = chat(http, logit_bias=forced(*tokens), logprobs=True, top_logprobs=20, max_tokens=1)
    (entry,) = answer["choices"][0]["logprobs"]["content"]
    named = {top["token"]: bytes(top["bytes"]) for top in entry["top_logprobs"]}
    assert len(named) >= 20
    assert all(raw or name == loaded.tokenizer.eos_token or name.startswith("<") for name, raw in named.items())
    assert len(bytes(entry["bytes"])) == 1


@pytest.mark.parametrize("which", ["byte level", "SentencePiece"])
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_character_begun_by_the_prompt_and_completed_by_the_model_is_returned(
    which, cut, http, model, words, words_http
):
    http, loaded = (http, model) if which == "byte level" else (words_http, words)
    start = loaded.tokenizer.encode("a")
    tokens = of_bytes(loaded, EMOJI)
    body = {"prompt": start + tokens[:cut], "max_tokens": 1, "logprobs": 1}
    if cut == 3:
        (choice,) = complete(http, **body, logit_bias=forced(tokens[3]))["choices"]
        assert choice["text"] == "🙂"
        assert choice["logprobs"]["tokens"] == ["🙂"]
    (choice,) = complete(http, **body, logit_bias=forced(tokens[cut]), echo=True)["choices"]
    ids = start + tokens[: cut + 1]
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
    assert choice["text"].rstrip("\ufffd") == loaded.tokenizer.decode(ids, skip_special_tokens=True).rstrip("\ufffd")


def test_the_bytes_of_chat_tokens_are_those_of_the_text(http, model):
    tokens = of_bytes(model, b"\xc3\xa9")
    for bias in (forced(tokens[0]), forced(*tokens), {}):
        (choice,) = chat(http, logit_bias=bias, logprobs=True, max_tokens=6)["choices"]
        raw = b"".join(bytes(entry["bytes"]) for entry in choice["logprobs"]["content"])
        assert raw.decode(errors="replace") == choice["message"]["content"]
        assert "".join(entry["token"] for entry in choice["logprobs"]["content"]) == choice["message"]["content"]


def test_the_client_returns_the_bytes(url, model):
    tokens = of_bytes(model, b"\xf0\xf1")
    with SteeringClient(url) as client:
        answer = client.chat(
            [{"role": "user", "content": "hi"}], logprobs=True, top_logprobs=3, max_tokens=1, logit_bias=forced(*tokens)
        )
    (entry,) = answer.choices[0].logprobs.content
    assert bytes(entry.bytes) in (b"\xf0", b"\xf1")
    assert all(top.bytes is not None for top in entry.top_logprobs)


def test_more_alternatives_than_tokens_in_the_vocabulary_return_the_whole_vocabulary(tmp_path):
    words = Tokenizer(models.WordLevel({"?": 0, "the": 1, "cat": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?")
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    few = build_model("llama", dtype=torch.float32, tokenizer=tokenizer)
    with serving(few, tmp_path) as url, httpx.Client(base_url=url, timeout=60) as http:
        answer = chat(http, messages=[{"role": "user", "content": "the cat"}], logprobs=True, top_logprobs=20)
        echoed = complete(http, prompt="the cat the", echo=True, logprobs=5, max_tokens=1)["choices"][0]
    assert all(len(entry["top_logprobs"]) == 3 for entry in answer["choices"][0]["logprobs"]["content"])
    assert echoed["text"].startswith("the cat the")
    assert all(len(top) == 3 for top in echoed["logprobs"]["top_logprobs"][1:])


# --- random numbers --------------------------------------------------------------------------------------------------


def drawn(http: httpx.Client, **body) -> list[str]:
    return [c["text"] for c in complete(http, **{"temperature": 1, "max_tokens": 12} | body)["choices"]]


@pytest.mark.parametrize("seed", [{}, {"seed": 3}], ids=["unseeded", "seeded"])
def test_equal_prompts_of_one_request_draw_different_numbers(http, seed):
    assert len(set(drawn(http, prompt=[PROMPT] * 4, **seed))) == 4
    assert len(set(drawn(http, prompt=[PROMPT] * 2, n=3, **seed))) == 6


def test_neighbouring_and_opposite_seeds_share_no_text(http):
    texts = [text for seed in (5, 6, 7, -5, -6, 0, 2**63 - 1, -(2**63)) for text in drawn(http, seed=seed, n=4)]
    assert len(set(texts)) == 32


def test_seed_minus_one_is_random(http):
    assert drawn(http, seed=-1) != drawn(http, seed=-1)
    assert drawn(http, seed=-2) == drawn(http, seed=-2)


def test_only_the_arms_of_one_draw_share_their_numbers(http):
    arms = ["baseline", {"profile": "heads", "strength": 0, "name": "off"}]
    texts = drawn(http, prompt=[PROMPT] * 2, n=2, arms=arms, seed=1)
    first, second = texts[:4], texts[4:]
    assert first[:2] == first[2:]
    assert second[:2] == second[2:]
    assert len({*first, *second}) == 4


def test_a_prompt_draws_the_same_numbers_whatever_other_prompts_the_request_has(http):
    assert drawn(http, prompt=[PROMPT, "x"], seed=9)[0] == drawn(http, prompt=PROMPT, seed=9)[0]


def test_a_seeded_stream_equals_the_unstreamed_answer(http):
    body = {"prompt": [PROMPT] * 2, "temperature": 1, "seed": 4}
    streamed = ["", ""]
    for event in events(http, **body):
        for choice in event["choices"]:
            streamed[choice["index"]] += choice["text"]
    assert streamed == [choice["text"] for choice in complete(http, **body)["choices"]]
    assert streamed[0] != streamed[1]


# --- tokens added by the tokenizer -----------------------------------------------------------------------------------


def test_an_end_token_that_the_tokenizer_appends_is_not_part_of_a_prompt(tmp_path, words, words_http):
    appending = build_model("llama", dtype=torch.float32, tokenizer=build_sentencepiece_tokenizer(appends_end=True))
    with (
        serving(appending, tmp_path, []) as url,
        httpx.Client(base_url=url, timeout=60) as http,
    ):
        answer = complete(http, prompt="the the", echo=True, logprobs=1)
    expected = complete(words_http, prompt="the the", echo=True, logprobs=1)
    assert answer["choices"] == expected["choices"]
    assert answer["usage"] == expected["usage"]
