"""The sequences of a request: one for each prompt, arm and n, all in one batch."""

import hashlib
import secrets
import struct
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import cached_property

from steering_server.api.arms import Arm, Arms
from steering_server.api.schemas.fields import shown
from steering_server.api.schemas.requests import FRESH_SEED, SamplingBody
from steering_server.api.schemas.responses import Usage
from steering_server.errors import RequestError
from steering_server.generation.backend import Backend, ModelCard
from steering_server.generation.grammars import Grammar
from steering_server.generation.requests import BatchOutput, Chunk, GenerationRequest, SamplingParams, TextDelta
from steering_server.limits import RequestLimits


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
    draw: int
    """Number of the draw; sequences of a prompt that differ in nothing but their arm have the same."""
    seed: int
    """Seed of its random numbers; sequences that differ in nothing but their arm have the same."""


@dataclass(frozen=True)
class Draws:
    """Number of sequences drawn for every prompt and arm."""

    returned: int
    drawn: int | None = None
    """Number of draws of which the best are returned; None for no more than are returned."""

    @property
    def number(self) -> int:
        """The number of draws."""
        return self.drawn or self.returned

    @property
    def all_are_returned(self) -> bool:
        """Whether all of them are returned."""
        return self.number == self.returned

    @property
    def field(self) -> str:
        """The field of the request that gives the number of draws."""
        return "n" if self.all_are_returned else "best_of"


@dataclass(frozen=True)
class Plan:
    """All sequences of one request."""

    prompts: tuple[Prompt, ...]
    arms: Arms
    draws: Draws
    sampling: SamplingParams
    sequences: tuple[PlannedSequence, ...]
    client: str | None
    """Who sends the request, over whom the queue is fair."""

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens of the prompts; every prompt counts once."""
        return sum(len(prompt.tokens) for prompt in self.prompts)

    @property
    def requests(self) -> list[GenerationRequest]:
        """The backend's requests, in the order of the choices."""
        logprobs = self.sampling.logprobs
        if not self.draws.all_are_returned and logprobs is None:
            logprobs = 0  # the best draw is chosen by them
        sampling = replace(self.sampling, logprobs=logprobs)
        return [
            GenerationRequest(sequence.prompt.tokens, replace(sampling, seed=sequence.seed), sequence.arm.steering)
            for sequence in self.sequences
        ]

    def usage(self, generated: int) -> Usage:
        """Return the number of tokens, of which ``generated`` are generated; every prompt counts once."""
        prompt = self.prompt_tokens
        return Usage(prompt_tokens=prompt, completion_tokens=generated, total_tokens=prompt + generated)


def check_prompt(
    tokens: Sequence[int],
    max_tokens: int | None,
    model: ModelCard,
    limits: RequestLimits,
    *,
    param: str = "prompt",
    limit: str = "max_tokens",
) -> int:
    """Check the prompt given by ``param``; return ``max_tokens``, or the most tokens that can be generated if None.

    ``limit`` is the field that gives ``max_tokens``.

    Raises:
        RequestError: the prompt is empty, has a token that is not in the vocabulary, does not fit the context with
            its completion, or one of them is longer than the limits allow.
    """
    length, context = len(tokens), model.context_length
    if not length:
        raise RequestError(f"{param}: is empty; at least one token is needed", param=param)
    if limits.max_prompt_tokens is not None and length > limits.max_prompt_tokens:
        raise RequestError(
            f"{param}: {length} tokens are too many; this server allows {limits.max_prompt_tokens}",
            param=param,
            code="prompt_too_long",
        )
    most = limits.max_completion_tokens
    if most is not None and max_tokens is not None and max_tokens > most:
        raise RequestError(f"{limit}: is {shown(max_tokens)}; this server allows at most {most}", param=limit)
    left = context - length
    if left < (1 if max_tokens is None else min(max_tokens, 1)):
        raise RequestError(
            f"{param}: {length} tokens are too many; the model's context holds {context}, completion included",
            param=param,
            code="context_length_exceeded",
        )
    if max_tokens is not None and max_tokens > left:
        raise RequestError(
            f"{limit}: is {shown(max_tokens)}; after the prompt's {length} tokens the context of {context} holds "
            f"{left} more",
            param=limit,
            code="context_length_exceeded",
        )
    require_in_vocabulary(tokens, model, param=param)
    if max_tokens is not None:
        return max_tokens
    return left if most is None else min(left, most)


