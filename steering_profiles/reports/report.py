"""What a report tells: figures that a fit or an evaluation has measured, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from steering_profiles.evaluation.accuracy import Accuracy
from steering_profiles.evaluation.calibration import CalibrationComparison
from steering_profiles.evaluation.side_effects import SideEffects
from steering_profiles.fit_settings import ACCURACY_THRESHOLD
from steering_profiles.fitting.components import Component
from steering_profiles.fitting.final_layer import MeasuredCandidate, RejectedCandidate, WithoutGate
from steering_profiles.fitting.grid import GridPoint, MeasuredPoint
from steering_profiles.reports.attention import HeadAttention
from steering_profiles.schema import Profile

TEST = "test"
"""The prompt set that the headline is about."""


@dataclass(frozen=True)
class RankedComponent:
    """One component and how reliably it promotes the right answer on train: RASteer (arXiv:2507.00322)."""

    component: Component
    accuracy: tuple[float, ...]
    """Share of prompts on which it is right, 0..1, one per group of the :class:`ReportedRanking`."""
    precision: float
    recall: float
    f1: float
    scale: float | None = None
    """What the profile multiplies it by; None where it leaves it alone."""


@dataclass(frozen=True)
class ReportedRanking:
    """Every component that was ranked, best first.

    Raises:
        ValueError: a component has not one accuracy per group; the message names it.
    """

    groups: tuple[str, ...]
    """The sub-tasks, in the order of each component's accuracies; empty for a task that has none."""
    components: tuple[RankedComponent, ...]
    accuracy_threshold: float = ACCURACY_THRESHOLD
    """Accuracy from which a component counts as right on a sub-task."""

    def __post_init__(self) -> None:
        for ranked in self.components:
            if len(ranked.accuracy) != len(self.groups):
                raise ValueError(
                    f"{ranked.component} has {len(ranked.accuracy)} accuracies, for {len(self.groups)} groups"
                )

    @property
    def chosen(self) -> tuple[RankedComponent, ...]:
        """The components that the profile scales."""
        return tuple(ranked for ranked in self.components if ranked.scale is not None)

    def generalisability(self, ranked: RankedComponent) -> int:
        """Return on how many sub-tasks ``ranked`` is right."""
        return sum(accuracy >= self.accuracy_threshold for accuracy in ranked.accuracy)


@dataclass(frozen=True)
class ReportedStep:
    """One point on the course of a stepwise search."""

    step: int
    components: int
    total_change: float
    """How much is changed in all: the sum of ``|scale - 1|``."""
    errors: int
    """Wrong answers on dev, out of ``total``."""
    total: int
    nll_increase: float
    """Rise of the NLL of neutral text, as a share of what it was."""
    chosen: bool = False


@dataclass(frozen=True)
class FinalLayerSearch:
    """A search over the settings of the final layer."""

    grid: Sequence[MeasuredCandidate]
    chosen: MeasuredCandidate
    without_nll_limit: MeasuredCandidate
    """What would have been chosen without gates if other text did not count."""
    rejected: RejectedCandidate | None = None
    """What would have been chosen if everything were allowed, if that is not."""


@dataclass(frozen=True)
class MethodResult:
    """What one way of choosing components achieves on the same splits."""

    name: str
    components: int
    scale: str
    """In words: ``1.5``, ``1.2..1.6``."""
    accuracy: Accuracy
    """On test."""
    held_out: Accuracy | None = None
    """On the held-out formats, pooled."""
    nll_increase: float | None = None
    """Rise of the NLL of neutral text, as a share of what it was."""


@dataclass(frozen=True)
class Report:
    """Everything that a report can show. What is empty is left out of the page."""

    profile: Profile
    command: str
    """What makes this report again."""
    accuracy: Mapping[str, tuple[Accuracy, Accuracy]] = field(default_factory=dict)
    """Prompt set, such as ``test`` or ``5 digits``, to accuracy without and with the profile."""
    side_effects: SideEffects | None = None
    ranking: ReportedRanking | None = None
    grid: Sequence[MeasuredPoint] = ()
    path: Sequence[ReportedStep] = ()
    final_layer: FinalLayerSearch | None = None
    calibration: Mapping[str, CalibrationComparison] = field(default_factory=dict)
    """Prompt set to how sure and how right three arms are: the plain model, the steered one, and a temperature."""
    without_gate: WithoutGate | None = None
    """What the settings of the final layer do on test and other text with their gate left out."""
    comparison: Sequence[MethodResult] = ()
    attention: Sequence[HeadAttention] = ()
    strength: float = 1.0
    """The strength at which the profile was measured."""


def recorded_grid(profile: Profile) -> tuple[MeasuredPoint, ...]:
    """Return the (k, alpha) grid that the provenance of ``profile`` records, for a report made without a fit.

    Only totals over the groups are recorded, as ``[k, alpha, correct, total]``. Empty if the provenance has no such
    list.
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
