"""Fixtures of the tests that run programs."""

import pytest

from steering_profiles.errors import EvaluationError
from steering_profiles.evaluation.sandbox import require_sandbox

REFUSALS = ("new namespaces", "could not be mapped")
"""Reasons of a kernel or a container that forbids namespaces; any other error is a bug."""


@pytest.fixture(scope="session")
def sandboxed() -> None:
    """Skip a test if this machine does not allow the sandbox."""
    try:
        require_sandbox()
    except EvaluationError as exc:
        if any(reason in str(exc) for reason in REFUSALS):
            pytest.skip(str(exc))
        raise
