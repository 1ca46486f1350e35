"""The fit, from task to profile."""

from dataclasses import replace

import pytest

from steering_profiles.evaluation import TokenPredictor
from steering_profiles.fitting import FitSettings, fit_heads
from steering_profiles.models import LoadedModel
from steering_profiles.steering import AppliedProfile
from steering_profiles.store import SHIPPED, Catalogue, content_hash, load_profile, save_profile
from steering_profiles.tasks import Task, parentheses
from steering_profiles.validate import compare
from tests.builders import build_model

SETTINGS = FitSettings(top_k=(0, 2, 5), alphas=(1.2, 1.6))


def small_task(loaded: LoadedModel) -> Task:
    task = parentheses(loaded.tokenizer)
    return replace(task, train=task.train[::40], dev=task.dev[::20], test=task.test[::20])


def test_a_fit_writes_the_same_bytes_every_time(tmp_path):
    written = []
    for run in ("one", "two"):
        loaded = build_model("llama")
        result = fit_heads(loaded, small_task(loaded), name="tiny", command="steer fit", settings=SETTINGS)
        written.append(save_profile(result.profile, tmp_path / run).read_bytes())
    assert written[0] == written[1]


def test_a_fitted_profile_says_what_it_was_made_by_and_fits_its_model(tiny: LoadedModel):
    task = small_task(tiny)
    result = fit_heads(tiny, task, name="tiny", command="steer fit parentheses --out here", settings=SETTINGS)
    provenance = result.profile.provenance
    assert compare(result.profile, tiny.identity).matches
    assert provenance is not None
    assert (provenance.task, provenance.seed, provenance.command) == (
        "parentheses", 0, "steer fit parentheses --out here"
    )  # fmt: skip
    assert provenance.split_sizes == task.split_sizes
    assert len(provenance.grid["points"]) == 1 + 2 * 2
    assert set(provenance.test) == {"before", "after"}


def test_figures_of_the_provenance_are_those_of_the_profile(tiny: LoadedModel):
    task = small_task(tiny)
    result = fit_heads(tiny, task, name="tiny", command="steer fit", settings=SETTINGS)
    with TokenPredictor(tiny) as predictor:
        after = predictor.accuracy(task.test, (AppliedProfile(result.profile),))
    assert result.profile.provenance is not None
    assert result.profile.provenance.test["after"] == after.percent


def test_the_shipped_profile_takes_the_embedded_model_from_failing_four_parentheses_to_all_right(embedded: LoadedModel):
    profile = Catalogue.open()["parentheses"].profile
    assert compare(profile, embedded.identity).matches
    task = parentheses(embedded.tokenizer)
    with TokenPredictor(embedded) as predictor:
        before = predictor.accuracy(task.test).percent
        after = predictor.accuracy(task.test, (AppliedProfile(profile),)).percent
    assert before["))))"] <= 2
    assert min(after.values()) >= 99


@pytest.mark.slow
def test_the_command_in_the_shipped_profile_makes_it_again(embedded: LoadedModel):
    shipped = load_profile(SHIPPED / "parentheses.json")
    assert shipped.provenance is not None
    again = fit_heads(
        embedded, parentheses(embedded.tokenizer), name="parentheses", command=shipped.provenance.command
    ).profile
    assert content_hash(again) == content_hash(shipped)
