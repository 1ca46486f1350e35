"""Lists and tables of the documents name exactly what there is."""

import re

import pytest

from steering_profiles.models import FAMILIES
from steering_profiles.models.anatomy import Experts, Family
from steering_server.engines.local.attention import refusal
from tests.documents.reading import DOCUMENTS, read
from tests.families import CASES, build_family


def row(family: Family) -> str:
    case = next(case for case, (name, _, _) in CASES.items() if name == family.name)
    neurons = "no" if isinstance(family.neuron_output, Experts) else "yes"
    built = build_family(case)
    served = "no" if refusal(built.model, built.anatomy) else "yes"
    return f"| {family.name} | {family.models} | {', '.join(family.architectures)} | {neurons} | {served} |"


def test_the_table_of_families_lists_all_families():
    lines = read("docs/families.md").splitlines()
    start = lines.index("|---|---|---|---|---|") + 1
    table = lines[start : lines.index("", start)]
    assert table == [row(family) for family in FAMILIES]


def test_the_readme_says_how_many_families_are_known():
    numbers = {26: "Twenty-six"}
    assert f"{numbers[len(FAMILIES)]} [families of architectures](docs/families.md)" in read("README.md")


@pytest.mark.parametrize("document", [document for document in DOCUMENTS if document != "README.md"])
def test_the_readme_lists_every_document(document: str):
    assert f"]({document})" in read("README.md")


def test_the_glossary_is_in_alphabetical_order():
    terms = re.findall(r"^\*\*(.+?)\*\*:", read("docs/glossary.md"), re.MULTILINE)
    assert len(terms) > 40
    assert terms == sorted(
        terms, key=lambda term: re.sub(r"[^a-z0-9 ]", "", term.lower().replace("-", " ").replace("_", " "))
    )
