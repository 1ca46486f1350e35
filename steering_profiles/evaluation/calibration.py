"""Whether a model is as sure of its answers as it is right: reliability, expected calibration error, NLL.

A profile that only makes every distribution sharper raises the probability of correct answers too, and of wrong ones.
So all figures are also given for the prompts that the plain model gets right and for those that it gets wrong, and
beside them stand those of the plain model at one temperature tuned by NLL, which can do nothing but sharpen or blur.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import JsonValue

from steering_profiles.evaluation.accuracy import Z_95, Accuracy, ScoredAnswer

BINS = 10
"""Of equal width, by confidence."""
_ARMS = ("baseline", "profile", "tempered")


@dataclass(frozen=True)
class Bin:
    """The answers whose confidence lies in one stretch of 0..1."""

    count: int
    confidence: float
    """Mean of theirs; 0 for none."""
    accuracy: float
    """Share of them that is correct; 0 for none."""


@dataclass(frozen=True)
class Calibration:
    """How sure a model is of some answers, and how often right. All figures are 0 where there are no prompts."""

    total: int
    correct: int
    probability: float
    """Mean probability of the correct answer."""
    deviation: float
    """Standard deviation of that probability over the prompts."""
    nll: float
    """Mean negative log-likelihood of the correct answer, in nats."""
    confidence: float
    """Mean probability of the likeliest token, correct or not."""
    bins: tuple[Bin, ...]
    """``BINS`` of them, from the least confident on: a reliability diagram."""

    @property
    def accuracy(self) -> float:
        """Share of correct answers, 0..1."""
        return self.correct / self.total if self.total else 0.0

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """The 95% confidence interval of the accuracy (:meth:`.Accuracy.interval`), 0..1."""
        low, high = Accuracy({"": (self.correct, self.total)}).interval()
        return low / 100, high / 100

    @property
    def probability_interval(self) -> tuple[float, float]:
        """The 95% confidence interval of the mean probability of the correct answer.

        Normal approximation, the prompts taken as drawn independently: where many ask for the same thing in other
        words, it is too narrow.
        """
        if not self.total:
            return 0.0, 1.0
        half = Z_95 * self.deviation / math.sqrt(self.total)
        return max(0.0, self.probability - half), min(1.0, self.probability + half)

    @property
    def error(self) -> float:
        """The expected calibration error, 0..1: what confidence and accuracy differ by in a bin, averaged over answers.

        The sum of ``count / total * |accuracy - confidence|`` over the bins (Naeini et al., AAAI 2015).
        """
        if not self.total:
            return 0.0
        return sum(one.count * abs(one.accuracy - one.confidence) for one in self.bins) / self.total

    def to_json(self) -> dict[str, JsonValue]:
        """Return all figures as plain data."""
        figures = asdict(self)
        return {"asked": figures.pop("total"), "right": figures.pop("correct"), **figures}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Calibration":
        """Return what :meth:`to_json` was called on."""
        figures = dict(data)
        total, correct, bins = (figures.pop(key) for key in ("asked", "right", "bins"))
        return cls(total, correct, **figures, bins=tuple(Bin(**one) for one in bins))


@dataclass(frozen=True)
class GroupedCalibration:
    """Of all answers, and of each group apart."""

    pooled: Calibration
    groups: dict[str, Calibration]

    @property
    def balanced_nll(self) -> float:
        """The NLL averaged over groups, each of which counts the same however many prompts it has."""
        nlls = [one.nll for one in self.groups.values() if one.total]
        return sum(nlls) / len(nlls) if nlls else 0.0

    @property
    def accuracy(self) -> Accuracy:
        """Correct answers per group."""
        return Accuracy({group: (one.correct, one.total) for group, one in self.groups.items()})

    def to_json(self) -> dict[str, JsonValue]:
        """Return all figures as plain data."""
        return {
            "pooled": self.pooled.to_json(),
            "groups": {group: one.to_json() for group, one in self.groups.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "GroupedCalibration":
        """Return what :meth:`to_json` was called on."""
        groups = {group: Calibration.from_json(one) for group, one in data["groups"].items()}
        return cls(Calibration.from_json(data["pooled"]), groups)


@dataclass(frozen=True)
class ArmCalibration:
    """Of one arm: on all prompts, on those that the plain model gets right, and on those that it gets wrong."""

    all_prompts: GroupedCalibration
    baseline_correct: GroupedCalibration
    baseline_wrong: GroupedCalibration

    def to_json(self) -> dict[str, JsonValue]:
        """Return all figures as plain data."""
        return {
            "every": self.all_prompts.to_json(),
            "right": self.baseline_correct.to_json(),
            "wrong": self.baseline_wrong.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ArmCalibration":
        """Return what :meth:`to_json` was called on."""
        return cls(*(GroupedCalibration.from_json(data[key]) for key in ("every", "right", "wrong")))


@dataclass(frozen=True)
class CalibrationComparison:
    """The plain model, the steered one, and the plain one at a tuned temperature, on the same prompts."""

    baseline: ArmCalibration
    profile: ArmCalibration
    tempered: ArmCalibration
    temperature: float
    """What the logits of ``tempered`` are divided by."""

    @property
    def arms(self) -> tuple[ArmCalibration, ArmCalibration, ArmCalibration]:
        """The plain model, the steered one, and the one at the temperature."""
        return self.baseline, self.profile, self.tempered

    def to_json(self) -> dict[str, JsonValue]:
        """Return all figures as plain data."""
        arms = {name: arm.to_json() for name, arm in zip(_ARMS, self.arms, strict=True)}
        return {**arms, "temperature": self.temperature}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "CalibrationComparison":
        """Return what :meth:`to_json` was called on."""
        baseline, profile, tempered = (ArmCalibration.from_json(data[name]) for name in _ARMS)
        return cls(baseline, profile, tempered, data["temperature"])


def calibrate(answers: Sequence[ScoredAnswer]) -> Calibration:
    """Return the figures of ``answers``."""
    count = len(answers)
    if not count:
        return Calibration(0, 0, 0.0, 0.0, 0.0, 0.0, (Bin(0, 0.0, 0.0),) * BINS)
    probabilities = [math.exp(answer.log_probability) for answer in answers]
    mean = math.fsum(probabilities) / count
    return Calibration(
        total=count,
        correct=sum(answer.correct for answer in answers),
        probability=mean,
        deviation=math.sqrt(math.fsum((one - mean) ** 2 for one in probabilities) / count),
        nll=-math.fsum(answer.log_probability for answer in answers) / count,
        confidence=math.fsum(answer.confidence for answer in answers) / count,
        bins=tuple(_bin([answer for answer in answers if _place(answer.confidence) == at]) for at in range(BINS)),
    )


def calibrate_groups(answers: Sequence[ScoredAnswer], groups: Sequence[str] | None = None) -> GroupedCalibration:
    """Return the figures of ``answers``, and of each group apart: of ``groups``, or of those that are there."""
    groups = list(dict.fromkeys(answer.group for answer in answers)) if groups is None else groups
    return GroupedCalibration(
        calibrate(answers), {group: calibrate([a for a in answers if a.group == group]) for group in groups}
    )


def calibrate_arm(answers: Sequence[ScoredAnswer], baseline: Sequence[ScoredAnswer]) -> ArmCalibration:
    """Return the figures of ``answers``, told apart by whether the same prompt's answer in ``baseline`` is correct."""
    groups = list(dict.fromkeys(answer.group for answer in answers))
    parts: dict[bool, list[ScoredAnswer]] = {True: [], False: []}
    for answer, plain in zip(answers, baseline, strict=True):
        parts[plain.correct].append(answer)
    return ArmCalibration(*(calibrate_groups(some, groups) for some in (answers, parts[True], parts[False])))


def _place(confidence: float) -> int:
    """Return the bin of a confidence: ``(i / BINS, (i + 1) / BINS]``, the first with 0."""
    return min(BINS - 1, max(0, math.ceil(confidence * BINS) - 1))


def _bin(answers: Sequence[ScoredAnswer]) -> Bin:
    count = len(answers)
    if not count:
        return Bin(0, 0.0, 0.0)
    return Bin(count, math.fsum(a.confidence for a in answers) / count, sum(a.correct for a in answers) / count)
