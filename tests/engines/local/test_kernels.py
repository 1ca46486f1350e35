"""The compiled kernels compute what PyTorch does in float64, row by row the same whatever is beside them."""

from collections.abc import Iterator, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from steering_server.engines.local import kernels
from steering_server.engines.local.huge_pages import HugePages
from steering_server.engines.local.kernels import ScoreOptions, _native

DTYPES = [torch.float32, torch.bfloat16]
INSTRUCTIONS = ["plain", "avx2", "avx512", "avx512_bf16"]
SHAPES = [(9, 3, 64), (4, 4, 16), (2, 1, 8), (6, 2, 80), (4, 2, 128), (3, 3, 12), (71, 1, 16)]
"""heads, key-value heads, head_dim"""
Segment = tuple[int, int, int, int]


@pytest.fixture(params=INSTRUCTIONS, autouse=True)
def _instructions(request: pytest.FixtureRequest) -> Iterator[None]:
    used = _native.configure(kernels.OPENMP, request.param)
    if used != request.param:
        _native.configure(kernels.OPENMP, "")
        pytest.skip(f"this processor has no {request.param}")
    yield
    _native.configure(kernels.OPENMP, "")


def expected_attention(
    query: Tensor, keys: Tensor, values: Tensor, segments: Sequence[Segment], options: ScoreOptions
) -> Tensor:
    """Attention token by token in float64."""
    query, keys, values = query.double(), keys.double(), values.double()
    group = query.shape[1] // keys.shape[1]
    attended = torch.zeros_like(query)
    for start, end, slot, position in segments:
        for token in range(start, end):
            last = position + token - start
            seen = slice(0 if options.window is None else max(0, last - options.window + 1), last + 1)
            scores = torch.einsum("hd,hkd->hk", query[token], keys[slot, :, seen].repeat_interleave(group, 0))
            weights = options.capped(scores * options.scale).softmax(dim=-1)
            attended[token] = torch.einsum("hk,hkd->hd", weights, values[slot, :, seen].repeat_interleave(group, 0))
    return attended


