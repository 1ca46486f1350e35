"""Profiles are read as they were written, equal profiles are equal bytes, and hashes distinguish them."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering_profiles.errors import GateError, ProfileFormatError, ProfileNotFound
from steering_profiles.final_layer_fields import INTERCEPT_TENSOR, FinalLayer, Gate
from steering_profiles.schema import HeadScale, NeuronScale, Profile, Provenance
from steering_profiles.store import SHIPPED, Catalogue, content_hash, load_profile, save_profile
from tests.builders import steer
from tests.library.examples import INTERCEPT, MODEL, example, profiles

PROVENANCE = Provenance(tool_version="1", command="steer fit", task="parentheses", seed=0)


def bytes_of(path: Path) -> tuple[bytes, bytes | None]:
    """Return the bytes of a profile's JSON file and, if there is one, of its tensors."""
    beside = path.with_suffix(".safetensors")
    return path.read_bytes(), beside.read_bytes() if beside.exists() else None


@given(profiles())
def test_reading_returns_the_profile_that_was_written(tmp_path_factory: pytest.TempPathFactory, profile: Profile):
    read = load_profile(save_profile(profile, tmp_path_factory.mktemp("profiles")))
    assert read.model_dump() == profile.model_dump()
    assert {name: t.tolist() for name, t in read.tensors.items()} == {n: t.tolist() for n, t in profile.tensors.items()}
    assert content_hash(read) == content_hash(profile)


@given(profiles())
def test_writing_a_profile_twice_gives_the_same_bytes(tmp_path_factory: pytest.TempPathFactory, profile: Profile):
    folder = tmp_path_factory.mktemp("profiles")
    once = bytes_of(save_profile(profile, folder))
    assert bytes_of(save_profile(profile, folder)) == once
    assert bytes_of(save_profile(load_profile(folder / f"{profile.name}.json"), folder / "other")) == once


