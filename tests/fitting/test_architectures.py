"""The result of a fit depends on what a model computes, not on the architecture of its implementation."""

from pathlib import Path

import pytest
import torch

from steering_profiles.evaluation import TokenPredictor
from steering_profiles.fitting import FitResult, FitSettings, StepwiseSettings, fit
from steering_profiles.models import LoadedModel, ModelSource, assemble, load_model
from steering_profiles.steering import ProfileAtStrength, Steering
from steering_profiles.store import Catalogue
from steering_profiles.tasks import parentheses
from tests.builders import build_model
from tests.fitting.test_fit import small_task
from tests.rewritten import ARCHITECTURES, rewritten
from tests.short_texts import use_short_texts

STEPS = FitSettings(
    stepwise=StepwiseSettings(max_steps=6, validation_interval=2, batch_prompts=8, validation_prompts=40)
)


def fitted(loaded: LoadedModel) -> FitResult:
    with pytest.MonkeyPatch.context() as patch:
        use_short_texts(patch)
        return fit(loaded, small_task(loaded), name="tiny", command="steer fit", settings=STEPS)


@pytest.fixture(scope="module")
def as_llama() -> tuple[LoadedModel, FitResult]:
    """A small Llama model and the result of a fit."""
    llama = build_model("llama")
    return llama, fitted(llama)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_architectures_with_equal_computations_get_the_same_fit(
    architecture: str, as_llama: tuple[LoadedModel, FitResult], tmp_path: Path
):
    llama, expected = as_llama
    rewritten(llama.model, architecture).save_pretrained(tmp_path)
    llama.tokenizer.save_pretrained(tmp_path)
    other = load_model(ModelSource(model=str(tmp_path), dtype="float64"))
    other.model.set_experts_implementation("eager")  # grouped expert products have no float64 kernel
    assert other.identity.architecture != llama.identity.architecture
    tokens = torch.tensor([example.prompt for example in small_task(llama).test[:2]])
    torch.testing.assert_close(other.model(tokens).logits, llama.model(tokens).logits, rtol=0, atol=1e-5)

    found = fitted(other)
    assert found.ranking.components == expected.ranking.components
    assert [point.scales for point in found.choice.path] == [point.scales for point in expected.choice.path]
    assert found.choice.path[-1].scales, "nothing was moved, so nothing is compared"
    assert found.profile.heads == expected.profile.heads


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_shipped_profile_works_equally_in_the_default_model_converted_to_phi_3(embedded: LoadedModel):
    as_phi = assemble("as-phi-3", rewritten(embedded.model, "phi3"), embedded.tokenizer)
    profile = Catalogue.open()["parentheses"].profile.model_copy(update={"model": as_phi.identity})
    examples = parentheses(embedded.tokenizer).test[::5]
    with TokenPredictor(as_phi) as predictor:
        before = predictor.accuracy(examples).percent
        after = predictor.accuracy(examples, Steering((ProfileAtStrength(profile),))).percent
    assert before["))))"] <= 4
    assert after["))))"] >= 95
    fewer = (")", "))", ")))")  # where the profile does not take effect
    assert [after[group] for group in fewer] == [before[group] for group in fewer]
