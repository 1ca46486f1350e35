"""docs/scaling.md says what benchmarks/capacity computes, and that is right where it can be known."""

import pytest

from benchmarks.capacity import tables
from benchmarks.capacity.hardware import H100, Cpu
from benchmarks.capacity.roofline import Layout, decode_seconds, kv_tokens, prefill_seconds, weights
from benchmarks.capacity.routing import Traffic, simulate
from benchmarks.capacity.shapes import LLAMA31_405B, LLAMA33_70B, QWEN25_7B, SMOLLM2_135M, Shape
from tests.documents.reading import read

DOCUMENT = "docs/scaling.md"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "mixed" else []) for name in tables.TABLES]
)
def test_the_document_has_the_table(name: str):
    assert "\n".join(["", *tables.TABLES[name](), ""]) in read(DOCUMENT)


@pytest.mark.parametrize(
    ("shape", "billions"),
    [(SMOLLM2_135M, 0.135), (QWEN25_7B, 7.62), (LLAMA33_70B, 70.6), (LLAMA31_405B, 405.9)],
)
def test_sizes_add_up_to_the_published_number_of_parameters(shape: Shape, billions: float):
    assert shape.parameters / 1e9 == pytest.approx(billions, rel=0.005)


def test_keys_and_values_of_a_token_are_those_that_vllm_reports():
    # Llama-3.1-70B in bfloat16: 80 layers, 8 heads of keys and of values with 128 numbers of 2 bytes.
    assert LLAMA33_70B.kv_bytes_per_token(2) == 80 * 8 * 2 * 128 * 2


def test_alone_a_step_takes_as_long_as_reading_the_weights_and_many_sequences_cost_little_more():
    layout = Layout(H100)
    reading = weights(QWEN25_7B, layout) / H100.bandwidth
    assert reading < decode_seconds(QWEN25_7B, layout, 1, 1) < 2 * reading
    assert decode_seconds(QWEN25_7B, layout, 32, 1) < 1.1 * decode_seconds(QWEN25_7B, layout, 1, 1)
    assert prefill_seconds(QWEN25_7B, layout, 4000) > 2 * prefill_seconds(QWEN25_7B, layout, 2000)


def test_more_gpus_have_more_room_until_heads_are_copied():
    room = [kv_tokens(LLAMA33_70B, Layout(H100, tensor=size)) for size in (2, 4, 8, 16)]
    assert room[0] < 10_000  # 70.6 GB of weights leave next to nothing of 72
    assert room[2] > 2 * room[1]
    assert room[3] < 1.5 * room[2]  # 8 heads of keys and values on 16 GPUs


def test_between_measured_numbers_of_rows_products_take_a_time_between():
    cpu = Cpu(bandwidth=1e10, products={1: 1e9, 8: 4e9, 32: 8e9}, operator_seconds=1e-6)
    assert cpu.product_seconds(8, 1e9) == pytest.approx(2.0)
    assert 2.0 < cpu.product_seconds(20, 1e9) < 4.0
    assert cpu.product_seconds(64, 1e9) == pytest.approx(8.0)


def test_requests_that_share_are_found_in_caches_and_bounds_keep_the_load_even():
    traffic = Traffic(replicas=20, prefixes=40, profiles=2)
    found = {policy: simulate(traffic, policy).found for policy in ("any", "affinity", "affinity with bounded loads")}
    assert found["any"] < 0.3 < 0.8 < found["affinity with bounded loads"] <= found["affinity"]
    fullest = {p: simulate(traffic, p).fullest for p in ("affinity", "affinity with bounded loads")}
    assert fullest["affinity with bounded loads"] < 1.6 < fullest["affinity"]
