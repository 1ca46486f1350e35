"""Invalid profiles are refused with the name of the file and of the field."""

import json
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.numpy import save
from safetensors.torch import save as save_torch

from steering_profiles.errors import ProfileFormatError, ProfileNotFound
from steering_profiles.final_layer_fields import INTERCEPT_TENSOR, FinalLayer
from steering_profiles.schema import Profile
from steering_profiles.store import MAX_FILE_BYTES, content_hash, load_profile, save_profile
from tests.library.examples import MODEL, example

PROVENANCE = {"tool_version": "1", "command": "steer fit", "task": "parentheses", "seed": 0}
NEEDS_INTERCEPT = {"final_layer": {"intercept_scale": 1.0}}


def written(folder: Path, **changes) -> Path:
    path = save_profile(example(), folder)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


DEEP: dict[str, object] = {"from_position": 1}
for _ in range(7):
    DEEP = {"not": DEEP}

MALFORMED = {
    "unknown field": ({"power": 1}, "power: Extra inputs are not permitted"),
    "unknown field within": ({"heads": [{"layer": 1, "head": 0, "scale": 1, "power": 1}]}, r"heads\.0\.power"),
    "another version": ({"format_version": 2}, "format_version: Input should be 1"),
    "a name no arm could have": ({"name": "a+b"}, "name"),
    "the baseline's name": ({"name": "baseline"}, "name: 'baseline' is the name of the unsteered model"),
    "a name that is not the file's": ({"name": "other"}, "name is 'other'; it must be the name of the file, 'example'"),
    "unknown method": ({"method": "magic"}, "method: .*'rasteer', 'final-layer' or 'manual'"),
    "no model": ({"model": None}, "model: "),
    "a model without layers": ({"model": {**MODEL.model_dump(), "layers": 0}}, r"model\.layers"),
    "negative layer": ({"heads": [{"layer": -1, "head": 0, "scale": 1}]}, r"heads\.0\.layer"),
    "layer as text": ({"heads": [{"layer": "1", "head": 0, "scale": 1}]}, r"heads\.0\.layer"),
    "layer as truth": ({"heads": [{"layer": True, "head": 0, "scale": 1}]}, r"heads\.0\.layer"),
    "layer as fraction": ({"heads": [{"layer": 1.0, "head": 0, "scale": 1}]}, r"heads\.0\.layer"),
    "a layer that the profile's model lacks": (
        {"heads": [{"layer": 4, "head": 0, "scale": 2}]},
        r"heads names \[\(4, 0\)\], but the profile's model has 4 layers of 3 heads",
    ),
    "a neuron that the profile's model lacks": (
        {"neurons": [{"layer": 0, "neuron": 8, "scale": 2}]},
        r"neurons names \[\(0, 8\)\], but the profile's model has 4 layers of 8 neurons",
    ),
    "heads as text": ({"heads": "L1H0"}, r"heads: Input should be a valid list \(given: 'L1H0'\)$"),
    "a condition as text": ({"when": "a"}, r"when: Input should be a valid object \(given: 'a'\)$"),
    "no endings": ({"when": {"ends_with": []}}, r"when\.ends_with: List should have at least 1 item, not 0$"),
    "a faulty ending": (
        {"when": {"ends_with": [""]}},
        r"when\.ends_with\.0: String should have at least 1 character \(given: ''\)$",
    ),
    "scale as text": ({"neurons": [{"layer": 1, "neuron": 0, "scale": "2.5"}]}, r"neurons\.0\.scale"),
    "no scale": ({"heads": [{"layer": 1, "head": 0}]}, r"heads\.0\.scale: Field required"),
    "a head twice": ({"heads": [{"layer": 1, "head": 0, "scale": 2}] * 2}, r"heads .* more than once: \[\(1, 0\)\]"),
    "a neuron twice": (
        {"neurons": [{"layer": 1, "neuron": 0, "scale": scale} for scale in (2, 3)]},
        r"neurons names a component more than once: \[\(1, 0\)\]",
    ),
    "a head twice under one condition": (
        {"heads": [{"layer": 1, "head": 0, "scale": scale, "when": {"from_position": 2}} for scale in (2, 3)]},
        r"heads names a component more than once under the same condition: \[\(1, 0\)\]",
    ),
    "a scale's faulty condition": (
        {"heads": [{"layer": 1, "head": 0, "scale": 2, "when": {"from_position": -1}}]},
        r"heads\.0\.when\.from_position: Input should be greater than or equal to 0 \(given: -1\)$",
    ),
    "a scale's condition as text": (
        {"neurons": [{"layer": 1, "neuron": 0, "scale": 2, "when": "a"}]},
        r"neurons\.0\.when: Input should be a valid object \(given: 'a'\)$",
    ),
    "a scale's condition with an unknown token": (
        {"heads": [{"layer": 1, "head": 0, "scale": 2, "when": {"last_token": [50]}}]},
        r"when of L1H0 names the token 50, but the profile's model has 50 tokens",
    ),
    "more conditions than allowed": (
        {"heads": [{"layer": 1, "head": 0, "scale": 2, "when": {"from_position": n}} for n in range(9)]},
        "the profile has 9 different conditions; allowed: 8",
    ),
    "conditions that together are too deep": (
        {
            "heads": [{"layer": 1, "head": 0, "scale": 2, "when": {"from_position": 2}}],
            "when": DEEP,
        },
        r"when of L1H0 and when of the profile must both hold: .* 9 levels; allowed: 64 parts, 8 levels",
    ),
    "more than whole attention": ({"final_layer": {"own_attention": 2}}, r"final_layer\.own_attention"),
    "a gate that is no band": (
        {"final_layer": {"own_attention": 1, "gate": {"low": 0.6, "high": 0.6}}},
        r"final_layer\.gate: low is 0\.6 and high is 0\.6; low must be below high",
    ),
    "a gate beyond certainty": (
        {"final_layer": {"own_attention": 1, "gate": {"low": 0.6, "high": 1.5}}},
        r"final_layer\.gate\.high: Input should be less than or equal to 1",
    ),
    "a gate of text": (
        {"final_layer": {"own_attention": 1, "gate": {"low": "0.1", "high": 1}}},
        r"final_layer\.gate\.low: Input should be a valid number",
    ),
    "a gate with one end": (
        {"final_layer": {"own_attention": 1, "gate": {"low": 0.1}}},
        r"final_layer\.gate\.high: Field required",
    ),
    "a gate before nothing": (
        {"final_layer": {"gate": {"low": 0.1, "high": 1}}},
        "final_layer: gate: a gate needs self-only attention or an intercept",
    ),
    "more than whole attention under a condition": (
        {"final_layers": [{"own_attention": 2, "when": {"from_position": 1}}]},
        r"final_layers\.0\.own_attention: Input should be less than or equal to 1 \(given: 2\)$",
    ),
    "a final layer without its condition": (
        {"final_layers": [{"own_attention": 1}]},
        r"final_layers\.0\.when: Field required",
    ),
    "a gate under a condition": (
        {"final_layers": [{"own_attention": 1, "when": {"from_position": 1}, "gate": {"low": 0, "high": 1}}]},
        r"final_layers\.0\.gate: Extra inputs are not permitted",
    ),
    "an intercept under a condition without its tensor": (
        {"final_layers": [{"intercept_scale": 1, "when": {"from_position": 1}}]},
        r"tensors are \[\]; this profile needs \['final_layers\.0\.intercept'\]",
    ),
    "an intercept without its tensor": (
        NEEDS_INTERCEPT,
        r"tensors are \[\]; this profile needs \['final_layer\.intercept'\]",
    ),
    "tensors in the JSON": (
        {"tensors": {}},
        r"tensors: not allowed in the JSON file; tensors are read from example\.safetensors",
    ),
    "a seed that is no integer": ({"provenance": {**PROVENANCE, "seed": "7"}}, r"provenance\.seed"),
    "a lone surrogate": ({"description": "\ud800"}, "description: contains a lone surrogate"),
    "a lone surrogate far inside": (
        {"provenance": {**PROVENANCE, "grid": {"a": [["\udfff"]]}}},
        r"provenance\.grid: contains a lone surrogate",
    ),
}


