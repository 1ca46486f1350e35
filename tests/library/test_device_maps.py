"""Models with layers on disk, offloaded or on several devices are steered as those in memory."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from steering_profiles.models import LoadedModel, head_contributions, recorded
from steering_profiles.models.norms import Norm
from steering_profiles.models.projections import input_major
from steering_profiles.steering import UNSTEERED
from tests.library.precision import InDouble
from tests.library.running import ROUND_OFF, TOKENS, logits, steered_logits
from tests.library.test_families import decoded_token_by_token, effects, every_position
from tests.placing import PLACED, PLACEMENTS, load_placed, save_family


@pytest.fixture(params=PLACED)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(case: str, tmp_path: Path) -> Path:
    return save_family(case, tmp_path / "model")


@pytest.fixture
def whole(case: str, folder: Path) -> LoadedModel:
    return load_placed(case, folder)


@pytest.fixture(params=PLACEMENTS)
def placed(case: str, folder: Path, request: pytest.FixtureRequest) -> LoadedModel:
    return load_placed(case, folder, request.param)


@pytest.fixture(autouse=True)
def _in_double(whole: LoadedModel, placed: LoadedModel) -> Iterator[None]:
    with InDouble():
        yield


def on_its_device(loaded: LoadedModel) -> Tensor:
    return TOKENS.to(loaded.input_device)


def test_every_placement_keeps_some_weights_out_of_memory(placed: LoadedModel):
    assert any(parameter.device.type != "cpu" for parameter in placed.model.parameters())
    assert all(device.type != "meta" for device in placed.layer_devices)


def test_a_mixed_batch_is_steered_as_in_memory(whole: LoadedModel, placed: LoadedModel):
    expected = steered_logits(whole, *effects(whole).values())
    actual = steered_logits(placed, *effects(placed).values(), tokens=on_its_device(placed))
    torch.testing.assert_close(actual.cpu(), expected, **ROUND_OFF)
    plain = list(effects(whole).values()).index(UNSTEERED)
    assert all(not torch.allclose(row, expected[plain]) for i, row in enumerate(expected) if i != plain)


def test_strength_zero_is_bit_identical_to_the_plain_model(placed: LoadedModel):
    plain = logits(placed, on_its_device(placed))
    nothing = UNSTEERED
    assert torch.equal(steered_logits(placed, nothing, tokens=on_its_device(placed)), plain)


def test_cached_decoding_gives_the_logits_of_a_model_in_memory(whole: LoadedModel, placed: LoadedModel):
    expected = decoded_token_by_token(whole, list(effects(whole).values()))
    actual = decoded_token_by_token(placed, list(effects(placed).values()))
    torch.testing.assert_close(actual.cpu(), expected, **ROUND_OFF)


def test_contributions_to_the_residual_stream_are_those_of_a_model_in_memory(whole: LoadedModel, placed: LoadedModel):
    layers = range(whole.anatomy.sizes.layers)
    with recorded(whole.anatomy, layers, every_position) as expected:
        logits(whole)
    with recorded(placed.anatomy, layers, every_position) as actual:
        logits(placed, on_its_device(placed))
    for layer in layers:
        heads = head_contributions(placed.anatomy, layer, actual[layer])
        torch.testing.assert_close(heads.cpu(), head_contributions(whole.anatomy, layer, expected[layer]), **ROUND_OFF)
        for field in ("residual_stream", "mlp", "mlp_scale"):
            one, other = getattr(actual[layer], field), getattr(expected[layer], field)
            torch.testing.assert_close(one.cpu(), other, **ROUND_OFF)


def test_reading_weights_does_not_move_them(whole: LoadedModel, placed: LoadedModel):
    before = {name: parameter.device for name, parameter in placed.model.named_parameters()}
    for layer in range(whole.anatomy.sizes.layers):
        expected = input_major(whole.anatomy.layers[layer].head_output)
        assert torch.equal(input_major(placed.anatomy.layers[layer].head_output).cpu(), expected)
    assert torch.equal(placed.anatomy.unembedding_weight().cpu(), whole.anatomy.unembedding_weight())
    if whole.anatomy.final_norm is not None and placed.anatomy.final_norm is not None:
        kind, hidden_size = whole.anatomy.family.norm, whole.anatomy.sizes.hidden_size
        gain = Norm(placed.anatomy.final_norm, kind, hidden_size).gain
        assert torch.equal(gain.cpu(), Norm(whole.anatomy.final_norm, kind, hidden_size).gain)
    # A tied weight on disk has one placeholder or two.
    assert before.items() <= {name: parameter.device for name, parameter in placed.model.named_parameters()}.items()
