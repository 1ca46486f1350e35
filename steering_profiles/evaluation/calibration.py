"""Calibration of a model's answers: reliability, expected calibration error, NLL.

A profile that only sharpens every distribution raises the probability of correct answers as well as of wrong ones. To
detect this, all figures are also given separately for the prompts that the unsteered model answers correctly and for
those that it answers wrongly, and compared with the unsteered model at a temperature tuned by NLL.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import JsonValue

from steering_profiles.evaluation.accuracy import Z_95, Accuracy, ScoredAnswer
from steering_profiles.evaluation.tempered import TemperedComparison

BINS = 10
"""Number of confidence bins of equal width."""
_ARMS = ("baseline", "profile", "tempered")


@dataclass(frozen=True)
class Bin:
    """Statistics of the answers whose confidence is in one bin."""

    count: int
    confidence: float
    """Mean confidence; 0 for an empty bin."""
    accuracy: float
    """Share of correct answers; 0 for an empty bin."""


@dataclass(frozen=True)
class Calibration:
    """Confidence and accuracy of a model on a set of prompts. All figures are 0 for an empty set."""

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
    """Reliability diagram: ``BINS`` bins in order of rising confidence."""

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

        It uses the normal approximation and assumes independent prompts, so it is too narrow if many prompts ask for
        the same fact in different words.
        """
        if not self.total:
            return 0.0, 1.0
        half = Z_95 * self.deviation / math.sqrt(self.total)
        return max(0.0, self.probability - half), min(1.0, self.probability + half)

    @property
    def error(self) -> float:
        """Expected calibration error, 0..1 (Naeini et al., AAAI 2015).

        This is the sum of ``count / total * |accuracy - confidence|`` over the bins.
        """
        if not self.total:
            return 0.0
        return sum(one.count * abs(one.accuracy - one.confidence) for one in self.bins) / self.total

    def to_json(self) -> dict[str, JsonValue]:
        """Return all figures as JSON data."""
        figures = asdict(self)
        return {"asked": figures.pop("total"), "right": figures.pop("correct"), **figures}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Calibration":
        """Make a calibration from the result of :meth:`to_json`."""
        figures = dict(data)
        total, correct, bins = (figures.pop(key) for key in ("asked", "right", "bins"))
        return cls(total, correct, **figures, bins=tuple(Bin(**one) for one in bins))


@dataclass(frozen=True)
class GroupedCalibration:
    """Calibration on all prompts and on each group."""

    pooled: Calibration
    groups: dict[str, Calibration]

    @property
    def balanced_nll(self) -> float:
        """Mean of the groups' NLL, each group weighted equally."""
        nlls = [one.nll for one in self.groups.values() if one.total]
        return sum(nlls) / len(nlls) if nlls else 0.0

    @property
    def accuracy(self) -> Accuracy:
        """Accuracy per group."""
        return Accuracy({group: (one.correct, one.total) for group, one in self.groups.items()})

    def to_json(self) -> dict[str, JsonValue]:
        """Return all figures as JSON data."""
        return {
            "pooled": self.pooled.to_json(),
            "groups": {group: one.to_json() for group, one in self.groups.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "GroupedCalibration":
        """Make a calibration from the result of :meth:`to_json`."""
        groups = {group: Calibration.from_json(one) for group, one in data["groups"].items()}
        return cls(Calibration.from_json(data["pooled"]), groups)


@dataclass(frozen=True)
class ArmCalibration:
    """Calibration of one arm: on all prompts, and on those that the baseline answers correctly and wrongly."""

    all_prompts: GroupedCalibration
    baseline_correct: GroupedCalibration
    baseline_wrong: GroupedCalibration

    def to_json(self) -> dict[str, JsonValue]:
        """Return all figures as JSON data."""
        return {
            "every": self.all_prompts.to_json(),
            "right": self.baseline_correct.to_json(),
            "wrong": self.baseline_wrong.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ArmCalibration":
        """Make a calibration from the result of :meth:`to_json`."""
        return cls(*(GroupedCalibration.from_json(data[key]) for key in ("every", "right", "wrong")))


@dataclass(frozen=True)
class CalibrationComparison:
    """Calibration of three arms on the same prompts: unsteered, steered, and unsteered at a tuned temperature."""

    baseline: ArmCalibration
    profile: ArmCalibration
    tempered: ArmCalibration
    temperature: float
    """Divisor of the logits of ``tempered``."""
    both_tempered: TemperedComparison | None = None
    """The steered model at a temperature tuned for it, compared with ``tempered``; None if it was not measured."""

    @property
    def arms(self) -> tuple[ArmCalibration, ArmCalibration, ArmCalibration]:
        """The three arms: baseline, profile, tempered."""
        return self.baseline, self.profile, self.tempered

    def to_json(self) -> dict[str, JsonValue]:
        """Return all figures as JSON data."""
        arms = {name: arm.to_json() for name, arm in zip(_ARMS, self.arms, strict=True)}
        both = {} if self.both_tempered is None else {"both_tempered": self.both_tempered.to_json()}
        return {**arms, "temperature": self.temperature, **both}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "CalibrationComparison":
        """Make a comparison from the result of :meth:`to_json`."""
        baseline, profile, tempered = (ArmCalibration.from_json(data[name]) for name in _ARMS)
        both = data.get("both_tempered")
        compared = None if both is None else TemperedComparison.from_json(both)
        return cls(baseline, profile, tempered, data["temperature"], compared)


def calibrate(answers: Sequence[ScoredAnswer]) -> Calibration:
    """Return the calibration of ``answers``."""
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
        bins=tuple(_bin([answer for answer in answers if _bin_index(answer.confidence) == at]) for at in range(BINS)),
    )


def calibrate_groups(answers: Sequence[ScoredAnswer], groups: Sequence[str] | None = None) -> GroupedCalibration:
    """Return the calibration of ``answers`` and of each group: of ``groups`` if given, else of the groups present."""
    groups = list(dict.fromkeys(answer.group for answer in answers)) if groups is None else groups
    return GroupedCalibration(
        calibrate(answers), {group: calibrate([a for a in answers if a.group == group]) for group in groups}
    )


def calibrate_arm(answers: Sequence[ScoredAnswer], baseline: Sequence[ScoredAnswer]) -> ArmCalibration:
    """Return the calibration of ``answers``, split by whether ``baseline`` answers the same prompt correctly."""
    groups = list(dict.fromkeys(answer.group for answer in answers))
    parts: dict[bool, list[ScoredAnswer]] = {True: [], False: []}
    for answer, plain in zip(answers, baseline, strict=True):
        parts[plain.correct].append(answer)
    return ArmCalibration(*(calibrate_groups(some, groups) for some in (answers, parts[True], parts[False])))


def _bin_index(confidence: float) -> int:
    """Return the index ``i`` of the bin ``(i / BINS, (i + 1) / BINS]`` with ``confidence``; 0 is in the first bin."""
    return min(BINS - 1, max(0, math.ceil(confidence * BINS) - 1))


def _bin(answers: Sequence[ScoredAnswer]) -> Bin:
    count = len(answers)
    if not count:
        return Bin(0, 0.0, 0.0)
    return Bin(count, math.fsum(a.confidence for a in answers) / count, sum(a.correct for a in answers) / count)
