"""Where the value vectors are in what a projection puts out: alone, or fused with queries and keys."""

from torch import Tensor

from steering_profiles.models.anatomy import Sizes


def alone(projected: Tensor, sizes: Sizes) -> Tensor:
    """The projection is of values only."""
    return projected


def fused_last(projected: Tensor, sizes: Sizes) -> Tensor:
    """All queries, all keys, all values, one after the other."""
    return projected[..., (sizes.heads + sizes.kv_heads) * sizes.head_dim :]


def fused_by_group(projected: Tensor, sizes: Sizes) -> Tensor:
    """For each key-value head the queries of its group, its key, its value; then those of the next."""
    of_group = sizes.heads // sizes.kv_heads + 2
    grouped = projected.unflatten(-1, (sizes.kv_heads, of_group, sizes.head_dim))
    values: Tensor = grouped[..., -1, :].flatten(-2)
    return values
