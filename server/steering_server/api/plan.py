"""The sequences of a request: one for each prompt, arm and n, all in one batch."""

import hashlib
import secrets
import struct
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import cached_property

from steering_server.api.arms import Arm, Arms
from steering_server.api.schemas.requests import FRESH_SEED, MAX_SEQUENCES, GenerationBody, shown
from steering_server.api.schemas.responses import Usage
from steering_server.errors import RequestError
from steering_server.generation.backend import Backend, ModelCard
from steering_server.generation.requests import BatchOutput, Chunk, GenerationRequest, SamplingParams, TextDelta


@dataclass(frozen=True)
class Prompt:
    """One prompt: its tokens and, for an echo, the text that each of them adds."""

    tokens: tuple[int, ...]
    deltas: tuple[TextDelta, ...] = ()

    @cached_property
    def text(self) -> str:
        """The text to echo."""
        return "".join(delta.text for delta in self.deltas)


@dataclass(frozen=True)
class PlannedSequence:
    """One sequence of a plan. Its index in the plan is that of its choice."""

    prompt: Prompt
    arm: Arm
    seed: int
    """Seed of its random numbers; sequences that differ in nothing but their arm have the same."""


@dataclass(frozen=True)
class Plan:
    """All sequences of one request."""

    prompts: tuple[Prompt, ...]
    arms: Arms
    sampling: SamplingParams
    sequences: tuple[PlannedSequence, ...]

    @property
    def requests(self) -> list[GenerationRequest]:
        """The backend's requests, in the order of the choices."""
        return [
            GenerationRequest(sequence.prompt.tokens, replace(self.sampling, seed=sequence.seed), sequence.arm.steering)
            for sequence in self.sequences
        ]

    def usage(self, answers: Sequence[Chunk]) -> Usage:
        """Return the number of tokens; every prompt counts once."""
        prompt = sum(len(prompt.tokens) for prompt in self.prompts)
        completion = sum(len(answer.tokens) for answer in answers)
        return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def check_prompt(tokens: Sequence[int], max_tokens: int | None, model: ModelCard, *, param: str = "prompt") -> int:
    """Check the prompt given by ``param``; return ``max_tokens``, or the number of tokens left in the context if None.

    Raises:
        RequestError: the prompt is empty, has a token that is not in the vocabulary, or does not fit the context with
            its completion.
    """
    length, context, vocabulary = len(tokens), model.context_length, model.identity.vocab_size
    if not length:
        raise RequestError(f"{param}: is empty; at least one token is needed", param=param)
    left = context - length
    if left < (1 if max_tokens is None else min(max_tokens, 1)):
        raise RequestError(
            f"{param}: {length} tokens are too many; the model's context holds {context}, completion included",
            param=param,
            code="context_length_exceeded",
        )
    if max_tokens is not None and max_tokens > left:
        raise RequestError(
            f"max_tokens: is {shown(max_tokens)}; after the prompt's {length} tokens the context of {context} holds "
            f"{left} more",
            param="max_tokens",
            code="context_length_exceeded",
        )
    outside = next((token for token in tokens if token >= vocabulary), None)
    if outside is not None:
        raise RequestError(
            f"{param}: token id {shown(outside)} is outside the vocabulary, 0..{vocabulary - 1}", param=param
        )
    return left if max_tokens is None else max_tokens


def make_plan(prompts: Sequence[Prompt], arms: Arms, n: int, sampling: SamplingParams, model: ModelCard) -> Plan:
    """Return the sequences of a request, ordered by prompt, then arm, then n. Prompts have passed :func:`check_prompt`.

    Raises:
        RequestError: there are too many sequences, or a biased token is not in the vocabulary.
    """
    count = len(prompts) * len(arms.arms) * n
    if count > MAX_SEQUENCES:
        raise RequestError(
            f"n: {len(prompts)} prompts x {len(arms.arms)} arms x n = {n} make {count} sequences; "
            f"at most {MAX_SEQUENCES} are allowed in one request",
            param="n",
        )
    outside = next((token for token, _ in sampling.logit_bias if token >= model.identity.vocab_size), None)
    if outside is not None:
        raise RequestError(
            f"logit_bias: token id {shown(outside)} is outside the vocabulary, 0..{model.identity.vocab_size - 1}",
            param="logit_bias",
        )
    sequences = tuple(
        PlannedSequence(prompt, arm, derive_seed(sampling.seed, place, draw))
        for place, prompt in enumerate(prompts)
        for arm in arms.arms
        for draw in range(n)
    )
    return Plan(tuple(prompts), arms, sampling, sequences)


def sampling_params(
    body: GenerationBody,
    *,
    max_tokens: int,
    logprobs: int | None,
    echoes: bool = False,
    prompt_logprobs_from: int | None = None,
) -> SamplingParams:
    """Return the sampling parameters of ``body``.

    Raises:
        RequestError: ``min_tokens`` is larger than ``max_tokens``.
    """
    if body.min_tokens > max_tokens:
        raise RequestError(
            f"min_tokens: is {shown(body.min_tokens)}, more than max_tokens, {shown(max_tokens)}", param="min_tokens"
        )
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k if body.top_k is not None and body.top_k > 0 else None,
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logit_bias=tuple((int(token), bias) for token, bias in body.logit_bias.items()),
        min_tokens=body.min_tokens,
        ignore_eos=body.ignore_eos,
        seed=_draw_seed(body.seed),
        stop=body.stops,
        echoes=echoes,
        logprobs=logprobs,
        prompt_logprobs_from=prompt_logprobs_from,
    )


def derive_seed(seed: int, prompt: int, draw: int) -> int:
    """Return the 64-bit seed of one draw for one prompt.

    It is a hash, so that different prompts, draws and seeds, also neighbouring ones and those that differ in their
    sign, give unrelated random numbers.
    """
    digest = hashlib.blake2b(struct.pack(">qQQ", seed, prompt, draw), digest_size=8)
    return int.from_bytes(digest.digest())


def _draw_seed(given: int | None) -> int:
    """Return the given seed, or a random one."""
    return secrets.randbits(62) if given in (None, FRESH_SEED) else given


async def collect(output: BatchOutput, count: int) -> list[Chunk]:
    """Return the whole output of each of ``count`` sequences."""
    chunks: list[list[Chunk]] = [[] for _ in range(count)]
    async with aclosing(output):
        async for index, chunk in output:
            chunks[index].append(chunk)
    return [Chunk.joined(parts) for parts in chunks]


async def score(
    backend: Backend, requests: Sequence[tuple[Arm, tuple[int, ...], tuple[int, ...]]], *, at_once: int
) -> list[list[float]]:
    """Return the log-probabilities of the completion's tokens under the arm, for each ``(arm, prompt, completion)``.

    At most ``at_once`` sequences are queued together, as many as the queue had room for before.
    """
    scored: list[list[float]] = []
    for start in range(0, len(requests), at_once):
        sequences = [
            GenerationRequest(
                prompt + completion, SamplingParams(max_tokens=0, prompt_logprobs_from=len(prompt)), arm.steering
            )
            for arm, prompt, completion in requests[start : start + at_once]
        ]
        for answer in await collect(backend.generate(sequences), len(sequences)):
            scored.append([token.logprob for token in answer.prompt_logprobs or () if token is not None])
    return scored


async def started(output: BatchOutput) -> BatchOutput:
    """Wait for the first chunk of ``output``, so that errors before it are answered with a status of their own."""
    first = await anext(output)

    async def whole() -> BatchOutput:
        async with aclosing(output):
            yield first
            async for each in output:
                yield each

    return whole()
