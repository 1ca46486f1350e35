"""Candidates for the settings of the final layer, and the rule that chooses one of them.

The rule counts what a candidate knows, not how sure it is: every NLL in it is that at a temperature tuned on the same
prompts, for the candidate as for the plain model. So a candidate that does what a temperature does gains nothing.

Of the *allowed* candidates, choose the one with the smallest NLL of the correct answer on dev, averaged over the task's
groups; of equal ones, the one that applies at fewer positions (at the last token of the prompt alone, and under a
condition of the task), then the one with the smallest total change. The plain model is always allowed. Any other
candidate is allowed if, compared with the plain model,

* no group of dev loses more than ``max_lost`` percentage points of accuracy;
* no other prompt format of the task, such as few-shot prompts, loses more than that or has a higher NLL;
* no group of another format loses more than that, and more than the 95% interval of its change;
* no group of dev or of another format has an NLL that is higher by more than the 95% interval of its change;
* the NLL of no other text increases by more than ``max_nll_increase``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from steering_profiles.conditions import Condition
from steering_profiles.evaluation import Accuracy, TemperedChange
from steering_profiles.fields import strength_text
from steering_profiles.final_layer_fields import Gate
from steering_profiles.fit_settings import FinalLayerSettings, Positions, Source
from steering_profiles.fitting.gating import Score

_ROUNDING = 1e-9


@dataclass(frozen=True)
class FinalLayerCandidate:
    """One combination of final-layer settings."""

    self_only_attention: float
    intercept_scale: float
    """``lambda``."""
    source: Source | None
    """Source of the intercept; None if no intercept is subtracted."""
    gate: Gate | None = None
    positions: Positions = "all"
    condition: Condition | None = None
    """The task's condition under which it takes effect at these positions; None: always."""

    def __str__(self) -> str:
        intercept = "" if self.source is None else f", {strength_text(self.intercept_scale)} x {self.source}"
        gate = "" if self.gate is None else f", where the top probability is {self.gate}"
        where = ", at the last token of the prompt" if self.positions == "last" else ""
        under = "" if self.condition is None else f", where {self.condition}"
        return f"self-only attention {strength_text(self.self_only_attention)}{intercept}{gate}{where}{under}"

    @property
    def when(self) -> Condition | None:
        """Where it takes effect, as a profile says it; None: everywhere."""
        at = Condition(part="last_prompt_token") if self.positions == "last" else None
        both = [one for one in (at, self.condition) if one is not None]
        return Condition(all_=tuple(both)) if len(both) > 1 else next(iter(both), None)

    @property
    def total_change(self) -> float:
        """Total change (L1): the share of self-only attention plus the size of ``lambda``."""
        return round(self.self_only_attention + abs(self.intercept_scale), 9)


PLAIN = FinalLayerCandidate(0.0, 0.0, None)
"""The plain model."""


@dataclass(frozen=True)
class OtherMeasurements:
    """Measurements of a candidate on prompts and texts other than dev."""

    fit_formats: Mapping[str, Score]
    """Scores on the task's other prompt formats, by format."""
    nll_increase: float
    """Largest increase of the NLL over the other texts, as a share of the plain model's NLL."""
    changes: Mapping[str, Mapping[str, TemperedChange]] = field(default_factory=dict)
    """Changes from the plain model by prompt set, ``dev`` or a format, and by group."""


@dataclass(frozen=True)
class MeasuredCandidate:
    """A candidate and its measurements."""

    candidate: FinalLayerCandidate
    dev: Score
    other: OtherMeasurements | None
    """None for a candidate that is worse on dev than the plain model: it cannot be chosen, so nothing more is measured.
    """


@dataclass(frozen=True)
class RejectedCandidate:
    """A candidate that is not allowed, with the reasons."""

    measured: MeasuredCandidate
    reasons: tuple[str, ...]


