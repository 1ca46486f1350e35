"""Files of profiles appear, change, break and disappear while the server runs."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from steering_profiles.models import LoadedModel
from steering_profiles.schema import Profile
from steering_profiles.store import content_hash, save_profile
from tests.api.profile_bodies import as_json, put
from tests.builders import build_model, build_profile
from tests.serving import serving


def scaled(model: LoadedModel, scale: float, name: str = "mine") -> Profile:
    return build_profile(model, name, heads=[(0, 1, scale), (1, 2, -scale)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profiles")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with serving(build_model("llama", dtype=torch.float32), folder, watched=True) as url:
        yield url


@pytest.fixture
def http(address: str, folder: Path) -> Iterator[httpx.Client]:
    """A client of the server, whose folder is empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with httpx.Client(base_url=address, timeout=60) as client:
        until(lambda: listing(client) == {"object": "list", "data": [], "default": "baseline", "faults": []})
        yield client


def listing(http: httpx.Client) -> dict[str, Any]:
    return dict(http.get("/v1/profiles").json())


def hashes(http: httpx.Client) -> dict[str, str]:
    return {profile["name"]: profile["content_hash"] for profile in listing(http)["data"]}


def faults(http: httpx.Client) -> list[dict[str, Any]]:
    return list(listing(http)["faults"])


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end, "the server did not notice"
        time.sleep(0.02)


def until_it_has(http: httpx.Client, profile: Profile) -> None:
    """Wait until the server has ``profile`` and no other."""
    until(lambda: hashes(http) == {profile.name: content_hash(profile)})


def test_a_file_that_appears_changes_and_disappears_is_followed(http: httpx.Client, model: LoadedModel, folder: Path):
    for profile in (scaled(model, 2), scaled(model, 3), build_profile(model, "mine", intercept_scale=0.5)):
        save_profile(profile, folder)
        until_it_has(http, profile)
        answer = http.post("/v1/completions", json={"prompt": "x", "max_tokens": 1, "model": "tiny-llama+mine"})
        assert answer.json()["steering"]["content_hash"] == content_hash(profile)
    (folder / "mine.json").unlink()
    until(lambda: hashes(http) == {})
    assert http.post("/v1/completions", json={"prompt": "x", "model": "tiny-llama+mine"}).status_code == 404


BROKEN: dict[str, Callable[[LoadedModel], tuple[bytes, str]]] = {
    "not JSON": lambda model: (b"{", "mine.json: Expecting property name"),
    "empty": lambda model: (b"", "mine.json: the file is empty"),
    "another name": lambda model: (as_json(scaled(model, 2, "other")), "mine.json: name is 'other'"),
    "an invalid field": lambda model: (
        as_json(scaled(model, 2), heads=[{"layer": 0, "head": 0, "scale": "big"}]),
        "mine.json: heads.0.scale: Input should be a valid number (given: 'big')",
    ),
    "another model": lambda model: (
        as_json(build_profile(build_model("gpt2"), "mine", heads=[(0, 1, 2.0)])),
        "profile 'mine' was made for tiny-gpt2, not for tiny-llama",
    ),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_reported_and_the_version_before_stays_until_it_is_mended(
    http: httpx.Client, model: LoadedModel, folder: Path, broken: Callable[[LoadedModel], tuple[bytes, str]]
):
    good, mended = scaled(model, 2), scaled(model, 3)
    save_profile(good, folder)
    until(lambda: "mine" in hashes(http))
    content, says = broken(model)
    (folder / "mine.json").write_bytes(content)
    until(lambda: bool(faults(http)))
    (fault,) = faults(http)
    assert (fault["file"], fault["kept"]) == ("mine.json", content_hash(good))
    assert fault["message"].startswith(says)
    assert str(folder) not in fault["message"]
    answer = http.post("/v1/completions", json={"prompt": "x", "max_tokens": 1, "model": "tiny-llama+mine"})
    assert answer.json()["steering"]["content_hash"] == content_hash(good)
    save_profile(mended, folder)
    until(lambda: hashes(http) == {"mine": content_hash(mended)} and not faults(http))


def test_a_broken_file_without_a_version_before_is_reported_and_no_profile(
    http: httpx.Client, model: LoadedModel, folder: Path
):
    save_profile(scaled(model, 2), folder)
    (folder / "bad.json").write_text("[]")
    until_it_has(http, scaled(model, 2))
    assert faults(http) == [
        {"file": "bad.json", "message": "bad.json: the content is a JSON array; allowed: an object", "kept": None}
    ]
    assert put(http, scaled(model, 3, "bad")).status_code == 201
    assert faults(http) == [], "a profile that is put takes the place of the broken file"


def test_tensors_that_disappear_or_change_are_noticed(http: httpx.Client, model: LoadedModel, folder: Path):
    one, other = (build_profile(model, "mine", intercept_scale=0.5, seed=seed) for seed in (0, 1))
    save_profile(one, folder)
    until_it_has(http, one)
    (folder / "mine.safetensors").unlink()
    until(lambda: bool(faults(http)))
    assert "this profile needs ['final_layer.intercept']" in faults(http)[0]["message"]
    assert hashes(http) == {"mine": content_hash(one)}
    save_profile(other, folder)
    until(lambda: hashes(http) == {"mine": content_hash(other)} and not faults(http))


def test_a_folder_that_disappears_is_reported_and_its_profiles_stay(
    http: httpx.Client, model: LoadedModel, folder: Path
):
    save_profile(scaled(model, 2), folder)
    until(lambda: "mine" in hashes(http))
    away = folder.rename(folder.with_name("away"))
    until(lambda: bool(faults(http)))
    (fault,) = faults(http)
    assert (fault["file"], fault["message"]) == (None, "profiles folder is not a folder")
    assert hashes(http) == {"mine": content_hash(scaled(model, 2))}
    away.rename(folder)
    until(lambda: not faults(http))


def test_a_link_that_is_turned_to_another_version_is_followed(http: httpx.Client, model: LoadedModel, folder: Path):
    """As Kubernetes replaces a mounted config map."""
    for version, scale in (("..1", 2.0), ("..2", 3.0)):
        save_profile(scaled(model, scale), folder / version)
        (folder / "..next").symlink_to(version)
        (folder / "..next").replace(folder / "..data")
        if not (folder / "mine.json").is_symlink():
            (folder / "mine.json").symlink_to("..data/mine.json")
        until_it_has(http, scaled(model, scale))


def test_disabled_profiles_follow_their_file_and_a_broken_one_changes_nothing(
    http: httpx.Client, model: LoadedModel, folder: Path
):
    def enabled() -> list[bool]:
        return [profile["enabled"] for profile in listing(http)["data"]]

    save_profile(scaled(model, 2), folder)
    until(lambda: enabled() == [True])
    assert http.post("/v1/profiles/mine/disable").status_code == 200
    (folder / ".disabled.json").write_text("{}")
    until(lambda: bool(faults(http)))
    assert faults(http)[0]["message"] == "must be a JSON list of names"
    assert enabled() == [False]
    (folder / ".disabled.json").unlink()
    until(lambda: enabled() == [True] and not faults(http))


def test_a_change_in_the_folder_since_it_was_looked_at_fails_a_condition(
    http: httpx.Client, model: LoadedModel, folder: Path
):
    first = put(http, scaled(model, 2))
    path = folder / "mine.json"
    path.write_bytes(as_json(scaled(model, 3)))  # by hand, at the same moment
    os.utime(path, ns=(1, 1))
    assert put(http, scaled(model, 4), if_match=first.headers["etag"]).status_code == 412
    assert hashes(http) == {"mine": content_hash(scaled(model, 3))}
