"""docs/reference.md says what the configs say."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_reference_is_up_to_date() -> None:
    made = runpy.run_path(str(DOCS / "generate_reference.py"))["reference"]()
    assert (DOCS / "reference.md").read_text() == made, "run `make docs`"
