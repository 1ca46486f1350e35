"""Rows of the steering table are shared by equal steerings and freed with their last user; the table grows."""

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import Tensor

from steering_profiles.schema import Profile
from steering_profiles.steering import UNSTEERED, Effect, ProfileAtStrength, Steering, effect_of
from steering_profiles.steering.table import SteeringTable
from tests.builders import build_model, build_profile, every_effect, steer

MODEL = build_model("llama", layers=2)
SIZES = MODEL.anatomy.sizes


@pytest.fixture
def table() -> SteeringTable:
    return SteeringTable(SIZES, torch.float64)


def head_profile(name: str, head: int = 0, scale: float = 2.0) -> Profile:
    return build_profile(MODEL, name, heads=[(0, head, scale)])


def some_steerings() -> list[Steering]:
    """More than the table's first capacity, each with effects on other parts, and one of two profiles."""
    singles = [
        build_profile(
            MODEL, f"p{i}",
            heads=[(i % 2, i % 4, 1.5 + i)] if i % 3 else [],
            neurons=[((i + 1) % 2, i, -0.5 * i)] if i % 2 else [],
            self_only_attention=i / 20 if i % 5 == 0 else 0.0, intercept_scale=0.1 * i if i % 4 == 0 else 0.0, seed=i,
        )
        for i in range(1, 20)
    ]  # fmt: skip
    return [*(steer(profile) for profile in singles), steer(singles[0], strength=0.5), steer(singles[1], singles[2])]


class TableMachine(RuleBasedStateMachine):
    """After any acquisitions and releases, each row in use has the factors of its steering and row 0 has none."""

    def __init__(self) -> None:
        super().__init__()
        self.steerings = some_steerings()
        self.table = SteeringTable(SIZES, torch.float64)
        self.held: list[tuple[int, int]] = []
        """Index of each acquired steering, with its row."""

    @rule(which=st.integers(0, 20))
    def acquire(self, which: int) -> None:
        row = self.table.acquire(self.steerings[which])
        for other, owned in self.held:
            assert (row == owned) == (which == other)
        self.held.append((which, row))

    @rule()
    def acquire_nothing(self) -> None:
        assert self.table.acquire(UNSTEERED) == 0
        self.table.release(0)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.table.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))[1])

    @initialize()
    def nothing_is_steered(self) -> None:
        assert self.table.gather([0, 0], (2, 1)) is None

    @invariant()
    def each_row_has_its_own_factors(self) -> None:
        used = {row: effect_of(self.steerings[which], SIZES) for which, row in self.held}
        rows = [0, *used, 0]
        factors = self.table.gather(rows, (len(rows), 1))
        if factors is None:
            assert not used
            return
        identity = Effect({}, {}, 0.0, None)
        for index, effect in enumerate([identity, *used.values(), identity]):
            by_head = {layer: factor.view(len(rows), 1, SIZES.heads, -1) for layer, factor in factors.heads.items()}
            assert all(bool((factor == factor[..., :1]).all()) for factor in by_head.values())
            assert_row(index, {layer: factor[..., 0] for layer, factor in by_head.items()}, effect.heads, SIZES.heads)
            assert_row(index, factors.neurons, effect.neurons, SIZES.neurons)
            own = 0.0 if factors.self_only_attention is None else float(factors.self_only_attention[index])
            assert own == effect.self_only_attention
            intercept = torch.zeros(SIZES.hidden_size).double() if effect.intercept is None else effect.intercept
            given = (
                torch.zeros(SIZES.hidden_size).double() if factors.intercept is None else factors.intercept[index, 0]
            )
            assert torch.equal(given, intercept)


def assert_row(index: int, factors: dict[int, Tensor], effect: dict[int, Tensor], width: int) -> None:
    """A layer that is not there changes nothing, in what a step gets as in what a steering does."""
    ones = torch.ones(width, dtype=torch.float64)
    for layer in range(SIZES.layers):
        given = factors[layer][index, 0] if layer in factors else ones
        assert torch.equal(given, effect.get(layer, ones))


TestTable = TableMachine.TestCase
TestTable.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def test_the_baseline_is_row_zero_and_so_is_strength_zero(table: SteeringTable):
    assert table.acquire(UNSTEERED) == 0
    assert table.acquire(steer(head_profile("a"), strength=0.0)) == 0


def test_the_order_of_profiles_does_not_change_the_row(table: SteeringTable):
    a, b = head_profile("a"), head_profile("b", head=1)
    assert table.acquire(steer(a, b)) == table.acquire(steer(b, a))


def test_another_strength_takes_another_row(table: SteeringTable):
    assert table.acquire(steer(head_profile("a"))) != table.acquire(steer(head_profile("a"), strength=2.0))


def test_a_profile_at_strength_zero_beside_another_changes_nothing(table: SteeringTable):
    a, b = head_profile("a"), head_profile("b", head=1)
    assert table.acquire(steer(a)) == table.acquire(Steering((ProfileAtStrength(a), ProfileAtStrength(b, 0.0))))


def test_a_row_is_reused_only_after_its_last_user_has_released_it(table: SteeringTable):
    first, again = (table.acquire(steer(head_profile("a"))) for _ in range(2))
    table.release(first)
    assert table.acquire(steer(head_profile("b"))) != again
    table.release(again)
    assert table.acquire(steer(head_profile("c"))) == again


def test_an_unsteered_step_has_no_factors(table: SteeringTable):
    table.acquire(steer(head_profile("a")))
    assert table.gather([0, 0, 0], (3, 1)) is None


def test_a_step_has_factors_only_for_layers_that_its_rows_steer(table: SteeringTable):
    upper = table.acquire(steer(build_profile(MODEL, "upper", heads=[(1, 0, 2.0)])))
    table.acquire(
        steer(build_profile(MODEL, "lower", heads=[(0, 0, 2.0)], self_only_attention=0.5, intercept_scale=1.0))
    )
    factors = table.gather([0, upper], (2, 1))
    assert factors is not None
    assert list(factors.heads) == [1]
    assert (factors.neurons, factors.self_only_attention, factors.intercept) == ({}, None, None)


def test_factors_have_the_dtype_of_the_model():
    table = SteeringTable(SIZES, torch.bfloat16)
    factors = table.gather([table.acquire(every_effect(MODEL)["all"])], (1, 1))
    assert factors is not None
    tensors = [*factors.heads.values(), *factors.neurons.values(), factors.self_only_attention, factors.intercept]
    assert {tensor.dtype for tensor in tensors if tensor is not None} == {torch.bfloat16}
