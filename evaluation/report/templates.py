"""Rendering of the report's templates: HTML pages, text files, and single sentences."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.page_templates import template_environment
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.statistics.figure_text import number, range_text, score_text

_HERE = Path(__file__).parent
SENTENCES = "sentences.txt.jinja"
"""Sentences on thresholds, intervals and what validation chose."""


@cache
def _environment(*folders: Path, autoescape: bool = True) -> Environment:
    environment = template_environment(*folders, _HERE, autoescape=autoescape)
    filters = (counted, listing, metric_title, number, policy_text, range_text, score_text)
    environment.filters.update({function.__name__: function for function in filters})
    return environment


def metric_title(name: str) -> str:
    """Return the title of a metric in the form for the middle of a sentence.

    Args:
        name: Short name of the metric, such as ``auroc``.

    Returns:
        The title, in which only names and abbreviations are in capitals.

    Example:
        >>> metric_title("froc_mean")
        'FROC, mean'
    """
    return METRICS[name].title_in_sentence


def render(template: str | Path, **values: Any) -> str:
    """Fill in a template (Jinja) as an HTML page or as a text file.

    In an HTML page, special characters of all values are escaped.

    Args:
        template: File name of a template beside this module, such as ``report.html.jinja``, or the
            path of a template elsewhere.
        **values: Values of the template's variables, by name.

    Returns:
        The rendered page or text.
    """
    path = _HERE / template  # an absolute path names a template elsewhere
    escaped = path.name.endswith(".html.jinja")
    return _environment(path.parent, autoescape=escaped).get_template(path.name).render(**values)


def sentence(macro: str, *values: Any, template: str | Path = SENTENCES) -> str:
    """Return a sentence from a template file: a macro, filled in with values, on one line.

    Args:
        macro: Name of the macro in the template, such as ``reduction``.
        *values: Arguments of the macro, in its order.
        template: File name of a template beside this module, such as ``tables.txt.jinja``, or the
            path of a template elsewhere.

    Returns:
        The text, with single spaces.

    Example:
        >>> sentence("reduction", {"reduction": {"rule": "max"}})
        'most confident box'
    """
    path = _HERE / template
    module: Any = _environment(path.parent, autoescape=False).get_template(path.name).module
    return " ".join(str(getattr(module, macro)(*values)).split())
