"""Profiles as data: what is written is read back, what is wrong is named, and a profile knows its model."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from steering_profiles.errors import ProfileFormatError, ProfileMismatch, ProfileNotFound
from steering_profiles.schema import (
    INTERCEPT_TENSOR,
    FinalLayer,
    HeadScale,
    ModelIdentity,
    NeuronScale,
    Profile,
    Provenance,
)
from steering_profiles.store import Catalogue, content_hash, load_profile, save_profile
from steering_profiles.validate import compare, require_fit

MODEL = ModelIdentity(
    id="some-model", architecture="LlamaForCausalLM", layers=4, heads=3, kv_heads=3, head_dim=2, neurons=8, width=6,
    vocab_size=50, fingerprint="sha256:0",
)  # fmt: skip

scales = st.floats(-100, 100, allow_nan=False)
provenances = st.builds(
    Provenance, tool_version=st.text(), command=st.text(), task=st.text(), seed=st.integers(-9, 9),
    grid=st.dictionaries(st.text(), st.lists(st.floats(-1, 1) | st.integers() | st.text())),
)  # fmt: skip


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    heads = draw(st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 2)), scales))
    neurons = draw(st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 7)), scales))
    intercept = draw(st.floats(-2, 2))
    tensor = np.array(draw(st.lists(st.floats(-9, 9, width=32), min_size=6, max_size=6)), dtype=np.float32)
    return Profile(
        name=draw(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,10}", fullmatch=True).filter(lambda name: name != "baseline")),
        description=draw(st.text()),
        method=draw(st.sampled_from(["rasteer", "final-layer", "manual"])),
        model=MODEL,
        heads=tuple(HeadScale(layer=layer, head=head, scale=scale) for (layer, head), scale in heads.items()),
        neurons=tuple(NeuronScale(layer=layer, neuron=n, scale=scale) for (layer, n), scale in neurons.items()),
        final_layer=FinalLayer(own_attention=draw(st.floats(0, 1)), intercept_scale=intercept),
        provenance=draw(st.none() | provenances),
        tensors={INTERCEPT_TENSOR: tensor} if intercept else {},
    )


def example(**changes) -> Profile:
    content = {
        "name": "example", "description": "An example.", "method": "manual", "model": MODEL,
        "heads": (HeadScale(layer=1, head=2, scale=1.5),),
    }  # fmt: skip
    return Profile(**content | changes)


@given(profiles())
def test_a_profile_is_read_back_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, profile: Profile):
    folder = tmp_path_factory.mktemp("profiles")
    read = load_profile(save_profile(profile, folder))
    assert read.model_dump() == profile.model_dump()
    assert {name: t.tolist() for name, t in read.tensors.items()} == {n: t.tolist() for n, t in profile.tensors.items()}
    assert content_hash(read) == content_hash(profile)


@given(profiles())
def test_the_same_profile_is_written_as_the_same_bytes(tmp_path_factory: pytest.TempPathFactory, profile: Profile):
    folder = tmp_path_factory.mktemp("profiles")
    written = [save_profile(profile, folder / name) for name in ("one", "two")]
    for suffix in (".json", ".safetensors"):
        beside = [path.with_suffix(suffix) for path in written]
        assert beside[0].exists() == beside[1].exists()
        assert not beside[0].exists() or beside[0].read_bytes() == beside[1].read_bytes()


def test_saving_a_profile_without_tensors_leaves_no_tensors_of_an_older_one(tmp_path: Path):
    tensors = {INTERCEPT_TENSOR: np.ones(6, np.float32)}
    save_profile(example(final_layer=FinalLayer(intercept_scale=1.0), tensors=tensors), tmp_path)
    assert load_profile(save_profile(example(), tmp_path)).tensors == {}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"description": "Another."},
        {"heads": (HeadScale(layer=1, head=2, scale=1.6),)},
        {"model": MODEL.model_copy(update={"fingerprint": "sha256:1"})},
        {"final_layer": FinalLayer(own_attention=0.5)},
        {"final_layer": FinalLayer(intercept_scale=1.0), "tensors": {INTERCEPT_TENSOR: np.ones(6, np.float32)}},
        {"final_layer": FinalLayer(intercept_scale=1.0), "tensors": {INTERCEPT_TENSOR: np.zeros(6, np.float32)}},
    ],
)
def test_any_change_of_content_is_another_hash(change: dict):
    assert content_hash(example(**change)) != content_hash(example())


def test_hashes_of_profiles_that_differ_in_a_tensor_alone_differ():
    settings = FinalLayer(intercept_scale=1.0)
    one, two = (
        example(final_layer=settings, tensors={INTERCEPT_TENSOR: np.full(6, value, np.float32)}) for value in (1, 2)
    )
    assert content_hash(one) != content_hash(two)


def written(folder: Path, **changes) -> Path:
    path = save_profile(example(), folder)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


MALFORMED = {
    "unknown field": ({"power": 1}, "power"),
    "another version": ({"format_version": 2}, "format_version"),
    "a name no arm could have": ({"name": "a+b"}, "name"),
    "the baseline's name": ({"name": "baseline"}, "cannot name a profile"),
    "a name that is not the file's": ({"name": "other"}, "file's name says 'example'"),
    "unknown method": ({"method": "magic"}, "method"),
    "negative layer": ({"heads": [{"layer": -1, "head": 0, "scale": 1}]}, "heads.0.layer"),
    "scale as text": ({"heads": [{"layer": 1, "head": 0, "scale": "big"}]}, "heads.0.scale"),
    "a head twice": ({"heads": [{"layer": 1, "head": 0, "scale": 2}] * 2}, r"more than once: \[\(1, 0\)\]"),
    "more than whole attention": ({"final_layer": {"own_attention": 2}}, "final_layer.own_attention"),
    "an intercept without its tensor": ({"final_layer": {"intercept_scale": 1}}, "final_layer.intercept"),
    "tensors in the JSON": ({"tensors": {}}, "belongs in example.safetensors"),
}


@pytest.mark.parametrize(("change", "names"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_profile_is_refused_by_file_and_field(tmp_path: Path, change: dict, names: str):
    with pytest.raises(ProfileFormatError, match=names) as caught:
        load_profile(written(tmp_path, **change))
    assert "example.json" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"scale": NaN}'],
    ids=["empty", "cut off", "list", "null", "not UTF-8", "deeply nested", "NaN"],
)
def test_a_file_that_is_no_json_object_is_refused_by_name(tmp_path: Path, content: bytes):
    path = tmp_path / "example.json"
    path.write_bytes(content)
    with pytest.raises(ProfileFormatError, match=r"example\.json"):
        load_profile(path)


def test_a_pickle_in_place_of_tensors_is_not_opened(tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    path = written(tmp_path, final_layer={"intercept_scale": 1.0})
    path.with_suffix(".safetensors").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ProfileFormatError):
        load_profile(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("tensor", [np.ones(5, np.float32), np.full(6, np.nan, np.float32)], ids=["shape", "NaN"])
def test_a_tensor_of_another_shape_or_without_a_value_is_refused(tensor: np.ndarray):
    with pytest.raises(ValidationError, match=r"final_layer\.intercept"):
        example(final_layer=FinalLayer(intercept_scale=1.0), tensors={INTERCEPT_TENSOR: tensor})


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ProfileNotFound, match=r"nowhere\.json"):
        load_profile(tmp_path / "nowhere.json")


def test_the_catalogue_has_the_shipped_profiles_and_those_of_a_folder_which_win(tmp_path: Path):
    save_profile(example(), tmp_path)
    save_profile(example(name="parentheses"), tmp_path)
    assert Catalogue.open()["parentheses"].shipped
    catalogue = Catalogue.open(tmp_path)
    assert list(catalogue) == ["example", "parentheses"]
    assert not catalogue["parentheses"].shipped
    assert list(Catalogue.open(tmp_path / "..", shipped=False)) == []


def test_a_profile_that_is_not_in_the_catalogue_is_answered_with_those_that_are():
    with pytest.raises(ProfileNotFound, match=r"'nope'; known profiles: .*parentheses"):
        Catalogue.open()["nope"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ProfileNotFound, match="nowhere"):
        Catalogue.open(tmp_path / "nowhere")


def test_a_profile_fits_the_model_it_was_made_for():
    assert compare(example(), MODEL.model_copy(update={"id": "renamed"})).matches


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layers": 5}, "layers is 5 here, 4 in the profile"),
        ({"architecture": "GPT2LMHeadModel"}, "architecture is GPT2LMHeadModel here"),
        ({"vocab_size": 51}, "vocab_size is 51 here"),
        ({"fingerprint": "sha256:1"}, "fingerprint of config and tokenizer differs"),
    ],
)
def test_another_model_is_refused_with_the_reason_and_can_be_forced(change: dict, reason: str):
    other = MODEL.model_copy(update=change)
    with pytest.raises(ProfileMismatch, match=reason):
        require_fit(example(), other)
    forced = require_fit(example(), other, force=True)
    assert not forced.matches
    assert reason in "; ".join(forced.differences)


@pytest.mark.parametrize(
    ("profile", "change", "reason"),
    [
        (example(), {"layers": 1}, "layer 1 head 2, but the model has 1 layers"),
        (example(), {"heads": 2}, "of 2 heads"),
        (example(neurons=(NeuronScale(layer=0, neuron=7, scale=2.0),)), {"neurons": 7}, "layer 0 neuron 7"),
        (
            example(final_layer=FinalLayer(intercept_scale=1.0), tensors={INTERCEPT_TENSOR: np.ones(6, np.float32)}),
            {"width": 7},
            "intercept has 6 entries",
        ),
    ],
)
def test_no_force_applies_what_the_model_does_not_have(profile: Profile, change: dict, reason: str):
    with pytest.raises(ProfileMismatch, match=reason):
        require_fit(profile, MODEL.model_copy(update=change), force=True)
