"""A fit under conditions finds sets of scales one after the other: which regions are searched, and when it ends."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from steering_profiles.conditions import Condition, ConditionTrace
from steering_profiles.evaluation import Accuracy, TokenPredictor
from steering_profiles.fitting import FitCheckpoint, FitResult, FitSettings, StepwiseSettings, fit
from steering_profiles.fitting.choice import steering_of
from steering_profiles.fitting.components import Component, ScaleSet
from steering_profiles.fitting.no_harm import Candidate, ChosenCandidate, choose_candidate
from steering_profiles.fitting.rounds import search_rounds
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


def test_what_is_chosen_stays_in_place_and_its_condition_is_left_out_of_later_searches():
    searches = Searches({"the last token is 6": (100, 20)})
    rounds, chosen = search_rounds([FIVE, SIX, SEVEN], searches, freely, 3)
    assert [condition for condition, _ in searches.asked[:4]] == [None, FIVE, SIX, SEVEN]
    later = [condition for condition, _ in searches.asked[4:]]
    assert [[holds(condition, token) for token in (5, 6, 7, 8)] for condition in later] == [
        [True, False, True, True], [True, False, False, False], [False, False, True, False]
    ]  # fmt: skip
    assert all(beside == (ScaleSet({Component("head", 0, 0): 1.5}, SIX),) for _, beside in searches.asked[4:])
    assert chosen.candidate.sets == (ScaleSet({Component("head", 0, 0): 1.5}, SIX),)
    assert len(rounds) == 2


def test_rounds_go_on_while_they_gain_and_then_end_with_the_reason():
    searches = Searches(
        {"the last token is 6": (100, 20), "the last token is 5 and (not (the last token is 6))": (20, 10)}
    )
    rounds, chosen = search_rounds([FIVE, SIX], searches, freely, 3)
    assert [str(one.condition) for one in rounds[:2]] == list(searches.errors)
    assert [one.ended for one in rounds] == ["", "", "nothing was better"]
    assert [len(one.beside) for one in rounds] == [0, 1, 2]
    assert [one.condition for one in chosen.candidate.sets] == [one.condition for one in rounds[:2]]
    assert str(rounds[0]) == "3 searches; chosen: step 8 where the last token is 6, 100 to 20 errors of 100"
    assert str(rounds[2]) == "1 search; chosen: nothing; the last round, because nothing was better"


def test_where_scales_at_every_position_are_best_there_is_one_round():
    rounds, chosen = search_rounds([FIVE], Searches({"None": (100, 0)}), freely, 3)
    assert len(rounds) == 1
    assert chosen.candidate.condition is None
    assert rounds[0].ended == "its scales apply wherever those of no other round do"


@pytest.mark.parametrize("most", [1, 3])
def test_there_are_no_more_rounds_than_asked_for(most: int):
    conditions = [Condition(last_token=(token,)) for token in range(6)]

    def gain(condition: Condition | None, beside: Sequence[ScaleSet]) -> list[SearchStep]:
        improved = 100 - 10 * len(beside)
        return Searches({str(condition): (improved, improved if condition is None else improved - 10)})(
            condition, beside
        )

    rounds, chosen = search_rounds(conditions, gain, lambda paths: freely(paths[1:] or paths), most)
    assert len(rounds) == len(chosen.candidate.sets) == most
    assert rounds[-1].ended == f"no more than {most} were asked for"


def test_what_one_round_refused_does_not_keep_another_from_choosing():
    def choose(paths: Sequence[Sequence[Candidate]]) -> ChosenCandidate:
        if paths[0][0].beside:
            return ChosenCandidate(paths[0][0], paths[0], (), ("step 4: f on ): 100% to 80%",))
        return freely(paths)

    rounds, chosen = search_rounds([SIX], Searches({"the last token is 6": (100, 20)}), choose, 3)
    assert [one.condition for one in chosen.candidate.sets] == [SIX]
    assert rounds[1].ended == "nothing that was better was allowed"


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
        max_nll_increase=100.0, max_lost=0.0, conditions=True, rounds=3,
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


@pytest.mark.parametrize("rounds", [0, 9])
def test_a_number_of_rounds_that_no_profile_has_conditions_for_is_refused(rounds: int):
    with pytest.raises(ValueError, match=rf"rounds is {rounds}; allowed: whole numbers in 1\.\.8"):
        StepwiseSettings(rounds=rounds)
