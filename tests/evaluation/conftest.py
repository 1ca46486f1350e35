"""Fixtures of the tests that run programs."""

import pytest

from steering_profiles.errors import EvaluationError
from steering_profiles.evaluation.sandbox import require_sandbox

REFUSALS = ("new namespaces", "could not be mapped")
"""What a kernel or a container refuses; anything else that keeps the sandbox from working is a fault of ours."""


@pytest.fixture(scope="session")
def sandboxed() -> None:
    """Skip where programs may not be given namespaces of their own."""
    try:
        require_sandbox()
    except EvaluationError as exc:
        if any(reason in str(exc) for reason in REFUSALS):
            pytest.skip(str(exc))
        raise
