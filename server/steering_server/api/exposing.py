"""The exposure of a request of an experiment: what happens to it is noted and recorded at its end."""

import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from steering_server.api.schemas.responses import ExposureObject
from steering_server.errors import RequestError
from steering_server.experiments.exposures import Exposure
from steering_server.generation.requests import BatchOutput

if TYPE_CHECKING:
    from steering_server.api.plan import Plan
    from steering_server.experiments.live import Assignment

MOST_TEXT = 100_000
"""Characters that are stored of a prompt and of an answer."""


@dataclass(frozen=True)
class Exposing:
    """Follows one assigned request."""

    assignment: "Assignment"
    record: Callable[[Exposure], None]
    prompt: str | None
    """The prompt, where text is stored."""
    deadline: float
    """Time of the event loop's clock, that of ``time.monotonic``, by which the request must be answered."""
    began: float = field(default_factory=time.monotonic)

    @property
    def shown(self) -> ExposureObject:
        """The answer's ``exposure`` field."""
        given = self.assignment
        return ExposureObject(id=given.exposure, experiment=given.experiment.name, arm=given.arm)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that say the same."""
        given = self.assignment
        return {"x-exposure-id": given.exposure, "x-experiment": f"{given.experiment.name};arm={given.arm}"}

    async def watch(self, plan: "Plan", output: BatchOutput) -> BatchOutput:
        """Yield ``output``, which is generated for ``plan``, and record the exposure when it ends.

        A request that was refused before it ran, such as by a full queue, is not recorded: nothing was exposed.
        """
        first: float | None = None
        tokens, reasons = 0, set[str]()
        texts: list[list[str]] = [[] for _ in plan.sequences]
        ending = "abort"
        try:
            async with aclosing(output):
                async for index, chunk in output:
                    if chunk.tokens:
                        tokens += len(chunk.tokens)
                        first = time.monotonic() if first is None else first
                    if self.prompt is not None:
                        texts[index].append(chunk.text)
                    if chunk.finish_reason is not None:
                        reasons.add(chunk.finish_reason)
                    yield index, chunk
            ending = "length" if "length" in reasons else "stop"
        except RequestError:
            ending = ""
            raise
        except Exception:
            ending = "error"
            raise
        finally:
            now = time.monotonic()
            if ending == "abort" and now >= self.deadline:
                ending = "error"  # it was not the client who ended it
            if ending:
                answers = "\n".join("".join(pieces) for pieces in texts)
                to_first = None if first is None else first - self.began
                self._record(plan, ending, now - self.began, to_first, tokens, answers)

    def _record(
        self, plan: "Plan", ending: str, latency: float, first: float | None, tokens: int, answers: str
    ) -> None:
        given, keeps_text = self.assignment, self.prompt is not None
        self.record(
            Exposure(
                id=given.exposure,
                experiment_id=given.experiment.id,
                arm=given.arm_index,
                period=given.experiment.period,
                unit=given.unit,
                at=time.time() - latency,
                latency=latency,
                time_to_first_token=first,
                prompt_tokens=plan.prompt_tokens,
                completion_tokens=tokens,
                finish_reason=ending,
                profiles=[profile.content_hash for arm in plan.arms.arms for profile in arm.applied.profiles],
                prompt=self.prompt[:MOST_TEXT] if self.prompt is not None else None,
                answer=answers[:MOST_TEXT] if keeps_text else None,
            )
        )
