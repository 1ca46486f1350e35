"""The final layer's fit beside the same done by hand: positions, and the intercept of the paper's regression."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from steering_profiles.conditions import Condition
from steering_profiles.errors import TaskError
from steering_profiles.evaluation import TextPredictor, TokenPredictor, text_windows
from steering_profiles.final_layer_fields import INTERCEPT_TENSOR
from steering_profiles.fit_settings import Positions
from steering_profiles.fitting import fit_final_layer
from steering_profiles.fitting.final_layer_candidates import PLAIN, FinalLayerCandidate
from steering_profiles.fitting.final_layer_evaluation import CandidateEvaluator, measured_from_json
from steering_profiles.fitting.gating import TEMPERATURES, Answers, CandidatePredictions
from steering_profiles.models import LoadedModel
from steering_profiles.steering import UNSTEERED, Steering
from steering_profiles.tasks import Example
from steering_profiles.tokenization import Vocabulary
from tests.builders import build_profile, steer
from tests.fitting.test_final_layer import SMALL, answered, prompts, task_answered_by
from tests.short_texts import use_short_texts


@pytest.fixture(autouse=True)
def _short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    use_short_texts(monkeypatch)


def test_settings_at_the_last_prompt_token_answer_as_at_all_positions_and_are_preferred(tiny: LoadedModel):
    both = replace(SMALL, positions=("all", "last"))
    task = replace(task_answered_by(tiny, 1.0, count=400), fit_formats={})
    result = fit_final_layer(tiny, task, name="tiny", command="", settings=both)
    once = {m.candidate: m for m in result.grid if m.candidate.positions == "last"}
    assert once
    for candidate, at_last in once.items():
        everywhere = next(m for m in result.grid if m.candidate == replace(candidate, positions="all"))
        assert at_last.dev == everywhere.dev
        if at_last.other is not None and everywhere.other is not None:
            assert at_last.other.changes == everywhere.other.changes
            assert abs(at_last.other.nll_increase) < abs(everywhere.other.nll_increase)
    assert result.chosen.candidate.positions == "last"
    assert result.profile.when == Condition(part="last_prompt_token")
    assert result.everywhere is not None
    assert result.everywhere.worst.agreement < result.side_effects.worst.agreement


def test_text_is_predicted_by_a_profile_for_the_last_prompt_token_as_the_search_says(tiny: LoadedModel):
    """The search derives it from the plain and the unconditional predictions; here hooks test the condition."""
    task = task_answered_by(tiny, 1.0, count=20)
    changes = {"self_only_attention": 1.0, "intercept_scale": 4.0}
    always = build_profile(tiny, **changes)
    once = build_profile(tiny, **changes, when={"part": "last_prompt_token"})
    windows = text_windows(tiny, "Some text that is long enough to be cut into several windows.", 12)
    assert len(windows) > 2
    with TokenPredictor(tiny) as predictor, TextPredictor(tiny) as text_predictor:

        def known(steering: Steering) -> CandidatePredictions:
            dev = Answers.of(task.dev, predictor.answers_at(task.dev, TEMPERATURES, steering))
            return CandidatePredictions(dev, {}, {"text": text_predictor.token_scores(windows, steering)})

        plain, steered, conditional = (known(one) for one in (UNSTEERED, steer(always), steer(once)))
    found = steered.at_last_prompt_token(plain)
    torch.testing.assert_close(found.texts["text"].nll, conditional.texts["text"].nll, rtol=1e-5, atol=1e-5)
    assert found.dev.score == steered.dev.score
    np.testing.assert_allclose(found.dev.log_probability, conditional.dev.log_probability, rtol=1e-5)
    assert 0 < abs(found.nll_increase(plain)) < abs(steered.nll_increase(plain))


SHORT = Condition(not_=Condition(from_position=8))
"""Holds at the end of a prompt of the tasks here, and not of one of their longer formats."""


def test_what_would_harm_another_format_is_chosen_under_a_condition_that_leaves_it_alone(tiny: LoadedModel):
    task = task_answered_by(tiny, 1.0, -4.0, count=400)
    longer = answered(tiny, [prompt + prompt for prompt in prompts(4, 100)], UNSTEERED)
    task = replace(task, fit_formats={"longer": tuple(longer)}, conditions=(SHORT,))
    always = fit_final_layer(tiny, task, name="tiny", command="", settings=SMALL)
    assert always.rejected is not None
    assert any("the NLL on longer rises" in reason for reason in always.rejected.reasons)
    result = fit_final_layer(tiny, task, name="tiny", command="", settings=replace(SMALL, conditions=True))
    assert result.profile.when == result.chosen.candidate.condition == SHORT
    assert result.chosen.dev.tempered_nll < always.chosen.dev.tempered_nll
    assert result.chosen.other is not None
    plain = result.grid[0].other
    assert plain is not None
    assert result.chosen.other.fit_formats == plain.fit_formats
    assert result.profile.provenance is not None
    assert result.profile.provenance.chosen["condition"] == str(SHORT)


def test_conditions_of_a_task_that_has_none_are_refused(tiny: LoadedModel):
    task = task_answered_by(tiny, 1.0, count=20)
    with pytest.raises(TaskError, match="task constructed has none; leave --conditions out"):
        fit_final_layer(tiny, task, name="tiny", command="", settings=replace(SMALL, conditions=True))


def test_of_settings_that_are_equal_on_dev_those_at_fewer_positions_are_chosen(tiny: LoadedModel):
    task = replace(task_answered_by(tiny, 1.0, count=400), fit_formats={}, conditions=(SHORT,))
    settings = replace(SMALL, positions=("all", "last"), conditions=True)
    result = fit_final_layer(tiny, task, name="tiny", command="", settings=settings)
    equal = [one.candidate for one in result.grid if one.dev == result.chosen.dev]
    assert {(one.positions, one.condition) for one in equal} == {(p, c) for p in ("all", "last") for c in (None, SHORT)}
    assert result.profile.when == Condition(all_=(Condition(part="last_prompt_token"), SHORT))


@pytest.mark.parametrize("positions", ["all", "last"])
def test_predictions_under_a_condition_are_those_of_hooks_that_test_it(tiny: LoadedModel, positions: Positions):
    """The search derives them from the plain and the unconditional predictions."""
    task = task_answered_by(tiny, 1.0, count=20)
    condition = Condition(any_=(Condition(last_token=tuple(range(120))), Condition(matches="e ")))
    task = replace(task, conditions=(condition,))
    settings = replace(SMALL, self_only_attention=(1.0,), lambdas=(0.0,), positions=(positions,), conditions=True)
    texts = {"text": text_windows(tiny, "Some text that is long enough to be cut into several windows.", 12)}
    candidate = FinalLayerCandidate(1.0, 0.0, None, positions=positions, condition=condition)
    always, there = (
        steer(build_profile(tiny, self_only_attention=1.0, when=when and when.model_dump(exclude_none=True)))
        for when in (None, candidate.when)
    )
    with TokenPredictor(tiny) as predictor, TextPredictor(tiny) as text_predictor:
        evaluator = CandidateEvaluator(task, texts, predictor, text_predictor, Vocabulary(tiny.tokenizer), settings)
        [plain] = measured_from_json(PLAIN, evaluator.measure(PLAIN, UNSTEERED, None))
        bare = replace(candidate, positions="all", condition=None)
        unconditional, derived = measured_from_json(bare, evaluator.measure(bare, always, plain))
        unconditional_by_hooks, by_hooks = (
            next(iter(measured_from_json(bare, evaluator.measure(bare, steering, plain))))
            for steering in (always, there)
        )
    assert derived.candidate == candidate
    assert derived.other is not None
    assert by_hooks.other is not None
    assert unconditional == unconditional_by_hooks
    assert derived.dev.accuracy == by_hooks.dev.accuracy
    assert derived.dev.nll == pytest.approx(by_hooks.dev.nll, rel=1e-5)
    assert derived.dev.nll != pytest.approx(unconditional.dev.nll, rel=1e-5)
    assert derived.other.nll_increase == pytest.approx(by_hooks.other.nll_increase, rel=1e-4)


def test_the_intercept_of_the_regression_is_that_of_numpys_least_squares_on_the_models_activations(tiny: LoadedModel):
    """``b = mean(MLP) - sum w mean(input)`` over train, with inputs and output read from the model by plain hooks."""
    task = task_answered_by(tiny, 0.0, -4.0)
    settings = replace(SMALL, sources=("regression",), lambdas=(-4.0,), self_only_attention=(0.0,))
    result = fit_final_layer(tiny, task, name="tiny", command="", settings=settings)
    inputs, outputs = by_hand(tiny, list(task.train))
    centred, mean = inputs - inputs.mean(axis=0), outputs.mean(axis=0)
    stacked = centred.transpose(0, 2, 1).reshape(-1, inputs.shape[1])
    weights, *_ = np.linalg.lstsq(stacked, (outputs - mean).reshape(-1))
    expected = mean - np.einsum("nid,i->d", inputs, weights) / len(inputs)
    found = result.profile.tensors[INTERCEPT_TENSOR]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert not np.allclose(found, mean, rtol=1e-2)
    residual = outputs - mean - np.einsum("nid,i->nd", centred, weights)
    assert result.r2 == pytest.approx(1 - (residual**2).sum() / ((outputs - mean) ** 2).sum(), abs=1e-4)


@torch.no_grad()
def by_hand(loaded: LoadedModel, examples: list[Example]) -> tuple[np.ndarray, np.ndarray]:
    """The inputs ``[prompts, heads + 1, hidden_size]``, the residual stream last, and outputs of the final MLP."""
    layer, sizes = loaded.anatomy.layers[-1], loaded.anatomy.sizes
    weight = loaded.anatomy.head_output_weight(sizes.layers - 1).double()
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        layer.block.register_forward_pre_hook(
            lambda _, args, kwargs: seen.__setitem__("r", (args[0] if args else kwargs["hidden_states"])[0, -1]),
            with_kwargs=True,
        ),
        layer.head_output.register_forward_pre_hook(lambda _, args: seen.__setitem__("z", args[0][0, -1])),
        layer.mlp.register_forward_hook(lambda _, args, output: seen.__setitem__("mlp", output[0, -1])),
    ]
    inputs, outputs = [], []
    for example in examples:
        loaded.model(torch.tensor([example.prompt]))
        heads = seen["z"].double().view(sizes.heads, 1, sizes.head_dim) @ weight
        inputs.append(torch.cat([heads.squeeze(1), seen["r"].double().unsqueeze(0)]))
        outputs.append(seen["mlp"].double())
    for hook in hooks:
        hook.remove()
    return torch.stack(inputs).numpy(), torch.stack(outputs).numpy()
