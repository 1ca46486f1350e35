"""``/metrics``: what it counts, of whom, and that nobody can make it grow."""

import re
import threading
import time
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from steering_profiles.models import LoadedModel
from steering_server.limits import EngineLimits
from steering_server.observability.labels import BoundedValues
from steering_server.observability.observability import Observability
from tests.builders import profiles_for
from tests.documents.reading import read
from tests.observability.scraping import Growth, Scrape, until
from tests.serving import serving

THREE = {"prompt": "a b", "max_tokens": 4, "ignore_eos": True, "temperature": 0}


def test_tokens_are_counted_by_the_profile_that_steered_them(http):
    growth = Growth(http)
    usage = http.post("/v1/completions", json=THREE | {"arms": ["baseline", "heads"]}).json()["usage"]
    for profile in ("baseline", "heads"):
        assert growth.of("vllm:prompt_tokens_total", profile=profile) == usage["prompt_tokens"]
        assert growth.of("vllm:generation_tokens_total", profile=profile) == usage["completion_tokens"] / 2 == 4
    assert growth.of("vllm:generation_tokens_total", profile="final") == 0


def test_every_sequence_has_its_times(http):
    growth = Growth(http)
    http.post("/v1/completions", json=THREE | {"model": "tiny-llama+heads", "n": 3})
    for name in (
        "time_to_first_token_seconds",
        "request_queue_time_seconds",
        "request_prefill_time_seconds",
        "request_decode_time_seconds",
        "e2e_request_latency_seconds",
    ):
        assert growth.of(f"vllm:{name}_count", profile="heads") == 3, name
    assert growth.of("vllm:inter_token_latency_seconds_count", profile="heads") == 3 * 3


def test_the_times_of_a_sequence_add_up(http):
    growth = Growth(http)
    began = time.perf_counter()
    http.post("/v1/completions", json=THREE | {"max_tokens": 50})
    took = time.perf_counter() - began
    queue, prefill, decode, whole, first, between = (
        growth.of(f"vllm:{name}_sum", profile="baseline")
        for name in (
            "request_queue_time_seconds",
            "request_prefill_time_seconds",
            "request_decode_time_seconds",
            "e2e_request_latency_seconds",
            "time_to_first_token_seconds",
            "inter_token_latency_seconds",
        )
    )
    assert queue + prefill + decode == pytest.approx(whole)
    assert queue + prefill == pytest.approx(first)
    assert between == pytest.approx(decode)
    assert 0 < whole < took


def test_sequences_are_counted_by_how_they_ended(http):
    growth = Growth(http)
    http.post("/v1/completions", json=THREE)
    assert growth.of("vllm:request_success_total", finished_reason="length") == 1
    assert growth.of("vllm:request_success_total") == 1


def test_a_stop_string_ends_a_sequence(http):
    text = http.post("/v1/completions", json=THREE).json()["choices"][0]["text"]
    growth = Growth(http)
    http.post("/v1/completions", json=THREE | {"stop": text[0]})
    assert growth.of("vllm:request_success_total", finished_reason="stop") == 1


def test_a_client_that_leaves_is_an_abort_and_its_tokens_count(http, url):
    growth = Growth(http)
    with httpx.stream("POST", f"{url}/v1/completions", json=THREE | {"max_tokens": 500, "stream": True}) as answer:
        next(answer.iter_lines())
    until(lambda: growth.of("vllm:request_success_total", finished_reason="abort") == 1)
    assert 1 <= growth.of("vllm:generation_tokens_total") < 500
    assert growth.of("http_requests_total", handler="/v1/completions") == 1


def test_a_client_that_leaves_before_its_answer_is_counted_as_499(http, url):
    growth = Growth(http)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/v1/completions", json=THREE | {"max_tokens": 500, "n": 8}, timeout=0.2)
    until(lambda: growth.of("http_requests_total", handler="/v1/completions", status="499") == 1)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "nope", "prompt": "x"}, "404", "model_not_found"),
        ({"prompt": "x" * 5000}, "400", "context_length_exceeded"),
        ({"prompt": "x", "temperature": -1}, "400", "invalid_request_error"),
    ],
)
def test_errors_are_counted_by_code(body: dict[str, object], status: str, code: str, http):
    growth = Growth(http)
    http.post("/v1/completions", json=body)
    assert growth.of("steering_request_errors_total", code=code) == 1
    assert growth.of("steering_request_errors_total") == 1
    assert growth.of("http_requests_total", handler="/v1/completions", method="POST", status=status) == 1


def test_a_body_that_is_too_large_is_counted_at_its_route(http):
    growth = Growth(http)
    http.post("/v1/chat/completions", content=b" " * (17 << 20))
    until(lambda: growth.of("http_requests_total", handler="/v1/chat/completions", status="413") == 1)
    assert growth.of("steering_request_errors_total", code="body_too_large") == 1


