"""Cases of `conformance/` as parameters of tests."""

import json
from pathlib import Path

import pytest

CONFORMANCE = Path(__file__).resolve().parents[1] / "conformance"


def load(*names):
    """The cases of files below `conformance/`; one that is not yet true must fail."""
    cases = []
    for name in names:
        for case in json.loads((CONFORMANCE / name).read_text(encoding="utf-8"))["cases"]:
            today = case.get("not_yet")
            marks = pytest.mark.xfail(strict=True, reason=today) if today else ()
            cases.append(pytest.param(case, id=case["name"], marks=marks))
    return cases
