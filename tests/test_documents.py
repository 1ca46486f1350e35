"""What the documents say of the code is so."""

from pathlib import Path

from steering_profiles.models import FAMILIES
from steering_profiles.models.anatomy import Experts, Family
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
