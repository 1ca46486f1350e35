"""The API and the command line are imported without a tensor library."""

import subprocess
import sys

import pytest

from tests.cli.forking import HEAVY


@pytest.mark.parametrize(
    "module",
    [
        "steering_server.api",
        "steering_server.api.app",
        "steering_server.api.lifecycle",
        "steering_server.generation.backend",
        "steering_server.generation.detokenizer",
        "steering_profiles.store",
        "steering_profiles.effective",
        "steering_profiles.composition",
        "steering_profiles.tokenization",
        "steering_profiles.source",
        "steering_profiles.fit_settings",
        "steering_profiles.exportable",
        "steering_profiles.published",
        "steering_profiles.tasks",
        "steering_server.config",
        "steering_server.cli",
        "steering_client",
        "steering_ab.comparing",
        "steering_ab.report.writing",
        "steering_profiles.evaluation.sandbox",
    ],
)
def test_no_tensor_library_is_loaded(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
