"""What goes into an engine and what comes out: plain frozen types that everything may import."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from steering_profiles.composition import UNSTEERED, Steering

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class SamplingParams:
    """How one sequence is generated. Values are taken as checked; the API does that."""

    max_tokens: int
    """Most tokens to generate; 0 only reads the prompt."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    """Draw from the fewest likeliest tokens that together reach this probability."""
    top_k: int | None = None
    """Draw from this many likeliest tokens."""
    min_p: float = 0.0
    """Draw from tokens at least this share as likely as the likeliest."""
    repetition_penalty: float = 1.0
    """Divides the logits, where positive, of tokens seen in prompt or text, and multiplies them where negative."""
    presence_penalty: float = 0.0
    """Subtracted from the logits of tokens that the text has."""
    frequency_penalty: float = 0.0
    """Subtracted from the logits of tokens as often as the text has them."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Added to the logits of these tokens."""
    min_tokens: int = 0
    """Tokens that the text has at least: before them neither an end token nor a stop string ends it."""
    ignore_eos: bool = False
    """Go on past the end token, which is then a token like any other."""
    seed: int = 0
    """Two sequences with the same seed draw the same random numbers, token by token."""
    stop: tuple[str, ...] = ()
    """Generation ends before the first of these strings; they are not part of the text."""
    echoes: bool = False
    """Whether the text is given out after that of the prompt, whose last bytes may make no character."""
    logprobs: int | None = None
    """How many alternatives to report beside each generated token; None reports nothing."""
    prompt_logprobs_from: int | None = None
    """First prompt position whose token is scored (with ``logprobs`` alternatives); None scores none."""


@dataclass(frozen=True)
class GenerationRequest:
    """One sequence to generate: token ids, how it goes on, and the profiles applied to it."""

    prompt: tuple[int, ...]
    sampling: SamplingParams
    steering: Steering = UNSTEERED


@dataclass(frozen=True)
class TokenLogprob:
    """A token's log-probability (natural, of the unscaled distribution) and the likeliest alternatives."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """``(token, logprob)``, likeliest first."""


@dataclass(frozen=True)
class TextDelta:
    """What one token adds to a text."""

    text: str = ""
    """Whole characters: one that several tokens make up is added by the last of them."""
    raw: bytes = b""
    """The token's own bytes, parts of characters included."""


@dataclass(frozen=True)
class Chunk:
    """What one sequence has to report after a step. Its chunks, joined, are the whole result."""

    text: str = ""
    tokens: tuple[int, ...] = ()
    """Tokens whose text has been released: all that were generated, the one that ended the sequence included."""
    deltas: tuple[TextDelta, ...] = ()
    """For each of ``tokens`` what it added to the text. Their texts, joined over all chunks, are the whole text."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """One per token of ``tokens`` when they were asked for."""
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = field(default=None)
    """Given once, when the prompt has been read: one per prompt position from ``prompt_logprobs_from`` on; None for
    position 0, which nothing precedes."""
    finish_reason: FinishReason | None = None
    """Set on the last chunk of the sequence."""

    @classmethod
    def joined(cls, chunks: "Sequence[Chunk]") -> "Chunk":
        """Join the chunks of one sequence, in their order."""
        return cls(
            text="".join(chunk.text for chunk in chunks),
            tokens=tuple(token for chunk in chunks for token in chunk.tokens),
            deltas=tuple(delta for chunk in chunks for delta in chunk.deltas),
            logprobs=tuple(logprob for chunk in chunks for logprob in chunk.logprobs),
            prompt_logprobs=next((c.prompt_logprobs for c in chunks if c.prompt_logprobs is not None), None),
            finish_reason=chunks[-1].finish_reason if chunks else None,
        )

    def __add__(self, later: "Chunk") -> "Chunk":
        """Join this chunk and the one that followed it."""
        return Chunk.joined((self, later))
