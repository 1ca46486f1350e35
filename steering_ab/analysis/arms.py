"""What each arm did: its rate or mean, and the lengths and times of its answers."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steering_ab.graders.grader import Answer
from steering_ab.statistics.intervals import Interval
from steering_ab.statistics.proportions import wilson
from steering_ab.statistics.scores import bootstrap_interval


@dataclass(frozen=True)
class ArmGrade:
    """The mean grade of an arm by one grader."""

    grader: str
    arm: str
    tag: str | None
    items: int
    mean: float
    interval: Interval
    """Wilson's for grades of yes or no, else the bootstrap's."""
    yes_no: bool


@dataclass(frozen=True)
class ArmEffort:
    """Lengths and times of an arm's answers."""

    arm: str
    answers: int
    characters: float | None
    """Mean; None without answers, as are all that the server does not say."""
    tokens: float | None
    prompt_tokens: float | None
    cut: float | None
    """Share of answers that reached their maximum of tokens."""
    median_seconds: float | None
    slow_seconds: float | None
    """95th percentile of the time to the end of an answer."""
    first_token_seconds: float | None
    """Median."""


def arm_grade(
    grader: str, arm: str, means: Sequence[float], *, yes_no: bool, tag: str | None = None, seed: int = 0
) -> ArmGrade:
    """Return the mean of the items' mean grades ``means``, which are not empty, with its interval."""
    mean = statistics.fmean(means)
    interval = wilson(min(sum(means), len(means)), len(means)) if yes_no else bootstrap_interval(means, seed)
    return ArmGrade(grader, arm, tag, len(means), mean, interval, yes_no)


def arm_effort(arm: str, answers: Sequence[Answer]) -> ArmEffort:
    """Return the lengths and times of ``answers``, of which those that were scored only have no length."""
    written = [answer for answer in answers if not answer.choice_logprobs]
    seconds = sorted(answer.seconds for answer in answers if answer.seconds is not None)
    firsts = [answer.first_token_seconds for answer in written if answer.first_token_seconds is not None]
    said = [answer.finish_reason for answer in written if answer.finish_reason is not None]
    return ArmEffort(
        arm=arm,
        answers=len(answers),
        characters=_mean([len(answer.text) for answer in written]),
        tokens=_mean([answer.tokens for answer in written if answer.tokens is not None]),
        prompt_tokens=_mean([answer.prompt_tokens for answer in written if answer.prompt_tokens is not None]),
        cut=_mean([float(reason == "length") for reason in said]),
        median_seconds=statistics.median(seconds) if seconds else None,
        slow_seconds=seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))] if seconds else None,
        first_token_seconds=statistics.median(firsts) if firsts else None,
    )


def item_means(grades: Mapping[str, Mapping[str, Mapping[int, float]]]) -> dict[str, dict[str, float]]:
    """Return the mean over repeats of each item's grades, by item and arm."""
    return {
        item: {arm: statistics.fmean(by_repeat.values()) for arm, by_repeat in by_arm.items() if by_repeat}
        for item, by_arm in grades.items()
    }


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
