"""A fit under conditions finds sets of scales one after the other: which regions are searched, and when it ends."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from steering_profiles.conditions import Condition, ConditionTrace
from steering_profiles.evaluation import Accuracy, TokenPredictor
from steering_profiles.fitting import FitCheckpoint, FitResult, FitSettings, StepwiseSettings, fit
from steering_profiles.fitting.choice import found_sets, steering_of
from steering_profiles.fitting.components import Component, ScaleSet
from steering_profiles.fitting.no_harm import Candidate, ChosenCandidate, choose_candidate
from steering_profiles.fitting.rounds import search_at_once, search_in_turn
from steering_profiles.fitting.stepwise import SearchStep
from steering_profiles.models import LoadedModel
from steering_profiles.reports import report_of_fit
from steering_profiles.reports.component_tables import scales_table
from steering_profiles.reports.no_harm import no_harm_sentences
from steering_profiles.reports.search_tables import path_table
from steering_profiles.steering import UNSTEERED, ProfileAtStrength, Steering
from steering_profiles.store import load_profile, save_profile
from steering_profiles.tasks.task import Example, Task
from tests.builders import build_model
from tests.short_texts import use_short_texts

FIVE, SIX, SEVEN = (Condition(last_token=(token,)) for token in (5, 6, 7))
FIVE_NOT_SEVEN = "the last token is 5 and (not (the last token is 7))"


class Searches:
    """Searches that answer with given errors: by where the scales apply, without scales and with one."""

    def __init__(self, errors: dict[str, tuple[int, int]]) -> None:
        self.errors = errors
        self.asked: list[tuple[Condition | None, tuple[ScaleSet, ...]]] = []

    def __call__(self, condition: Condition | None, beside: Sequence[ScaleSet]) -> list[SearchStep]:
        self.asked.append((condition, tuple(beside)))
        without, with_one = self.errors.get(str(condition), (100, 100))
        scales = {Component("head", len(beside), 0): 1.5}
        return [
            SearchStep(step, scales if step else {}, Accuracy({"a": (100 - errors, 100)}), 0.0)
            for step, errors in ((0, without), (4, with_one), (8, with_one))
        ]


def freely(paths: Sequence[Sequence[Candidate]]) -> ChosenCandidate:
    return choose_candidate(paths, lambda _: (), 0.01, 0.0)


def holds(condition: Condition | None, token: int) -> bool:
    return condition is None or bool(ConditionTrace((condition,), lambda _: b"x", 1).held([token], 0, 1)[0])


def test_at_once_every_position_and_every_condition_are_searched_and_the_best_step_is_chosen():
    searches = Searches({"the last token is 6": (100, 20), "None": (100, 30)})
    (found,), chosen = search_at_once([FIVE, SIX], searches, freely)
    assert searches.asked == [(None, ()), (FIVE, ()), (SIX, ())]
    assert chosen.candidate.sets == (ScaleSet({Component("head", 0, 0): 1.5}, SIX),)
    assert str(found) == "chosen: step 4 where the last token is 6, 100 to 20 errors of 100"


def test_in_turn_the_last_condition_comes_first_and_what_is_chosen_is_left_alone_afterwards():
    searches = Searches({"the last token is 7": (100, 40), FIVE_NOT_SEVEN: (40, 10)})
    rounds, chosen = search_in_turn([FIVE, SIX, SEVEN], searches, freely)
    seven = ScaleSet({Component("head", 0, 0): 1.5}, SEVEN)
    assert [len(beside) for _, beside in searches.asked] == [0, 1, 1], "nothing was found where the last token is 6"
    assert all(beside in ((), (seven,)) for _, beside in searches.asked)
    assert [[holds(where, token) for token in (5, 6, 7, 8)] for where, _ in searches.asked] == [
        [False, False, True, False], [False, True, False, False], [True, False, False, False]
    ]  # fmt: skip
    assert [str(one.condition) for one in chosen.candidate.sets] == ["the last token is 7", FIVE_NOT_SEVEN]
    assert [str(one) for one in rounds] == [
        "chosen: step 4 where the last token is 7, 100 to 40 errors of 100",
        "nothing was better where the last token is 6 and (not (the last token is 7))",
        f"chosen: step 4 where {FIVE_NOT_SEVEN}, 40 to 10 errors of 100",
    ]


def test_the_region_of_a_condition_that_found_nothing_is_open_to_later_searches():
    searches = Searches({"the last token is 5": (100, 20)})
    rounds, chosen = search_in_turn([FIVE, SIX], searches, freely)
    assert [where for where, _ in searches.asked] == [SIX, FIVE]
    assert [one.condition for one in chosen.candidate.sets] == [FIVE]
    assert found_sets(rounds) == rounds[1:]


def test_what_one_round_refused_does_not_keep_another_from_choosing():
    def choose(paths: Sequence[Sequence[Candidate]]) -> ChosenCandidate:
        if paths[0][1].condition == SIX:
            return ChosenCandidate(paths[0][0], paths[0], (), ("step 4: f on ): 100% to 80%",))
        return freely(paths)

    rounds, chosen = search_in_turn([FIVE, SIX], Searches({"the last token is 5": (100, 20)}), choose)
    assert [one.condition for one in chosen.candidate.sets] == [FIVE]
    assert str(rounds[0]) == "nothing that was better where the last token is 6 was allowed"


@pytest.fixture
def _short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    use_short_texts(monkeypatch)


def task_of(loaded: LoadedModel) -> Task:
    """Prompts that end with the token 5 and others that end with 7, and others that may not lose.

    The answer of each is the token that is likeliest with a head scaled, another head for each ending, so that scales
    can reach all of them.
    """
    wanted: list[Example] = []
    right: list[Example] = []
    with TokenPredictor(loaded) as predictor:
        for group, last, head in (("five", 5, 1), ("seven", 7, 2)):
            scaled = steering_of([ScaleSet({Component("head", 2, head): 3.0})], loaded.identity)
            prompts = [(first, second, last) for first in range(30, 60) for second in (11, 12)]
            blank = [Example(group, str(prompt), prompt, 0) for prompt in prompts]
            plain, other = predictor.predict(blank, UNSTEERED), predictor.predict(blank, scaled)
            changed = [one for one, a, b in zip(range(60), plain, other, strict=True) if a != b]
            wanted += [replace(blank[one], answer=other[one]) for one in changed[:8]]
        prompts = [(first, 13, last) for first in range(30, 60) for last in (9, 10)]
        blank = [Example("kept", str(prompt), prompt, 0) for prompt in prompts]
        right = [replace(one, answer=token) for one, token in zip(blank, predictor.predict(blank), strict=True)]
    examples = tuple(wanted)
    return Task(
        name="t", seed=0, groups=("five", "seven"), train=examples, dev=examples, test=examples,
        choosing_formats={"kept": tuple(right)}, conditions=(FIVE, SEVEN),
    )  # fmt: skip


def fitted(loaded: LoadedModel, checkpoint: FitCheckpoint | None = None) -> tuple[Task, FitResult]:
    task = task_of(loaded)
    settings = StepwiseSettings(
        max_steps=12, validation_interval=2, batch_prompts=16, step=0.4, max_scale=4.0, text_weight=0.0,
        max_nll_increase=100.0, max_lost=0.0, conditions=True, in_turn=True,
    )  # fmt: skip
    found = fit(
        loaded, task, name="t", command="steer fit here", settings=FitSettings(stepwise=settings), checkpoint=checkpoint
    )
    return task, found


@pytest.mark.usefixtures("_short_texts")
def test_a_fit_finds_scales_under_one_condition_and_then_others_under_another(tmp_path: Path):
    loaded = build_model("llama")
    task, found = fitted(loaded)
    sets = found.choice.sets
    assert len(sets) > 1, "one set was enough, so that nothing is shown"
    assert found.profile.when is None
    assert found.profile.conditions == tuple(one.condition for one in sets)
    assert load_profile(save_profile(found.profile, tmp_path)) == found.profile
    with TokenPredictor(loaded) as predictor:
        right = [predictor.accuracy(task.dev, steering_of(sets[:n], loaded.identity)).correct for n in range(3)]
        assert right[0] < right[1] < right[2]
        assert predictor.accuracy(task.dev, Steering((ProfileAtStrength(found.profile),))) == found.choice.dev
        kept = task.choosing_formats["kept"]
        assert predictor.accuracy(kept, steering_of(sets, loaded.identity)).correct == len(kept)
    provenance = found.profile.provenance
    assert provenance is not None
    assert [one["components"] for one in provenance.chosen["sets"]] == [len(one.scales) for one in sets]
    assert provenance.chosen["rounds"] == [str(one) for one in found.choice.rounds]
    assert len(provenance.grid["paths"]) == len(sets)


@pytest.mark.usefixtures("_short_texts")
def test_a_fit_that_was_interrupted_in_any_round_continues_to_the_same_profile(tmp_path: Path):
    whole = fitted(build_model("llama"), FitCheckpoint(tmp_path / "whole", "k"))[1]
    lines = (tmp_path / "whole").read_text().splitlines()
    for share in (0.3, 0.6, 0.9):
        path = tmp_path / f"until {share}"
        path.write_text("\n".join(lines[: int(share * len(lines))]) + "\n")
        assert fitted(build_model("llama"), FitCheckpoint(path, "k"))[1].profile == whole.profile
        assert path.read_text() == (tmp_path / "whole").read_text()


@pytest.mark.usefixtures("_short_texts")
def test_a_report_tells_the_rounds_and_where_each_scale_applies():
    loaded = build_model("llama")
    task, found = fitted(loaded)
    report = report_of_fit(loaded, task, {}, found)
    assert report.no_harm is not None
    said = list(no_harm_sentences(report.no_harm, found.profile))
    assert f"and others where {found.choice.sets[1].condition}." in said[0]
    assert said[1 : 1 + len(found.choice.rounds)] == [
        f"Round {place}: {one}." for place, one in enumerate(found.choice.rounds, start=1)
    ]
    table = scales_table(report)
    assert table.columns[2].heading == "where"
    shown = {(row[0].text, row[2].text) for row in table.rows}
    assert shown == {(str(c), str(one.condition)) for one in found.choice.sets for c in one.scales}
    steps = path_table(report).rows
    assert [row[0].text for row in steps if row[-1].text == "chosen"] == ["1", "2"]
    first, second = ([point for point in report.path if point.round == place] for place in (1, 2))
    chosen = next(point for point in first if point.chosen)
    assert (second[0].total_change, second[0].components) == (chosen.total_change, chosen.components)


def test_turns_without_conditions_are_refused():
    with pytest.raises(ValueError, match="in turn is true, but conditions are not to be tried"):
        StepwiseSettings(in_turn=True)
