"""Bodies of requests and answers about experiments."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, StrictBool, StringConstraints, model_validator

from steering_server.api.schemas.fields import NonEmptyText, Number, Text
from steering_server.api.schemas.responses import ResponseBody, absent
from steering_server.api.schemas.strict import Strict
from steering_server.experiments.definition import (
    ARM_NAME,
    MAX_ARMS,
    NAME,
    ArmDefinition,
    Definition,
    Guardrail,
    Kind,
    Outcome,
    Requests,
    State,
    new_salt,
)
from steering_server.experiments.outcomes import KEY, MAX_OUTCOMES, Given
from steering_server.experiments.report import Status, Verdict

MAX_GUARDRAILS = 16
_Name = Annotated[str, StringConstraints(strict=True, pattern=NAME)]
_Value = Annotated[Number, Field(ge=-1e12, le=1e12)]
_Weight = Annotated[Number, Field(ge=0, le=1)]


def _few_outcomes(given: Any) -> Any:
    """Check the number before the entries: validating a million of them would block the server."""
    if isinstance(given, list) and len(given) > MAX_OUTCOMES:
        raise ValueError(
            f"must have at most {MAX_OUTCOMES} items, not {len(given)}; none was stored; send them in several requests"
        )
    return given


class ArmOfExperiment(Strict):
    """An arm to create."""

    name: Annotated[str, StringConstraints(strict=True, pattern=ARM_NAME)] | None = Field(
        None, description="The arm's name in answers and reports. Default: its steering."
    )
    steering: NonEmptyText = Field(description="baseline, a profile, several as a+b, with a strength as a@0.5.")
    weight: _Weight = Field(description="Share of the units that it gets; all weights add up to 1.")

    @property
    def label(self) -> str:
        """The arm's name."""
        return self.name or self.steering


class OutcomeOfExperiment(Strict):
    """The primary outcome, by which arms are compared."""

    name: _Name
    kind: Kind = Field("rate", description="A rate is 0 or 1, a mean any number within the bounds.")
    lower: _Value | None = Field(None, description="Least value of a mean. Default: 0.")
    upper: _Value | None = Field(None, description="Largest value of a mean. Default: 1.")
    better: Literal["higher", "lower"] = "higher"
    expected: _Value | None = Field(
        None, description="Mean to expect in the control, for planning. Default: the one that needs the most units."
    )

    def as_outcome(self) -> Outcome:
        """Return what it defines."""
        return Outcome(
            name=self.name,
            kind=self.kind,
            lower=0.0 if self.lower is None else self.lower,
            upper=1.0 if self.upper is None else self.upper,
            higher_is_better=self.better == "higher",
            expected=self.expected,
        )


class GuardrailOfExperiment(Strict):
    """A limit on by how much a metric may be worse than in the control."""

    metric: _Name = Field(
        description="latency and time_to_first_token (seconds), errors (share of requests), completion_tokens, or a "
        "metric of which you send outcomes."
    )
    max_increase: _Value | None = Field(None, description="In the unit of the metric.")
    max_relative_increase: Annotated[Number, Field(ge=-1, le=1e6)] | None = Field(
        None, description="As a share of the control's mean: 0.1 is 10%."
    )
    lower: _Value | None = Field(None, description="Least value of your own metric.")
    upper: _Value | None = Field(None, description="Largest value of your own metric.")


