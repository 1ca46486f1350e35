"""``/tokenize``, ``/detokenize`` and ``/tokenizer_info``, for clients that have no tokenizer of their own."""

from typing import Any

import anyio
from fastapi import APIRouter, Response

from steering_server.api.arms import require_model
from steering_server.api.conversation import render, unread_fields, unread_variables
from steering_server.api.dependencies import CallerDep, ServiceDep
from steering_server.api.errors import ERROR_RESPONSES
from steering_server.api.plan import require_in_vocabulary
from steering_server.api.schemas.tokenization import (
    DetokenizeBody,
    DetokenizedText,
    TokenizeBody,
    TokenizerInfo,
    Tokens,
)
from steering_server.generation.backend import Backend

router = APIRouter()
_LOADING: dict[int | str, dict[str, Any]] = {503: ERROR_RESPONSES[503]}


@router.post("/tokenize", responses=ERROR_RESPONSES)
async def tokenize(body: TokenizeBody, service: ServiceDep, caller: CallerDep, response: Response) -> Tokens:
    """Return the tokens of a prompt, or of a conversation formatted with the model's chat template."""
    backend = service.backend
    require_model(body.model, backend, caller)
    left_out = (
        body.left_out()
        + unread_fields(body.messages or (), backend.tokenizer)
        + unread_variables(body.chat_template_kwargs, backend.tokenizer)
    )
    tokens = await anyio.to_thread.run_sync(_tokens, body, backend)
    spelling = backend.tokenizer.spelling
    response.headers.update(left_out.headers)
    return Tokens(
        count=len(tokens),
        max_model_len=backend.model.context_length,
        tokens=list(tokens),
        token_strs=[spelling(token).entry for token in tokens] if body.return_token_strs else None,
    )


@router.post("/detokenize", responses=ERROR_RESPONSES)
async def detokenize(
    body: DetokenizeBody, service: ServiceDep, caller: CallerDep, response: Response
) -> DetokenizedText:
    """Return the text of tokens, special ones included."""
    backend = service.backend
    require_model(body.model, backend, caller)
    require_in_vocabulary(body.tokens, backend.model, param="tokens")
    response.headers.update(body.left_out().headers)
    return DetokenizedText(prompt=await anyio.to_thread.run_sync(backend.tokenizer.decode, body.tokens))


@router.get("/tokenizer_info", responses=_LOADING)
async def tokenizer_info(service: ServiceDep) -> TokenizerInfo:
    """Describe the tokenizer: its special tokens and its chat template."""
    backend = service.backend
    facts = backend.tokenizer.facts
    return TokenizerInfo(
        tokenizer_class=facts.class_name,
        vocab_size=backend.model.identity.vocab_size,
        model_max_length=backend.model.context_length,
        bos_token=facts.bos,
        eos_token=facts.eos,
        pad_token=facts.pad,
        unk_token=facts.unknown,
        chat_template=facts.chat_template,
    )


def _tokens(body: TokenizeBody, backend: Backend) -> tuple[int, ...]:
    tokenizer = backend.tokenizer
    if body.messages is None:
        return tokenizer.encode(body.prompt or "", add_special=body.add_special_tokens is not False)
    return render(
        body.messages,
        tokenizer,
        tools=body.tools or (),
        begin_turn=body.begins_turn,
        continue_last=body.continue_final_message,
        add_special=body.add_special_tokens is True,
        variables=body.chat_template_kwargs,
    )
