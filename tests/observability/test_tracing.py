"""Traces, read by a receiver of OTLP over HTTP."""

import time
from collections.abc import Iterator

import httpx
import pytest
import torch

from steering_server.errors import ConfigError
from steering_server.observability.endpoint import open_tracing
from steering_server.observability.observability import Observability
from tests.builders import build_model, profiles_for
from tests.observability.receiver import Receiver, receiving
from tests.serving import serving

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def traced(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that sends its traces to the receiver, at once."""
    model = build_model("llama", dtype=torch.float32)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        environment.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
        observability = Observability(tracing=open_tracing(None))
    folder = tmp_path_factory.mktemp("profiles")
    with serving(model, folder, profiles_for(model), observability=observability) as url:
        yield url


def ask(url: str, trace: str, *, sampled: bool = True, **body: object) -> httpx.Response:
    headers = {"traceparent": f"00-{trace}-{CALLER}-{'01' if sampled else '00'}", "x-request-id": f"id-{trace}"}
    whole = {"prompt": "a b", "max_tokens": 4, "temperature": 0, "ignore_eos": True} | body
    return httpx.post(f"{url}/v1/completions", json=whole, headers=headers, timeout=60)


def test_a_request_is_part_of_its_callers_trace(traced: str, receiver: Receiver):
    before = time.time_ns()
    answer = ask(traced, TRACE, arms=["baseline", {"name": "strong", "profile": "heads", "strength": 1.5}])
    after = time.time_ns()
    spans = receiver.trace(TRACE, 9)
    (request,) = spans["POST /v1/completions"]
    assert request.parent == CALLER
    assert before <= request.start < request.end <= after + 1_000_000
    assert request.attributes == {
        "http.request.method": "POST",
        "url.path": "/v1/completions",
        "http.route": "/v1/completions",
        "http.response.status_code": 200,
        "gen_ai.request.id": f"id-{TRACE}",
    }
    assert request.resource["service.name"] == "steering-server"
    assert request.resource["deployment.environment"] == "test"
    assert {span.parent for span in spans["llm_request"]} == {request.id}
    usage = answer.json()["usage"]
    hashes = [arm["content_hash"] for arm in answer.json()["steering"]["arms"]]
    baseline, strong = sorted(spans["llm_request"], key=lambda span: str(span.attributes["steering.profile"]))
    assert baseline.attributes["steering.profile"] == "baseline"
    assert baseline.attributes["steering.profiles"] == []
    assert strong.attributes["steering.profiles"] == ["heads"]
    assert strong.attributes["steering.strengths"] == [1.5]
    assert strong.attributes["steering.content_hashes"] == [hashes[1]]
    for sequence in (baseline, strong):
        assert sequence.attributes["gen_ai.request.model"] == "tiny-llama"
        assert sequence.attributes["gen_ai.request.max_tokens"] == 4
        assert sequence.attributes["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
        assert sequence.attributes["gen_ai.usage.prompt_tokens"] == usage["prompt_tokens"]
        assert sequence.attributes["gen_ai.usage.output_tokens"] == usage["completion_tokens"] / 2
        assert sequence.attributes["gen_ai.response.finish_reasons"] == ["length"]


def test_a_sequence_is_divided_into_queue_prefill_and_decode(traced: str, receiver: Receiver):
    trace = "1" * 32
    ask(traced, trace)
    spans = receiver.trace(trace, 5)
    (sequence,) = spans["llm_request"]
    phases = [spans[name][0] for name in ("queue", "prefill", "decode")]
    assert all(phase.parent == sequence.id for phase in phases)
    assert [phase.start for phase in phases] == [sequence.start, phases[0].end, phases[1].end]
    assert phases[-1].end == sequence.end
    for phase, name in zip(phases, ("in_queue", "in_model_prefill", "in_model_decode"), strict=True):
        seconds = sequence.attributes[f"gen_ai.latency.time_{name}"]
        assert (phase.end - phase.start) / 1e9 == pytest.approx(seconds, abs=1e-6)
    first = (phases[1].end - sequence.start) / 1e9
    assert sequence.attributes["gen_ai.latency.time_to_first_token"] == pytest.approx(first, abs=1e-6)


def test_a_refused_request_is_a_span_with_the_code_of_its_error(traced: str, receiver: Receiver):
    trace = "2" * 32
    assert ask(traced, trace, model="nope").status_code == 404
    (request,) = receiver.trace(trace, 1)["POST /v1/completions"]
    assert request.attributes["error.type"] == "model_not_found"
    assert request.attributes["http.response.status_code"] == 404
    assert not request.failed, "it is the client's mistake"


def test_what_the_caller_does_not_sample_is_not_sent(traced: str, receiver: Receiver):
    ask(traced, "3" * 32, sampled=False)
    ask(traced, "4" * 32)
    receiver.trace("4" * 32, 5)
    assert not [span for span in receiver.spans if span.trace == "3" * 32]


@pytest.mark.parametrize("given", ["", "00-xyz", "00-" + "0" * 32 + f"-{CALLER}-01", "x" * 5000])
def test_a_traceparent_that_is_invalid_begins_a_new_trace(given: str, traced: str, receiver: Receiver):
    known = {span.trace for span in receiver.spans}
    headers = {"traceparent": given}
    body = {"prompt": "x", "max_tokens": 1}
    assert httpx.post(f"{traced}/v1/completions", json=body, headers=headers).status_code == 200
    until = time.monotonic() + 20
    while not (new := {span.trace for span in receiver.spans} - known):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert new.isdisjoint({"0" * 32})


def test_traces_go_to_the_path_of_the_protocol(traced: str, receiver: Receiver):
    ask(traced, "5" * 32)
    receiver.trace("5" * 32, 5)
    assert set(receiver.paths) == {"/v1/traces"}


@pytest.mark.parametrize(
    "setting", ["", "localhost:4318", "ftp://localhost", "http://", "http://[::1", "http://host:99999"]
)
def test_an_endpoint_that_is_no_url_is_refused_by_name(setting: str):
    with pytest.raises(ConfigError, match=r"otlp_traces_endpoint is .*; it must be a URL such as"):
        open_tracing(setting)


def test_a_protocol_other_than_http_is_refused_by_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'; traces are sent by http/protobuf"):
        open_tracing(None)


@pytest.mark.parametrize("off", [{}, {"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_without_an_endpoint_nothing_is_traced(off: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    if off:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
    for name, value in off.items():
        monkeypatch.setenv(name, value)
    assert open_tracing(None) is None


def test_a_server_stops_soon_although_the_endpoint_does_not_answer(tmp_path, another):
    # A port that nobody listens on.
    observability = Observability(tracing=open_tracing("http://127.0.0.1:9/v1/traces"))
    with serving(another, tmp_path, observability=observability) as url:
        assert ask(url, "6" * 32).status_code == 200
        began = time.monotonic()
    assert time.monotonic() - began < 8
