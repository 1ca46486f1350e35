"""The content of a report: results of a fit or an evaluation, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from steering_profiles.evaluation.accuracy import Accuracy
from steering_profiles.evaluation.calibration import CalibrationComparison
from steering_profiles.evaluation.side_effects import SideEffects
from steering_profiles.fit_settings import ACCURACY_THRESHOLD
from steering_profiles.fitting.components import Component
from steering_profiles.fitting.final_layer import WithoutGate
from steering_profiles.fitting.final_layer_candidates import MeasuredCandidate, RejectedCandidate
from steering_profiles.fitting.grid import GridPoint, MeasuredPoint
from steering_profiles.fitting.group_candidates import GroupChoice
from steering_profiles.fitting.no_harm import GroupChange
from steering_profiles.reports.attention import HeadAttention
from steering_profiles.schema import Profile

TEST = "test"
"""Name of the prompt set of the headline."""


@dataclass(frozen=True)
class RankedComponent:
    """A component and its reliability on train (RASteer, arXiv:2507.00322)."""

    component: Component
    accuracy: tuple[float, ...]
    """Share of prompts on which it is correct, 0..1, for each group of the :class:`ReportedRanking`."""
    precision: float
    recall: float
    f1: float
    scale: float | None = None
    """Scale of the component in the profile; None if the profile does not scale it. Of several scales under different
    conditions the one that is farthest from 1."""


@dataclass(frozen=True)
class ReportedRanking:
    """The ranked components, best first.

    Raises:
        ValueError: the number of a component's accuracies is not the number of groups.
    """

    groups: tuple[str, ...]
    """The sub-tasks, in the order of each component's accuracies; empty for a task that has none."""
    components: tuple[RankedComponent, ...]
    accuracy_threshold: float = ACCURACY_THRESHOLD
    """Minimum accuracy at which a component counts as correct on a sub-task."""

    def __post_init__(self) -> None:
        for ranked in self.components:
            if len(ranked.accuracy) != len(self.groups):
                raise ValueError(
                    f"{ranked.component} has {len(ranked.accuracy)} accuracies; required: one for each of "
                    f"{len(self.groups)} groups"
                )

    @property
    def chosen(self) -> tuple[RankedComponent, ...]:
        """The components that the profile scales."""
        return tuple(ranked for ranked in self.components if ranked.scale is not None)

    def generalisability(self, ranked: RankedComponent) -> int:
        """Return the number of sub-tasks on which ``ranked`` is correct."""
        return sum(accuracy >= self.accuracy_threshold for accuracy in ranked.accuracy)


@dataclass(frozen=True)
class ReportedStep:
    """A measured step of a stepwise search."""

    step: int
    components: int
    """Number of scales, those of earlier rounds included."""
    total_change: float
    """Sum of ``|scale - 1|`` over the scales (L1), those of earlier rounds included."""
    errors: int
    """Number of wrong answers on the validation set."""
    total: int
    """Number of prompts of the validation set."""
    nll_increase: float
    """Relative increase of the NLL of neutral text."""
    chosen: bool = False
    round: int = 1
    """The round of the search, of those that found scales."""


@dataclass(frozen=True)
class NoHarm:
    """How a stepwise search was kept from harm."""

    max_lost: float
    """Percentage points that a group of a choosing format might lose."""
    changes: tuple[GroupChange, ...]
    """Those of the choosing formats with the chosen step, the largest loss first."""
    refused: tuple[str, ...]
    """What was better on the validation set and not allowed, each with the limit that it exceeds."""
    rounds: tuple[str, ...] = ()
    """What each round of the search tried and chose; empty where only one was asked for."""


@dataclass(frozen=True)
class FinalLayerSearch:
    """A search over the settings of the final layer."""

    grid: Sequence[MeasuredCandidate]
    chosen: MeasuredCandidate
    without_nll_limit: MeasuredCandidate
    """The choice without gates and without the limit on the NLL increase of other text."""
    rejected: RejectedCandidate | None = None
    """The best candidate on dev, if it is not allowed."""


@dataclass(frozen=True)
class MethodResult:
    """Result of one method of choosing components, on the same splits."""

    name: str
    components: int
    scale: str
    """The scale or their range: ``1.5``, ``1.2..1.6``."""
    accuracy: Accuracy
    """Accuracy on test."""
    held_out: Accuracy | None = None
    """Accuracy on the held-out formats, pooled."""
    nll_increase: float | None = None
    """Relative increase of the NLL of the most affected other text."""


@dataclass(frozen=True)
class Report:
    """The content of a report. Empty fields are left out of the page."""

    profile: Profile
    command: str
    """Command that reproduces the report."""
    accuracy: Mapping[str, tuple[Accuracy, Accuracy]] = field(default_factory=dict)
    """Accuracy without and with the profile by prompt set, such as ``test`` or ``5 digits``."""
    side_effects: SideEffects | None = None
    pass_at_1: tuple[Accuracy, Accuracy] | None = None
    """Pass@1 on HumanEval without and with the profile; None if it was not measured."""
    ranking: ReportedRanking | None = None
    grid: Sequence[MeasuredPoint] = ()
    path: Sequence[ReportedStep] = ()
    validation_set: Mapping[str, int] = field(default_factory=dict)
    """Number of prompts of the validation set of ``path``: of dev, and in each of the other fitting formats."""
    no_harm: NoHarm | None = None
    """None where losses were not limited."""
    final_layer: FinalLayerSearch | None = None
    group_choices: Sequence[GroupChoice] = ()
    """Settings of the final layer that were chosen for each group alone."""
    calibration: Mapping[str, CalibrationComparison] = field(default_factory=dict)
    """Calibration of the unsteered model, the steered one, and the one at a temperature, by prompt set."""
    without_gate: WithoutGate | None = None
    """Results of the final-layer settings without their gate, on test and other text."""
    everywhere: SideEffects | None = None
    """Side effects of a profile for the last token of the prompt if it were applied at all positions."""
    comparison: Sequence[MethodResult] = ()
    attention: Sequence[HeadAttention] = ()
    strength: float = 1.0
    """Strength at which the profile was measured."""


def recorded_grid(profile: Profile) -> tuple[MeasuredPoint, ...]:
    """Return the (k, alpha) grid that the provenance of ``profile`` records, for a report without a fit.

    The provenance has totals over the groups only, as ``[k, alpha, correct, total]``. The grid is empty if there is no
    such list.
    """
    points = profile.provenance.grid.get("points") if profile.provenance is not None else None
    if not isinstance(points, list):
        return ()
    measured = []
    for point in points:
        match point:
            case [int(k), float() | int() as alpha, int(correct), int(total)] if total > 0:
                measured.append(MeasuredPoint(GridPoint(k, float(alpha)), Accuracy({"all": (correct, total)})))
            case _:
                return ()
    return tuple(measured)
