"""The report of a fit."""

from dataclasses import replace

import torch

from steering_profiles.evaluation import Accuracy, SideEffects, TextEffect
from steering_profiles.fitting import FitResult, FitSettings, StepwiseSettings
from steering_profiles.fitting.choice import Choice, profile_of
from steering_profiles.fitting.ranking import ComponentRanking, Reliability
from steering_profiles.fitting.rounds import Round
from steering_profiles.fitting.stepwise import SearchStep, validation_set
from steering_profiles.models import LoadedModel
from steering_profiles.reports import report_of_fit
from steering_profiles.tasks import parentheses


def test_validation_errors_are_those_of_dev_and_the_other_fitting_formats(tiny: LoadedModel):
    whole = parentheses(tiny.tokenizer)
    formats = {name: examples[::20] for name, examples in whole.fit_formats.items()}
    task = replace(whole, train=whole.train[::40], dev=whole.dev[::20], test=whole.test[::20], fit_formats=formats)
    settings = FitSettings(stepwise=StepwiseSettings(validation_prompts=40))
    validation = validation_set(task, settings.stepwise)
    step = SearchStep(0, {}, Accuracy.of(validation, [-1] * len(validation)), 0.0)
    none = torch.zeros(0)
    result = FitResult(
        profile=profile_of([], tiny.identity, "small", task.name),
        settings=settings,
        choice=Choice((), Accuracy({}), {"step": 0}, rounds=[Round((None,), [step], step)]),
        ranking=ComponentRanking((), Reliability(torch.zeros(0, 0), none, none, none), ()),
        before=Accuracy({}),
        after=Accuracy({}),
        side_effects=SideEffects((TextEffect("prose", 1, 1.0, 1.0, 1.0),)),
    )
    report = report_of_fit(tiny, task, {}, result)
    assert (report.path[0].errors, report.path[0].total) == (40, 40)
    assert sum(report.validation_set.values()) == 40
    assert list(report.validation_set) == ["dev", *formats]
    assert all(0 < count < 40 for count in report.validation_set.values())
