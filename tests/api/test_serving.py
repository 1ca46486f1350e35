"""The server as a whole: its catalogue, concurrent requests, clients that disconnect, a full queue."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch

from steering_client import SteeringClient
from steering_profiles.errors import ProfileMismatch
from steering_profiles.models import LoadedModel
from steering_profiles.schema import Provenance
from steering_profiles.store import content_hash
from steering_server.limits import EngineLimits
from tests.builders import build_model, build_profile, profiles_for
from tests.serving import serving, slow_steps

LONG = {"prompt": "x", "max_tokens": 500, "temperature": 0, "logprobs": 0}
SHORT = {"prompt": "x", "max_tokens": 2, "temperature": 0}


def test_profiles_are_listed_with_what_they_change(http, model: LoadedModel):
    listed = {profile["name"]: profile for profile in http.get("/v1/profiles").json()["data"]}
    assert set(listed) == {"heads", "final"}
    assert listed["heads"]["summary"] == "3 heads x -2..4"
    assert listed["final"]["summary"] == "self-only attention 1, intercept x 0.9"
    assert listed["heads"]["content_hash"] == content_hash(profiles_for(model)[0])
    assert listed["heads"]["model_name"] == "tiny-llama+heads"


def test_profiles_are_listed_with_their_side_effects(tmp_path: Path):
    loaded = build_model("llama", dtype=torch.float32)
    effects = {"prose": {"tokens": 9, "nll_before": 2.0, "nll_after": 2.1, "agreement": 0.9}}
    provenance = Provenance(tool_version="0", command="steer fit", task="t", seed=0, side_effects=effects)
    plain = build_profile(loaded, "unmeasured", heads=[(0, 1, 2.0)])
    measured = plain.model_copy(update={"name": "measured", "provenance": provenance})
    with serving(loaded, tmp_path, [plain, measured]) as url:
        listed = {profile["name"]: profile for profile in httpx.get(f"{url}/v1/profiles").json()["data"]}
        with SteeringClient(url) as client:
            seen = {profile.name: profile for profile in client.profiles()}
    assert (listed["unmeasured"]["side_effects"], listed["unmeasured"]["flags"]) == (None, [])
    assert (listed["measured"]["side_effects"], listed["measured"]["flags"]) == (effects, ["prose +5.0%"])
    assert (seen["unmeasured"].side_effects, seen["unmeasured"].flags) == (None, ())
    assert (seen["measured"].side_effects, seen["measured"].flags) == (effects, ("prose +5.0%",))


def test_one_profile_comes_with_its_whole_content(http, model: LoadedModel):
    shown = http.get("/v1/profiles/heads").json()
    assert shown["profile"] == profiles_for(model)[0].model_dump(mode="json")


def test_every_answer_has_a_request_id_of_its_own(http):
    ids = {http.get("/health").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


def test_a_long_completion_blocks_neither_probes_nor_another_request(http, url):
    done = threading.Event()

    def run_long() -> None:
        httpx.post(f"{url}/v1/completions", json=LONG | {"n": 8, "temperature": 1}, timeout=120)
        done.set()

    thread = threading.Thread(target=run_long)
    thread.start()
    time.sleep(0.2)
    assert http.get("/ready").status_code == 200
    assert http.post("/v1/completions", json=SHORT).status_code == 200
    assert not done.is_set(), "the long completion was over too soon to show anything"
    thread.join()


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_disconnects_frees_its_place(stream: bool, tmp_path: Path):
    limits = EngineLimits(max_num_seqs=1, max_queue=1)
    with serving(build_model("llama", dtype=torch.float32, layers=24), tmp_path, limits=limits) as url:
        began = time.perf_counter()
        body = LONG | {"stream": stream}
        if stream:
            with httpx.stream("POST", f"{url}/v1/completions", json=body) as response:
                next(response.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{url}/v1/completions", json=body, timeout=0.3)
        assert httpx.post(f"{url}/v1/completions", json=SHORT, timeout=60).status_code == 200
        abandoned = time.perf_counter() - began
        began = time.perf_counter()
        assert httpx.post(f"{url}/v1/completions", json=LONG, timeout=60).status_code == 200
        assert abandoned < (time.perf_counter() - began) * 0.8 + 0.3


def test_a_full_queue_is_a_429_with_retry_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    slow_steps(monkeypatch)
    limits = EngineLimits(max_num_seqs=1, max_queue=1)
    model = build_model("llama", dtype=torch.float32)
    with serving(model, tmp_path, limits=limits) as url, ThreadPoolExecutor(1) as pool:
        running = pool.submit(httpx.post, f"{url}/v1/completions", json=LONG, timeout=60)
        time.sleep(0.2)
        for stream in (False, True):
            response = httpx.post(f"{url}/v1/completions", json=SHORT | {"n": 2, "stream": stream})
            assert response.status_code == 429
            assert int(response.headers["retry-after"]) > 0
            assert response.json()["error"]["type"] == "rate_limit_error"
            assert response.json()["error"]["code"] == "queue_full"
        assert not running.done()
        assert httpx.post(f"{url}/v1/completions", json=SHORT, timeout=60).status_code == 200


def test_a_request_that_never_fits_the_queue_is_told_so_and_not_to_try_again(tmp_path: Path):
    limits = EngineLimits(max_num_seqs=1, max_queue=0)
    with serving(build_model("llama", dtype=torch.float32), tmp_path, limits=limits) as url:
        response = httpx.post(f"{url}/v1/completions", json=SHORT | {"n": 2})
        assert response.status_code == 429
        assert "2 sequences, and the queue holds 1" in response.json()["error"]["message"]
        assert "retry-after" not in response.headers
        assert response.headers["x-should-retry"] == "false"
        assert httpx.post(f"{url}/v1/completions", json=SHORT).status_code == 200


def test_an_error_while_streaming_is_an_event_without_done(tmp_path: Path):
    loaded = build_model("llama", dtype=torch.float16)
    exploding = build_profile(
        loaded, "exploding", heads=[(layer, head, 3e4) for layer in range(3) for head in range(4)]
    )
    with serving(loaded, tmp_path, [exploding]) as url:
        body = SHORT | {"steering": {"profile": "exploding", "strength": 10}}
        response = httpx.post(f"{url}/v1/completions", json=body)
        assert response.status_code == 500
        assert "not finite" in response.json()["error"]["message"]
        assert httpx.post(f"{url}/v1/completions", json=SHORT).status_code == 200


def test_a_profile_for_another_model_stops_the_server_unless_it_is_forced(tmp_path: Path):
    stranger = build_profile(build_model("llama", layers=2), "stranger", heads=[(0, 1, 2.0)])
    loaded = build_model("llama", dtype=torch.float32)
    with (
        pytest.raises(ProfileMismatch, match="layers is 3 here, 2 in the profile"),
        serving(loaded, tmp_path, [stranger]),
    ):
        pass
    with serving(loaded, tmp_path, force=True) as url:
        (listed,) = httpx.get(f"{url}/v1/profiles").json()["data"]
        assert (listed["usable"], listed["forced"]) == (True, True)
        assert "layers is 3 here" in listed["reason"]
        answer = httpx.post(f"{url}/v1/completions", json=SHORT | {"arms": ["stranger"]})
        assert answer.status_code == 200


def test_a_shipped_profile_for_another_model_is_listed_as_unusable(tmp_path: Path):
    with serving(build_model("llama", dtype=torch.float32), tmp_path, shipped=True) as url:
        listed = {profile["name"]: profile for profile in httpx.get(f"{url}/v1/profiles").json()["data"]}
        assert listed["parentheses"]["usable"] is False
        assert listed["parentheses"]["model_name"] is None
        response = httpx.post(f"{url}/v1/completions", json=SHORT | {"steering": {"profile": "parentheses"}})
        assert response.status_code == 400
        assert "does not fit" in response.json()["error"]["message"]


def test_every_answer_is_described_with_its_fields(http):
    schemas = http.get("/openapi.json").json()["components"]["schemas"]
    described = [name for name, schema in schemas.items() if schema.get("type") == "object"]
    assert "ChatCompletion" in described
    assert [name for name in described if not schemas[name].get("properties")] == []
