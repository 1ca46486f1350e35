"""Rows of steerings, and the row of each token of a step."""

import numpy as np
import pytest
import torch

from steering_profiles.models import LoadedModel
from steering_profiles.steering import ProfileAtStrength, Steering
from steering_profiles.steering.effects import effect_of
from steering_server.engines.vllm.plugin.prefix_cache import salted
from steering_server.engines.vllm.plugin.tables import Kind, Part, RowCache, Share, SteeringTables, TokenRows, parts_of
from tests.builders import build_model, build_profile

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return build_model("llama")


def steering(loaded: LoadedModel, strength: float = 1.0) -> Steering:
    return Steering((ProfileAtStrength(build_profile(loaded, heads=[(0, 1, 2.0)]), strength),))


def test_the_parts_are_those_that_some_profile_changes(loaded: LoadedModel) -> None:
    profiles = [
        build_profile(loaded, heads=[(0, 1, 2.0), (0, 2, 2.0)], intercept_scale=0.5),
        build_profile(loaded, neurons=[(1, 2, 0.5)], self_only_attention=1.0),
    ]
    assert parts_of(profiles, 3) == (
        Part(0, "heads"),
        Part(1, "neurons"),
        Part(2, "intercept"),
        Part(2, "self_only_attention"),
    )
    layered = build_profile(loaded, final_layers=[(0.5, 0.0, {"from_position": 3}), (0.0, 0.5, {"from_position": 9})])
    assert parts_of([layered], 3) == (Part(2, "intercept"), Part(2, "self_only_attention"))


def test_each_worker_writes_its_own_heads(loaded: LoadedModel) -> None:
    effect = effect_of(steering(loaded), loaded.anatomy.sizes)
    halves = []
    for rank in range(2):
        tables = SteeringTables(3, torch.float32, CPU)
        table = tables.add(Part(0, "heads"), Share(slice(2 * rank, 2 * rank + 2), 4))
        tables.write(1, effect)
        halves.append(table)
    assert halves[0].tolist() == [[1, 1], [1, 2], [1, 1]]
    assert halves[1].tolist() == [[1, 1]] * 3


def test_a_row_that_is_written_again_keeps_nothing(loaded: LoadedModel) -> None:
    tables = SteeringTables(2, torch.float32, CPU)
    table = tables.add(Part(0, "heads"), Share(slice(0, 4), 4))
    tables.write(1, effect_of(steering(loaded), loaded.anatomy.sizes))
    tables.write(1, effect_of(Steering(), loaded.anatomy.sizes))
    assert table[1].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("kind", "unchanged"), [("heads", 1.0), ("neurons", 1.0), ("self_only_attention", 0.0), ("intercept", 0.0)]
)
def test_what_a_profile_does_not_change_is_multiplied_by_one_or_has_nothing_added(
    loaded: LoadedModel, kind: Kind, unchanged: float
) -> None:
    tables = SteeringTables(2, torch.float32, CPU)
    table = tables.add(Part(2, kind), Share(slice(0, 4), 4))
    tables.write(1, effect_of(steering(loaded), loaded.anatomy.sizes))  # which scales a head of layer 0
    assert table.tolist() == [[unchanged] * 4] * 2


def test_the_row_used_longest_ago_gives_way(loaded: LoadedModel) -> None:
    written: list[tuple[int, float]] = []
    cache = RowCache(2, lambda row, one: written.append((row, one.profiles[0].strength)))
    one, two, three = (steering(loaded, strength) for strength in (1.0, 2.0, 3.0))
    assert cache.rows_of([one, Steering(), two, one]) == [1, 0, 2, 1]
    assert cache.rows_of([one]) == [1]
    assert cache.rows_of([three]) == [2]  # two's row
    assert cache.rows_of([two, three]) == [1, 2]  # one's row, since three is in the step
    assert written == [(1, 1.0), (2, 2.0), (2, 3.0), (1, 2.0)]


def test_a_step_with_as_many_steerings_as_rows_has_room(loaded: LoadedModel) -> None:
    cache = RowCache(3, lambda row, one: None)
    cache.rows_of([steering(loaded, strength) for strength in (1.0, 2.0, 3.0)])
    rows = cache.rows_of([steering(loaded, strength) for strength in (4.0, 3.0, 5.0)])
    assert sorted(rows) == [1, 2, 3]


def test_padding_after_a_longer_step_is_the_identity() -> None:
    rows = TokenRows(8, CPU)
    rows.fill([1, 2], np.array([3, 2]))
    assert rows.buffer.tolist() == [1, 1, 1, 2, 2, 0, 0, 0]
    rows.fill([2], np.array([1]))
    assert rows.buffer.tolist() == [2, 0, 0, 0, 0, 0, 0, 0]
    rows.dummy_row = 4
    rows.fill_dummy()
    assert rows.buffer.tolist() == [4] * 8
    rows.fill([1], np.array([2]))
    assert rows.buffer.tolist() == [1, 1, 0, 0, 0, 0, 0, 0]


def test_requests_share_a_prefix_where_their_keys_and_values_are_equal(loaded: LoadedModel) -> None:
    sizes = loaded.anatomy.sizes
    early, late = (
        build_profile(loaded, "early", heads=[(0, 1, 2.0)]),
        build_profile(loaded, "late", heads=[(2, 1, 2.0)]),
    )

    def salt(*applied: tuple[object, float], user: str | None = None, length: int = 8) -> str | None:
        return salted(user, Steering(tuple(ProfileAtStrength(profile, s) for profile, s in applied)), sizes, length)  # type: ignore[arg-type]

    assert salt() is None
    assert salt(user="mine") == "mine"
    assert salt((late, 1.0)) is None
    assert salt((late, 1.0), user="mine") == "mine"
    assert salt((early, 1.0)) == salt((early, 1.0), (late, 1.0)) is not None
    assert len({salt((early, 1.0)), salt((early, 0.5)), salt((early, 1.0), user="mine"), None}) == 4
    assert salt((early, 1.0), length=9) == salt((early, 1.0))


def test_a_condition_is_in_the_salt_and_with_it_the_length_of_the_prompt_where_that_is_tested(
    loaded: LoadedModel,
) -> None:
    def salt(length: int, layer: int = 0, **when: object) -> str | None:
        profile = build_profile(loaded, heads=[(layer, 1, 2.0)], when=when or None)
        return salted(None, Steering((ProfileAtStrength(profile),)), loaded.anatomy.sizes, length)

    assert len({salt(8), salt(8, part="completion"), salt(9, part="completion"), salt(8, from_position=3)}) == 4
    assert len({salt(8, part=part) for part in ("prompt", "completion", "last_prompt_token")}) == 3
    assert salt(8, part="last_prompt_token") != salt(9, part="last_prompt_token")
    assert salt(8, from_position=3) == salt(9, from_position=3)
    assert salt(8, layer=2, part="completion") is None  # the last layer's heads change no key or value
