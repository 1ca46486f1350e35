"""Profiles are replaced while many requests stream: each keeps the version that it began with."""

import itertools
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from steering_profiles.models import LoadedModel
from steering_profiles.schema import Profile
from steering_profiles.store import content_hash, save_profile
from tests.api.profile_bodies import put
from tests.builders import build_model, build_profile
from tests.serving import serving

STREAM = {"prompt": "a long enough prefix: print(str(1", "max_tokens": 24, "temperature": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def versions(model: LoadedModel) -> dict[str, Profile]:
    """Three versions of one profile, by content hash."""
    profiles = [build_profile(model, "mine", heads=[(0, 1, scale)]) for scale in (2.0, -3.0)]
    profiles.append(build_profile(model, "mine", heads=[(1, 2, 4.0)], intercept_scale=0.9))
    return {content_hash(profile): profile for profile in profiles}


@pytest.fixture
def folder(tmp_path: Path, versions: dict[str, Profile]) -> Path:
    save_profile(next(iter(versions.values())), tmp_path)
    return tmp_path


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    with serving(build_model("llama", dtype=torch.float32), folder, watched=True) as address:
        yield address


def stream(url: str) -> tuple[str, str]:
    """Stream an answer; return the content hash that all of its chunks name, and its text."""
    hashes, text = set[str](), ""
    with httpx.stream("POST", f"{url}/v1/completions", json=STREAM | {"model": "tiny-llama+mine", "stream": True},
                      timeout=60) as response:  # fmt: skip
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data: {"):
                chunk: dict[str, Any] = json.loads(line.removeprefix("data: "))
                hashes.add(chunk["steering"]["content_hash"])
                text += chunk["choices"][0]["text"]
    (only,) = hashes
    return only, text


@pytest.fixture(scope="module")
def expected(versions: dict[str, Profile], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The text of each version on a server that has never had another."""
    texts = {}
    for number, (hashed, profile) in enumerate(versions.items()):
        folder = tmp_path_factory.mktemp(f"version{number}")
        with serving(build_model("llama", dtype=torch.float32), folder, [profile]) as url:
            assert stream(url)[0] == hashed
            texts[hashed] = stream(url)[1]
    assert len(set(texts.values())) == len(versions)
    return texts


@pytest.mark.parametrize("way", ["route", "folder"])
def test_every_stream_is_of_the_version_that_it_names_from_its_beginning_to_its_end(
    url: str, folder: Path, versions: dict[str, Profile], expected: dict[str, str], way: str
):
    done = threading.Event()

    def change() -> int:
        with httpx.Client(base_url=url) as http:
            for count, profile in enumerate(itertools.cycle(versions.values())):
                if done.is_set():
                    return count
                if way == "folder":
                    save_profile(profile, folder)
                    done.wait(0.2)  # longer than the server takes to see a change
                else:
                    assert put(http, profile).status_code == 200
                    done.wait(0.01)
        raise AssertionError("unreachable")

    with ThreadPoolExecutor(7) as pool:
        changes = pool.submit(change)
        answers = [pool.submit(stream, url) for _ in range(48)]
        seen = {answer.result() for answer in answers}
        done.set()
        assert changes.result() > len(versions)
    assert seen <= set(expected.items())
    assert len(seen) > 1, "the profile was not replaced while requests ran"


def test_a_stream_outlives_the_profile_that_steers_it(url: str, expected: dict[str, str]):
    body = STREAM | {"model": "tiny-llama+mine", "stream": True, "max_tokens": 240}
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as response:
        lines = response.iter_lines()
        first = next(line for line in lines if line)
        assert httpx.delete(f"{url}/v1/profiles/mine").status_code == 200
        assert httpx.get(f"{url}/v1/profiles/mine").status_code == 404
        chunks = [line for line in (first, *lines) if line.startswith("data: {")]
    hashes = {json.loads(line.removeprefix("data: "))["steering"]["content_hash"] for line in chunks}
    text = "".join(json.loads(line.removeprefix("data: "))["choices"][0]["text"] for line in chunks)
    assert text.startswith(expected[hashes.pop()].rstrip("\ufffd")), "the shorter text may end inside a character"
    assert not hashes
