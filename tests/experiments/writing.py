"""A process that stores outcomes one request at a time and says which are acknowledged: python -m ... URL."""

import sys

from steering_server.experiments.outcomes import Given
from tests.experiments.building import assign, begin, opened

EACH = 4
"""Outcomes of one request."""


def main(url: str, number: int) -> None:
    """Store ``number`` outcomes and print the exposure of each once it is acknowledged."""
    experiments = opened(url)
    name = begin(experiments)
    exposures = [assign(experiments, name, f"user-{i}").exposure for i in range(number)]
    print("ready", flush=True)
    for start in range(0, number, EACH):
        some = exposures[start : start + EACH]
        experiments.add_outcomes(name, [Given(exposure, 1) for exposure in some])
        print(" ".join(some), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