def test_what_runs_and_waits_is_shown_while_it_does(another: LoadedModel, tmp_path: Path):
    limits = EngineLimits(max_num_seqs=2, max_queue=8)
    long = {"prompt": "x y z", "max_tokens": 400, "ignore_eos": True, "n": 5}
    with serving(another, tmp_path, limits=limits) as url, httpx.Client(base_url=url, timeout=60) as http:
        thread = threading.Thread(target=lambda: httpx.post(f"{url}/v1/completions", json=long, timeout=60))
        thread.start()
        until(lambda: Scrape(http).value("vllm:num_requests_waiting") == 3)
        seen = Scrape(http)
        refused = http.post("/v1/completions", json=long | {"n": 50})
        thread.join()
        last = Scrape(http)
    assert seen.value("vllm:num_requests_running") == 2
    assert 0 < seen.value("vllm:kv_cache_usage_perc") < 1
    used, capacity = (seen.value(f"steering_kv_cache_{name}_bytes") for name in ("used", "capacity"))
    assert 0 < used < capacity
    assert refused.status_code == 429
    assert last.value("steering_request_errors_total", code="queue_full") == 1
    assert last.value("vllm:request_success_total") == 5, "the refused ones never were in the queue"
    assert last.value("vllm:num_requests_running") == last.value("vllm:num_requests_waiting") == 0
    assert last.value("steering_kv_cache_used_bytes", state="running") == 0


def test_preemptions_are_counted(another: LoadedModel, tmp_path: Path):
    # Memory for one sequence of full length, which two outgrow.
    limits = EngineLimits(max_length=256, kv_cache_memory=256 * _bytes_per_token(another))
    with serving(another, tmp_path, limits=limits) as url, httpx.Client(base_url=url, timeout=60) as http:
        body = {"prompt": "x y z", "max_tokens": 200, "ignore_eos": True, "n": 2, "seed": 1}
        assert http.post("/v1/completions", json=body).status_code == 200
        seen = Scrape(http)
    assert seen.value("vllm:num_preemptions_total") >= 1
    assert seen.value("vllm:generation_tokens_total") == 400, "a preempted sequence keeps its tokens"


def test_the_prefix_cache_shows_what_it_saved(http):
    prompt = "many words that come again, " * 4
    http.post("/v1/completions", json=THREE | {"prompt": prompt})
    growth = Growth(http)
    usage = http.post("/v1/completions", json=THREE | {"prompt": prompt}).json()["usage"]
    assert growth.of("vllm:prefix_cache_queries_total") == usage["prompt_tokens"]
    assert growth.of("vllm:prefix_cache_hits_total") == usage["prompt_tokens"] - 1, "the last one gives the logits"


def test_no_client_can_create_time_series(http):
    http.post("/v1/completions", json=THREE | {"model": "tiny-llama+heads+final"})
    http.post("/v1/completions", json=THREE | {"model": "tiny-llama+final+heads"})
    counts = []
    for _ in range(2):
        for number in range(6):
            http.get(f"/nothing/{number}")
            http.request(f"VERB{number}", "/v1/models")
            http.post("/v1/completions", json={"model": f"m{number}", "prompt": "x"})
            http.get(f"/v1/models/m{number}")
            arm = {"name": f"arm-{number}", "profile": "heads", "strength": 0.5 + number / 100}
            http.post("/v1/completions", json=THREE | {"max_tokens": 1, "arms": [arm]})
        scraped = Scrape(http)
        counts.append(len(scraped.samples))
    assert counts[0] == counts[1]
    assert scraped.values_of("profile") <= {"baseline", "heads", "final", "composed"}
    assert scraped.values_of("handler") <= {
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/models/{model:path}",
        "/v1/models",
        "other",
    }
    assert scraped.values_of("method") <= {"GET", "POST", "other"}


def test_the_document_lists_every_metric_with_its_type_and_labels(http):
    http.post("/v1/completions", json=THREE)
    http.post("/v1/completions", json={"model": "nope", "prompt": "x"})
    rows = re.findall(
        r"^\| (`[a-z0-9_:]+`(?:, `[a-z0-9_:]+`)*) \| (\w+) \| ([\w, -]+) \|", read("docs/monitoring.md"), re.M
    )
    listed = {
        name: (kind, frozenset(labels.split(", ")) - {"-"})
        for names, kind, labels in rows
        for name in re.findall(r"[\w:]+", names)
    }
    families = text_string_to_metric_families(http.get("/metrics").text)
    shown = {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            frozenset(label for sample in family.samples for label in sample.labels if label != "le"),
        )
        for family in families
        if not family.name.startswith("process_")
    }
    assert listed == shown


def test_past_its_bound_a_label_has_one_more_value():
    bounded = BoundedValues(2)
    assert [bounded(value) for value in ("a", "b", "c", "d", "a")] == ["a", "b", "other", "other", "a"]


def test_probes_and_metrics_are_not_counted(http):
    growth = Growth(http)
    for path in ("/health", "/ready", "/metrics"):
        http.get(path)
    assert growth.of("http_requests_total") == 0


def test_metrics_can_be_switched_off(another: LoadedModel, tmp_path: Path):
    with serving(another, tmp_path, observability=Observability("off")) as url:
        assert httpx.get(f"{url}/metrics").status_code == 404
        assert httpx.post(f"{url}/v1/completions", json=THREE).status_code == 200


def test_servers_in_one_process_have_metrics_of_their_own(another: LoadedModel, http, tmp_path: Path):
    http.post("/v1/completions", json=THREE)
    with serving(another, tmp_path, profiles_for(another)) as url, httpx.Client(base_url=url) as other:
        assert Scrape(other).value("vllm:generation_tokens_total") == 0


def _bytes_per_token(model: LoadedModel) -> int:
    sizes = model.anatomy.sizes
    return 2 * sizes.layers * sizes.kv_heads * sizes.head_dim * model.dtype.itemsize
