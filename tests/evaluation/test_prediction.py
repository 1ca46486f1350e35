"""Prediction of text with and without steering."""

from statistics import fmean

import pytest
import torch

from steering_profiles.evaluation import TextPredictor, TokenPredictor, Window, prediction, text_windows
from steering_profiles.final_layer_fields import Gate
from steering_profiles.models import LoadedModel
from steering_profiles.steering import UNSTEERED, Steering
from steering_profiles.tasks.task import Example
from tests.builders import build_model, build_profile, every_effect, steer
from tests.library.running import hooks_on, steered_logits

TEXT = "def closing(depth):\n    return ')' * depth\n\nprint(str(str(str(123))))\nAnd then, one day, it rained.\n" * 3
EFFECTS = ("heads", "neurons", "self-only attention", "intercept", "half", "all")


def windows_of(loaded: LoadedModel) -> tuple[Window, ...]:
    """Windows of several lengths, some with several tokens of context."""
    whole = text_windows(loaded, TEXT, 40)
    return (*whole, Window(whole[0].tokens[:17], 9), Window(whole[1].tokens[:5], 4))


def one_by_one(loaded: LoadedModel, windows: tuple[Window, ...], steering: Steering) -> tuple[float, list[int]]:
    """NLL per token and the likeliest tokens, computed window by window without padding."""
    nll, likeliest = 0.0, []
    for window in windows:
        (logits,) = steered_logits(loaded, steering, tokens=torch.tensor([window.tokens]))
        log_probabilities = logits.double().log_softmax(dim=-1)
        for position in range(window.given, len(window.tokens)):
            nll -= float(log_probabilities[position - 1, window.tokens[position]])
            likeliest.append(int(logits[position - 1].argmax()))
    return nll / len(likeliest), likeliest


@pytest.mark.parametrize("effect", EFFECTS)
def test_a_batch_gives_the_figures_of_single_windows(tiny: LoadedModel, effect: str):
    windows, steering = windows_of(tiny), every_effect(tiny)[effect]
    (before, plain), (after, steered) = one_by_one(tiny, windows, UNSTEERED), one_by_one(tiny, windows, steering)
    assert before != pytest.approx(after, rel=1e-6), "the steering changes nothing, so this would prove nothing"
    with TextPredictor(tiny) as predictor:
        (measured,) = predictor.measure({"text": windows}, steering).texts
    assert (measured.name, measured.tokens) == ("text", len(plain))
    assert (measured.nll_before, measured.nll_after) == pytest.approx((before, after), rel=1e-10)
    assert measured.agreement == sum(a == b for a, b in zip(plain, steered, strict=True)) / len(plain)


@pytest.mark.parametrize("effect", EFFECTS)
def test_the_next_tokens_that_are_right_and_the_divergence_are_those_of_single_windows(tiny: LoadedModel, effect: str):
    windows, steering = windows_of(tiny), every_effect(tiny)[effect]
    right, divergences = {UNSTEERED: 0, steering: 0}, []
    for window in windows:
        logits = {
            arm: steered_logits(tiny, arm, tokens=torch.tensor([window.tokens]))[0, window.given - 1 : -1].double()
            for arm in right
        }
        for arm in right:
            right[arm] += int((logits[arm].argmax(dim=-1) == torch.tensor(window.predicted)).sum())
        plain, steered = (logits[arm].log_softmax(dim=-1) for arm in right)
        divergences += (plain.exp() * (plain - steered)).sum(dim=-1).tolist()
    assert fmean(divergences) > 1e-4, "the steering changes nothing, so this would prove nothing"
    with TextPredictor(tiny) as predictor:
        (measured,) = predictor.measure({"text": windows}, steering, divergence=True).texts
    assert measured.correct == tuple(count / len(divergences) for count in right.values())
    assert measured.divergence == pytest.approx(fmean(divergences), rel=1e-9)


@pytest.mark.parametrize("limit", ["MOST_LOGITS", "_MOST_IN_FLOAT32"])
def test_memory_is_bounded_without_changing_the_figures(monkeypatch: pytest.MonkeyPatch, limit: str):
    loaded = build_model("llama")
    windows, steering = windows_of(loaded), every_effect(loaded)["all"]
    with TextPredictor(loaded) as predictor:
        whole = predictor.measure({"text": windows}, steering, divergence=True)
    monkeypatch.setattr(prediction, limit, 1)  # one window at a time; one position at a time
    with TextPredictor(loaded) as predictor:
        (piecewise,) = predictor.measure({"text": windows}, steering, divergence=True).texts
    for name in ("nll_before", "nll_after", "agreement", "correct", "divergence"):
        assert getattr(piecewise, name) == pytest.approx(getattr(whole.texts[0], name), rel=1e-10)


