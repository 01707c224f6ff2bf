"""The outputs that docs/requirements.md asks for are the golden files that the reports are held to.

Belongs here: that comparison. Doesn't: what the reports print (reports/test_reports.py).
"""

import re

import pytest

from notif_assets_tests.cli.deployment import ROOT, golden

_EXPECTED = re.findall(
    r"^```text\n(.*?)^```", (ROOT / "docs" / "requirements.md").read_text(encoding="utf-8"), re.M | re.S
)


@pytest.mark.parametrize("name", ["panel", "detailed", "billing", "invoice-averages", "chatbot"])
def test_the_expected_output_is_the_golden_one(name: str) -> None:
    assert golden(f"{name}.txt") in _EXPECTED


def test_nothing_else_is_expected() -> None:
    assert len(_EXPECTED) == 5
