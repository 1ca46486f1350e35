"""Chat that continues the last message's text, or begins no turn: vLLM's two flags."""

import httpx
import pytest
import torch
from openai import OpenAI

from steering_client import InvalidArgument, SteeringClient
from tests.builders import build_model
from tests.serving import serving

ASKED = [{"role": "user", "content": "Say the alphabet."}]
BEGUN = [*ASKED, {"role": "assistant", "content": "a, b, "}]


def chat(http: httpx.Client, messages=BEGUN, **body) -> dict:
    body = {"messages": messages, "temperature": 0, "max_tokens": 6} | body
    response = http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def complete(http: httpx.Client, prompt: str) -> dict:
    response = http.post("/v1/completions", json={"prompt": prompt, "temperature": 0, "max_tokens": 6})
    assert response.status_code == 200, response.text
    return response.json()


PROMPTS = {
    "a new turn": ({}, "<|user|>Say the alphabet.\n<|assistant|>a, b, \n<|assistant|>"),
    "the last message": ({"continue_final_message": True}, "<|user|>Say the alphabet.\n<|assistant|>a, b, "),
    "both flags": (
        {"continue_final_message": True, "add_generation_prompt": False},
        "<|user|>Say the alphabet.\n<|assistant|>a, b, ",
    ),
    "no turn": ({"add_generation_prompt": False}, "<|user|>Say the alphabet.\n<|assistant|>a, b, \n"),
}


@pytest.mark.parametrize("flags", PROMPTS)
def test_the_flags_say_where_the_prompt_ends(http, flags):
    body, prompt = PROMPTS[flags]
    answer, expected = chat(http, **body), complete(http, prompt)
    assert answer["choices"][0]["message"]["content"] == expected["choices"][0]["text"]
    assert answer["usage"] == expected["usage"]


def test_a_message_of_several_parts_is_continued(http):
    parts = [
        *ASKED,
        {"role": "assistant", "content": [{"type": "text", "text": "a, "}, {"type": "text", "text": "b, "}]},
    ]
    assert (
        chat(http, parts, continue_final_message=True)["choices"]
        == (chat(http, continue_final_message=True)["choices"])
    )


def test_an_empty_message_is_continued_as_a_turn_that_has_begun(http):
    empty = [*ASKED, {"role": "assistant", "content": ""}]
    assert chat(http, empty, continue_final_message=True)["choices"] == chat(http, ASKED)["choices"]


def test_every_arm_continues_the_same_text(http):
    answer = chat(http, arms=["baseline", "heads"], continue_final_message=True)
    alone = chat(http, continue_final_message=True)
    assert answer["choices"][0]["message"] == alone["choices"][0]["message"] != answer["choices"][1]["message"]


def test_a_continued_message_and_a_new_turn_exclude_each_other(http):
    body = {"messages": BEGUN, "continue_final_message": True, "add_generation_prompt": True}
    response = http.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "continue_final_message"
    assert "add_generation_prompt must be false" in response.json()["error"]["message"]


def test_a_template_that_does_not_render_the_last_message_is_refused(tmp_path):
    hiding = build_model("llama", dtype=torch.float32)
    hiding.tokenizer.chat_template = "{{ messages[0]['content'] }}"
    with serving(hiding, tmp_path) as url:
        body = {"messages": BEGUN, "continue_final_message": True}
        response = httpx.post(f"{url}/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "continue_final_message"
    assert "alphabet" not in response.json()["error"]["message"]


def test_both_clients_can_prefill(http, url):
    expected = chat(http, continue_final_message=True)["choices"][0]["message"]["content"]
    with OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        theirs = client.chat.completions.create(
            model="tiny-llama", messages=BEGUN, temperature=0, max_tokens=6,
            extra_body={"continue_final_message": True, "add_generation_prompt": False},
        )  # fmt: skip
    with SteeringClient(url) as client:
        ours = client.chat(BEGUN, temperature=0, max_tokens=6, continue_final_message=True)
    assert theirs.choices[0].message.content == ours.text == expected


def test_a_strength_without_a_profile_is_refused_by_the_client(url):
    with SteeringClient(url) as client, pytest.raises(InvalidArgument, match="no profile is given"):
        client.complete("x", strength=0.5)
