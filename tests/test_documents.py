"""What the documents say of the code is so."""

import re
from pathlib import Path

import pytest

from steering_profiles.models import FAMILIES
from steering_profiles.models.anatomy import Experts, Family
from steering_profiles.store import load_profile
from steering_server.engines.local.attention import refusal
from tests.families import CASES, build_family

ROOT = Path(__file__).parent.parent


def row(family: Family) -> str:
    case = next(case for case, (name, _, _) in CASES.items() if name == family.name)
    neurons = "no" if isinstance(family.neuron_output, Experts) else "yes"
    built = build_family(case)
    served = "no" if refusal(built.model, built.anatomy) else "yes"
    return f"| {family.name} | {family.models} | {', '.join(family.architectures)} | {neurons} | {served} |"


def test_the_table_of_families_lists_exactly_those_that_are_known():
    lines = (ROOT / "docs" / "families.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("|---|---|---|---|---|") + 1
    table = lines[start : lines.index("", start)]
    assert table == [row(family) for family in FAMILIES]


def examples(document: str) -> list[str]:
    """The Python examples of a document, in their order."""
    return re.findall(
        r"^```python\n(.*?)^```$", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def test_the_library_steers_a_model_as_its_document_says(capsys: pytest.CaptureFixture[str]):
    steer, _ = examples("docs/python-api.md")
    exec(steer, {})
    assert capsys.readouterr().out == "'))))' ')))'\n"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_library_fits_a_profile_as_its_document_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for example in examples("docs/python-api.md"):
        exec(example, namespace)
    assert load_profile(tmp_path / "my-profiles" / "mine.json").heads
