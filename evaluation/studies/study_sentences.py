"""Sentences of the studies, from one text template for each study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cxr_compare.evaluation.report.templates import sentence

_HERE = Path(__file__).parent


def study_sentence(study: str, macro: str, *values: Any) -> str:
    """Return a sentence from a study's text template, on one line.

    Args:
        study: Name of the template, such as ``monitor``.
        macro: Name of the macro, which is the kind of the sentence.
        *values: Arguments of the macro.

    Returns:
        The sentence.

    Example:
        >>> study_sentence("monitor", "quiet", 12)
        'Quiet: none of 12 figures has changed.'
    """
    return sentence(macro, *values, template=_HERE / f"{study}.txt.jinja")
