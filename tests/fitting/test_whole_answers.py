"""Fits to whole answers: their gradient, their ranking, and a fit that makes more of them right."""

from dataclasses import replace

import pytest
import torch

from steering_profiles.conditions import Condition
from steering_profiles.errors import TaskError
from steering_profiles.evaluation import TokenPredictor
from steering_profiles.fit_settings import KINDS, MARGIN
from steering_profiles.fitting import FitSettings, StepwiseSettings, explain, fit, fit_final_layer, rank_components
from steering_profiles.fitting.choice import steering_of
from steering_profiles.fitting.components import Component, ScaleSet
from steering_profiles.fitting.gradient import DifferentiableScales
from steering_profiles.models import LoadedModel
from steering_profiles.steering import TextReader, attach, steered_logits
from steering_profiles.tasks.task import Example, Task, next_token_examples
from steering_profiles.tokenization import Continuations
from tests.builders import build_model, greedy
from tests.short_texts import use_short_texts

EXAMPLES = [
    Example("x", "", (5, 6, 7), 40, rest=(41, 42), ends_with="a"),
    Example("x", "", (9, 9), 41, rest=(50,), ends_with=")"),
    Example("x", "", (1, 2, 3), 42),
    Example("x", "", (11, 12, 13, 14, 15), 43, ends_with="7"),
]
SCALES = {Component("head", 0, 1): 1.5, Component("neuron", 1, 7): 2.0}
CONDITIONS = {"everywhere": None, "at some positions": Condition(last_token=[6, 2, 9, 40, 41])}


@torch.no_grad()
def leads(loaded: LoadedModel, scales: dict[Component, float], condition: Condition | None = None) -> list[float]:
    """The leads of ``EXAMPLES`` the slow, obvious way: token by token, and at the end over all of the vocabulary."""
    handle, reader, continuations = attach(loaded), TextReader(loaded.tokenizer), Continuations(loaded.tokenizer)
    found = []
    for example in EXAMPLES:
        steering = steering_of([ScaleSet(scales, condition)], loaded.identity)
        text, of_answer = list(example.prompt), []
        for token in (*example.whole_answer, None) if example.ends_with else (example.answer,):
            tokens = torch.tensor([text])
            held = reader.held(steering, [(text, len(example.prompt))], len(text))
            logits = steered_logits(handle, [steering], lambda tokens=tokens: loaded.model(tokens).logits, held)[0, -1]
            if token is None:
                on = [one for one in range(len(logits)) if continuations.goes_on(example.ends_with, one)]
                off = [one for one in range(len(logits)) if one not in on]
                of_answer.append(float(logits[off].max() - logits[on].max()))
            else:
                others = torch.cat([logits[:token], logits[token + 1 :]])
                of_answer.append(float(logits[token] - others.max()))
                text.append(token)
        found.append(min(of_answer))
    handle.remove()
    return found


def loss(loaded: LoadedModel, scales: dict[Component, float], condition: Condition | None) -> float:
    return sum(max(0.0, MARGIN - lead) for lead in leads(loaded, scales, condition)) / len(EXAMPLES)


@pytest.mark.parametrize("where", CONDITIONS)
@pytest.mark.parametrize("scales", [{}, SCALES], ids=["plain", "scaled"])
def test_the_gradient_is_that_of_the_weakest_token_by_finite_differences(
    tiny: LoadedModel, scales: dict[Component, float], where: str
):
    condition = CONDITIONS[where]
    with DifferentiableScales(tiny, KINDS, condition) as model:
        slope = model.of_answers(EXAMPLES, scales)
    assert slope.leads == pytest.approx(leads(tiny, scales, condition), rel=1e-5)
    assert slope.loss == pytest.approx(loss(tiny, scales, condition), rel=1e-5)
    for component in (Component("head", 0, 1), Component("head", 2, 3), Component("neuron", 1, 7)):
        at, step = scales.get(component, 1.0), 3e-3
        up, down = (loss(tiny, {**scales, component: at + sign * step}, condition) for sign in (1, -1))
        found = float(slope.by_kind[component.kind][component.layer, component.index])
        assert found == pytest.approx((up - down) / (2 * step), rel=5e-3, abs=1e-6)