def make_candidates(settings: FinalLayerSettings) -> list[FinalLayerCandidate]:
    """Return all candidates without gates and at all positions, the plain model first.

    Candidates with a ``lambda`` of 0 have no source of the intercept, so each of them occurs once.
    """
    candidates = [
        FinalLayerCandidate(share, scale, source if scale else None)
        for share in sorted({0.0, *settings.self_only_attention})
        for scale in sorted({0.0, *settings.lambdas})
        for source in settings.sources
    ]
    return list(dict.fromkeys([PLAIN, *candidates]))


def choose_candidate(
    grid: Sequence[MeasuredCandidate], settings: FinalLayerSettings, *, limit_nll: bool = True
) -> MeasuredCandidate:
    """Return the candidate that the rule of this module chooses. ``grid`` must contain the plain model.

    Without ``limit_nll`` the NLL of other text does not count.
    """
    plain = next(measured for measured in grid if measured.candidate == PLAIN)
    allowed = [measured for measured in grid if is_allowed(measured, plain, settings, limit_nll=limit_nll)]
    return min(allowed, key=_preference)


def is_allowed(
    measured: MeasuredCandidate, plain: MeasuredCandidate, settings: FinalLayerSettings, *, limit_nll: bool = True
) -> bool:
    """Return whether the rule of this module allows ``measured``."""
    return not any(_reasons_against(measured, plain, settings, limit_nll))


def best_rejected(grid: Sequence[MeasuredCandidate], settings: FinalLayerSettings) -> RejectedCandidate | None:
    """Return the best candidate on dev with the reasons why it is not allowed; None if it is allowed."""
    plain = next(measured for measured in grid if measured.candidate == PLAIN)
    best = min(grid, key=_preference)
    reasons = tuple(_reasons_against(best, plain, settings, limit_nll=True))
    return RejectedCandidate(best, reasons) if reasons else None


def _preference(measured: MeasuredCandidate) -> tuple[float, bool, bool, float]:
    candidate = measured.candidate
    # The plain model applies nowhere.
    everywhere = candidate.positions == "all" and candidate != PLAIN
    always = candidate.condition is None and candidate != PLAIN
    return round(measured.dev.tempered_nll, 9), everywhere, always, candidate.total_change


def _reasons_against(
    measured: MeasuredCandidate, plain: MeasuredCandidate, settings: FinalLayerSettings, limit_nll: bool
) -> Iterator[str]:
    """Yield, in words, each condition of the rule that ``measured`` does not meet."""
    if measured is plain:
        return
    other, before = measured.other, plain.other
    if other is None or before is None:
        yield "with a temperature tuned for both it is worse on dev than the plain model"
        return
    if limit_nll and other.nll_increase > settings.max_nll_increase:
        yield f"the NLL of other text rises by {other.nll_increase:.2%}, more than {settings.max_nll_increase:.2%}"
    yield from _losses(measured.dev.accuracy, plain.dev.accuracy, settings.max_lost)
    for name, score in other.fit_formats.items():
        if score.tempered_nll > before.fit_formats[name].tempered_nll:
            yield f"the NLL on {name} rises by {score.tempered_nll - before.fit_formats[name].tempered_nll:.4f}"
        yield from _losses(
            _pooled(score.accuracy, name), _pooled(before.fit_formats[name].accuracy, name), settings.max_lost
        )

    for name, groups in other.changes.items():
        for group, change in groups.items():
            if change.nll.low > 0:
                yield f"the NLL on {name} of {group} rises by {change.nll.mean:.3f}, more than its interval"
            lost = -100 * change.accuracy.mean
            if change.accuracy.high < 0 and lost > settings.max_lost + _ROUNDING:
                yield f"{name} of {group} loses {lost:.1f} points, more than its interval"


def _losses(accuracy: Accuracy, plain: Accuracy, max_lost: float) -> Iterator[str]:
    """Yield a sentence for each group that loses more than ``max_lost`` percentage points."""
    for group, (correct, total) in accuracy.counts.items():
        lost = 100 * (plain.counts[group][0] - correct)
        if lost > max_lost * total + _ROUNDING:
            yield f"{group} loses {lost / total:.1f} points of accuracy"


def _pooled(accuracy: Accuracy, name: str) -> Accuracy:
    return Accuracy({name: (accuracy.correct, accuracy.total)})