def require_in_vocabulary(tokens: Sequence[int], model: ModelCard, *, param: str) -> None:
    """Check the tokens given by ``param``.

    Raises:
        RequestError: one of them is not in the vocabulary.
    """
    vocabulary = model.identity.vocab_size
    outside = next((token for token in tokens if token >= vocabulary), None)
    if outside is not None:
        raise RequestError(
            f"{param}: token id {shown(outside)} is outside the vocabulary, 0..{vocabulary - 1}", param=param
        )


def make_plan(
    prompts: Sequence[Prompt],
    arms: Arms,
    draws: Draws,
    sampling: SamplingParams,
    model: ModelCard,
    limits: RequestLimits,
    client: str | None,
) -> Plan:
    """Return the sequences of a request, ordered by prompt, arm and draw. Prompts have passed :func:`check_prompt`.

    Raises:
        RequestError: there are too many sequences, or a biased token or a stop token is not in the
            vocabulary.
    """
    _require_few_sequences(len(prompts), len(arms.arms), draws, limits.max_request_sequences)
    require_in_vocabulary([token for token, _ in sampling.logit_bias], model, param="logit_bias")
    require_in_vocabulary(sorted(sampling.stop_tokens), model, param="stop_token_ids")
    sequences = tuple(
        PlannedSequence(prompt, arm, draw, derive_seed(sampling.seed, place, draw))
        for place, prompt in enumerate(prompts)
        for arm in arms.arms
        for draw in range(draws.number)
    )
    return Plan(tuple(prompts), arms, draws, sampling, sequences, client)


def _require_few_sequences(prompts: int, arms: int, draws: Draws, most: int) -> None:
    count = prompts * arms * draws.number
    if count <= most:
        return
    factors = {"prompt": (prompts, "prompts"), "arms": (arms, "arms"), draws.field: (draws.number, "draws")}
    several = [(param, number, noun) for param, (number, noun) in factors.items() if number > 1]
    param = max(several, key=lambda factor: factor[1])[0]  # what to send less of
    product = " x ".join(f"{number} {noun}" for _, number, noun in several)
    made = f"{product} make {count} sequences" if len(several) > 1 else f"{product} are too many"
    raise RequestError(f"{param}: {made}; at most {most} sequences are allowed in one request", param=param)


def sampling_params(
    body: SamplingBody,
    *,
    max_tokens: int,
    logprobs: int | None,
    echoes: bool = False,
    echoed_logprobs: int | None = None,
    prompt_logprobs: int | None = None,
    grammar: Grammar | None = None,
) -> SamplingParams:
    """Return the sampling parameters of ``body``, whose text follows ``grammar``.

    ``echoed_logprobs`` and ``prompt_logprobs`` are the numbers of likeliest tokens listed with an echo of the prompt
    and with the prompt itself; None for no log-probabilities.

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
        grammar=grammar,
        seed=_draw_seed(body.seed),
        stop=body.stops,
        stop_tokens=frozenset(body.stop_token_ids or ()),
        echoes=echoes,
        logprobs=logprobs,
        prompt_logprobs_from=None if echoed_logprobs is None and prompt_logprobs is None else 0,
        prompt_alternatives=max(echoed_logprobs or 0, prompt_logprobs or 0),
        prompt_ranks=prompt_logprobs is not None,
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
    backend: Backend,
    requests: Sequence[tuple[Arm, tuple[int, ...], tuple[int, ...]]],
    *,
    at_once: int,
    client: str | None,
) -> list[list[float]]:
    """Return the log-probabilities of the completion's tokens under the arm, for each ``(arm, prompt, completion)``.

    They belong to a request that is answered already, and are not refused if the queue is full meanwhile. At most
    ``at_once`` sequences are queued together, as many as the queue had room for before.
    """
    scored: list[list[float]] = []
    for start in range(0, len(requests), at_once):
        sequences = [
            GenerationRequest(
                prompt + completion, SamplingParams(max_tokens=0, prompt_logprobs_from=len(prompt)), arm.steering
            )
            for arm, prompt, completion in requests[start : start + at_once]
        ]
        for answer in await collect(backend.generate(sequences, client, admitted=True), len(sequences)):
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
