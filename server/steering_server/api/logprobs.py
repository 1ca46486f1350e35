"""Log-probabilities in OpenAI's two formats."""

from collections.abc import Iterator, Sequence
from itertools import accumulate

from steering_server.api.generation import Prompt
from steering_server.api.schemas.responses import ChatLogprobs, ChatTokenLogprob, CompletionLogprobs, TopLogprob
from steering_server.generation.requests import Chunk, Piece, TokenLogprob
from steering_server.generation.tokenizer import TokenizerService


def completion_logprobs(
    chunk: Chunk, alternatives: int, tokenizer: TokenizerService, *, start: int = 0
) -> CompletionLogprobs:
    """Return the log-probabilities of a chunk's tokens, whose text begins at ``start``."""
    return _columns(chunk.pieces, chunk.logprobs, alternatives, tokenizer, start)


def echoed_logprobs(prompt: Prompt, chunk: Chunk, alternatives: int, tokenizer: TokenizerService) -> CompletionLogprobs:
    """Return the log-probabilities of the prompt's tokens; the first has none, as nothing precedes it."""
    return _columns(prompt.pieces, chunk.prompt_logprobs or (), alternatives, tokenizer, 0)


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


def chat_logprobs(chunk: Chunk, tokenizer: TokenizerService) -> ChatLogprobs:
    """Return the log-probabilities of a chunk's tokens in the chat format."""
    content = [
        ChatTokenLogprob(
            token=piece.text,
            logprob=scored.logprob,
            bytes=list(piece.raw),
            top_logprobs=[
                TopLogprob(token=name, logprob=value, bytes=list(raw))
                for name, raw, value in _alternatives(piece, scored, tokenizer)
            ],
        )
        for piece, scored in zip(chunk.pieces, chunk.logprobs, strict=True)
    ]
    return ChatLogprobs(content=content)


def _columns(
    pieces: Sequence[Piece],
    scored: Sequence[TokenLogprob | None],
    alternatives: int,
    tokenizer: TokenizerService,
    start: int,
) -> CompletionLogprobs:
    tops = [
        None if one is None else {name: value for name, _, value in _alternatives(piece, one, tokenizer)}
        for piece, one in zip(pieces, scored, strict=True)
    ]
    return CompletionLogprobs(
        tokens=[piece.text for piece in pieces],
        token_logprobs=[None if one is None else one.logprob for one in scored],
        top_logprobs=tops if alternatives else None,
        text_offset=list(accumulate((len(piece.text) for piece in pieces[:-1]), initial=start)) if pieces else [],
    )


def _alternatives(
    piece: Piece, scored: TokenLogprob, tokenizer: TokenizerService
) -> Iterator[tuple[str, bytes, float]]:
    """Yield name, bytes and log-probability of the likeliest tokens and of the one that came, under different names.

    The one that came is named by what it added to the text.
    """
    if not scored.top:
        return
    taken = {piece.text}
    for token, value in scored.top:
        if token == scored.token:
            yield piece.text, piece.raw, value
        else:
            spelling = tokenizer.spelling(token)
            names = (name for name in (spelling.text, spelling.entry) if name not in taken)
            name = next(names, f"token_id:{token}")
            taken.add(name)
            yield name, spelling.raw, value
    if scored.token not in dict(scored.top):
        yield piece.text, piece.raw, scored.logprob
