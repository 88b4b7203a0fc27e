"""Sentences of the studies, from one text template for each study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cxr_compare.evaluation.report.templates import sentence

_HERE = Path(__file__).parent


def study_sentence(study: str, macro: str, *values: Any) -> str:
    """Return a sentence for people, from the text template of a study, on one line.

    Args:
        study: Name of the template without its ending, such as ``monitor`` for
            ``monitor.txt.jinja``.
        macro: Name of the Jinja macro in the template that makes the sentence.
        *values: Arguments of the macro, such as numbers to write into the sentence.

    Returns:
        The sentence.

    Example:
        >>> study_sentence("monitor", "quiet", 12)
        'Quiet: none of 12 figures has changed.'
    """
    return sentence(macro, *values, template=_HERE / f"{study}.txt.jinja")
