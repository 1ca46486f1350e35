"""Device maps are complete, or refused before weights are read."""

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steering_profiles.models import LoadedModel
from steering_profiles.models.placement import Device, device_of, explicit_map, require_max_memory
from tests.families import build_family

MODEL: LoadedModel = build_family("llama")
PARTS = [path for path, _ in MODEL.model.named_modules()]
TENSORS = [name for name, _ in (*MODEL.model.named_parameters(), *MODEL.model.named_buffers())]
SOME_PARTS = st.dictionaries(st.sampled_from(PARTS), st.sampled_from(["cpu", "disk"]), max_size=8)


def nearest(tensor: str, given: Mapping[str, Device]) -> Device:
    """The device of the innermost part that holds ``tensor`` and has one."""
    around = [part for part in given if not part or tensor == part or tensor.startswith(f"{part}.")]
    return given[max(around, key=len)]


@given(SOME_PARTS, st.sampled_from(["cpu", "disk"]))
def test_the_innermost_entry_places_each_weight(some: dict[str, Device], otherwise: str):
    device_map = {"": otherwise, **some}
    whole = explicit_map(MODEL.model, device_map)
    for tensor in TENSORS:
        parts = [part for part in whole if not part or tensor == part or tensor.startswith(f"{part}.")]
        assert len(parts) == 1, f"{tensor} is in {parts}"
        assert device_of(tensor, whole) == nearest(tensor, device_map)


@given(SOME_PARTS)
def test_a_device_map_is_refused_if_and_only_if_it_leaves_a_weight_out(some: dict[str, Device]):
    some.pop("", None)
    covered = all(any(tensor.startswith(f"{part}.") for part in some) for tensor in MODEL.model.state_dict())
    if covered:
        explicit_map(MODEL.model, some)
    else:
        with pytest.raises(ValueError, match=r"the device map has no device for .*; an entry for ''"):
            explicit_map(MODEL.model, some)


@pytest.mark.parametrize(("case", "computed"), [("llama", "model.rotary_emb"), ("gptj", "embed_positions")])
def test_a_device_map_may_leave_computed_buffers_out(case: str, computed: str):
    model = build_family(case).model
    leaves = [path for path, module in model.named_modules() if not list(module.children()) and module.state_dict()]
    whole = explicit_map(model, dict.fromkeys(leaves, "cpu"))
    assert set(whole) == set(leaves)
    assert any(computed in name for name, _ in model.named_buffers())


def test_one_device_holds_every_weight():
    assert explicit_map(MODEL.model, "disk") == {"": "disk"}


def test_the_error_names_an_unknown_part_and_some_known_ones():
    with pytest.raises(ValueError, match=r"names 'model\.layer\.1', which is not a part.*model\.embed_tokens"):
        explicit_map(MODEL.model, {"": "cpu", "model.layer.1": "disk"})


@pytest.mark.parametrize("device", ["gpu", "meta", "cpu:0", "", "cuda:99", 99, -1, True, "99"], ids=repr)
def test_the_error_names_a_missing_device_and_the_existing_ones(device: Device):
    expected = rf"device '?{device}'? does not exist; this machine has cpu, disk"
    with pytest.raises(ValueError, match=expected):
        explicit_map(MODEL.model, {"": "cpu", "lm_head": device})


@pytest.mark.parametrize("device", ["sideways", "99"])
def test_the_error_for_a_missing_single_device_names_the_automatic_maps(device: str):
    with pytest.raises(ValueError, match=rf"device '?{device}'? does not exist; .* can also be auto or balanced or"):
        explicit_map(MODEL.model, device)


class TestSeveralAccelerators:
    """On a machine that seems to have two."""

    @pytest.fixture(autouse=True)
    def _two(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)

    @pytest.mark.parametrize("device", [0, 1, "cuda:1", "cuda"])
    def test_a_device_map_may_name_both(self, device: Device):
        assert explicit_map(MODEL.model, {"": device}) == {"": device}

    @pytest.mark.parametrize("device_map", ["1", {"": "1"}])
    def test_the_number_of_a_device_may_be_text(self, device_map: str | dict[str, Device]):
        assert explicit_map(MODEL.model, device_map) == {"": 1}

    def test_layers_may_be_on_both(self):
        assert explicit_map(MODEL.model, {"": 0, "model.layers.1": 1})["model.layers.1"] == 1

    @pytest.mark.parametrize("device", [1, "cpu", "disk"])
    def test_parts_of_one_layer_may_not_be_on_two(self, device: Device):
        device_map = {"": 0, "model.layers.1": 1, "model.layers.2.mlp": device}
        with pytest.raises(ValueError, match=rf"puts parts of model\.layers\.2 on 0 and {device}; "):
            explicit_map(MODEL.model, device_map)

    def test_parts_of_a_layer_may_be_on_disk_beside_one_accelerator(self):
        assert explicit_map(MODEL.model, {"": 0, "model.layers.2.mlp": "disk"})["model.layers.2.mlp"] == "disk"


@pytest.mark.parametrize("device_map", ["cpu", {"": "cpu"}])
def test_max_memory_needs_an_automatic_device_map(device_map: str | dict[str, Device]):
    with pytest.raises(ValueError, match=r"max_memory needs an automatic device map; allowed: auto, "):
        require_max_memory({"cpu": "1GiB"}, device_map)


@pytest.mark.parametrize("size", ["lots", "1", "", "-1GiB", "GiB"])
def test_the_error_names_an_invalid_size(size: str):
    with pytest.raises(ValueError, match=rf"max_memory of cpu is '{size}'; allowed: a size such as 20GiB"):
        require_max_memory({"cpu": size}, "auto")


def test_max_memory_of_a_missing_device_is_refused():
    with pytest.raises(ValueError, match="device 99 does not exist"):
        require_max_memory({99: "1GiB"}, "auto")
