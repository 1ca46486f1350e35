"""Log-probabilities in OpenAI's two formats."""

from collections.abc import Sequence

from steering_server.api.generation import Prompt
from steering_server.api.schemas.responses import ChatLogprobs, ChatTokenLogprob, CompletionLogprobs, TopLogprob
from steering_server.backends.base import Backend
from steering_server.engine.requests import Chunk, TokenLogprob
from steering_server.engine.text import TextStream

_REPLACEMENT = "\ufffd"


def completion_logprobs(chunk: Chunk, alternatives: int, backend: Backend, *, shift: int = 0) -> CompletionLogprobs:
    """Return the log-probabilities of a chunk's tokens; ``shift`` is added to their text offsets."""
    return CompletionLogprobs(
        tokens=[backend.token_text(token) for token in chunk.tokens],
        token_logprobs=[scored.logprob for scored in chunk.logprobs],
        top_logprobs=[_top(scored, backend) for scored in chunk.logprobs] if alternatives else None,
        text_offset=[shift + offset for offset in chunk.offsets],
    )


def echoed_logprobs(prompt: Prompt, chunk: Chunk, alternatives: int, backend: Backend) -> CompletionLogprobs:
    """Return the log-probabilities of the prompt's tokens; the first has none, as nothing precedes it."""
    scored = chunk.prompt_logprobs or ()
    return CompletionLogprobs(
        tokens=[backend.token_text(token) for token in prompt.tokens],
        token_logprobs=[one.logprob if one is not None else None for one in scored],
        top_logprobs=[_top(one, backend) if one is not None else None for one in scored] if alternatives else None,
        text_offset=_offsets(prompt.tokens, backend),
    )


def add(first: CompletionLogprobs, second: CompletionLogprobs) -> CompletionLogprobs:
    """Join the log-probabilities of a prompt and of what follows it."""
    top = (
        None if first.top_logprobs is None or second.top_logprobs is None else first.top_logprobs + second.top_logprobs
    )
    return CompletionLogprobs(
        tokens=first.tokens + second.tokens,
        token_logprobs=first.token_logprobs + second.token_logprobs,
        top_logprobs=top,
        text_offset=first.text_offset + second.text_offset,
    )


def chat_logprobs(chunk: Chunk, backend: Backend) -> ChatLogprobs:
    """Return the log-probabilities of a chunk's tokens in the chat format."""
    content = [
        ChatTokenLogprob(
            token=text,
            logprob=scored.logprob,
            bytes=_bytes(text),
            top_logprobs=[
                TopLogprob(token=backend.token_text(token), logprob=value, bytes=_bytes(backend.token_text(token)))
                for token, value in scored.top
            ],
        )
        for text, scored in ((backend.token_text(scored.token), scored) for scored in chunk.logprobs)
    ]
    return ChatLogprobs(content=content)


def _top(scored: TokenLogprob, backend: Backend) -> dict[str, float]:
    alternatives: dict[str, float] = {}
    for token, value in scored.top:  # likeliest first: of tokens that read alike the likeliest is kept
        alternatives.setdefault(backend.token_text(token), value)
    return alternatives


def _bytes(text: str) -> list[int] | None:
    """A token's bytes, unless it is a part of a character and its text does not tell them."""
    return None if _REPLACEMENT in text else list(text.encode())


def _offsets(tokens: Sequence[int], backend: Backend) -> list[int]:
    stream = TextStream(backend.decode, (), ())
    chunks = [stream.push(token, None) for token in tokens] + [stream.finish("length")]
    return [offset for chunk in chunks for offset in chunk.offsets]