def cached(shape: tuple[int, int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Random queries of 81 tokens, and the keys and values of three slots."""
    heads, kv_heads, head_dim = shape
    torch.manual_seed(0)
    query = 2 * torch.randn(81, heads, head_dim)
    keys, values = torch.randn(2, 3, kv_heads, 256, head_dim)
    return query.to(dtype), keys.to(dtype).contiguous(), values.to(dtype).contiguous()


SEGMENTS: list[Segment] = [(0, 1, 0, 100), (1, 2, 1, 0), (2, 80, 2, 60), (80, 81, 0, 199)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (1, None), (37, 5.0), (64, None)])
def test_attention_is_exact_and_independent_of_other_tokens(
    shape: tuple[int, int, int], dtype: torch.dtype, window: int | None, softcap: float | None
):
    query, keys, values = cached(shape, dtype)
    options = ScoreOptions(shape[-1] ** -0.5, window, softcap)
    attended = kernels.attend(query, keys, values, torch.tensor(SEGMENTS), options)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    expected = expected_attention(query, keys, values, SEGMENTS, options)
    torch.testing.assert_close(attended.double(), expected, atol=tolerance, rtol=tolerance)
    for start, end, slot, position in SEGMENTS:
        for token in {start, (start + end) // 2, end - 1}:
            alone = torch.tensor([(0, 1, slot, position + token - start)])
            assert torch.equal(
                kernels.attend(query[token : token + 1], keys, values, alone, options)[0], attended[token]
            )


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.sampled_from(DTYPES))
def test_attention_does_not_depend_on_how_a_prompt_is_cut(chunks: list[int], dtype: torch.dtype):
    query, keys, values = cached((9, 3, 64), dtype)
    length = min(sum(chunks), 81)
    whole = kernels.attend(query[:length], keys, values, torch.tensor([(0, length, 1, 50)]), ScoreOptions(0.125))
    start, parts = 0, []
    for size in chunks:
        end = min(start + size, length)
        segments = torch.tensor([(0, end - start, 1, 50 + start)])
        parts.append(kernels.attend(query[start:end], keys, values, segments, ScoreOptions(0.125)))
        start = end
    assert torch.equal(torch.cat(parts), whole)


def test_attention_to_a_value_that_is_not_finite_is_not_finite():
    query, keys, values = cached((9, 3, 64), torch.float32)
    keys[0, 1, 3, 5] = torch.nan
    attended = kernels.attend(query[:1], keys, values, torch.tensor([(0, 1, 0, 100)]), ScoreOptions(0.125))
    assert attended[0].isnan().all(dim=-1).tolist() == [False] * 3 + [True] * 3 + [False] * 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [576, 64, 40])
def test_the_norm_is_that_of_llama_after_the_addition(dtype: torch.dtype, width: int):
    torch.manual_seed(0)
    norm = LlamaRMSNorm(width, eps=1e-5).to(dtype)
    nn.init.normal_(norm.weight)
    stream, added = torch.randn(2, 7, width).to(dtype)
    total = stream + added
    with torch.no_grad():
        normed = kernels.add_norm(stream, added, norm.weight, 1e-5)
        torch.testing.assert_close(normed, norm(total))
        assert torch.equal(stream, total)
        assert torch.equal(kernels.add_norm(stream, None, norm.weight, 1e-5), normed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1536, 50])
def test_the_gated_activation_is_that_of_llama(dtype: torch.dtype, width: int):
    torch.manual_seed(0)
    gate_up = (8 * torch.randn(5, 2 * width)).to(dtype)
    gate, up = gate_up.chunk(2, dim=-1)
    torch.testing.assert_close(kernels.gated_silu(gate_up), nn.functional.silu(gate) * up)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(9, 3, 64), (4, 2, 24)])
@pytest.mark.parametrize("normed", [False, True])
def test_the_rotation_is_that_of_llama(dtype: torch.dtype, shape: tuple[int, int, int], normed: bool):
    heads, kv_heads, head_dim = shape
    torch.manual_seed(0)
    qkv = torch.randn(6, (heads + 2 * kv_heads) * head_dim).to(dtype)
    angles = torch.randn(6, head_dim // 2).repeat(1, 2)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    norms = [LlamaRMSNorm(head_dim, eps=1e-6).to(dtype) for _ in range(2)]
    for norm in norms:
        nn.init.normal_(norm.weight)
    query, key, value = (
        part.view(6, -1, head_dim) for part in qkv.split([n * head_dim for n in (heads, kv_heads, kv_heads)], dim=-1)
    )
    with torch.no_grad():
        if normed:
            query, key = norms[0](query), norms[1](key)
        rotated = apply_rotary_pos_emb(query, key, cos, sin)
        gains = {"query_gain": norms[0].weight, "key_gain": norms[1].weight, "epsilon": 1e-6} if normed else {}
        answer = kernels.rotate(qkv, cos, sin, heads, kv_heads, **gains)
    for got, expected in zip(answer, (*rotated, value), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [576, 33])
def test_logits_are_sums_in_float32_and_independent_of_other_rows(dtype: torch.dtype, width: int):
    torch.manual_seed(0)
    hidden, weight = torch.randn(11, width).to(dtype), torch.randn(203, width).to(dtype)
    logits = kernels.unembed(hidden, weight)
    torch.testing.assert_close(logits.double(), hidden.double() @ weight.double().T, atol=1e-4, rtol=1e-5)
    for rows in (1, 2, 3, 5):
        assert torch.equal(kernels.unembed(hidden[4 : 4 + rows], weight), logits[4 : 4 + rows])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(576, 960), (64, 33), (33, 64), (1, 1), (2, 31), (2048, 40)])
@pytest.mark.parametrize("biased", [False, True])
def test_a_product_with_a_packed_weight_is_exact_and_independent_of_other_rows(
    dtype: torch.dtype, shape: tuple[int, int], biased: bool
):
    torch.manual_seed(0)
    width, columns = shape
    weight, bias = torch.randn(columns, width).to(dtype), torch.randn(columns).to(dtype) if biased else None
    packed, x = kernels.PackedWeight(weight, HugePages()), torch.randn(29, width).to(dtype)
    products = packed.multiply(x, bias)
    expected = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    torch.testing.assert_close(products, expected.to(dtype), atol=1e-4 if dtype == torch.float32 else 1e-2, rtol=8e-3)
    for rows in range(1, 15):
        assert torch.equal(packed.multiply(x[7 : 7 + rows], bias), products[7 : 7 + rows])
    assert torch.equal(packed.multiply(x.view(1, 29, 1, width), bias).view(29, columns), products)


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.integers(1, 70), st.integers(1, 70))
def test_a_packed_weight_is_unpacked_bit_for_bit(dtype: torch.dtype, width: int, columns: int):
    weight = torch.randn(columns, width).to(dtype)
    assert torch.equal(kernels.PackedWeight(weight, HugePages()).unpacked(), weight)


@pytest.mark.parametrize("x", [torch.ones(2, 6), torch.ones(2, 5, dtype=torch.bfloat16)])
def test_a_product_refuses_an_input_that_does_not_fit_its_weight(x: Tensor):
    with pytest.raises(ValueError, match=r"\[\.\.\., \d\] in (float32|bfloat16); \[\.\.\., 5\] in float32 fits"):
        kernels.PackedWeight(torch.ones(3, 5), HugePages()).multiply(x, None)


def test_a_product_reads_nothing_but_its_own_row():
    """The row after it, and what lies beyond the last one, may hold anything."""
    weight = kernels.PackedWeight(torch.ones(3, 5, dtype=torch.bfloat16), HugePages())
    x = torch.ones(4, 5, dtype=torch.bfloat16)
    x[1:] = torch.nan
    assert weight.multiply(x[:1], None).tolist() == [[5.0] * 3]
    assert weight.multiply(x, None)[0].tolist() == [5.0] * 3


@given(st.integers(1, 700), st.integers(1, 5), st.integers(0, 2**32))
def test_a_row_of_logits_is_summarised_as_pytorch_does(vocabulary: int, rows: int, seed: int):
    logits = 10 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)).round(decimals=1)
    summary = kernels.summarise(logits)
    assert torch.equal(summary.largest, logits.amax(dim=-1))
    assert torch.equal(summary.likeliest, (logits == logits.amax(dim=-1, keepdim=True)).int().argmax(dim=-1))
    every = torch.arange(vocabulary).expand(rows, vocabulary)
    expected = logits.double().log_softmax(dim=-1)
    torch.testing.assert_close(kernels.logprobs(logits, every).double(), expected, atol=1e-6, rtol=1e-6)


def test_the_largest_logit_of_a_row_with_nan_is_nan():
    logits = torch.zeros(2, 300)
    logits[1, 250] = torch.nan
    assert kernels.summarise(logits).largest.isnan().tolist() == [False, True]
