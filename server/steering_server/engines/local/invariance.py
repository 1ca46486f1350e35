"""Batch invariance: a sequence's logits are bit for bit the same alone and in any batch, in chunks of any size.

The compiled kernels are so by construction, their matrix products included. oneDNN's products and what else a model
computes are not promised to be: whether all of it is, on this machine and for this model's own shapes, is measured at
start. Products that are not mostly differ for very few tokens only, so that padding their inputs is enough.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from steering_profiles.models import LoadedModel, ModelWithAnatomy
from steering_server.engines.local import kernels
from steering_server.engines.local.prepacking import PrepackedLinear
from steering_server.engines.local.ragged import SequenceInput
from steering_server.engines.local.rotary import VECTOR, rotary_by_length
from steering_server.engines.local.runner import Runner
from steering_server.generation.invariance import BatchInvariance

_PADDINGS = (1, 2, 4, 8, 16)
"""Numbers of tokens that smaller inputs are padded to, the first that serves."""
_TOKENS = (*range(1, 21), 24, 31, 32, 33, 48, 63, 64, 65, 96, 127, 128, 129, 255, 256)
"""Numbers of tokens at which the products of linear layers are compared."""


def ensure_invariance(runner: Runner, loaded: LoadedModel) -> BatchInvariance:
    """Pad the inputs of the runner's products as far as batch invariance needs it, and say whether it then holds.

    Nothing may have been computed yet: the check uses slots of the KV cache, and clears them.
    """
    reason = runner.kv_cache.kernels_refused or rules_out_invariance(loaded)
    if reason is not None:
        return BatchInvariance(False, reason)
    unmeasured = _unmeasured_products(runner, loaded)
    if unmeasured:
        return BatchInvariance(
            False, f"matrix products of its {', '.join(unmeasured)} are not those of prepacked layers"
        )
    found = [least_padding(linear, loaded.dtype) for linear in runner.linears.all]
    own = [padding for padding in found if padding is not None]
    if len(own) < len(found):
        return BatchInvariance(False, "on this machine products of its linear layers depend on the number of tokens")
    for paddings in dict.fromkeys(tuple(max(padding, least) for padding in own) for least in _PADDINGS):
        runner.pad_to(paddings)
        if _is_invariant(runner, loaded.anatomy.sizes.vocab_size):
            return BatchInvariance(True, None)
    runner.pad_to([1] * len(own))
    return BatchInvariance(False, "on this machine a sequence's logits were not the same alone and beside others")


def rules_out_invariance(loaded: ModelWithAnatomy) -> str | None:
    """Return why a model cannot be batch invariant on a CPU, as far as that is known without its weights."""
    sizes = loaded.anatomy.sizes
    refused = kernels.refusal(torch.device("cpu"), loaded.dtype, sizes.heads, sizes.kv_heads, sizes.head_dim)
    by_length = rotary_by_length(loaded.model.config)
    if by_length:
        return f"its rotary embeddings ({', '.join(by_length)}) depend on the longest sequence of a batch"
    uneven = [] if loaded.anatomy.family.gated_block else _uneven_sizes(loaded)
    if uneven:
        return (
            f"its {', '.join(uneven)} is no multiple of {VECTOR}, and PyTorch's pointwise operators compute the last "
            "elements of a tensor otherwise than the rest"
        )
    return refused


def _uneven_sizes(loaded: ModelWithAnatomy) -> list[str]:
    """Return the sizes of tensors that some function other than sums and products is applied to."""
    sizes, config = loaded.anatomy.sizes, loaded.model.config.get_text_config()
    found = {"size of heads": sizes.head_dim, "number of neurons": sizes.neurons}
    if getattr(config, "final_logit_softcapping", None):
        found["vocabulary"] = sizes.vocab_size
    return [f"{name} ({size})" for name, size in found.items() if size % VECTOR]


def least_padding(linear: PrepackedLinear, dtype: torch.dtype) -> int | None:
    """Return the padding from which on a product does not depend on the number of tokens; None if none serves."""
    key = (linear.shape, linear.has_bias, dtype, torch.get_num_threads())
    if key not in _differing:
        _differing[key] = _differing_sizes(linear, dtype)
    return next((padding for padding in _PADDINGS if all(tokens < padding for tokens in _differing[key])), None)


_differing: dict[object, set[int]] = {}
"""Measurements of this process by shape: kernels are chosen by that, and preparing them takes milliseconds."""


@torch.inference_mode()
def _differing_sizes(linear: PrepackedLinear, dtype: torch.dtype) -> set[int]:
    linear.min_tokens = 1
    x = torch.randn(max(_TOKENS), linear.shape[1], generator=torch.Generator().manual_seed(0)).to(dtype)
    reference = linear(x)
    return {tokens for tokens in _TOKENS if not _agrees(linear, x, reference, tokens)}


def _agrees(linear: PrepackedLinear, x: Tensor, reference: Tensor, tokens: int) -> bool:
    """Return whether products of so many rows of ``x`` equal those among all, at as many places as are worth the time.

    Products of one or two rows are known to differ in few values of few rows.
    """
    places = 100 if tokens <= 2 else 16 if tokens <= 16 else 2
    starts = range(0, len(x) - tokens + 1, tokens)[:places]
    return all(torch.equal(linear(x[at : at + tokens]), reference[at : at + tokens]) for at in starts)


def _unmeasured_products(runner: Runner, loaded: LoadedModel) -> list[str]:
    """Return the classes of modules whose matrix products are neither measured nor the compiled kernels'.

    Experts compute with weights of their own, and layers that accelerate moves are not prepacked.
    """
    measured = {id(layer) for linear in runner.linears.all for layer in linear.layers}
    if runner.compiled_unembedding:
        measured.add(id(loaded.anatomy.unembedding))
    return sorted(
        {
            type(module).__name__
            for module in loaded.model.modules()
            if not isinstance(module, nn.Embedding) and id(module) not in measured
            if any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))
        }
    )


def _is_invariant(runner: Runner, vocabulary: int) -> bool:
    """Compare a sequence's logits alone, in chunks, token by token, and beside another sequence."""
    generator = torch.Generator().manual_seed(1)
    length = min(19, runner.kv_cache.length)
    one, other = torch.randint(vocabulary, (2, length), generator=generator).tolist()

    def logits(*chunks: int, beside: bool = False) -> Tensor:
        """Return those of all tokens of the first sequence, computed in ``chunks``."""
        parts, start = [], 0
        for size in chunks:
            inputs = [_input(one, start, start + size, slot=0)]
            if beside:
                inputs.append(_input(other, start, start + size, slot=1))
            parts.append(runner.run(inputs)[0].logits)
            start += size
        return torch.cat(parts)

    tail = min(3, length - 1)
    runs = [
        logits(length),
        logits(length - tail, *[1] * tail),
        logits(*_chunks(length, 5)),
        logits(length, beside=True),
        logits(*_chunks(length, 2), beside=True),
    ]
    for slot in (0, 1):
        runner.kv_cache.discard(slot)
    return all(torch.equal(run, runs[0][: len(run)]) for run in runs)


def _input(tokens: Sequence[int], start: int, end: int, slot: int) -> SequenceInput:
    return SequenceInput(
        tokens=tokens[start:end], position=start, slot=slot, steering_row=0, logits_for=range(end - start)
    )


def _chunks(length: int, size: int) -> list[int]:
    return [min(size, length - start) for start in range(0, length, size)]
