"""Hooks are attached together, do nothing outside of a step, and raise an error if they did not run."""

import copy
from collections import OrderedDict
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from steering_profiles.errors import HookError
from steering_profiles.models import LoadedModel
from steering_profiles.steering import UNSTEERED, SteeringHandle, attach
from tests.builders import build_profile, every_effect, steer
from tests.library.running import hooks_on, logits, steered_logits


@pytest.fixture
def handle(tiny: LoadedModel) -> Iterator[SteeringHandle]:
    handle = attach(tiny)
    yield handle
    handle.remove()


class NoAttention(nn.Module):
    """Takes attention's place and adds nothing to the residual stream."""

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, None]:
        return torch.zeros_like(hidden_states), None


def replace_attention(loaded: LoadedModel, layer: int) -> None:
    path = loaded.anatomy.family.head_output.rpartition(".")[0]
    loaded.anatomy.layers[layer].block.set_submodule(path, NoAttention())


def replace_mlp(loaded: LoadedModel, layer: int) -> None:
    loaded.anatomy.layers[layer].block.set_submodule(loaded.anatomy.family.mlp, nn.Identity())


def test_removing_the_hooks_restores_the_plain_model(tiny: LoadedModel):
    before = logits(tiny)
    handle = attach(tiny)
    with handle.applied([every_effect(tiny)["all"]]):
        assert not torch.equal(logits(tiny), before)
    handle.remove()
    assert torch.equal(logits(tiny), before)
    assert hooks_on(tiny) == 0


def test_removing_twice_is_allowed(tiny: LoadedModel):
    handle = attach(tiny)
    handle.remove()
    handle.remove()
    assert hooks_on(tiny) == 0


@pytest.mark.parametrize(
    ("layer", "part"), [(0, "head_output"), (1, "neuron_output"), (2, "head_output"), (2, "values"), (2, "mlp")]
)
def test_attaching_is_all_or_nothing(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch, layer: int, part: str):
    def refuse(*args, **kwargs):
        raise RuntimeError("no hooks on this one")

    module = getattr(tiny.anatomy.layers[layer], part)
    for method in ("register_forward_hook", "register_forward_pre_hook"):
        monkeypatch.setattr(module, method, refuse)
    with pytest.raises(RuntimeError, match="no hooks on this one"):
        attach(tiny)
    assert hooks_on(tiny) == 0


def test_a_forward_pass_outside_of_a_step_is_not_steered(tiny: LoadedModel):
    plain = logits(tiny)
    handle = attach(tiny)
    handle.acquire(every_effect(tiny)["all"])
    assert torch.equal(logits(tiny), plain)
    with handle.applied([every_effect(tiny)["all"]]):
        logits(tiny)
    assert torch.equal(logits(tiny), plain)


@pytest.mark.parametrize("effect", ["heads", "neurons", "self-only attention", "intercept"])
def test_a_step_without_a_forward_pass_is_an_error(tiny: LoadedModel, handle: SteeringHandle, effect: str):
    with pytest.raises(HookError, match="the output was not steered"), handle.applied([every_effect(tiny)[effect]]):
        pass


@pytest.mark.parametrize("effect", ["heads", "neurons", "self-only attention", "intercept"])
def test_a_row_at_strength_zero_needs_no_hooks_to_fire(tiny: LoadedModel, handle: SteeringHandle, effect: str):
    at_zero = steer(*(applied.profile for applied in every_effect(tiny)[effect]), strength=0.0)
    with handle.applied([UNSTEERED, at_zero]):
        pass


def test_a_head_that_the_model_skips_is_an_error_that_names_its_layer(tiny: LoadedModel, handle: SteeringHandle):
    replace_attention(tiny, layer=1)
    steering = steer(build_profile(tiny, heads=[(0, 0, 2.0), (1, 0, 2.0)]))
    with pytest.raises(HookError, match=r"no hook ran for heads of layer 1$"), handle.applied([steering]):
        logits(tiny)


def test_a_neuron_that_the_model_skips_is_an_error_that_names_its_layer(tiny: LoadedModel, handle: SteeringHandle):
    replace_mlp(tiny, layer=1)
    steering = steer(build_profile(tiny, neurons=[(0, 0, 2.0), (1, 0, 2.0)]))
    with pytest.raises(HookError, match=r"no hook ran for neurons of layer 1$"), handle.applied([steering]):
        logits(tiny)


def test_a_final_attention_that_the_model_skips_is_an_error(tiny: LoadedModel, handle: SteeringHandle):
    replace_attention(tiny, layer=2)
    with (
        pytest.raises(HookError, match="self-only attention"),
        handle.applied([every_effect(tiny)["self-only attention"]]),
    ):
        logits(tiny)


def test_a_final_value_projection_that_the_model_skips_is_an_error(tiny: LoadedModel, handle: SteeringHandle):
    """Its weights used without calling it, the way fused kernels do, leave no own value to mix in."""
    stand_in = copy.copy(tiny.anatomy.final_layer.values)
    stand_in._forward_hooks = OrderedDict()
    tiny.anatomy.final_layer.block.set_submodule(tiny.anatomy.family.values, stand_in)
    with (
        pytest.raises(HookError, match="self-only attention"),
        handle.applied([every_effect(tiny)["self-only attention"]]),
    ):
        logits(tiny)


def test_a_final_mlp_that_the_model_skips_is_an_error(tiny: LoadedModel, handle: SteeringHandle):
    replace_mlp(tiny, layer=2)
    with pytest.raises(HookError, match="final-layer intercept"), handle.applied([every_effect(tiny)["intercept"]]):
        logits(tiny)


def test_the_step_after_a_failed_one_steers(tiny: LoadedModel, handle: SteeringHandle):
    steering = every_effect(tiny)["all"]
    with pytest.raises(HookError), handle.applied([steering]):
        pass
    with handle.applied([steering]):
        after = logits(tiny)
    handle.remove()
    assert torch.equal(after, steered_logits(tiny, steering))


def test_an_error_inside_a_step_is_raised_before_that_of_hooks_that_did_not_fire(
    tiny: LoadedModel, handle: SteeringHandle
):
    with pytest.raises(ZeroDivisionError), handle.applied([every_effect(tiny)["heads"]]):
        raise ZeroDivisionError
