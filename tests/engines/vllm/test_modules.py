"""Modules with exchanged classes change what their table says, and nothing else."""

from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steering_server.engines.vllm.plugin import modules
from steering_server.engines.vllm.plugin.canary import require_steered
from steering_server.engines.vllm.plugin.tables import Part, TokenRows
from steering_server.errors import ConfigError

ROWS = torch.tensor([0, 1, 1, 0])
X = torch.randn(4, 6)


class Projection(nn.Linear):
    def forward(self, input_: Tensor) -> Any:
        return super().forward(input_), None


def test_heads_are_scaled_by_the_row_of_their_token() -> None:
    plain = projection = Projection(6, 5)
    expected = plain(torch.cat([X[:1], X[1:3] * torch.tensor([2.0, 2, 1, 1, 0, 0]), X[3:]]))[0]
    unsteered = plain(X)[0]
    modules.steer_heads(projection, torch.tensor([[1.0, 1, 1], [2, 1, 0]]), ROWS)
    output, bias = projection(X)
    assert bias is None
    assert torch.equal(output[[0, 3]], unsteered[[0, 3]])
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(projection(X.unsqueeze(0))[0], expected.unsqueeze(0))


def test_neurons_and_the_output_of_one_module_are_steered_together() -> None:
    projection = Projection(6, 5)
    factors, intercept = torch.stack([torch.ones(6), torch.arange(6.0)]), torch.stack([torch.zeros(5), torch.ones(5)])
    expected = projection(X * factors[ROWS])[0] - intercept[ROWS]
    modules.steer_neurons(projection, factors, ROWS)
    modules.steer_output(projection, intercept, ROWS)
    torch.testing.assert_close(projection(X)[0], expected)


class Attention(nn.Module):
    num_heads, num_kv_heads = 4, 2

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return query + 1


def test_own_values_are_mixed_in_and_row_0_keeps_its_bits() -> None:
    attention = Attention()
    query, value = torch.randn(4, 8), torch.randn(4, 4)
    plain = attention(query, query, value)
    modules.steer_own_values(attention, torch.tensor([[0.0], [0.25]]), ROWS)
    own = value.view(4, 2, 1, 2).expand(-1, -1, 2, -1).reshape(4, 8)
    output = attention(query, query, value)
    assert torch.equal(output[[0, 3]], plain[[0, 3]])
    torch.testing.assert_close(output[1:3], 0.75 * plain[1:3] + 0.25 * own[1:3])


def test_nothing_of_the_attention_is_left_at_share_1() -> None:
    attention = Attention()
    modules.steer_own_values(attention, torch.tensor([[0.0], [1.0]]), ROWS)
    query = torch.full((4, 8), float("inf"))
    assert torch.isfinite(attention(query, query, torch.ones(4, 4))[1:3]).all()


def test_the_class_is_exchanged_since_forward_may_be_called_itself() -> None:
    block = nn.Sequential(Projection(6, 5))
    unsteered = block[0].forward(X)[0]
    modules.steer_neurons(block[0], torch.zeros(2, 6), ROWS)
    assert not torch.equal(block[0].forward(X)[0], unsteered)
    assert isinstance(block[0], Projection)
    assert not [name for name in block.state_dict() if "steering" in name]


def test_a_forward_of_the_module_itself_is_steered_too() -> None:
    block = Projection(6, 5)
    block.forward = MethodType(lambda self, input_: (2 * Projection.forward(self, input_)[0], None), block)
    unsteered = block(X)[0]
    modules.steer_output(block, torch.stack([torch.zeros(5), torch.ones(5)]), ROWS)
    torch.testing.assert_close(block(X)[0], unsteered - ROWS.unsqueeze(-1))


def test_two_layers_have_one_class_so_that_they_are_compiled_once() -> None:
    one, two = Projection(6, 5), Projection(6, 5)
    for projection in (one, two):
        modules.steer_neurons(projection, torch.ones(2, 6), ROWS)
    assert type(one) is type(two)


def test_the_canary_sees_every_table_that_is_read() -> None:
    projection, rows = Projection(6, 5), TokenRows(4, torch.device("cpu"))
    heads, neurons = torch.ones(3, 3), torch.ones(3, 6)
    modules.steer_heads(projection, heads, rows.buffer)
    modules.steer_neurons(projection, neurons, rows.buffer)
    tables = {Part(0, "heads"): heads, Part(0, "neurons"): neurons}
    require_steered(tables, rows, 2, lambda: projection(X)[0])
    assert heads.eq(1).all()
    assert neurons.eq(1).all()
    assert rows.buffer.eq(0).all()


def test_the_canary_refuses_code_that_does_not_read_a_table() -> None:
    projection, rows = Projection(6, 5), TokenRows(4, torch.device("cpu"))
    neurons, forgotten = torch.ones(3, 6), torch.ones(3, 3)
    modules.steer_neurons(projection, neurons, rows.buffer)
    with pytest.raises(ConfigError, match="heads of layer 7 is not steered by what vLLM runs"):
        require_steered({Part(0, "neurons"): neurons, Part(7, "heads"): forgotten}, rows, 2, lambda: projection(X)[0])
    assert forgotten.eq(1).all()
    assert rows.buffer.eq(0).all()


def test_the_canary_refuses_an_output_that_is_not_finite_by_itself() -> None:
    rows = TokenRows(4, torch.device("cpu"))
    with pytest.raises(ConfigError, match="not finite"):
        require_steered({}, rows, 1, lambda: torch.full((2,), float("nan")))


def test_the_canary_refuses_a_stage_whose_output_vllm_does_not_show() -> None:
    with pytest.raises(ConfigError, match="does not show what this stage of the pipeline computes"):
        require_steered({}, TokenRows(4, torch.device("cpu")), 1, lambda: None)