class ExperimentBody(Strict):
    """Body of ``POST /v1/experiments``."""

    nested: ClassVar[tuple[str, ...]] = ("arms", "outcome", "guardrails")

    name: _Name
    description: Annotated[Text, Field(max_length=2000)] = ""
    arms: Annotated[list[ArmOfExperiment], Field(min_length=2, max_length=MAX_ARMS)] = Field(
        description="The first one is the control, with which the others are compared."
    )
    outcome: OutcomeOfExperiment
    requests: Requests = Field(
        "named",
        description="The requests that take part: those that name the experiment in `experiment`, or all without "
        "steering of their own as well.",
    )
    unit: NonEmptyText = Field(
        "user",
        description="What is assigned to an arm: user (the field), header:NAME, or conversation (its first message).",
    )
    guardrails: Annotated[list[GuardrailOfExperiment], Field(max_length=MAX_GUARDRAILS)] = Field(default_factory=list)
    minimum_effect: Annotated[Number, Field(gt=0, le=1e12)] | None = Field(
        None, description="Least difference that matters. Default: 5% of the outcome's range."
    )
    power: Annotated[Number, Field(ge=0.5, le=0.999)] = Field(0.8, description="Probability of finding it.")
    alpha: Annotated[Number, Field(ge=1e-6, le=0.5)] = Field(
        0.05, description="Probability of finding a difference where there is none."
    )
    store_text: StrictBool = Field(False, description="Whether prompts and answers are stored.")
    salt: Annotated[str, StringConstraints(strict=True, pattern=r"^[!-~]{1,64}$")] | None = Field(
        None,
        description="Decides, with the name, who is in which arm. Default: a random one.",
    )

    @property
    def definition(self) -> Definition:
        """What the body defines. It is not checked as a whole yet."""
        outcome = self.outcome.as_outcome()
        span = outcome.upper - outcome.lower
        return Definition(
            name=self.name,
            description=self.description,
            arms=tuple(ArmDefinition(arm.label, arm.steering) for arm in self.arms),
            outcome=outcome,
            requests=self.requests,
            unit=self.unit,
            guardrails=tuple(
                Guardrail(one.metric, one.max_increase, one.max_relative_increase, one.lower, one.upper)
                for one in self.guardrails
            ),
            minimum_effect=0.05 * span if self.minimum_effect is None else self.minimum_effect,
            power=self.power,
            alpha=self.alpha,
            store_text=self.store_text,
            salt=self.salt or new_salt(),
        )

    @property
    def weights(self) -> dict[str, float]:
        """The weights of the arms by name."""
        return {arm.label: arm.weight for arm in self.arms}

    @model_validator(mode="after")
    def _named(self) -> Self:
        # A label is valid as a name or too long for one.
        for index, arm in enumerate(self.arms):
            if arm.name is None and len(arm.steering) > 64:
                raise ValueError(f"arms.{index}.name: is required where steering has more than 64 characters")
        return self


class WeightsBody(Strict):
    """Body of ``PUT /v1/experiments/NAME/weights``."""

    weights: Annotated[dict[str, _Weight], Field(min_length=2, max_length=MAX_ARMS)] = Field(
        description="The weight of every arm by its name; they add up to 1."
    )


class OutcomeGiven(Strict):
    """One outcome."""

    exposure: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200)] = Field(
        description="The id that an answer had in exposure.id."
    )
    value: StrictBool | _Value = Field(description="0 or 1, or true or false, for a rate.")
    metric: _Name | None = Field(None, description="Default: the primary outcome.")
    key: Annotated[str, StringConstraints(strict=True, pattern=KEY)] | None = Field(
        None,
        description="An outcome that is sent again with the same key is stored once. Default: the exposure and the "
        "metric. With keys of their own, an exposure has several outcomes.",
    )

    @property
    def given(self) -> Given:
        """The outcome as it is stored."""
        return Given(self.exposure, float(self.value), self.metric, self.key)


class OutcomesBody(Strict):
    """Body of ``POST /v1/experiments/NAME/outcomes``."""

    nested: ClassVar[tuple[str, ...]] = ("outcomes",)

    outcomes: Annotated[
        list[OutcomeGiven],
        Field(min_length=1, fail_fast=True, json_schema_extra={"maxItems": MAX_OUTCOMES}),
        BeforeValidator(_few_outcomes),
    ]


class WeightedArm(ResponseBody):
    """An arm of an experiment."""

    name: str
    steering: str
    weight: float


