"""``POST /v1/completions``."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from structlog.contextvars import bind_contextvars

from steering_server.api.answering import STEERED_ANSWER, answer
from steering_server.api.arms import resolve_arms
from steering_server.api.dependencies import ServiceDep
from steering_server.api.errors import ERROR_RESPONSES
from steering_server.api.logprobs import add, completion_logprobs, echoed_logprobs
from steering_server.api.plan import Plan, Prompt, check_prompt, make_plan, sampling_params
from steering_server.api.schemas.requests import CompletionBody
from steering_server.api.schemas.responses import Comparison, Completion, CompletionChoice, CompletionLogprobs, Usage
from steering_server.generation.backend import Backend
from steering_server.generation.requests import Chunk

router = APIRouter()


@router.post("/v1/completions", response_model=Completion, responses=STEERED_ANSWER | ERROR_RESPONSES)
async def create_completion(request: Request, body: CompletionBody, service: ServiceDep) -> Response:
    """Complete a prompt with one or several arms."""
    backend = service.backend
    arms = resolve_arms(body, backend)
    bind_contextvars(model=arms.model, steering=arms.header)
    plan = make_plan(
        await anyio.to_thread.run_sync(_read_prompts, body, backend),
        arms,
        body.n,
        sampling_params(
            body,
            max_tokens=body.max_tokens,
            logprobs=body.logprobs,
            echoes=body.echo,
            prompt_logprobs_from=0 if body.echo and body.logprobs is not None else None,
        ),
        backend.model,
    )
    writer = _Writer(plan, body, backend, f"cmpl-{uuid.uuid4().hex}", int(time.time()))
    return await answer(request, body, plan, backend.generate(plan.requests), writer, backend)


@dataclass
class _Writer:
    """Formats the answer to one request."""

    plan: Plan
    body: CompletionBody
    backend: Backend
    id: str
    created: int

    def __post_init__(self) -> None:
        self._written: dict[int, int] = {}
        """Length of each sequence's text so far, its echo included; only of sequences with a chunk."""

    def whole(self, answers: Sequence[Chunk], comparison: Comparison | None) -> Completion:
        choices = [self._choice(index, answer) for index, answer in enumerate(answers)]
        return self._envelope(choices, self.plan.usage(answers), comparison)

    def openings(self) -> list[BaseModel]:
        return []

    def chunk(self, index: int, chunk: Chunk) -> Completion:
        return self._envelope([self._choice(index, chunk)])

    def last(self, usage: Usage | None, comparison: Comparison | None) -> Completion:
        return self._envelope([], usage, comparison)

    def _envelope(
        self, choices: list[CompletionChoice], usage: Usage | None = None, comparison: Comparison | None = None
    ) -> Completion:
        return Completion(
            id=self.id,
            created=self.created,
            model=self.plan.arms.model,
            choices=choices,
            usage=usage,
            steering=self.plan.arms.steering,
            comparison=comparison,
        )

    def _choice(self, index: int, chunk: Chunk) -> CompletionChoice:
        sequence = self.plan.sequences[index]
        starts = index not in self._written
        start = self._written.setdefault(index, len(sequence.prompt.text))
        self._written[index] += sum(len(delta.text) for delta in chunk.deltas)
        return CompletionChoice(
            index=index,
            text=(sequence.prompt.text if starts else "") + chunk.text,
            logprobs=self._logprobs(sequence.prompt, chunk, start, starts),
            finish_reason=chunk.finish_reason,
            arm=sequence.arm.label if self.plan.arms.named else None,
        )

    def _logprobs(self, prompt: Prompt, chunk: Chunk, start: int, starts: bool) -> CompletionLogprobs | None:
        if self.body.logprobs is None:
            return None
        logprobs = completion_logprobs(chunk, self.body.logprobs, self.backend.tokenizer, start=start)
        if self.body.echo and starts:
            return add(echoed_logprobs(prompt, chunk, self.body.logprobs, self.backend.tokenizer), logprobs)
        return logprobs


def _read_prompts(body: CompletionBody, backend: Backend) -> list[Prompt]:
    """Return the prompts as tokens, checked, with their texts if they are echoed.

    Raises:
        RequestError: see :func:`check_prompt`.
    """
    given = body.prompt
    several = [given] if isinstance(given, str) or isinstance(given[0], int) else given
    return [
        _prompt(backend.tokenizer.encode(one) if isinstance(one, str) else _ids(one), body, backend) for one in several
    ]


def _ids(prompt: int | Sequence[Any]) -> tuple[int, ...]:
    return (prompt,) if isinstance(prompt, int) else tuple(prompt)


def _prompt(tokens: tuple[int, ...], body: CompletionBody, backend: Backend) -> Prompt:
    check_prompt(tokens, body.max_tokens, backend.model)
    return Prompt(tokens, backend.tokenizer.echo(tokens, is_all=body.max_tokens == 0) if body.echo else ())
