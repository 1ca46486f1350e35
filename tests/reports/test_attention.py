"""Attention patterns: the weights that the model's own attention computes, with any implementation."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from steering_profiles.errors import ModelError
from steering_profiles.fitting.components import Component
from steering_profiles.models import LoadedModel
from steering_profiles.reports import attention_patterns
from steering_profiles.tasks import Example
from steering_profiles.tokenization import encode_prompt

TEXT = "#print 12\nprint(str(12"
AttentionInterface.register("of_our_own", sdpa_attention_forward)


def example_for(loaded: LoadedModel) -> Example:
    return Example("a", TEXT, encode_prompt(loaded.tokenizer, TEXT), 1)


def every_head(loaded: LoadedModel) -> list[Component]:
    sizes = loaded.anatomy.sizes
    return [Component("head", layer, index) for layer in range(sizes.layers) for index in range(sizes.heads)]


@torch.inference_mode()
def run(loaded: LoadedModel, example: Example) -> tuple[list[Tensor], list[Tensor], list[dict[str, Tensor]]]:
    """Per layer, as the model computes them: head outputs, values (``[heads, tokens, head_dim]``), and
    the projected queries and keys."""
    anatomy, heads = loaded.anatomy, loaded.anatomy.sizes.heads

    def keep(found: dict[str, Tensor], name: str, module: object, args: object, output: Tensor) -> None:
        found[name] = output[0]

    outputs: list[Tensor] = []
    values: list[Tensor] = []
    projected: list[dict[str, Tensor]] = []
    handles = []
    for layer in anatomy.layers:
        found: dict[str, Tensor] = {}
        projected.append(found)
        for path, module in layer.block.named_modules():
            name = path.rpartition(".")[2]
            if name in ("q_proj", "k_proj", "c_attn"):
                handles.append(module.register_forward_hook(partial(keep, found, name)))
        handles.append(
            layer.head_output.register_forward_pre_hook(
                lambda module, args: outputs.append(args[0][0].unflatten(-1, (heads, -1)).transpose(0, 1))
            )
        )
        handles.append(
            layer.values.register_forward_hook(
                lambda module, args, output: values.append(
                    anatomy.values_per_head(output)[0].unflatten(-1, (heads, -1)).transpose(0, 1)
                )
            )
        )
    loaded.model(torch.tensor([example.prompt]), use_cache=False)
    for handle in handles:
        handle.remove()
    return outputs, values, projected


def softmax_of_queries_and_keys(loaded: LoadedModel, projected: dict[str, Tensor]) -> Tensor:
    """Attention weights from the definition, ``[heads, tokens, tokens]``."""
    sizes = loaded.anatomy.sizes
    if "c_attn" in projected:
        query, key, _ = (part.unflatten(-1, (sizes.heads, -1)) for part in projected["c_attn"].chunk(3, dim=-1))
    else:
        query = rotated(projected["q_proj"].unflatten(-1, (sizes.heads, -1)))
        key = rotated(projected["k_proj"].unflatten(-1, (sizes.kv_heads, -1)))
        key = key.repeat_interleave(sizes.heads // sizes.kv_heads, dim=1)
    scores = torch.einsum("qhd,khd->hqk", query, key) / sizes.head_dim**0.5
    ahead = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
    return scores.masked_fill(ahead, -torch.inf).softmax(dim=-1)


def rotated(vectors: Tensor) -> Tensor:
    """Rotary position embedding by complex numbers, each of dimensions ``i`` and ``i + half``."""
    length, _, width = vectors.shape
    rates = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    turns = torch.polar(torch.ones(()).double(), torch.outer(torch.arange(length).double(), rates)[:, None])
    first, second = vectors.double().chunk(2, dim=-1)
    turned = torch.complex(first, second) * turns
    return torch.cat([turned.real, turned.imag], dim=-1)


def test_weights_are_the_softmax_of_queries_and_keys(tiny: LoadedModel):
    _, _, projected = run(tiny, example_for(tiny))
    heads = every_head(tiny)
    for pattern in attention_patterns(tiny, heads, example_for(tiny), most=len(heads)):
        head = pattern.component
        expected = softmax_of_queries_and_keys(tiny, projected[head.layer])[head.index]
        np.testing.assert_allclose(pattern.weights, expected, atol=2e-6)


def test_weights_times_values_are_the_output_of_the_head(tiny: LoadedModel):
    assert tiny.model.config._attn_implementation == "sdpa"
    outputs, values, _ = run(tiny, example_for(tiny))
    heads = every_head(tiny)
    patterns = attention_patterns(tiny, heads, example_for(tiny), most=len(heads))
    assert [pattern.component for pattern in patterns] == heads
    for pattern in patterns:
        layer, index = pattern.component.layer, pattern.component.index
        np.testing.assert_allclose(pattern.weights @ values[layer][index].numpy(), outputs[layer][index], atol=1e-5)
    assert not np.allclose(patterns[0].weights, patterns[1].weights, atol=1e-3)


def test_weights_are_causal_and_every_row_sums_to_1(tiny: LoadedModel):
    for pattern in attention_patterns(tiny, every_head(tiny), example_for(tiny)):
        assert pattern.weights.shape == (len(TEXT), len(TEXT))
        assert not np.triu(pattern.weights, 1).any()
        np.testing.assert_allclose(pattern.weights.sum(axis=1), 1, atol=1e-6)


def test_tokens_join_to_the_prompt(tiny: LoadedModel):
    (pattern,) = attention_patterns(tiny, [Component("head", 0, 0)], example_for(tiny))
    assert "".join(pattern.tokens) == TEXT


@pytest.mark.parametrize("implementation", ["sdpa", "eager", "of_our_own", "flash_attention_2", None])
def test_the_attention_implementation_is_restored(tiny: LoadedModel, implementation: str | None):
    expected = attention_patterns(tiny, every_head(tiny), example_for(tiny))
    tiny.model.config._attn_implementation = implementation
    patterns = attention_patterns(tiny, every_head(tiny), example_for(tiny))
    assert tiny.model.config._attn_implementation == implementation
    for pattern, same in zip(patterns, expected, strict=True):
        np.testing.assert_array_equal(pattern.weights, same.weights)


def test_the_model_is_restored_after_an_error(tiny: LoadedModel):
    def hooks() -> int:
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in tiny.model.modules())

    before = hooks()
    broken = tiny.anatomy.final_norm.register_forward_pre_hook(lambda module, args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        attention_patterns(tiny, every_head(tiny), example_for(tiny))
    broken.remove()
    assert tiny.model.config._attn_implementation == "sdpa"
    assert hooks() == before


def test_only_heads_are_shown_up_to_the_given_number(tiny: LoadedModel):
    components = [Component("neuron", 0, 1), Component("head", 2, 1), Component("neuron", 2, 1), *every_head(tiny)]
    shown = [pattern.component for pattern in attention_patterns(tiny, components, example_for(tiny), most=3)]
    assert shown == [Component("head", 2, 1), Component("head", 0, 0), Component("head", 0, 1)]
    assert attention_patterns(tiny, components[:1], example_for(tiny)) == []


@pytest.mark.parametrize("head", [Component("head", 3, 0), Component("head", 0, 4)])
def test_an_unknown_head_is_refused(tiny: LoadedModel, head: Component):
    with pytest.raises(ModelError, match=f"head {head} does not exist; tiny-.* has 3 layers of 4 heads"):
        attention_patterns(tiny, [head], example_for(tiny))


def test_a_model_without_attention_weights_is_refused(tiny: LoadedModel):
    path = tiny.anatomy.family.head_output.rpartition(".")[0]
    module = tiny.anatomy.layers[0].block.get_submodule(path)
    module.register_forward_hook(lambda module, args, output: (output[0], None))
    with pytest.raises(ModelError, match="layer 0 does not return attention weights"):
        attention_patterns(tiny, [Component("head", 0, 0)], example_for(tiny))