class OutcomeObject(ResponseBody):
    """The primary outcome."""

    name: str
    kind: Kind
    lower: float
    upper: float
    better: Literal["higher", "lower"]
    expected: float | None


class GuardrailObject(ResponseBody):
    """A guardrail."""

    metric: str
    max_increase: float | None
    max_relative_increase: float | None
    lower: float | None
    upper: float | None


class ChangeObject(ResponseBody):
    """One change of an experiment."""

    at: float
    """Unix time."""
    by: str | None
    """Name of the API key; null on a server without keys."""
    action: Literal["create", "start", "stop", "archive", "weights"]
    details: dict[str, Any]


class ExperimentObject(ResponseBody):
    """An experiment."""

    object: Literal["experiment"] = "experiment"
    name: str
    description: str
    model: str
    """The served name of the model whose requests it has."""
    state: State
    arms: list[WeightedArm]
    outcome: OutcomeObject
    requests: Requests
    unit: str
    guardrails: list[GuardrailObject]
    minimum_effect: float
    power: float
    alpha: float
    store_text: bool
    salt: str
    planned_units: int
    """Units of a treatment and the control together that the least effect needs."""
    created_at: float
    changes: list[ChangeObject] | None = absent()
    """Every change, the first one first; only where one experiment is asked for."""


class ExperimentList(ResponseBody):
    """Answer of ``GET /v1/experiments``."""

    object: Literal["list"] = "list"
    data: list[ExperimentObject]


class OutcomesStored(ResponseBody):
    """Answer to outcomes, all of which are on the disk."""

    object: Literal["experiment.outcomes"] = "experiment.outcomes"
    experiment: str
    stored: int
    repeated: int
    """Those that had been stored before."""


class ArmReport(ResponseBody):
    """What is known of one arm."""

    name: str
    steering: str
    weight: float
    exposures: int
    units: int
    outcomes: int
    mean: float | None
    """Rate or mean of the primary outcome; null without outcomes."""
    interval: tuple[float, float]
    """Always-valid interval of the mean."""
    latency: float | None
    """Mean seconds of an answer."""
    time_to_first_token: float | None
    errors: float | None
    """Share of failed requests."""
    completion_tokens: float | None
    """Mean tokens of an answer."""


class ComparisonReport(ResponseBody):
    """The primary outcome in one arm minus that in the control."""

    treatment: str
    control: str
    difference: float | None
    """Null before both arms have enough units."""
    interval: tuple[float, float] | None
    """Always-valid interval of the difference."""
    verdict: Verdict
    """Whether the interval is on one side of 0."""
    units: int
    """Units with an outcome in the two arms."""
    units_needed: int
    """Units that the least effect needs, by the variance seen so far."""
    units_missing: int


class GuardrailReport(ResponseBody):
    """By how much a metric is worse in one arm than in the control."""

    metric: str
    treatment: str
    control: str
    treatment_mean: float | None
    control_mean: float | None
    increase: float | None
    """The difference; for a relative limit that of the treatment's mean and the largest that is allowed."""
    interval: tuple[float, float] | None
    limit: float
    """What the interval is compared with."""
    status: Status


class SampleRatioReport(ResponseBody):
    """Whether the arms have the numbers of units that the weights say."""

    p_value: float
    """Always valid."""
    mismatch: bool
    """Whether the p-value is at most 0.001: then no other figure can be trusted."""
    expected: dict[str, float]
    observed: dict[str, int]


class ExperimentReport(ResponseBody):
    """Answer of ``GET /v1/experiments/NAME/report``."""

    object: Literal["experiment.report"] = "experiment.report"
    experiment: ExperimentObject
    at: float
    """Unix time."""
    arms: list[ArmReport]
    comparisons: list[ComparisonReport]
    guardrails: list[GuardrailReport]
    sample_ratio: SampleRatioReport
    lost_exposures: int
    """Exposures that were not stored because the queue was full."""
    warnings: list[str]
    """What casts doubt on the figures."""