def test_a_lead_is_above_0_exactly_where_the_whole_answer_is_right(tiny: LoadedModel):
    examples = []
    for start in range(0, 60, 3):
        prompt = (start, start + 7, 3)
        generated = greedy(tiny, prompt, tokens=3)
        generated[2] += start % 2
        examples.append(
            Example("g", "", prompt, generated[0], rest=tuple(generated[1:]), ends_with="a)"[start % 4 // 2])
        )
    with DifferentiableScales(tiny, ["head"]) as model, TokenPredictor(tiny) as predictor:
        right = predictor.correct(examples)
        assert 0 < sum(right) < len(right)
        assert [lead > 0 for lead in model.of_answers(examples, {}).leads] == right


def test_a_whole_answer_is_one_next_token_example_per_token():
    assert [(one.prompt, one.answer, one.ends_with) for one in next_token_examples(EXAMPLES[1:3])] == [
        ((9, 9), 41, ""), ((9, 9, 41), 50, ""), ((1, 2, 3), 42, "")
    ]  # fmt: skip


def task_of(examples: list[Example]) -> Task:
    some = tuple(examples)
    return Task(name="t", seed=0, groups=tuple({one.group: None for one in some}), train=some, dev=some, test=some)


def test_the_ranking_looks_at_every_token_of_whole_answers(tiny: LoadedModel):
    whole = rank_components(tiny, task_of(EXAMPLES), FitSettings(kinds=KINDS))
    tokens = rank_components(tiny, task_of(list(next_token_examples(EXAMPLES))), FitSettings(kinds=KINDS))
    assert whole.components == tokens.components
    assert torch.equal(whole.reliability.recall, tokens.reliability.recall)
    first = rank_components(
        tiny, task_of([replace(e, rest=(), ends_with="") for e in EXAMPLES]), FitSettings(kinds=KINDS)
    )
    assert whole.components != first.components or not torch.equal(whole.reliability.recall, first.reliability.recall)


def test_whole_answers_give_no_sub_task_a_single_token():
    one = [Example(group, "", (5, 6), answer) for group, answer in (("a", 40), ("b", 41))]
    assert task_of(one).answers == {"a": 40, "b": 41}
    assert task_of([replace(example, rest=(7,), ends_with="x") for example in one]).answers == {}


def test_a_fit_makes_whole_answers_right(monkeypatch: pytest.MonkeyPatch):
    """The answers are what a scaled model generates, so that scales can reach them."""
    use_short_texts(monkeypatch)
    loaded = build_model("llama")
    steering = steering_of([ScaleSet({Component("head", 1, 2): 2.5, Component("head", 2, 0): 2.0})], loaded.identity)
    examples = []
    for start in range(30):
        prompt = (start, 2 * start + 5, 9)
        first, *rest = greedy(loaded, prompt, steering, 2)
        examples.append(Example("a", str(prompt), prompt, first, rest=tuple(rest), ends_with="\0"))
    settings = StepwiseSettings(
        max_steps=16, validation_interval=2, step=0.4, max_scale=4.0, text_weight=0.0, max_nll_increase=100.0
    )
    result = fit(loaded, task_of(examples), name="t", command="", settings=FitSettings(stepwise=settings))
    assert result.before.correct < 25, "the plain model answers nearly all, so this would prove little"
    assert result.after.correct >= result.before.correct + 3


def test_methods_that_look_at_the_next_token_refuse_whole_answers(tiny: LoadedModel):
    task = task_of(EXAMPLES)
    for what, run in (
        ("method final-layer", lambda: fit_final_layer(tiny, task, name="t", command="")),
        ("an explanation", lambda: explain(tiny, task)),
    ):
        with pytest.raises(TaskError, match=f"{what} looks at the next token only, and task t asks for whole answers"):
            run()
