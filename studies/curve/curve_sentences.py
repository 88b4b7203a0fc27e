"""Sentences of this study, from its text template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cxr_compare.evaluation.report.study_page import sentence

_TEMPLATE = Path(__file__).with_name("curve.txt.jinja")


def curve_sentence(macro: str, *values: Any) -> str:
    """Return a sentence: a Jinja macro of the template, filled in with values, on one line."""
    return sentence(macro, *values, template=_TEMPLATE)
