"""What the answers to completions and to chats have in common: their choices, whole or in chunks."""

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from steering_server.api.logprobs import prompt_logprobs
from steering_server.api.plan import Plan
from steering_server.api.schemas.requests import GenerationBody
from steering_server.api.schemas.responses import Comparison, ErrorBody, ErrorResponse, PromptLogprobs, Usage
from steering_server.generation.backend import Backend
from steering_server.generation.requests import Chunk

Body = TypeVar("Body", bound=GenerationBody)
Choice = TypeVar("Choice", bound=BaseModel)


class ChoicesWriter(ABC, Generic[Body, Choice]):
    """Formats the answer to one request, as :class:`.answering.Writer` describes."""

    ends_with_done = True
    id_prefix: str

    def __init__(self, plan: Plan, body: Body, backend: Backend) -> None:
        """Begin the answer to ``body``, whose sequences ``plan`` has, one for each choice."""
        self.plan = plan
        self.body = body
        self.backend = backend
        self._id = f"{self.id_prefix}-{uuid.uuid4().hex}"
        self._created = int(time.time())

    @property
    def counts_always(self) -> bool:
        """Whether every chunk has the usage so far."""
        return self.body.stream_options is not None and self.body.stream_options.continuous_usage_stats

    @abstractmethod
    def envelope(
        self, choices: list[Choice], usage: Usage | None = None, comparison: Comparison | None = None
    ) -> BaseModel:
        """Return one chunk of a stream."""

    def endings(self, usage: Usage, comparison: Comparison | None) -> Sequence[BaseModel]:
        """Return the chunks without choices at the end of a stream: the comparison of several arms, and the usage."""
        options = self.body.stream_options
        last: list[BaseModel] = []
        if comparison is not None:
            last.append(self.envelope([], usage if self.counts_always else None, comparison))
        if options is not None and options.include_usage:
            last.append(self.envelope([], usage))
        return last

    def failure(self, error: ErrorBody) -> BaseModel:
        """Return the event that ends a stream after an error."""
        return ErrorResponse(error=error)

    def around(self, usage: Usage | None, comparison: Comparison | None) -> dict[str, Any]:
        """Return the fields of :class:`.Envelope` besides the choices."""
        return {
            "id": self._id,
            "created": self._created,
            "model": self.plan.arms.model,
            "usage": usage,
            "steering": self.plan.arms.steering,
            "exposure": self.plan.arms.exposure,
            "comparison": comparison,
        }

    def arm(self, index: int) -> str | None:
        """Return the label of a choice's arm, if the request named arms."""
        return self.plan.sequences[index].arm.label if self.plan.arms.named else None

    def prompt_logprobs(self, chunk: Chunk) -> PromptLogprobs | None:
        """Return the log-probabilities of the prompt, if they were asked for and ``chunk`` has them."""
        if self.body.prompt_logprobs is None or chunk.prompt_logprobs is None:
            return None
        return prompt_logprobs(chunk.prompt_logprobs, self.body.prompt_logprobs, self.backend.tokenizer)

    def token_ids(self, tokens: Sequence[int]) -> list[int] | None:
        """Return ``tokens``, if the request asks for token ids."""
        return list(tokens) if self.body.return_token_ids else None
