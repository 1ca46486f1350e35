"""What an experiment is, and the checks of it. All of it is data, without a database."""

import math
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, Self, get_args

from steering_ab.statistics.sequential import Bounds, Design, Sample, units_needed
from steering_profiles.errors import LabelError
from steering_profiles.labels import parse_label
from steering_profiles.schema import BASELINE
from steering_server.errors import RequestError

Requests = Literal["all", "named"]
"""The requests that take part: all that have no steering of their own, or those that name the experiment."""
Kind = Literal["rate", "mean"]
State = Literal["draft", "running", "stopped", "archived"]
Builtin = Literal["latency", "time_to_first_token", "errors", "completion_tokens"]

BUILTIN: tuple[Builtin, ...] = get_args(Builtin)
"""Guardrails that are measured by the server: seconds, seconds, share of failed requests, tokens of an answer."""
MAX_ARMS = 8
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
ARM_NAME = r"^[A-Za-z0-9._+@-]{1,64}$"
HEADER = "header:"
_UNIT = re.compile(r"user|conversation|header:[a-z0-9-]{1,64}")
_CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization"})
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class ArmDefinition:
    """One arm: a name, and what it applies, as an entry of ``arms`` in requests."""

    name: str
    steering: str


@dataclass(frozen=True)
class Outcome:
    """What clients report about an exposure."""

    name: str
    kind: Kind = "rate"
    """A rate is 0 or 1, a mean any number within the bounds."""
    lower: float = 0.0
    upper: float = 1.0
    higher_is_better: bool = True
    expected: float | None = None
    """The mean to expect without the experiment; None for the one that needs the most units."""

    @property
    def bounds(self) -> Bounds:
        """The least and the largest value."""
        return Bounds(self.lower, self.upper)


@dataclass(frozen=True)
class Guardrail:
    """A limit on by how much a metric may be worse than in the control; exactly one of the two is given."""

    metric: str
    """One of :data:`BUILTIN`, or a metric of which clients send outcomes."""
    max_increase: float | None = None
    """In the unit of the metric."""
    max_relative_increase: float | None = None
    """As a share of the control's."""
    lower: float | None = None
    """Bounds of the clients' own metric."""
    upper: float | None = None

    @property
    def bounds(self) -> Bounds | None:
        """The least and the largest value, if there are any."""
        if self.metric == "errors":
            return Bounds()
        return None if self.lower is None or self.upper is None else Bounds(self.lower, self.upper)


@dataclass(frozen=True)
class Definition:
    """An experiment, without what changes while it runs: its state and its weights.

    The first arm is the control, with which the others are compared.
    """

    name: str
    arms: tuple[ArmDefinition, ...]
    outcome: Outcome
    description: str = ""
    requests: Requests = "named"
    unit: str = "user"
    guardrails: tuple[Guardrail, ...] = ()
    minimum_effect: float = 0.05
    """The least difference that matters, in the unit of the outcome."""
    power: float = 0.8
    """Probability with which it is to be found."""
    alpha: float = 0.05
    """Probability of finding a difference between arms that have none."""
    store_text: bool = False
    """Whether prompts and answers are stored."""
    salt: str = ""

    @property
    def arm_names(self) -> tuple[str, ...]:
        """The arms' names, the control first."""
        return tuple(arm.name for arm in self.arms)

    @cached_property
    def planned_units(self) -> int:
        """Units of a treatment and the control together that the least effect needs."""
        outcome = self.outcome
        mean = (outcome.lower + outcome.upper) / 2 if outcome.expected is None else outcome.expected
        # No outcome within the bounds varies more than one that is always at one of them.
        sample = Sample(0, mean, (mean - outcome.lower) * (outcome.upper - mean))
        return units_needed(
            self.minimum_effect, (sample, sample), outcome.bounds, power=self.power, alpha=self.alpha_of_one
        )

    @property
    def alpha_of_one(self) -> float:
        """The level of one comparison, by Bonferroni's correction for as many as there are treatments."""
        return self.alpha / max(1, len(self.arms) - 1)

    @property
    def design(self) -> Design:
        """The design of all intervals."""
        return Design(planned_units=self.planned_units, alpha=self.alpha_of_one)

    @property
    def own_metrics(self) -> Mapping[str, Outcome | Guardrail]:
        """The metrics that clients send outcomes of, by name."""
        others = {one.metric: one for one in self.guardrails if one.metric not in BUILTIN}
        return {self.outcome.name: self.outcome, **others}

    def as_json(self) -> dict[str, Any]:
        """Return the definition as it is stored."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Return a stored definition."""
        fields = dict(stored)
        fields["arms"] = tuple(ArmDefinition(**arm) for arm in stored["arms"])
        fields["outcome"] = Outcome(**stored["outcome"])
        fields["guardrails"] = tuple(Guardrail(**guardrail) for guardrail in stored["guardrails"])
        return cls(**fields)


def new_salt() -> str:
    """Return a random salt."""
    return secrets.token_hex(8)


def check_definition(definition: Definition) -> None:
    """Check what one field alone cannot say.

    Raises:
        RequestError: two arms have the same name or steering, an arm's steering cannot be read, the unit is none of
            those that there are, an outcome's bounds, the least effect or a guardrail make no sense.
    """
    _check_arms(definition.arms)
    _check_unit(definition.unit)
    _check_outcome(definition)
    _check_guardrails(definition)


