"""Input and output of an engine: types without torch, frozen but for the timeline of a request."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from steering_profiles.composition import UNSTEERED, Steering
from steering_server.generation.grammars import Grammar
from steering_server.generation.timeline import Timeline

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters of one sequence. Their values have been checked by the API."""

    max_tokens: int
    """Maximum number of tokens to generate; 0 only computes the prompt."""
    temperature: float = 1.0
    """0 is greedy decoding."""
    top_p: float = 1.0
    """Sample from the smallest set of likeliest tokens whose probabilities add up to this."""
    top_k: int | None = None
    """Sample from this many likeliest tokens; None for all."""
    min_p: float = 0.0
    """Sample from tokens whose probability is at least this share of the likeliest token's."""
    repetition_penalty: float = 1.0
    """Divisor of positive and factor of negative logits, for tokens in the prompt or the text so far."""
    presence_penalty: float = 0.0
    """Subtracted from the logits of tokens that are in the text so far."""
    frequency_penalty: float = 0.0
    """Subtracted from the logits of tokens once for each time that they are in the text so far."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """``(token, bias)`` pairs; the bias is added to the token's logit."""
    min_tokens: int = 0
    """Minimum number of tokens; before that no end token, stop token or stop string ends the text."""
    ignore_eos: bool = False
    """Whether end tokens are treated like any other token."""
    grammar: Grammar | None = None
    """The texts that may be generated; None for any. A text that cannot go on ends, whatever ``min_tokens`` and
    ``ignore_eos``."""
    seed: int = 0
    """Seed of the sequence's random numbers; each token uses one."""
    stop: tuple[str, ...] = ()
    """Strings before which the text ends; they are not part of it."""
    stop_tokens: frozenset[int] = frozenset()
    """Tokens that end the text besides the model's end tokens, also with ``ignore_eos``; they add no text."""
    echoes: bool = False
    """Whether the text is returned after that of the prompt, which may end inside a character."""
    logprobs: int | None = None
    """Number of likeliest tokens to return with each token's log-probability; None for no log-probabilities."""
    prompt_logprobs_from: int | None = None
    """First prompt position whose log-probability is returned; None for none."""
    prompt_alternatives: int = 0
    """Number of likeliest tokens to return with each prompt token's log-probability."""
    prompt_ranks: bool = False
    """Whether the rank of each prompt token is returned too."""


@dataclass(frozen=True)
class GenerationRequest:
    """One sequence to generate: the prompt's token ids, sampling parameters and steering."""

    prompt: tuple[int, ...]
    sampling: SamplingParams
    steering: Steering = UNSTEERED
    timeline: Timeline = field(default_factory=Timeline, compare=False, repr=False)
    """Filled by the engine while it works on the sequence."""


@dataclass(frozen=True)
class TokenLogprob:
    """Natural log-probability of a token at temperature 1, without penalties or grammar, and of the likeliest."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """``(token, logprob)`` pairs, likeliest first."""
    rank: int | None = None
    """Rank of the token, 1 for the likeliest; None if it was not asked for."""


@dataclass(frozen=True)
class TextDelta:
    """The text that one token adds."""

    text: str = ""
    """Whole characters; one that consists of several tokens is added by the last of them."""
    raw: bytes = b""
    """The token's bytes, including parts of characters."""


@dataclass(frozen=True)
class Chunk:
    """Output of one sequence after a step. The whole output is the concatenation of its chunks."""

    text: str = ""
    tokens: tuple[int, ...] = ()
    """Generated tokens whose text is known; the one that ended the sequence is included."""
    deltas: tuple[TextDelta, ...] = ()
    """The text added by each of ``tokens``; concatenated over all chunks they are the whole text."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """One for each of ``tokens``, if requested."""
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = field(default=None)
    """Given once, when the prompt has been computed: one for each position from ``prompt_logprobs_from`` on, None for
    position 0."""
    finish_reason: FinishReason | None = None
    """Set on the last chunk of the sequence."""

    @classmethod
    def joined(cls, chunks: "Sequence[Chunk]") -> "Chunk":
        """Concatenate the chunks of one sequence, in order."""
        return cls(
            text="".join(chunk.text for chunk in chunks),
            tokens=tuple(token for chunk in chunks for token in chunk.tokens),
            deltas=tuple(delta for chunk in chunks for delta in chunk.deltas),
            logprobs=tuple(logprob for chunk in chunks for logprob in chunk.logprobs),
            prompt_logprobs=next((c.prompt_logprobs for c in chunks if c.prompt_logprobs is not None), None),
            finish_reason=chunks[-1].finish_reason if chunks else None,
        )

    def by_token(self) -> "list[Chunk]":
        """Return chunks of one token each, and a last one for the end; joined they are this chunk, but for the prompt's
        log-probabilities."""
        logprobs: Sequence[TokenLogprob | None] = self.logprobs or [None] * len(self.tokens)
        each = zip(self.tokens, self.deltas, logprobs, strict=True)
        tokens = [
            Chunk(text=delta.text, tokens=(token,), deltas=(delta,), logprobs=() if scored is None else (scored,))
            for token, delta, scored in each
        ]
        return [*tokens, Chunk(finish_reason=self.finish_reason)]

    def __add__(self, later: "Chunk") -> "Chunk":
        """Concatenate this chunk and the next one."""
        return Chunk.joined((self, later))


BatchOutput = AsyncGenerator[tuple[int, Chunk], None]
"""Output of requests that run in one batch: ``(index, chunk)`` pairs, by the index of the request."""
