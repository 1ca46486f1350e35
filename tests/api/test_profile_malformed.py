"""Whatever is sent as a profile is stored whole or refused with a 4xx that says why."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from steering_profiles.final_layer_fields import INTERCEPT_TENSOR
from steering_profiles.models import LoadedModel
from steering_profiles.schema import Profile
from steering_profiles.store import Catalogue, content_hash
from tests.api.profile_bodies import JSON, as_json, put
from tests.builders import build_model, build_profile
from tests.serving import serving

FORM = {"content-type": "multipart/form-data; boundary=line"}
PATH = "/v1/profiles/mine"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profiles")


@pytest.fixture(scope="module")
def http(folder: Path) -> Iterator[httpx.Client]:
    with (
        serving(build_model("llama", dtype=torch.float32), folder, watched=True) as url,
        httpx.Client(base_url=url, timeout=10) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def good(http: httpx.Client, model: LoadedModel) -> Profile:
    """The profile that is stored, and must stay where a request is refused."""
    profile = build_profile(model, "mine", intercept_scale=0.9, heads=[(0, 1, 2.0)])
    assert put(http, profile).status_code == 201
    return profile


def refused(http: httpx.Client, good: Profile, folder: Path, **request: Any) -> dict[str, Any]:
    response = http.put(PATH, **request)
    assert 400 <= response.status_code < 500, response.text
    assert http.get(PATH).json()["content_hash"] == content_hash(good)
    assert content_hash(Catalogue.open(folder, shipped=False)["mine"].profile) == content_hash(good)
    return dict(response.json()["error"])


def tensors(good: Profile, **changes: np.ndarray) -> bytes:
    return save(dict(good.tensors) | changes)


BODIES: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "no content type": ({"content": b"{}"}, "content-type", "allowed: application/json, or multipart/form-data"),
    "another type": ({"content": b"{}", "headers": {"content-type": "text/plain"}}, "content-type", "is text/plain"),
    "empty": ({"content": b"", "headers": JSON}, "body", "body: the file is empty"),
    "not JSON": ({"content": b"{", "headers": JSON}, "body", "body: Expecting property name"),
    "a list": ({"content": b"[]", "headers": JSON}, "body", "body: the content is a JSON array; allowed: an object"),
    "an empty object": ({"content": b"{}", "headers": JSON}, "name", "body: name: Field required"),
    "NaN": ({"content": b'{"a": NaN}', "headers": JSON}, "body", "NaN is not a valid JSON number"),
    "a key twice": ({"content": b'{"a": 1, "a": 2}', "headers": JSON}, "body", "a: the key occurs more than once"),
    "deeply nested": ({"content": b"[" * 100_000, "headers": JSON}, "body", "nested too deeply"),
    "UTF-16": ({"content": "{}".encode("utf-16"), "headers": JSON}, "body", "the encoding is UTF-16; allowed: UTF-8"),
    "no boundary": ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, "body", "Missing boundary"),
    "no form": ({"content": b"x", "headers": FORM}, "body", "body: is no valid form"),
    "an empty form": ({"content": b"--line--\r\n", "headers": FORM}, "profile", "profile: this part is required"),
    "a part without a name": (
        {"content": b"--line\r\nContent-Disposition: form-data\r\n\r\nx\r\n--line--\r\n", "headers": FORM},
        "body",
        'field "name" must be provided',
    ),
    "tensors alone": ({"files": {"tensors": b"x"}}, "profile", "profile: this part is required"),
    "an unknown part": ({"files": {"profile": b"{}", "weights": b"x"}}, "weights", "allowed: profile and tensors"),
    "a part twice": ({"files": [("profile", b"{}"), ("profile", b"{}")]}, "profile", "two parts of this name"),
    "tensors as text": (
        {"files": {"profile": (None, b"{}"), "tensors": (None, b"\x80")}},
        "tensors",
        "tensors: is a part of text; allowed: a file",
    ),
    "three parts": ({"files": [("profile", b"{}")] * 3}, "body", "Too many files"),
}


@pytest.mark.parametrize(("request_", "param", "says"), BODIES.values(), ids=BODIES)
def test_a_body_that_is_no_profile_is_refused_with_the_reason(
    http: httpx.Client, good: Profile, folder: Path, request_: dict[str, Any], param: str | None, says: str
):
    error = refused(http, good, folder, **request_)
    assert error["param"] == param
    assert says in error["message"]


def test_tensors_that_are_not_the_profiles_are_refused(http: httpx.Client, good: Profile, folder: Path):
    width = good.model.hidden_size
    for content, says in (
        (b"", "tensors: not a safetensors file"),
        (pickle.dumps({INTERCEPT_TENSOR: 1}), "tensors: not a safetensors file"),
        (tensors(good)[:-4], "tensors: not a safetensors file"),
        (tensors(good, other=np.ones(3, np.float32)), "tensors are ['final_layer.intercept', 'other']"),
        (tensors(good, **{INTERCEPT_TENSOR: np.ones(width + 1, np.float32)}), f"has shape ({width + 1},)"),
        (tensors(good, **{INTERCEPT_TENSOR: np.ones(width)}), "is of type float64; allowed: float32"),
        (tensors(good, **{INTERCEPT_TENSOR: np.full(width, np.nan, np.float32)}), "not finite"),
    ):
        error = refused(http, good, folder, files={"profile": as_json(good), "tensors": content})
        assert says in error["message"]
    error = refused(http, good, folder, content=as_json(good), headers=JSON)
    assert "this profile needs ['final_layer.intercept']" in error["message"]
    error = refused(http, good, folder, content=as_json(good, tensors={}), headers=JSON)
    assert "tensors: not allowed in the JSON file" in error["message"]


def test_fields_that_are_invalid_are_named_with_their_values_and_not_all_of_very_many(
    http: httpx.Client, good: Profile, folder: Path
):
    scale = {"layer": 0, "head": 0, "scale": "big"}
    error = refused(http, good, folder, content=as_json(good, heads=[scale] * 50_000), headers=JSON)
    assert error["param"] == "heads.0.scale"
    assert "heads.0.scale: Input should be a valid number (given: 'big')" in error["message"]
    assert len(error["message"]) < 300
    unknown = {f"field{index}": 1 for index in range(1000)}
    error = refused(http, good, folder, content=as_json(good, **unknown), headers=JSON)
    assert "field0: Extra inputs are not permitted (given: 1)" in error["message"]
    assert error["message"].endswith("and 990 more")


def test_a_body_that_is_too_large_is_a_413(http: httpx.Client, good: Profile, folder: Path):
    for request in (
        {"content": b" " * (17 * 2**20), "headers": JSON},
        {"files": {"profile": as_json(good), "tensors": b"\0" * (17 * 2**20)}},
    ):
        response = http.put(PATH, **request)
        assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
quickly = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quickly
@given(changes=st.dictionaries(st.sampled_from([*Profile.model_fields, "other"]), json_values, min_size=1, max_size=3))
def test_any_change_of_a_valid_profile_is_stored_whole_or_refused(
    http: httpx.Client, good: Profile, changes: dict[str, Any]
):
    body = json.dumps(json.loads(as_json(good)) | changes).encode()
    response = http.put(PATH, files={"profile": body, "tensors": tensors(good)})
    if response.status_code == 200:
        assert http.get(PATH).json()["content_hash"] == response.json()["content_hash"]
        assert put(http, good).status_code == 200
    else:
        assert 400 <= response.status_code < 500
        assert http.get(PATH).json()["content_hash"] == content_hash(good)


pieces = st.sampled_from([
    b"--line", b"--line--", b"\r\n", b"\r\n\r\n", b"Content-Disposition: form-data; name=\"profile\"", b"\xff", b"\0",
    b"Content-Disposition: form-data; name=\"tensors\"; filename=\"../../x\"", b"Content-Type: x; charset=\xff", b"{}",
    b"Content-Transfer-Encoding: base64", b": ", b"-", b"\n",
])  # fmt: skip


@quickly
@given(body=st.binary(max_size=200) | st.lists(pieces, max_size=12).map(b"".join), kind=st.sampled_from([JSON, FORM]))
@pytest.mark.parametrize("method", ["PUT", "validate"])
def test_any_bytes_are_refused(http: httpx.Client, good: Profile, method: str, body: bytes, kind: dict[str, str]):
    if method == "PUT":
        response = http.put(PATH, content=body, headers=kind)
    else:
        response = http.post(f"{PATH}/validate", content=body, headers=kind)
    assert 400 <= response.status_code < 500
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert http.get(PATH).json()["content_hash"] == content_hash(good)
