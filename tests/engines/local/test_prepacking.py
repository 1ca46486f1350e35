"""Prepacked linear layers compute the same as before and are restored bit for bit."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from steering_server.engines.local.prepacking import PrepackedLinears
from tests.builders import build_model


class Tied(nn.Module):
    """An embedding and an unembedding of one weight, and two layers of their own with biases."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 24)
        self.linear = nn.Linear(24, 24)
        self.conv1d = Conv1D(24, 24)
        self.unembedding = nn.Linear(24, 40, bias=False)
        self.unembedding.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """From ``[tokens]`` to ``[tokens, 40]``."""
        logits: torch.Tensor = self.unembedding(self.conv1d(self.linear(self.embedding(tokens))))
        return logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_prepacked_layers_compute_the_same_up_to_rounding_and_are_restored_bit_for_bit(dtype: torch.dtype):
    model, tokens = Tied().to(dtype), torch.arange(40)
    with torch.inference_mode():
        before = model(tokens)
        weights = {name: weight.clone() for name, weight in model.state_dict().items()}
        prepacked = PrepackedLinears(model)
        torch.testing.assert_close(model(tokens), before)
        prepacked.close()
        assert torch.equal(model(tokens), before)
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert model.unembedding.weight is model.embedding.weight


def test_a_prepacked_weight_takes_no_memory_of_its_own_and_cannot_be_read_by_mistake():
    model = Tied()
    prepacked = PrepackedLinears(model)
    assert model.linear.weight.untyped_storage().nbytes() == model.linear.weight.element_size()
    assert model.linear.weight.shape == (24, 24)
    assert bool(model.linear.weight.isnan().all())
    assert not bool(model.embedding.weight.isnan().any())
    prepacked.close()


@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_a_padded_product_has_the_rows_of_its_input_and_those_of_a_larger_batch(tokens: int):
    model = Tied()
    prepacked = PrepackedLinears(model)
    x = torch.randn(1, 4, 24, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        among_others = model.linear(x)
        prepacked.of(model.linear).min_tokens = 4
        padded = model.linear(x[:, :tokens])
    assert padded.shape == (1, tokens, 24)
    torch.testing.assert_close(padded, among_others[:, :tokens])
    prepacked.close()


def test_layers_of_dtypes_without_such_kernels_are_left_unchanged():
    loaded = build_model("llama", dtype=torch.float64)
    weights = [parameter.data_ptr() for parameter in loaded.model.parameters()]
    prepacked = PrepackedLinears(loaded.model)
    assert [parameter.data_ptr() for parameter in loaded.model.parameters()] == weights
    prepacked.close()
