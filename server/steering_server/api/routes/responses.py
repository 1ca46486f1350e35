"""``POST /v1/responses``: text in; text, or calls of functions, out. Nothing is stored."""

import anyio
from fastapi import APIRouter, Request, Response
from structlog.contextvars import bind_contextvars

from steering_server.api.answering import STEERED_ANSWER, answer
from steering_server.api.assigning import arms_of
from steering_server.api.conversation import render
from steering_server.api.dependencies import CallerDep, LimitsDep, ServiceDep
from steering_server.api.errors import ERROR_RESPONSES
from steering_server.api.plan import Draws, Prompt, check_prompt, make_plan, sampling_params
from steering_server.api.responses_writer import ResponsesWriter
from steering_server.api.schemas.v1_responses_answer import ResponseObject
from steering_server.api.schemas.v1_responses_request import ResponsesBody
from steering_server.api.tools import responses_grammar
from steering_server.generation.backend import Backend

router = APIRouter()


@router.post("/v1/responses", response_model=ResponseObject, responses=STEERED_ANSWER | ERROR_RESPONSES)
async def create_response(
    request: Request, body: ResponsesBody, service: ServiceDep, caller: CallerDep, limits: LimitsDep
) -> Response:
    """Answer a message or a conversation, each arm with text, or with calls of functions."""
    backend = service.backend
    arms = arms_of(request, body, service, caller)
    bind_contextvars(model=arms.model, steering=arms.header)
    tokens = await anyio.to_thread.run_sync(_render, body, backend)
    most = check_prompt(tokens, body.max_output_tokens, backend.model, limits, param="input", limit="max_output_tokens")
    plan = make_plan(
        [Prompt(tokens)],
        arms,
        Draws(1),
        sampling_params(body, max_tokens=most, logprobs=body.logprobs, grammar=responses_grammar(body)),
        backend.model,
        limits,
        caller.client,
    )
    writer = ResponsesWriter(plan, body, backend)
    return await answer(request, body, body.left_out(), plan, writer, backend)


def _render(body: ResponsesBody, backend: Backend) -> tuple[int, ...]:
    return render(body.messages, backend.tokenizer, tools=body.tool_use.offered, begin_turn=True, param="input")
