"""``POST /v1/completions``."""

from collections.abc import Sequence
from typing import Any

import anyio
from fastapi import APIRouter, Request, Response
from structlog.contextvars import bind_contextvars

from steering_server.api.answering import STEERED_ANSWER, answer
from steering_server.api.assigning import arms_of
from steering_server.api.completion_writer import CompletionWriter
from steering_server.api.dependencies import CallerDep, LimitsDep, ServiceDep
from steering_server.api.errors import ERROR_RESPONSES
from steering_server.api.plan import Draws, Prompt, check_prompt, make_plan, sampling_params
from steering_server.api.schemas.requests import CompletionBody
from steering_server.api.schemas.responses import Completion
from steering_server.api.structured import grammar_of
from steering_server.api.truncation import truncated
from steering_server.generation.backend import Backend
from steering_server.limits import RequestLimits

router = APIRouter()


@router.post("/v1/completions", response_model=Completion, responses=STEERED_ANSWER | ERROR_RESPONSES)
async def create_completion(
    request: Request, body: CompletionBody, service: ServiceDep, caller: CallerDep, limits: LimitsDep
) -> Response:
    """Complete a prompt with one or several arms."""
    backend = service.backend
    arms = arms_of(request, body, service, caller)
    bind_contextvars(model=arms.model, steering=arms.header)
    plan = make_plan(
        await anyio.to_thread.run_sync(_read_prompts, body, backend, limits),
        arms,
        Draws(body.n, body.best_of),
        sampling_params(
            body,
            max_tokens=body.max_tokens,
            logprobs=body.logprobs,
            echoes=body.echo,
            echoed_logprobs=body.logprobs if body.echo else None,
            prompt_logprobs=body.prompt_logprobs,
            grammar=grammar_of(body),
        ),
        backend.model,
        limits,
        caller.client,
    )
    writer = CompletionWriter(plan, body, backend)
    return await answer(request, body, body.left_out(), plan, writer, backend)


def _read_prompts(body: CompletionBody, backend: Backend, limits: RequestLimits) -> list[Prompt]:
    """Return the prompts as tokens, checked, with their texts if they are echoed.

    Raises:
        RequestError: see :func:`check_prompt`.
    """
    given = body.prompt
    several = [given] if isinstance(given, str) or isinstance(given[0], int) else given
    return [
        _prompt(
            backend.tokenizer.encode(one, add_special=body.add_special_tokens) if isinstance(one, str) else _ids(one),
            body,
            backend,
            limits,
        )
        for one in several
    ]


def _ids(prompt: int | Sequence[Any]) -> tuple[int, ...]:
    return (prompt,) if isinstance(prompt, int) else tuple(prompt)


def _prompt(tokens: tuple[int, ...], body: CompletionBody, backend: Backend, limits: RequestLimits) -> Prompt:
    tokens = truncated(tokens, body, backend.model.context_length)
    check_prompt(tokens, body.max_tokens, backend.model, limits)
    return Prompt(tokens, backend.tokenizer.echo(tokens, is_all=body.max_tokens == 0) if body.echo else ())
