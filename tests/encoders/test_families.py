"""The families' records, and the pages of the documentation that repeat them."""

from pathlib import Path

import pytest

from pipeline.encoders import architectures
from pipeline.encoders.families import ARCHITECTURES, FAMILIES
from pipeline.encoders.family import Family

DOCS = Path(__file__).parents[2] / "docs"


def documented_row(family: Family) -> str:
    """Return the row of a family in the table of docs/encoders.md."""
    if family.weights:
        weights = (
            "published, from the hub (extra `hub`)" if family.weights.startswith("hf://") else "published, fetched"
        )
    else:
        weights = "give your own" + (f", such as `{family.example}`" if family.example else "")
    cells = (f"`{family.name}`", family.title, family.checkpoints, weights, f"{family.crops_per_second:g}")
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_documents_say_what_the_record_says(family: Family) -> None:
    assert f"\n{documented_row(family)}\n" in (DOCS / "encoders.md").read_text()
    assert f"{family.dim}-d" in family.title
    assert (family.weights is None) == (family.licence is None)
    if family.weights:
        network = family.title.partition(",")[0]
        rows = (DOCS / "licences.md").read_text().splitlines()
        assert any(network in row and "weights" in row and f"| {family.licence} |" in row for row in rows)


def test_the_document_lists_no_family_but_those() -> None:
    table = (DOCS / "encoders.md").read_text().partition("| family |")[2].partition("\n\n")[0]
    named = [row.split("`")[1] for row in table.splitlines()[2:]]
    assert named == [*FAMILIES, "torchscript"]


def test_every_architecture_with_families_is_registered() -> None:
    files = Path(architectures.__path__[0]).glob("*.py")
    assert {file.stem for file in files if "\nFAMILIES = (" in file.read_text()} == set(ARCHITECTURES)
