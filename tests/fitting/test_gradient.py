"""Gradients with respect to scales, compared with finite differences through the hooks of serving."""

from collections.abc import Sequence

import pytest
import torch

from steering_profiles.conditions import Condition
from steering_profiles.evaluation import TextPredictor, Window
from steering_profiles.fit_settings import KINDS, MARGIN
from steering_profiles.fitting.choice import steering_of
from steering_profiles.fitting.components import Component, ScaleSet
from steering_profiles.fitting.gradient import DifferentiableScales
from steering_profiles.models import LoadedModel
from steering_profiles.steering import TextReader, attach, steered_logits
from steering_profiles.tasks.task import Example

EXAMPLES = [Example("x", "", (5, 6, 7), 40), Example("x", "", (9, 9), 41), Example("x", "", (1, 2, 3), 42)]
SCALES = {Component("head", 0, 1): 1.5, Component("neuron", 1, 7): 2.0}


CONDITIONS = {"everywhere": None, "at some positions": Condition(last_token=[6, 2, 9])}
BESIDE = ScaleSet({Component("head", 1, 0): 3.0, Component("neuron", 0, 2): -1.0}, Condition(last_token=[5, 1, 9]))


@torch.no_grad()
def loss(
    loaded: LoadedModel,
    scales: dict[Component, float],
    condition: Condition | None = None,
    beside: Sequence[ScaleSet] = (),
    margin: float = MARGIN,
) -> float:
    total, handle, reader = 0.0, attach(loaded), TextReader(loaded.tokenizer)
    for example in EXAMPLES:
        steering = steering_of([*beside, ScaleSet(scales, condition)], loaded.identity)
        tokens = torch.tensor([example.prompt])
        held = reader.held(steering, [(example.prompt, len(example.prompt))], len(example.prompt))
        logits = steered_logits(handle, [steering], lambda tokens=tokens: loaded.model(tokens).logits, held)[0, -1]
        others = torch.cat([logits[: example.answer], logits[example.answer + 1 :]])
        total += max(0.0, margin - float(logits[example.answer] - others.max()))
    handle.remove()
    return total / len(EXAMPLES)


def test_with_a_margin_answers_have_a_loss_up_to_that_lead(tiny: LoadedModel):
    losses = []
    for margin in (0.5, 1.0, 8.0):
        with DifferentiableScales(tiny, KINDS, margin=margin) as model:
            slope = model.of_answers(EXAMPLES, SCALES)
        losses.append(slope.loss)
        assert slope.loss == pytest.approx(loss(tiny, SCALES, margin=margin), rel=1e-5)
        assert slope.loss == pytest.approx(sum(max(0.0, margin - lead) for lead in slope.leads) / len(EXAMPLES))
    assert losses == sorted(set(losses))


@pytest.mark.parametrize("where", CONDITIONS)
@pytest.mark.parametrize("scales", [{}, SCALES], ids=["plain", "scaled"])
@pytest.mark.parametrize("beside", [(), (BESIDE,)], ids=["alone", "beside others"])
def test_the_gradient_is_that_of_finite_differences(
    tiny: LoadedModel, scales: dict[Component, float], where: str, beside: Sequence[ScaleSet]
):
    condition = CONDITIONS[where]
    with DifferentiableScales(tiny, KINDS, condition, beside) as model:
        slope = model.of_answers(EXAMPLES, scales)
    assert slope.loss == pytest.approx(loss(tiny, scales, condition, beside), rel=1e-5)
    for component in (Component("head", 0, 1), Component("head", 2, 3), Component("neuron", 1, 7)):
        at, step = scales.get(component, 1.0), 3e-3
        up, down = (loss(tiny, {**scales, component: at + sign * step}, condition, beside) for sign in (1, -1))
        expected = (up - down) / (2 * step)
        assert expected != 0
        assert float(slope.by_kind[component.kind][component.layer, component.index]) == pytest.approx(
            expected, rel=5e-3, abs=1e-6
        )


def test_scales_that_are_in_place_change_the_loss(tiny: LoadedModel):
    assert loss(tiny, {}, None, [BESIDE]) != loss(tiny, {})


@pytest.mark.parametrize("where", CONDITIONS)
def test_the_gradient_of_text_is_that_of_finite_differences(tiny: LoadedModel, where: str):
    windows, condition = [Window((5, 6, 7, 8, 9), 2), Window((1, 2, 3), 1)], CONDITIONS[where]

    def nll(scales: dict[Component, float]) -> float:
        with TextPredictor(tiny) as predictor:
            steering = steering_of([ScaleSet(scales, condition)], tiny.identity)
            return predictor.measure({"text": windows}, steering).texts[0].nll_after

    with DifferentiableScales(tiny, KINDS, condition) as model:
        slope = model.of_texts(windows, SCALES)
    assert slope.loss == pytest.approx(nll(SCALES), rel=1e-5)
    for component in SCALES:
        up, down = (nll({**SCALES, component: SCALES[component] + sign * 3e-3}) for sign in (1, -1))
        found = float(slope.by_kind[component.kind][component.layer, component.index])
        assert found == pytest.approx((up - down) / 6e-3, rel=5e-3, abs=1e-6)


def test_an_answer_with_a_sufficient_margin_has_no_gradient(tiny: LoadedModel):
    with torch.no_grad():
        tiny.anatomy.unembedding.weight[40] = 0
        logits = tiny.model(torch.tensor([(5, 6, 7)])).logits[0, -1]
        best = int(logits.argmax())
        tiny.anatomy.unembedding.weight[best] *= 10
    with DifferentiableScales(tiny, ["head"]) as model:
        slope = model.of_answers([Example("x", "", (5, 6, 7), best)], {})
    assert slope.loss == 0
    assert not slope.by_kind["head"].any()


def test_the_model_is_plain_between_and_after_gradients(tiny: LoadedModel):
    tokens = torch.tensor([[5, 6, 7]])
    before = tiny.model(tokens).logits
    trained = [parameter.requires_grad for parameter in tiny.model.parameters()]
    with DifferentiableScales(tiny, KINDS) as model:
        model.of_answers(EXAMPLES, SCALES)
        assert torch.equal(tiny.model(tokens).logits, before)
    assert torch.equal(tiny.model(tokens).logits, before)
    assert [parameter.requires_grad for parameter in tiny.model.parameters()] == trained
    assert all(parameter.grad is None for parameter in tiny.model.parameters())
