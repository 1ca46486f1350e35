"""Sampling parameters and outputs of vLLM, from and to those of this project."""

from collections.abc import Mapping
from typing import Any

from steering_profiles.composition import Steering
from steering_server.engines.vllm.plugin.requests import EXCEPT, STEERING, STRENGTH
from steering_server.errors import RequestError
from steering_server.generation.requests import GenerationRequest, SamplingParams, TokenLogprob

MAX_LOGPROBS = 20
"""Alternatives of a token that the API may ask for."""


def vllm_sampling(request: GenerationRequest) -> Any:
    """Return vLLM's sampling parameters of a request. Text and stop strings are this project's work.

    Raises:
        RequestError: vLLM cannot do what the request asks for; the message names the field.
    """
    from vllm import SamplingParams as VllmSamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    sampling = request.sampling
    grammar = sampling.grammar
    if grammar is not None and sampling.ignore_eos:
        # vLLM allows end tokens where the grammar lets the text end, and would go on after one.
        raise RequestError(
            f"ignore_eos: cannot be given with {grammar.field} on the vLLM engine; the local engine takes both",
            param="ignore_eos",
        )
    try:
        return VllmSamplingParams(
            # vLLM generates at least one token, which is left out where none is asked for.
            max_tokens=max(1, sampling.max_tokens),
            min_tokens=min(sampling.min_tokens, max(1, sampling.max_tokens)),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or 0,
            min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            logit_bias=dict(sampling.logit_bias) or None,
            ignore_eos=sampling.ignore_eos,
            stop_token_ids=sorted(sampling.stop_tokens) or None,
            structured_outputs=None if grammar is None else StructuredOutputsParams(grammar=grammar.text),
            seed=sampling.seed % 2**63,
            logprobs=sampling.logprobs,
            prompt_logprobs=None if sampling.prompt_logprobs_from is None else sampling.prompt_alternatives,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args=steering_arguments(request.steering) or None,
        )
    except ValueError as exc:
        raise RequestError(f"vLLM refuses the sampling parameters: {exc}") from exc


def steering_arguments(steering: Steering) -> dict[str, list[str] | list[float]]:
    """Return what the plugin reads of a request: names of profiles, their strengths, and components left out.

    A component is left out of every profile that has it, by the API and by the plugin, so that one list is enough.
    """
    applied = [one for one in steering if one.strength != 0]
    if not applied:
        return {}
    # Sorted, so that equal steerings are asked for equally.
    left_out = sorted({name for one in applied for name in one.left_out})
    return {
        STEERING: [one.profile.name for one in applied],
        STRENGTH: [one.strength for one in applied],
        **({EXCEPT: left_out} if left_out else {}),
    }


def token_logprob(
    token: int, alternatives: Mapping[int, Any] | None, count: int, *, ranked: bool = False
) -> TokenLogprob | None:
    """Return the log-probability of ``token`` with those of the ``count`` likeliest; None if vLLM gave none."""
    if alternatives is None:
        return None
    by_rank = sorted(alternatives.items(), key=lambda item: (item[1].rank, item[0]))
    top = tuple((other, float(found.logprob)) for other, found in by_rank if found.rank <= count)[:count]
    own = alternatives[token]
    return TokenLogprob(token, float(own.logprob), top, rank=own.rank if ranked else None)


def prompt_logprobs(
    prompt: tuple[int, ...], given: list[Mapping[int, Any] | None], sampling: SamplingParams
) -> tuple[TokenLogprob | None, ...]:
    """Return the log-probabilities of a prompt, from the position that the request names."""
    first = sampling.prompt_logprobs_from or 0
    return tuple(
        token_logprob(token, alternatives, sampling.prompt_alternatives, ranked=sampling.prompt_ranks)
        for token, alternatives in zip(prompt[first:], given[first:], strict=True)
    )
