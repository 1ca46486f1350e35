"""Log-probabilities in OpenAI's two formats, of completions and of chat."""

from collections.abc import Iterator, Sequence
from itertools import accumulate

from steering_server.api.plan import Prompt
from steering_server.api.schemas.responses import (
    ChatLogprobs,
    ChatTokenLogprob,
    CompletionLogprobs,
    PromptTokenLogprob,
    TopLogprob,
)
from steering_server.generation.requests import Chunk, TextDelta, TokenLogprob
from steering_server.generation.tokenizer import TokenizerService


def completion_logprobs(
    chunk: Chunk, alternatives: int, tokenizer: TokenizerService, *, start: int = 0
) -> CompletionLogprobs:
    """Return the log-probabilities of a chunk's tokens; its text begins at offset ``start``."""
    return _columns(chunk.deltas, chunk.logprobs, alternatives, tokenizer, start)


def echoed_logprobs(prompt: Prompt, chunk: Chunk, alternatives: int, tokenizer: TokenizerService) -> CompletionLogprobs:
    """Return the log-probabilities of the prompt's tokens, None for the first one."""
    return _columns(prompt.deltas, chunk.prompt_logprobs or (), alternatives, tokenizer, 0)


def add(first: CompletionLogprobs, second: CompletionLogprobs) -> CompletionLogprobs:
    """Concatenate the log-probabilities of a prompt and of its completion."""
    top = (
        None if first.top_logprobs is None or second.top_logprobs is None else first.top_logprobs + second.top_logprobs
    )
    return CompletionLogprobs(
        tokens=first.tokens + second.tokens,
        token_logprobs=first.token_logprobs + second.token_logprobs,
        top_logprobs=top,
        text_offset=first.text_offset + second.text_offset,
    )


def chat_logprobs(chunk: Chunk, tokenizer: TokenizerService) -> ChatLogprobs:
    """Return the log-probabilities of a chunk's tokens in the chat format."""
    content = [
        ChatTokenLogprob(
            token=delta.text,
            logprob=scored.logprob,
            bytes=list(delta.raw),
            top_logprobs=[
                TopLogprob(token=name, logprob=value, bytes=list(raw))
                for name, raw, value in _alternatives(delta, scored, tokenizer)
            ],
        )
        for delta, scored in zip(chunk.deltas, chunk.logprobs, strict=True)
    ]
    return ChatLogprobs(content=content)


def prompt_logprobs(
    scored: Sequence[TokenLogprob | None], alternatives: int, tokenizer: TokenizerService
) -> list[dict[str, PromptTokenLogprob] | None]:
    """Return the log-probabilities of a prompt's tokens as vLLM does: by token id, the prompt's own token first."""
    return [None if one is None else dict(_with_ranks(one, alternatives, tokenizer)) for one in scored]


def _with_ranks(
    scored: TokenLogprob, alternatives: int, tokenizer: TokenizerService
) -> Iterator[tuple[str, PromptTokenLogprob]]:
    top = scored.top[:alternatives]
    ranks = {token: rank for rank, (token, _) in enumerate(top, 1)}
    for token, value in dict([(scored.token, scored.logprob), *top]).items():
        rank = ranks.get(token) or scored.rank
        yield str(token), PromptTokenLogprob(logprob=value, rank=rank, decoded_token=tokenizer.spelling(token).text)


def _columns(
    deltas: Sequence[TextDelta],
    scored: Sequence[TokenLogprob | None],
    alternatives: int,
    tokenizer: TokenizerService,
    start: int,
) -> CompletionLogprobs:
    tops = [
        None if one is None else {name: value for name, _, value in _alternatives(delta, one, tokenizer, alternatives)}
        for delta, one in zip(deltas, scored, strict=True)
    ]
    return CompletionLogprobs(
        tokens=[delta.text for delta in deltas],
        token_logprobs=[None if one is None else one.logprob for one in scored],
        top_logprobs=tops if alternatives else None,
        text_offset=list(accumulate((len(delta.text) for delta in deltas[:-1]), initial=start)) if deltas else [],
    )


def _alternatives(
    delta: TextDelta, scored: TokenLogprob, tokenizer: TokenizerService, most: int | None = None
) -> Iterator[tuple[str, bytes, float]]:
    """Yield distinct names, bytes and log-probabilities of the ``most`` likeliest tokens and of the token itself.

    The name of the token itself is the text that it added.
    """
    top = scored.top[:most]
    if not top:
        return
    taken = {delta.text}
    for token, value in top:
        if token == scored.token:
            yield delta.text, delta.raw, value
        else:
            spelling = tokenizer.spelling(token)
            names = (name for name in (spelling.text, spelling.entry) if name not in taken)
            name = next(names, f"token_id:{token}")
            taken.add(name)
            yield name, spelling.raw, value
    if scored.token not in dict(top):
        yield delta.text, delta.raw, scored.logprob
