"""Arms of a comparison: their labels, which are unique, and what each asks for."""

from collections.abc import Mapping, Sequence

from steering_ab.errors import AskingError

MOST_ARMS = 8
"""Maximum number of arms of a request."""


def labelled(arms: Sequence[str]) -> Mapping[str, str]:
    """Return the arms by label. One that is given again, as in a comparison of an arm with itself, gets a number.

    >>> labelled(["baseline", "baseline"])
    {'baseline': 'baseline', 'baseline.2': 'baseline'}

    Raises:
        AskingError: there are fewer than 2 or more than ``MOST_ARMS`` arms, or one has no name.
    """
    names = [arm.strip() for arm in arms]
    if "" in names:
        raise AskingError(f"arms: {','.join(arms)!r} has an arm without a name; allowed: names separated by commas")
    if not 2 <= len(names) <= MOST_ARMS:
        raise AskingError(f"arms: {', '.join(names)!r} has {len(names)}; a comparison has 2..{MOST_ARMS}")
    found: dict[str, str] = {}
    for name in names:
        label, number = name, 1
        while label in found or (number > 1 and label in names):
            number += 1
            label = f"{name}.{number}"
        found[label] = name
    return found
