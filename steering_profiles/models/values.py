"""Selection of value vectors from the output of a projection, separate or fused with queries and keys."""

from torch import Tensor

from steering_profiles.models.anatomy import Sizes


def separate(projected: Tensor, sizes: Sizes) -> Tensor:
    """Return the output of a projection of values only."""
    return projected


def fused_last(projected: Tensor, sizes: Sizes) -> Tensor:
    """Return the values of a projection whose output is all queries, then all keys, then all values."""
    return projected[..., (sizes.heads + sizes.kv_heads) * sizes.head_dim :]


def fused_by_group(projected: Tensor, sizes: Sizes) -> Tensor:
    """Return the values of a projection whose output is, per key-value head, its queries, its key, its value."""
    of_group = sizes.heads // sizes.kv_heads + 2
    grouped = projected.unflatten(-1, (sizes.kv_heads, of_group, sizes.head_dim))
    values: Tensor = grouped[..., -1, :].flatten(-2)
    return values