def test_a_gate_decides_at_every_position_of_a_text(tiny: LoadedModel):
    windows, band = windows_of(tiny), Gate(low=0.05, high=0.09)
    settings = {"self_only_attention": 1.0, "intercept_scale": 0.7}
    gated, ungated = (build_profile(tiny, **settings, gate=gate) for gate in ((band.low, band.high), None))
    nll, opened, likeliest = 0.0, [], []
    for window in windows:
        tokens = torch.tensor([window.tokens])
        (closed,), (steered,) = (
            steered_logits(tiny, steering, tokens=tokens) for steering in (UNSTEERED, steer(ungated))
        )
        for position in range(window.given - 1, len(window.tokens) - 1):
            opened.append(band.low <= float(closed[position].float().softmax(dim=-1).max()) <= band.high)
            chosen = (steered if opened[-1] else closed)[position]
            nll -= float(chosen.log_softmax(dim=-1)[window.tokens[position + 1]])
            likeliest.append(int(chosen.argmax()) == int(closed[position].argmax()))
    assert 0.2 < sum(opened) / len(opened) < 0.8
    with TextPredictor(tiny) as predictor:
        (measured,) = predictor.measure({"text": windows}, steer(gated)).texts
    assert measured.nll_after == pytest.approx(nll / len(opened), rel=1e-10)
    assert measured.agreement == sum(likeliest) / len(likeliest)


def test_a_gate_decides_at_the_end_of_every_prompt(tiny: LoadedModel):
    prompts = [tuple((start + 7 * i) % 250 for i in range(9)) for start in range(40)]
    examples = [Example("all", "", prompt, 0) for prompt in prompts]
    gate, settings = Gate(low=0.05, high=0.09), {"self_only_attention": 1.0, "intercept_scale": 0.7}
    gated, ungated = (build_profile(tiny, **settings, gate=gate) for gate in ((gate.low, gate.high), None))
    with TokenPredictor(tiny) as predictor:
        plain, steered, found = (predictor.predict(examples, s) for s in (UNSTEERED, steer(ungated), steer(gated)))
    tops = [
        float(steered_logits(tiny, UNSTEERED, tokens=torch.tensor([p]))[0, -1].float().softmax(-1).max())
        for p in prompts
    ]
    opened = [gate.low <= top <= gate.high for top in tops]
    assert 0.2 < sum(opened) / len(opened) < 0.8
    assert found == [b if chosen else a for a, b, chosen in zip(plain, steered, opened, strict=True)]
    assert found not in (plain, steered)


def test_a_gate_that_never_opens_changes_the_figures_by_exactly_0():
    loaded = build_model("llama", dtype=torch.bfloat16)
    shut = steer(build_profile(loaded, self_only_attention=1.0, gate=(0.0, 1e-9)))
    with TextPredictor(loaded) as predictor:
        (measured,) = predictor.measure({"text": windows_of(loaded)}, shut).texts
    assert (measured.nll_increase, measured.agreement) == (0.0, 1.0)


def test_steering_that_changes_nothing_changes_the_figures_by_exactly_0():
    loaded = build_model("llama", dtype=torch.bfloat16)
    asleep = steer(build_profile(loaded, heads=[(0, 1, 3.0)]), strength=0.0)
    with TextPredictor(loaded) as predictor:
        (measured,) = predictor.measure({"text": windows_of(loaded)}, asleep, divergence=True).texts
    assert (measured.nll_increase, measured.agreement, measured.divergence) == (0.0, 1.0, 0.0)


def test_the_loss_of_half_precision_logits_is_summed_in_float32():
    loaded = build_model("llama", dtype=torch.bfloat16)
    windows = text_windows(loaded, TEXT)
    with torch.no_grad():
        expected = [
            float(torch.nn.functional.cross_entropy(
                loaded.model(torch.tensor([window.tokens])).logits[0, :-1].float(), torch.tensor(window.predicted)
            ))
            for window in windows
        ]  # fmt: skip
    assert len(windows) == 1, "a mean of means is the mean of one"
    with TextPredictor(loaded) as predictor:
        assert predictor.measure({"text": windows}, UNSTEERED).texts[0].nll_before == pytest.approx(
            expected[0], rel=1e-5
        )


class Counting:
    """Progress that counts what it is told."""

    def __init__(self) -> None:
        self.total = self.done = 0

    def stage(self, name: str, total: int) -> None:
        self.total = total

    def advance(self, steps: int = 1) -> None:
        self.done += steps


def test_the_unsteered_model_is_measured_once_for_many_steerings():
    loaded = build_model("llama")
    windows, effects = windows_of(loaded), every_effect(loaded)
    with TextPredictor(loaded) as predictor:
        for effect, passes in (("heads", 2), ("neurons", 1)):
            progress = Counting()
            (again,) = predictor.measure({"text": windows}, effects[effect], progress).texts
            assert progress.total == progress.done == passes * len(windows)
    with TextPredictor(loaded) as fresh:
        assert fresh.measure({"text": windows}, effects["neurons"]).texts == (again,)


def test_the_model_is_unsteered_after_the_context(tiny: LoadedModel):
    hooks = hooks_on(tiny)
    with TextPredictor(tiny):
        assert hooks_on(tiny) > hooks
    assert hooks_on(tiny) == hooks


def test_an_error_names_a_text_without_tokens_to_predict():
    with (
        TextPredictor(build_model("llama")) as predictor,
        pytest.raises(ValueError, match="the text 'empty' has no token"),
    ):
        predictor.measure({"empty": ()}, UNSTEERED)