def check_weights(weights: Mapping[str, float], arms: Sequence[str], param: str = "weights") -> dict[str, float]:
    """Return ``weights`` in the order of ``arms``, divided by their sum, which rounding may have moved off 1.

    Raises:
        RequestError: an arm has no weight, there is no such arm, or the weights do not add up to 1.
    """
    unknown = next((name for name in weights if name not in arms), None)
    if unknown is not None:
        raise RequestError(
            f"{param}: has {_shown(unknown)}, which is no arm; the arms are {', '.join(arms)}", param=param
        )
    missing = next((name for name in arms if name not in weights), None)
    if missing is not None:
        raise RequestError(
            f"{param}: has no weight for the arm {missing}; every arm needs one, 0 is allowed", param=param
        )
    total = math.fsum(weights.values())
    bad = next((name for name, weight in weights.items() if not (math.isfinite(weight) and 0 <= weight <= 1)), None)
    if bad is not None:
        raise RequestError(f"{param}: {bad} has the weight {weights[bad]:g}; it must be between 0 and 1", param=param)
    if abs(total - 1) > _TOLERANCE:
        raise RequestError(f"{param}: add up to {total:g}; they must add up to 1", param=param)
    return {name: weights[name] / total for name in arms}


def check_value(metric: Outcome | Guardrail, value: float, param: str) -> None:
    """Check the value of an outcome.

    Raises:
        RequestError: it is none that the metric can have.
    """
    if isinstance(metric, Outcome) and metric.kind == "rate":
        if value not in (0, 1):
            raise RequestError(f"{param}: is {value:g}; {metric.name} is a rate, so it must be 0 or 1", param=param)
        return
    bounds = metric.bounds
    if bounds is not None and not bounds.lower <= value <= bounds.upper:
        name = metric.name if isinstance(metric, Outcome) else metric.metric
        raise RequestError(
            f"{param}: is {value:g}; {name} must be between {bounds.lower:g} and {bounds.upper:g}", param=param
        )


def _check_arms(arms: Sequence[ArmDefinition]) -> None:
    if not 2 <= len(arms) <= MAX_ARMS:
        raise RequestError(f"arms: there are {len(arms)}; an experiment has 2 to {MAX_ARMS}", param="arms")
    for index, arm in enumerate(arms):
        param = f"arms.{index}.steering"
        try:
            label = parse_label(arm.steering)
        except LabelError as exc:
            raise RequestError(f"{param}: {exc}", param=param) from exc
        steers = bool(label.names) and label.strength != 0
        if arm.name.casefold() == BASELINE and steers:
            raise RequestError(
                f"arms.{index}.name: is {arm.name}, which is reserved for the unsteered model",
                param=f"arms.{index}.name",
            )
        if any(arm.name.casefold() == other.name.casefold() for other in arms[:index]):
            raise RequestError(f"arms.{index}.name: {arm.name} is used twice", param=f"arms.{index}.name")


def _check_unit(unit: str) -> None:
    if not _UNIT.fullmatch(unit):
        raise RequestError(
            f"unit: is {_shown(unit)}; it must be user, conversation or header:NAME, with NAME in lower case",
            param="unit",
        )
    if unit.removeprefix(HEADER) in _CREDENTIALS:
        raise RequestError(f"unit: is {unit}, a header with credentials; choose another", param="unit")


def _check_outcome(definition: Definition) -> None:
    outcome = definition.outcome
    if outcome.name in BUILTIN:
        raise RequestError(
            f"outcome.name: is {outcome.name}, which the server measures itself; make it a guardrail",
            param="outcome.name",
        )
    if outcome.kind == "rate" and (outcome.lower, outcome.upper) != (0, 1):
        raise RequestError("outcome.kind: is rate, so lower must be 0 and upper 1, or left out", param="outcome.kind")
    if not outcome.lower < outcome.upper:
        raise RequestError(
            f"outcome.upper: is {outcome.upper:g}; it must be above lower, {outcome.lower:g}", param="outcome.upper"
        )
    if outcome.expected is not None and not outcome.lower <= outcome.expected <= outcome.upper:
        raise RequestError(
            f"outcome.expected: is {outcome.expected:g}; it must be between {outcome.lower:g} and {outcome.upper:g}",
            param="outcome.expected",
        )
    span = outcome.upper - outcome.lower
    if not (math.isfinite(span) and 0 < definition.minimum_effect <= span):
        raise RequestError(
            f"minimum_effect: is {definition.minimum_effect:g}; it must be above 0 and at most {span:g}, the range of "
            f"{outcome.name}",
            param="minimum_effect",
        )


def _check_guardrails(definition: Definition) -> None:
    seen = {definition.outcome.name}
    for index, guardrail in enumerate(definition.guardrails):
        param = f"guardrails.{index}"
        if guardrail.metric in seen:
            raise RequestError(
                f"{param}.metric: {guardrail.metric} is used twice, or is the outcome", param=f"{param}.metric"
            )
        seen.add(guardrail.metric)
        if (guardrail.max_increase is None) == (guardrail.max_relative_increase is None):
            raise RequestError(
                f"{param}.max_increase: give either it or max_relative_increase", param=f"{param}.max_increase"
            )
        if (guardrail.lower is None) != (guardrail.upper is None):
            raise RequestError(f"{param}.lower: give both bounds, lower and upper, or none", param=f"{param}.lower")
        if guardrail.lower is not None and guardrail.metric in BUILTIN:
            raise RequestError(
                f"{param}.lower: {guardrail.metric} is measured by the server and takes no bounds",
                param=f"{param}.lower",
            )
        if guardrail.lower is not None and guardrail.upper is not None and not guardrail.lower < guardrail.upper:
            raise RequestError(
                f"{param}.upper: is {guardrail.upper:g}; it must be above lower, {guardrail.lower:g}",
                param=f"{param}.upper",
            )


def _shown(text: str) -> str:
    return text if text.isascii() and text.isprintable() and len(text) <= 80 else ascii(text)[:80]
