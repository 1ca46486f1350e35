"""The anatomy names the right modules, and the tokenizer of the small models has what the tests need."""

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from steering_profiles.models import LoadedModel
from tests.builders import CLOSERS
from tests.library.running import TOKENS


@torch.no_grad()
def inputs_and_outputs(loaded: LoadedModel, part: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the inputs of ``part`` in each layer, and its outputs without the bias."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def record(module, args, output):
        seen.append((args[0], output if module.bias is None else output - module.bias))

    handles = [getattr(layer, part).register_forward_hook(record) for layer in loaded.anatomy.layers]
    loaded.model(TOKENS)
    for handle in handles:
        handle.remove()
    return seen


def test_the_heads_weights_turn_their_outputs_into_what_attention_adds(tiny: LoadedModel):
    sizes = tiny.anatomy.sizes
    for layer, (z, added) in enumerate(inputs_and_outputs(tiny, "head_output")):
        heads = z.unflatten(-1, (sizes.heads, sizes.head_dim))
        weight = tiny.anatomy.head_output_weight(layer)
        torch.testing.assert_close(torch.einsum("bshk,hkd->bsd", heads, weight), added)


def test_the_neurons_weights_turn_their_activations_into_what_the_mlp_adds(tiny: LoadedModel):
    for layer, (activations, added) in enumerate(inputs_and_outputs(tiny, "neuron_output")):
        torch.testing.assert_close(activations @ tiny.anatomy.neuron_output_weight(layer), added)


def test_query_heads_of_a_group_share_their_value_vector(tiny: LoadedModel):
    sizes = tiny.anatomy.sizes
    projected = tiny.anatomy.final_layer.values(torch.randn(2, 3, sizes.hidden_size, dtype=tiny.dtype))
    own = tiny.anatomy.values_per_head(projected).unflatten(-1, (sizes.heads, sizes.head_dim))
    values = projected[..., -sizes.kv_heads * sizes.head_dim :].unflatten(-1, (sizes.kv_heads, sizes.head_dim))
    for head in range(sizes.heads):
        assert torch.equal(own[..., head, :], values[..., head * sizes.kv_heads // sizes.heads, :])


def test_the_unembedding_ranks_tokens_as_the_model_does(tiny: LoadedModel):
    residual_stream = torch.randn(5, tiny.anatomy.sizes.hidden_size, dtype=tiny.dtype)
    centred = tiny.model.lm_head(residual_stream * tiny.anatomy.final_norm.weight)
    centred = centred - centred.mean(dim=-1, keepdim=True)
    actual = residual_stream.float() @ tiny.anatomy.unembedding_weight()
    torch.testing.assert_close(actual, centred.float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("closer", CLOSERS)
def test_one_to_four_closing_parentheses_are_one_token(tiny_tokenizer: PreTrainedTokenizerFast, closer: str):
    assert len(tiny_tokenizer.encode(closer)) == 1


def test_any_byte_has_a_token_and_is_given_back(tiny_tokenizer: PreTrainedTokenizerFast):
    text = "".join(map(chr, range(256))) + "漢字 🙂"
    assert tiny_tokenizer.decode(tiny_tokenizer.encode(text), clean_up_tokenization_spaces=False) == text
    assert len(tiny_tokenizer.encode(text.replace("))", ""))) == len(text.encode())
