"""``POST /v1/chat/completions``."""

import anyio
from fastapi import APIRouter, Request, Response
from structlog.contextvars import bind_contextvars

from steering_server.api.answering import STEERED_ANSWER, answer
from steering_server.api.assigning import arms_of
from steering_server.api.chat_writer import ChatWriter
from steering_server.api.conversation import render, unread_fields, unread_variables
from steering_server.api.dependencies import CallerDep, LimitsDep, ServiceDep
from steering_server.api.errors import ERROR_RESPONSES
from steering_server.api.plan import Draws, Prompt, check_prompt, make_plan, sampling_params
from steering_server.api.schemas.requests import ChatBody
from steering_server.api.schemas.responses import ChatCompletion
from steering_server.api.tools import chat_grammar
from steering_server.api.truncation import truncated
from steering_server.generation.backend import Backend

router = APIRouter()


@router.post("/v1/chat/completions", response_model=ChatCompletion, responses=STEERED_ANSWER | ERROR_RESPONSES)
async def create_chat_completion(
    request: Request, body: ChatBody, service: ServiceDep, caller: CallerDep, limits: LimitsDep
) -> Response:
    """Answer a conversation, rendered by the model's chat template, with one or several arms."""
    backend = service.backend
    arms = arms_of(request, body, service, caller)
    bind_contextvars(model=arms.model, steering=arms.header)
    left_out = (
        body.left_out()
        + unread_fields(body.messages, backend.tokenizer)
        + unread_variables(body.chat_template_kwargs, backend.tokenizer)
    )
    tokens = await anyio.to_thread.run_sync(_render, body, backend)
    plan = make_plan(
        [Prompt(tokens)],
        arms,
        Draws(body.n),
        sampling_params(
            body,
            max_tokens=check_prompt(tokens, body.token_limit, backend.model, limits, param="messages"),
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            prompt_logprobs=body.prompt_logprobs,
            grammar=chat_grammar(body),
        ),
        backend.model,
        limits,
        caller.client,
    )
    return await answer(request, body, left_out, plan, ChatWriter(plan, body, backend), backend)


def _render(body: ChatBody, backend: Backend) -> tuple[int, ...]:
    tokens = render(
        body.messages,
        backend.tokenizer,
        tools=body.tool_use.offered,
        begin_turn=body.begins_turn,
        continue_last=body.continue_final_message,
        add_special=body.add_special_tokens,
        variables=body.chat_template_kwargs,
    )
    return truncated(tokens, body, backend.model.context_length)
