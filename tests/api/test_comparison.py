"""The first difference of two arms."""

import pytest

from steering_server.api.comparison import first_difference


@pytest.mark.parametrize(
    ("one", "other", "position"),
    [
        ((), (), None),
        ((1, 2, 3), (1, 2, 3), None),
        ((9, 2, 3), (1, 2, 3), 0),
        ((1, 2, 3), (1, 9, 3), 1),
        ((1, 2), (1, 2, 3), 2),
        ((), (1,), 0),
    ],
)
def test_the_first_difference_is_where_tokens_differ_or_one_sequence_ends(one, other, position):
    assert first_difference(one, other) == first_difference(other, one) == position