@pytest.mark.parametrize(("change", "says"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_profile_is_refused_by_file_and_field(tmp_path: Path, change: dict, says: str):
    with pytest.raises(ProfileFormatError, match=says) as caught:
        load_profile(written(tmp_path, **change))
    assert str(caught.value).startswith(str(tmp_path / "example.json"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", json.loads(example().model_dump_json()))
def test_the_error_names_a_field_that_is_missing_or_of_another_type(tmp_path: Path, field: str):
    with pytest.raises(ProfileFormatError, match=field):
        load_profile(written(tmp_path, **{field: 17}))


@pytest.mark.parametrize("field", ["name", "description", "method", "model"])
def test_the_error_names_a_missing_required_field(tmp_path: Path, field: str):
    path = written(tmp_path)
    content = json.loads(path.read_text())
    del content[field]
    path.write_text(json.dumps(content))
    with pytest.raises(ProfileFormatError, match=f"{field}: Field required"):
        load_profile(path)


def test_the_error_names_all_faults_of_a_file(tmp_path: Path):
    with pytest.raises(ProfileFormatError, match=r"method: .*; power: "):
        load_profile(written(tmp_path, method="magic", power=1))


BAD_FILES = {
    "empty": (b"", "the file is empty"),
    "cut off": (b"{", "line 1"),
    "list": (b"[]", "the content is a JSON array; allowed: an object"),
    "null": (b"null", "the content is a JSON null; allowed: an object"),
    "not UTF-8": (b'{"name": "\xff"}', "can't decode byte 0xff"),
    "UTF-16": ('{"name": "example"}'.encode("utf-16"), "the encoding is UTF-16; allowed: UTF-8"),
    "UTF-16 without a mark": ('{"name": "example"}'.encode("utf-16-be"), "the encoding is UTF-16; allowed: UTF-8"),
    "UTF-32": ('{"name": "example"}'.encode("utf-32"), "the encoding is UTF-32; allowed: UTF-8"),
    "a byte order mark and no profile": (b"\xef\xbb\xbf{}", "name: Field required"),
    "two byte order marks": (b"\xef\xbb\xbf" * 2 + b"{}", "BOM"),
    "deeply nested": (b"[" * 100_000, "the JSON is nested too deeply"),
    "deeply nested field": (b'{"provenance": {"grid": {"a": ' + b"[" * 600 + b"]" * 600 + b"}}}", r"provenance\.grid"),
    "NaN": (b'{"scale": NaN}', "NaN is not a valid JSON number"),
    "Infinity": (b'{"scale": -Infinity}', "-Infinity is not a valid JSON number"),
    "a field twice": (b'{"name": "example", "name": "other"}', "name: the key occurs more than once"),
    "a field twice within": (b'{"heads": [{"layer": 1, "layer": 2}]}', "layer: the key occurs more than once"),
    "endless digits": (b'{"seed": ' + b"7" * 5000 + b"}", "digits"),
}


@pytest.mark.parametrize(("content", "says"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_is_not_a_json_object_is_refused_by_name(tmp_path: Path, content: bytes, says: str):
    path = tmp_path / "example.json"
    path.write_bytes(content)
    with pytest.raises(ProfileFormatError, match=rf"example\.json: .*{says}") as caught:
        load_profile(path)
    assert len(str(caught.value)) < 1000


def test_a_repeat_among_many_components_is_found_quickly(tmp_path: Path):
    model = {**MODEL.model_dump(), "neurons": 50_000}
    neurons = [{"layer": 1, "neuron": index, "scale": 2} for index in (*range(50_000), 7)]
    path = written(tmp_path, model=model, neurons=neurons)
    began = time.monotonic()
    with pytest.raises(ProfileFormatError, match=r"more than once: \[\(1, 7\)\]"):
        load_profile(path)
    assert time.monotonic() - began < 10


def test_a_number_beyond_any_float_is_refused_by_field(tmp_path: Path):
    path = written(tmp_path)
    path.write_text(path.read_text().replace("1.5", "1e999"))
    with pytest.raises(ProfileFormatError, match=r"heads\.0\.scale: Input should be a finite number"):
        load_profile(path)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_file_larger_than_any_profile_is_not_read(tmp_path: Path, suffix: str):
    path = written(tmp_path, **NEEDS_INTERCEPT)
    with path.with_suffix(suffix).open("wb") as file:
        os.truncate(file.fileno(), MAX_FILE_BYTES + 1)
    with pytest.raises(ProfileFormatError, match=rf"example\{suffix}: the file is larger than 64 MiB"):
        load_profile(path)


BAD_TENSORS = {
    "not safetensors": (b"\x00" * 40, "not a safetensors file"),
    "empty": (b"", "not a safetensors file"),
    "cut off": (save({INTERCEPT_TENSOR: np.ones(6, np.float32)})[:-4], "not a safetensors file"),
    "another shape": (save({INTERCEPT_TENSOR: np.ones(5, np.float32)}), r"final_layer\.intercept has shape \(5,\)"),
    "another rank": (save({INTERCEPT_TENSOR: np.ones((1, 6), np.float32)}), r"has shape \(1, 6\)"),
    "float64": (save({INTERCEPT_TENSOR: np.ones(6)}), "is of type float64; allowed: float32"),
    "int32": (save({INTERCEPT_TENSOR: np.ones(6, np.int32)}), "is of type int32; allowed: float32"),
    "bfloat16": (save_torch({INTERCEPT_TENSOR: torch.ones(6, dtype=torch.bfloat16)}), "of type BF16; allowed: float32"),
    "NaN": (save({INTERCEPT_TENSOR: np.full(6, np.nan, np.float32)}), "not finite"),
    "infinity": (save({INTERCEPT_TENSOR: np.full(6, np.inf, np.float32)}), "not finite"),
    "another name": (save({"b": np.ones(6, np.float32)}), r"tensors are \['b'\]"),
    "one too many": (
        save({INTERCEPT_TENSOR: np.ones(6, np.float32), "b": np.ones(6, np.float32)}),
        r"tensors are \['b', 'final_layer\.intercept'\]",
    ),
}


@pytest.mark.parametrize(("content", "says"), BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_tensors_of_another_profile_are_refused(tmp_path: Path, content: bytes, says: str):
    path = written(tmp_path, **NEEDS_INTERCEPT)
    path.with_suffix(".safetensors").write_bytes(content)
    with pytest.raises(ProfileFormatError, match=rf"example\..*{says}"):
        load_profile(path)


def test_tensors_that_no_setting_uses_are_refused(tmp_path: Path):
    path = written(tmp_path)
    path.with_suffix(".safetensors").write_bytes(save({INTERCEPT_TENSOR: np.ones(6, np.float32)}))
    with pytest.raises(ProfileFormatError, match=r"this profile needs \[\]"):
        load_profile(path)


def test_a_pickle_in_place_of_tensors_is_never_opened(tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    path = written(tmp_path, **NEEDS_INTERCEPT)
    path.with_suffix(".safetensors").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ProfileFormatError, match=r"example\.safetensors: not a safetensors file"):
        load_profile(path)
    assert not (tmp_path / "sprung").exists()


def test_a_pickle_beside_the_json_is_ignored(tmp_path: Path):
    path = written(tmp_path, **NEEDS_INTERCEPT)
    for suffix in (".pkl", ".bin", ".pt", ".npy"):
        path.with_suffix(suffix).write_bytes(pickle.dumps({INTERCEPT_TENSOR: np.ones(6, np.float32)}))
    with pytest.raises(ProfileFormatError, match="this profile needs"):
        load_profile(path)


@pytest.mark.parametrize("tensor", [np.ones(5, np.float32), np.full(6, np.nan, np.float32), np.ones(6)])
def test_a_profile_made_in_memory_is_validated_too(tensor: np.ndarray):
    with pytest.raises(ValidationError, match=r"final_layer\.intercept"):
        example(final_layer=FinalLayer(intercept_scale=1.0), tensors={INTERCEPT_TENSOR: tensor})


def test_the_error_names_a_missing_file(tmp_path: Path):
    with pytest.raises(ProfileNotFound, match=r"nowhere\.json"):
        load_profile(tmp_path / "nowhere.json")


def test_the_error_names_a_folder_in_place_of_a_file(tmp_path: Path):
    (tmp_path / "example.json").mkdir()
    with pytest.raises(ProfileNotFound, match=r"example\.json"):
        load_profile(tmp_path / "example.json")


any_text = st.text(st.characters(), max_size=5)  # lone surrogates too
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*Profile.model_fields, "other"]), json_values, max_size=3))
def test_any_json_is_read_as_a_profile_or_refused(tmp_path_factory: pytest.TempPathFactory, changes: dict):
    path = written(tmp_path_factory.mktemp("profiles"), **changes)
    try:
        profile = load_profile(path)
    except ProfileFormatError:
        return
    assert content_hash(load_profile(save_profile(profile, path.parent / "again"))) == content_hash(profile)
