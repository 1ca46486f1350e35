"""Calibration of answers, and the tuned temperature that a profile is compared with."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steering_profiles.evaluation import (
    CalibrationComparison,
    ScoredAnswer,
    TokenPredictor,
    compare_calibration,
    tune_temperature,
)
from steering_profiles.evaluation.calibration import BINS, calibrate, calibrate_arm, calibrate_groups
from steering_profiles.models import LoadedModel
from steering_profiles.tasks.task import Example
from tests.builders import build_model, build_profile, steer


def answered(correct: bool, confidence: float, probability: float | None = None, group: str = "a") -> ScoredAnswer:
    own = confidence if correct else confidence / 4
    return ScoredAnswer(group, correct, math.log(own if probability is None else probability), confidence)


@st.composite
def some_answers(draw: st.DrawFn) -> list[ScoredAnswer]:
    shares = st.floats(0.001, 1)
    return [
        answered(draw(st.booleans()), draw(shares), group=draw(st.sampled_from("ab")))
        for _ in range(draw(st.integers(1, 30)))
    ]


def prompts(loaded: LoadedModel, count: int = 24) -> list[Example]:
    """Prompts of two lengths; half of the answers are what the model predicts, the others any token."""
    draw = torch.Generator().manual_seed(3)
    examples = []
    for index in range(count):
        prompt = tuple(torch.randint(0, 250, (4 + index % 2,), generator=draw).tolist())
        with torch.no_grad():
            likeliest = int(loaded.model(torch.tensor([prompt])).logits[0, -1].argmax())
        examples.append(Example("even" if index % 4 < 2 else "odd", "", prompt, likeliest if index % 2 else index))
    return examples


def reference_logits(loaded: LoadedModel, examples: list[Example]) -> np.ndarray:
    with torch.no_grad():
        return np.stack([loaded.model(torch.tensor([e.prompt])).logits[0, -1].double().numpy() for e in examples])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )


def test_figures_of_four_answers_match_a_calculation_by_hand():
    found = calibrate(
        [answered(True, 0.95), answered(True, 0.91), answered(False, 0.92, 0.02), answered(False, 0.3, 0.3)]
    )
    assert (found.total, found.correct, found.accuracy) == (4, 2, 0.5)
    assert found.probability == pytest.approx((0.95 + 0.91 + 0.02 + 0.3) / 4)
    assert found.nll == pytest.approx(-sum(map(math.log, (0.95, 0.91, 0.02, 0.3))) / 4)
    assert found.confidence == pytest.approx((0.95 + 0.91 + 0.92 + 0.3) / 4)
    assert [one.count for one in found.bins] == [0, 0, 1, 0, 0, 0, 0, 0, 0, 3]  # 0.3 is in the bin that ends at it
    # Three at a mean confidence of 0.92667 of which two are correct, one at 0.3 that is wrong.
    assert found.error == pytest.approx((3 * abs(2 / 3 - 2.78 / 3) + 1 * 0.3) / 4)


def test_the_error_of_a_calibrated_model_is_0():
    assert calibrate([answered(i < 8, 0.8) for i in range(10)]).error == pytest.approx(0)
    assert calibrate([answered(True, 1.0)] * 5).error == 0


def test_the_error_of_a_model_that_is_always_confident_and_wrong_is_1():
    assert calibrate([answered(False, 1.0)] * 5).error == 1


@given(some_answers())
def test_the_error_lies_between_the_overall_gap_and_1(answers: list[ScoredAnswer]):
    found = calibrate(answers)
    assert abs(found.accuracy - found.confidence) - 1e-9 <= found.error <= 1
    assert sum(one.count for one in found.bins) == found.total
    assert len(found.bins) == BINS


@given(some_answers())
def test_the_whole_is_the_mean_of_its_groups_by_size(answers: list[ScoredAnswer]):
    found = calibrate_groups(answers)
    parts = found.groups.values()
    assert found.pooled.nll == pytest.approx(sum(part.total * part.nll for part in parts) / found.pooled.total)
    assert found.balanced_nll == pytest.approx(sum(part.nll for part in parts) / len(parts))
    assert found.accuracy.correct == found.pooled.correct


def test_answers_are_split_by_whether_the_baseline_answers_the_same_prompt_correctly():
    plain = [answered(True, 0.9), answered(False, 0.8), answered(False, 0.7, group="b")]
    steered = [answered(False, 0.5), answered(True, 0.6), answered(False, 0.4, group="b")]
    arm = calibrate_arm(steered, plain)
    assert (arm.all_prompts.pooled.correct, arm.baseline_correct.pooled.correct, arm.baseline_wrong.pooled.correct) == (
        1,
        0,
        1,
    )
    assert arm.baseline_correct.pooled.confidence == pytest.approx(0.5)
    assert arm.baseline_correct.groups["b"].total == 0
    assert arm.baseline_wrong.groups["b"].total == 1


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=40))
def test_the_interval_of_the_mean_probability_holds_it_and_stays_within_0_and_1(shares: list[float]):
    found = calibrate([answered(True, share) for share in shares])
    low, high = found.probability_interval
    assert 0 <= low <= found.probability + 1e-12
    assert found.probability - 1e-12 <= high <= 1


def test_the_interval_of_the_mean_probability_is_that_of_the_normal_approximation():
    shares = np.random.default_rng(0).uniform(0.2, 0.8, 400)
    low, high = calibrate([answered(True, share) for share in shares]).probability_interval
    half = 1.959964 * shares.std() / 20
    assert (low, high) == pytest.approx((shares.mean() - half, shares.mean() + half))


def test_answers_match_a_softmax_in_float64(tiny: LoadedModel):
    examples = prompts(tiny)
    likely = log_softmax(reference_logits(tiny, examples))
    with TokenPredictor(tiny) as predictor:
        found = predictor.answers(examples)
        accuracy = predictor.accuracy(examples)
    for row, example, answer in zip(likely, examples, found, strict=True):
        assert answer.group == example.group
        assert answer.correct == (row.argmax() == example.answer)
        assert answer.log_probability == pytest.approx(row[example.answer])
        assert answer.confidence == pytest.approx(np.exp(row.max()))
    assert calibrate_groups(found).accuracy == accuracy
    assert 0 < accuracy.correct < accuracy.total


def test_scored_answers_and_accuracy_agree_in_half_precision():
    loaded = build_model("llama", dtype=torch.bfloat16)
    examples = prompts(loaded, 60)
    with TokenPredictor(loaded) as predictor:
        assert calibrate_groups(predictor.answers(examples)).accuracy == predictor.accuracy(examples)


def test_the_tuned_temperature_is_the_best_of_a_dense_grid(tiny: LoadedModel):
    examples = prompts(tiny)
    logits = reference_logits(tiny, examples)
    answers = np.array([example.answer for example in examples])
    even = np.array([example.group == "even" for example in examples])

    def nll(temperature: float) -> float:
        of_answers = -log_softmax(logits / temperature)[np.arange(len(answers)), answers]
        return float((of_answers[even].mean() + of_answers[~even].mean()) / 2)

    with TokenPredictor(tiny) as predictor:
        temperature, figures = tune_temperature(predictor, examples)
    dense = np.geomspace(1 / 8, 8, 4001)
    best = min(map(nll, dense))
    assert 1 / 8 < temperature < 8
    assert temperature != 1
    assert figures.balanced_nll == pytest.approx(nll(temperature))
    assert best - 1e-12 <= nll(temperature) < best + 1e-3
    assert nll(temperature) < nll(1)


def test_a_comparison_has_each_arm_as_it_is_measured_alone_and_survives_json(tiny: LoadedModel):
    examples, steering = prompts(tiny), steer(build_profile(tiny, self_only_attention=1.0))
    with TokenPredictor(tiny) as predictor:
        compared = compare_calibration(predictor, examples, steering, 1.7)
        plain, steered = predictor.answers(examples), predictor.answers(examples, steering)
        warm = predictor.answers_at(examples, (1.7,))[1.7]
    assert plain != steered
    assert compared.baseline == calibrate_arm(plain, plain)
    assert compared.profile == calibrate_arm(steered, plain)
    assert compared.tempered == calibrate_arm(warm, plain)
    assert compared.tempered.all_prompts.accuracy == compared.baseline.all_prompts.accuracy
    assert CalibrationComparison.from_json(json.loads(json.dumps(compared.to_json()))) == compared


def test_json_has_the_keys_that_steer_evaluate_writes():
    answers = [answered(True, 0.9), answered(False, 0.8)]
    record = CalibrationComparison(*[calibrate_arm(answers, answers)] * 3, temperature=1.5).to_json()
    assert list(record) == ["baseline", "profile", "tempered", "temperature"]
    arm = record["baseline"]
    assert isinstance(arm, dict)
    assert list(arm) == ["every", "right", "wrong"]
    every = arm["every"]
    assert isinstance(every, dict)
    assert list(every) == ["pooled", "groups"]
    pooled = every["pooled"]
    assert isinstance(pooled, dict)
    figures = ["asked", "right", "probability", "deviation", "nll", "confidence", "bins"]
    assert list(pooled) == figures
    assert (pooled["asked"], pooled["right"]) == (2, 1)
