"""``POST /v1/chat/completions``."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import anyio
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from structlog.contextvars import bind_contextvars

from steering_server.api.answering import STEERED_ANSWER, answer
from steering_server.api.arms import resolve_arms
from steering_server.api.dependencies import ServiceDep
from steering_server.api.errors import ERROR_RESPONSES
from steering_server.api.logprobs import chat_logprobs
from steering_server.api.plan import Plan, Prompt, check_prompt, make_plan, sampling_params
from steering_server.api.schemas.requests import ChatBody
from steering_server.api.schemas.responses import (
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
    Comparison,
    Usage,
)
from steering_server.generation.backend import Backend
from steering_server.generation.requests import Chunk

router = APIRouter()


@router.post("/v1/chat/completions", response_model=ChatCompletion, responses=STEERED_ANSWER | ERROR_RESPONSES)
async def create_chat_completion(request: Request, body: ChatBody, service: ServiceDep) -> Response:
    """Answer a conversation, rendered by the model's chat template, with one or several arms."""
    backend = service.backend
    arms = resolve_arms(body, backend)
    bind_contextvars(model=arms.model, steering=arms.header)
    tokens = await anyio.to_thread.run_sync(_render, body, backend)
    plan = make_plan(
        [Prompt(tokens)],
        arms,
        body.n,
        sampling_params(
            body,
            max_tokens=check_prompt(tokens, body.token_limit, backend.model, param="messages"),
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        ),
        backend.model,
    )
    writer = _Writer(plan, backend, f"chatcmpl-{uuid.uuid4().hex}", int(time.time()))
    return await answer(request, body, plan, backend.generate(plan.requests), writer, backend)


@dataclass(frozen=True)
class _Writer:
    """Formats the answer to one request."""

    plan: Plan
    backend: Backend
    id: str
    created: int

    def whole(self, answers: Sequence[Chunk], comparison: Comparison | None) -> ChatCompletion:
        choices = [
            ChatChoice(
                index=index,
                message=ChatMessage(content=answer.text),
                logprobs=self._logprobs(answer),
                finish_reason=answer.finish_reason,
                arm=self._arm(index),
            )
            for index, answer in enumerate(answers)
        ]
        return ChatCompletion(
            id=self.id,
            created=self.created,
            model=self.plan.arms.model,
            choices=choices,
            usage=self.plan.usage(answers),
            steering=self.plan.arms.steering,
            comparison=comparison,
        )

    def openings(self) -> list[BaseModel]:
        delta = ChatDelta(role="assistant", content="")
        return [
            self._envelope([ChatChunkChoice(index=index, delta=delta, finish_reason=None, arm=self._arm(index))])
            for index in range(len(self.plan.sequences))
        ]

    def chunk(self, index: int, chunk: Chunk) -> ChatCompletionChunk:
        choice = ChatChunkChoice(
            index=index,
            delta=ChatDelta(content=chunk.text) if chunk.text else ChatDelta(),
            logprobs=self._logprobs(chunk) if chunk.logprobs else None,
            finish_reason=chunk.finish_reason,
            arm=self._arm(index),
        )
        return self._envelope([choice])

    def last(self, usage: Usage | None, comparison: Comparison | None) -> ChatCompletionChunk:
        return self._envelope([], usage, comparison)

    def _envelope(
        self, choices: list[ChatChunkChoice], usage: Usage | None = None, comparison: Comparison | None = None
    ) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self.id,
            created=self.created,
            model=self.plan.arms.model,
            choices=choices,
            usage=usage,
            steering=self.plan.arms.steering,
            comparison=comparison,
        )

    def _arm(self, index: int) -> str | None:
        return self.plan.sequences[index].arm.label if self.plan.arms.named else None

    def _logprobs(self, chunk: Chunk) -> ChatLogprobs | None:
        return chat_logprobs(chunk, self.backend.tokenizer) if self.plan.sampling.logprobs is not None else None


def _render(body: ChatBody, backend: Backend) -> tuple[int, ...]:
    roles = {"developer": "system"}  # OpenAI's newer name
    return backend.tokenizer.render_chat(
        [{"role": roles.get(message.role, message.role), "content": message.text} for message in body.messages],
        begin_turn=body.begins_turn,
        continue_last=body.continue_final_message,
    )
