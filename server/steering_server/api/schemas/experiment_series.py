"""Answer of ``GET /v1/experiments/NAME/series``."""

from typing import Literal

from steering_server.api.schemas.responses import ResponseBody


class ArmPoint(ResponseBody):
    """What was known of the primary outcome in one arm."""

    name: str
    units: int
    """Units with an outcome."""
    mean: float | None
    interval: tuple[float, float]
    """Always-valid interval of the mean."""


class ComparisonPoint(ResponseBody):
    """What was known of the difference from the control."""

    treatment: str
    control: str
    difference: float | None
    """Null before both arms have enough units."""
    interval: tuple[float, float] | None


class SeriesPoint(ResponseBody):
    """What was known at one time."""

    at: float
    """Unix time."""
    arms: list[ArmPoint]
    comparisons: list[ComparisonPoint]


class ExperimentSeries(ResponseBody):
    """The primary outcome over time."""

    object: Literal["experiment.series"] = "experiment.series"
    experiment: str
    outcome: str
    points: list[SeriesPoint]
    """At equal distances, the last one at the time of the latest outcome; none without outcomes."""
