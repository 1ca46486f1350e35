"""A profile without some of its components is the profile of a file that lacks them."""

import json
from pathlib import Path

import pytest

from steering_profiles.composition import ProfileAtStrength, Steering
from steering_profiles.errors import ComponentError, GateError
from steering_profiles.leaving_out import component_names, leave_out
from steering_profiles.models import LoadedModel
from steering_profiles.schema import Profile
from steering_profiles.steering.sharing import divergence_layer, kv_cache_key
from steering_profiles.store import content_hash, load_profile, save_profile
from tests.builders import build_model, build_profile

ALL = ["L0H1", "L1H2", "L0N5", "L2N7", "final_layer.own_attention", "final_layer.intercept"]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return build_model("llama")


@pytest.fixture(scope="module")
def profile(loaded: LoadedModel) -> Profile:
    """A profile with components of every kind."""
    return build_profile(
        loaded,
        "all",
        heads=[(0, 1, 3.0), (1, 2, 0.5)],
        neurons=[(0, 5, 4.0), (2, 7, 0.0)],
        self_only_attention=0.8,
        intercept_scale=0.7,
    )


def without(profile: Profile, *names: str) -> ProfileAtStrength:
    (left,) = leave_out([ProfileAtStrength(profile)], names)
    return left


def file_without(profile: Profile, name: str, folder: Path) -> Profile:
    """Write the profile, remove a component from the files by hand, and read them again."""
    path = save_profile(profile, folder)
    content = json.loads(path.read_text())
    if name.startswith("L"):
        kind = "head" if "H" in name else "neuron"
        content[f"{kind}s"] = [
            each for each in content[f"{kind}s"] if f"L{each['layer']}{kind[0].upper()}{each[kind]}" != name
        ]
    if name in ("final_layer", "final_layer.own_attention"):
        content["final_layer"]["own_attention"] = 0.0
    if name in ("final_layer", "final_layer.intercept"):
        content["final_layer"]["intercept_scale"] = 0.0
        path.with_suffix(".safetensors").unlink()
    path.write_text(json.dumps(content))
    return load_profile(path)


def test_every_component_has_a_name(profile: Profile):
    assert component_names(profile) == tuple(ALL)


@pytest.mark.parametrize("name", [*ALL, "final_layer"])
def test_what_is_left_is_the_profile_of_the_file_without_it(profile: Profile, name: str, tmp_path: Path):
    expected, left = file_without(profile, name, tmp_path), without(profile, name)
    assert content_hash(expected) != content_hash(profile)
    assert left.key == (content_hash(expected), 1.0) == (content_hash(left.profile), 1.0)


def test_what_is_left_out_is_told_in_the_order_of_the_profile(profile: Profile):
    left = without(profile, "final_layer", "L0N5", "L0H1", "L0N5")
    assert left.left_out == ("L0H1", "L0N5", "final_layer.own_attention", "final_layer.intercept")
    assert component_names(left.profile) == ("L1H2", "L2N7")


def test_a_component_is_left_out_of_every_profile_that_has_it(loaded: LoadedModel, profile: Profile):
    other = build_profile(loaded, "other", heads=[(0, 1, 2.0), (2, 0, 2.0)])
    third = build_profile(loaded, "third", heads=[(2, 0, 0.5)])
    left = leave_out([ProfileAtStrength(one) for one in (profile, other, third)], ["L0H1"])
    assert [one.left_out for one in left] == [("L0H1",), ("L0H1",), ()]
    assert left[2].profile is third


def test_without_names_nothing_is_left_out(profile: Profile):
    (left,) = leave_out([applied := ProfileAtStrength(profile)], [])
    assert left is applied


def test_what_is_left_has_keys_and_values_of_its_own(loaded: LoadedModel, profile: Profile):
    sizes = loaded.anatomy.sizes
    whole = Steering((ProfileAtStrength(profile),))
    keys = {kv_cache_key(Steering((without(profile, name),)), sizes) for name in ALL}
    assert len(keys | {kv_cache_key(whole, sizes)}) == 1 + len(ALL)
    assert divergence_layer(whole, Steering((without(profile, "L1H2"),)), sizes) == 1
    assert divergence_layer(whole, Steering((without(profile, "final_layer"),)), sizes) == sizes.layers - 1


def test_only_the_final_layer_is_left_and_shares_keys_and_values_with_the_baseline(
    loaded: LoadedModel, profile: Profile
):
    assert kv_cache_key(Steering((without(profile, *ALL[:4]),)), loaded.anatomy.sizes) == ()


def test_a_gate_goes_with_the_last_part_that_it_gates(loaded: LoadedModel):
    gated = build_profile(
        loaded, "gated", heads=[(0, 1, 2.0)], self_only_attention=1.0, intercept_scale=0.5, gate=(0.1, 0.5)
    )
    assert without(gated, "final_layer.own_attention").gate is not None
    assert without(gated, "final_layer").gate is None
    other = ProfileAtStrength(build_profile(loaded, "other", self_only_attention=1.0, gate=(0.2, 0.3)))
    with pytest.raises(GateError):
        Steering((ProfileAtStrength(gated), other))
    assert Steering((without(gated, "final_layer"), other)).gate == other.gate


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["L1H3"], r"^all does not change L1H3; allowed: L1H2 and others, 6 in all$"),
        (["L0H1", "L9N1"], r"^all does not change L9N1; allowed: L0H1, L1H2, .*intercept$"),
        (["11.2"], "^'11.2' is not a component; allowed: a head such as L11H2, a neuron such as L3N120, final_layer"),
        (["L01H2"], "'L01H2' is not a component"),
        (["l0h1"], "'l0h1' is not a component"),
        ([""], "'' is not a component"),
        (["L0H1\n"], r"'L0H1\\n' is not a component"),
        (["x" * 9999], r"'xx.*\.\.\.' is not a component"),
        (["final_layer.gate"], "is not a component"),
    ],
    ids=str,
)
def test_a_component_that_is_not_there_is_refused_by_name(profile: Profile, names: list[str], says: str):
    with pytest.raises(ComponentError, match=says) as caught:
        leave_out([ProfileAtStrength(profile)], names)
    assert len(str(caught.value)) < 250


def test_a_final_layer_that_is_not_changed_cannot_be_left_out(loaded: LoadedModel):
    heads = build_profile(loaded, "heads", heads=[(0, 1, 2.0)])
    with pytest.raises(ComponentError, match="heads does not change final_layer; allowed: L0H1"):
        leave_out([ProfileAtStrength(heads)], ["final_layer"])
