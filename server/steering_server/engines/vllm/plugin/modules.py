"""Modules of vLLM that apply their table's factors.

The class of a module is exchanged for a subclass with another ``forward``: some code of vLLM calls ``forward`` itself,
past all hooks. Tables and rows are buffers of the module, so that compiled code and captured graphs read them anew in
every step. Formulas let NaN through, for the canary.
"""

from typing import Any

from torch import Tensor, nn

_ROWS = "steering_rows"
_HEADS, _NEURONS, _OWN, _INTERCEPT = (
    "steering_heads",
    "steering_neurons",
    "steering_self_only_attention",
    "steering_intercept",
)

_made: dict[tuple[str, type[nn.Module]], type[nn.Module]] = {}


def steer_heads(projection: nn.Module, table: Tensor, rows: Tensor) -> None:
    """Let an attention output projection multiply the heads' outputs by ``table``, ``[rows, heads]``."""
    _exchange(projection, _HEADS, table, rows, _scaling_heads(_class_of(projection)))


def steer_neurons(projection: nn.Module, table: Tensor, rows: Tensor) -> None:
    """Let a down projection multiply the neurons' activations by ``table``, ``[rows, neurons]``."""
    projection.requires_unquantized_input = True  # type: ignore[assignment]  # vLLM would hand it quantised ones
    _exchange(projection, _NEURONS, table, rows, _scaling_neurons(_class_of(projection)))


def steer_own_values(attention: nn.Module, table: Tensor, rows: Tensor) -> None:
    """Let vLLM's ``Attention`` replace the share ``table``, ``[rows, 1]``, of its output by each position's value."""
    _exchange(attention, _OWN, table, rows, _mixing_own_values(_class_of(attention)))


def steer_output(module: nn.Module, table: Tensor, rows: Tensor) -> None:
    """Let a module subtract ``table``, ``[rows, hidden_size]``, from its output."""
    _exchange(module, _INTERCEPT, table, rows, _subtracting(_class_of(module)))


def _exchange(module: nn.Module, name: str, table: Tensor, rows: Tensor, steered: type[nn.Module]) -> None:
    module.register_buffer(name, table, persistent=False)
    if not hasattr(module, _ROWS):
        module.register_buffer(_ROWS, rows, persistent=False)
    module.__class__ = steered


def _scaling_heads(base: type[nn.Module]) -> type[nn.Module]:
    def forward(self: Any, input_: Tensor, *args: Any, **kwargs: Any) -> Any:
        factors = _factors(self, self.steering_heads, input_)
        scaled = input_.unflatten(-1, (factors.shape[-1], -1)) * factors.unsqueeze(-1)
        return base.forward(self, scaled.flatten(-2), *args, **kwargs)

    return _subclass("SteeredHeads", base, forward)


def _scaling_neurons(base: type[nn.Module]) -> type[nn.Module]:
    def forward(self: Any, input_: Tensor, *args: Any, **kwargs: Any) -> Any:
        return base.forward(self, input_ * _factors(self, self.steering_neurons, input_), *args, **kwargs)

    return _subclass("SteeredNeurons", base, forward)


def _mixing_own_values(base: type[nn.Module]) -> type[nn.Module]:
    def forward(self: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = base.forward(self, query, key, value, *args, **kwargs)
        own = self.steering_self_only_attention[self.steering_rows[: output.shape[0]]]
        groups = self.num_heads // self.num_kv_heads
        per_head = value.reshape(output.shape[0], self.num_kv_heads, 1, -1).expand(-1, -1, groups, -1)
        values = per_head.reshape(output.shape)
        mixed = (1 - own) * output + own * values
        # Rows of share 0 keep their bits; of those of share 1 nothing of the output is left.
        steered: Tensor = mixed.where(own != 0, output).where(own != 1, values)
        return steered

    return _subclass("SteeredValues", base, forward)


def _subtracting(base: type[nn.Module]) -> type[nn.Module]:
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = base.forward(self, *args, **kwargs)
        if isinstance(output, tuple):  # a linear layer of vLLM returns its bias too
            return output[0] - _factors(self, self.steering_intercept, output[0]), *output[1:]
        return output - _factors(self, self.steering_intercept, output)

    return _subclass("SteeredOutput", base, forward)


def _factors(module: Any, table: Tensor, values: Tensor) -> Tensor:
    """Return the factors of ``values``: ``[tokens, features]``, in transformers' models ``[1, tokens, features]``."""
    factors: Tensor = table[module.steering_rows[: values.shape[-2]]]
    return factors


def _class_of(module: nn.Module) -> type[nn.Module]:
    """Return the class of ``module``, to which a ``forward`` of its own is moved first.

    vLLM gives modules of transformers' models one where it fuses their operators; it would hide that of the class.
    """
    own = module.__dict__.pop("forward", None)
    if own is not None:
        function = own.__func__

        def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
            return function(self, *args, **kwargs)

        module.__class__ = type(f"Own{type(module).__name__}", (type(module),), {"forward": forward})
    return type(module)


def _subclass(prefix: str, base: type[nn.Module], forward: Any) -> type[nn.Module]:
    """Return the subclass of ``base`` with ``forward``, one for all layers, so that they are compiled once."""
    if (prefix, base) not in _made:
        _made[prefix, base] = type(f"{prefix}{base.__name__}", (base,), {"forward": forward})
    return _made[prefix, base]
