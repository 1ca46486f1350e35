"""The version of pyproject.toml is the one that everything else has."""

import re
import tomllib
from pathlib import Path
from typing import Any

import steering_profiles

ROOT = Path(__file__).parents[2]


def project(path: str) -> dict[str, Any]:
    """Return the table ``project`` of a pyproject.toml."""
    return tomllib.loads((ROOT / path).read_text(encoding="utf-8"))["project"]


SERVER, CLIENT = project("pyproject.toml"), project("client/pyproject.toml")


def test_the_library_has_the_version_of_the_distribution():
    assert steering_profiles.__version__ == SERVER["version"]


def test_the_client_has_the_version_of_the_server():
    assert CLIENT["version"] == SERVER["version"]


def test_the_newest_version_of_the_changelog_is_this_one():
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    versions = [heading.split(" ")[0] for heading in headings if heading != "Unreleased"]
    assert versions[0] == SERVER["version"]
    assert "Unreleased" not in headings[1:]


def test_both_distributions_support_the_same_versions_of_python():
    def supported(project: dict[str, Any]) -> tuple[str, list[str]]:
        python = "Programming Language :: Python"
        return project["requires-python"], [each for each in project["classifiers"] if each.startswith(python)]

    assert supported(CLIENT) == supported(SERVER)