def test_saving_leaves_no_other_files(tmp_path: Path):
    save_profile(example(final_layer=FinalLayer(intercept_scale=1.0), tensors=INTERCEPT), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["example.json", "example.safetensors"]


def test_saving_a_profile_without_tensors_leaves_no_tensors_of_an_older_one(tmp_path: Path):
    save_profile(example(final_layer=FinalLayer(intercept_scale=1.0), tensors=INTERCEPT), tmp_path)
    assert load_profile(save_profile(example(), tmp_path)).tensors == {}


CHANGES = {
    "name": {"name": "other"},
    "description": {"description": "Another."},
    "method": {"method": "rasteer"},
    "a scale": {"heads": (HeadScale(layer=1, head=2, scale=1.6),)},
    "a head": {"heads": (HeadScale(layer=1, head=1, scale=1.5),)},
    "a neuron": {"neurons": (NeuronScale(layer=1, neuron=2, scale=1.5),)},
    "the model": {"model": MODEL.model_copy(update={"fingerprint": "sha256:1"})},
    "self-only attention": {"final_layer": FinalLayer(self_only_attention=0.5)},
    "a gate": {"final_layer": FinalLayer(self_only_attention=0.5, gate=Gate(low=0.1, high=0.6))},
    "its band": {"final_layer": FinalLayer(self_only_attention=0.5, gate=Gate(low=0.1, high=0.7))},
    "provenance": {"provenance": PROVENANCE},
    "its seed": {"provenance": PROVENANCE.model_copy(update={"seed": 1})},
    "an intercept": {"final_layer": FinalLayer(intercept_scale=1.0), "tensors": INTERCEPT},
    "its scale": {"final_layer": FinalLayer(intercept_scale=2.0), "tensors": INTERCEPT},
    "its tensor": {
        "final_layer": FinalLayer(intercept_scale=1.0),
        "tensors": {INTERCEPT_TENSOR: np.zeros(6, np.float32)},
    },
}


def test_any_change_of_content_changes_the_hash():
    hashes = {name: content_hash(example(**change)) for name, change in CHANGES.items()} | {"": content_hash(example())}
    assert len(set(hashes.values())) == len(CHANGES) + 1, hashes


def test_a_profile_without_a_gate_has_no_field_for_it(tmp_path: Path):
    assert "gate" not in save_profile(example(), tmp_path).read_text()


def gated(name: str, low: float, high: float, **settings: float) -> Profile:
    settings = settings or {"self_only_attention": 1.0}
    tensors = INTERCEPT if "intercept_scale" in settings else {}
    layer = FinalLayer(**settings, gate=Gate(low=low, high=high))
    return example(name=name, heads=(), final_layer=layer, tensors=tensors)


def test_the_summary_shows_the_band_of_a_gate():
    assert gated("one", 0.05, 0.6).summary == "self-only attention 1 where the top probability is 0.05..0.6"
    both = gated("both", 0, 0.5, self_only_attention=1.0, intercept_scale=-0.5)
    assert both.summary == "self-only attention 1 and intercept x -0.5 where the top probability is 0..0.5"


def test_profiles_share_a_gate_unless_two_differ():
    one, other, alike = gated("one", 0.1, 0.6), gated("other", 0.1, 0.7), gated("alike", 0.1, 0.6)
    assert steer().gate is steer(example()).gate is None
    assert steer(example(), one, alike).gate == Gate(low=0.1, high=0.6)
    assert steer(example(), one, strength=0.0).gate is None
    says = r"different gates cannot be composed: one \(0\.1\.\.0\.6\) and other \(0\.1\.\.0\.7\)"
    with pytest.raises(GateError, match=says):
        steer(one, example(), other)


def test_the_error_tells_gates_apart_that_differ_little():
    with pytest.raises(GateError, match=r"one \(0\.1\.\.0\.6\) and other \(0\.1\.\.0\.60000001\)"):
        steer(gated("one", 0.1, 0.6), gated("other", 0.1, 0.60000001))


@given(st.randoms(use_true_random=False), st.integers(0, 4))
def test_another_spelling_of_the_same_numbers_keeps_the_hash(
    tmp_path_factory: pytest.TempPathFactory, random, indent: int
):
    path = save_profile(example(provenance=PROVENANCE), tmp_path_factory.mktemp("profiles"))
    fields = list(json.loads(path.read_text()).items())
    random.shuffle(fields)
    path.write_text(json.dumps(dict(fields), indent=indent, ensure_ascii=random.random() < 0.5))
    assert content_hash(load_profile(path)) == content_hash(example(provenance=PROVENANCE))


def test_the_shipped_profiles_are_valid_and_written_the_way_this_version_writes_them(tmp_path: Path):
    for path in sorted(SHIPPED.glob("*.json")):
        assert bytes_of(save_profile(load_profile(path), tmp_path)) == bytes_of(path)


def test_the_catalogue_has_the_shipped_profiles_and_those_of_a_folder_which_win(tmp_path: Path):
    save_profile(example(), tmp_path)
    save_profile(example(name="parentheses"), tmp_path)
    assert Catalogue.open()["parentheses"].shipped
    catalogue = Catalogue.open(tmp_path)
    assert list(catalogue) == sorted({*Catalogue.open(), "example"})
    assert not catalogue["parentheses"].shipped
    assert catalogue["parentheses"].path == tmp_path / "parentheses.json"
    assert [name for name in catalogue if catalogue[name].replaced] == ["parentheses"]


def test_a_catalogue_lists_the_profiles_of_a_folder_with_their_hashes(tmp_path: Path):
    save_profile(example(), tmp_path)
    catalogue = Catalogue.open(tmp_path, shipped=False)
    assert "example" in catalogue
    assert "parentheses" not in catalogue
    assert len(catalogue) == 1
    assert catalogue["example"].content_hash == content_hash(example())


def test_the_error_for_an_unknown_profile_lists_the_known_ones():
    with pytest.raises(ProfileNotFound, match=r"'nope'; known profiles: .*parentheses"):
        Catalogue.open()["nope"]


def test_the_error_names_a_missing_folder(tmp_path: Path):
    with pytest.raises(ProfileNotFound, match="nowhere"):
        Catalogue.open(tmp_path / "nowhere")


def test_an_invalid_profile_in_a_folder_is_an_error(tmp_path: Path):
    save_profile(example(), tmp_path)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ProfileFormatError, match=r"broken\.json"):
        Catalogue.open(tmp_path)
