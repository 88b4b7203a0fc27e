"""Rendering of the report's HTML pages from their templates."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.page_templates import template_environment
from cxr_compare.evaluation.metrics.notes import CAUTIONS
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.overlays.draw import mark_source
from cxr_compare.evaluation.overlays.legend import MARKS
from cxr_compare.evaluation.report.table import html_table
from cxr_compare.evaluation.statistics.figure_text import number, score_text

_HERE = Path(__file__).parent


@cache
def _environment(folder: Path) -> Environment:
    environment = template_environment(folder, _HERE)
    filters = (counted, html_table, listing, mark_source, number, policy_text, score_text)
    environment.filters.update({function.__name__: function for function in filters})
    environment.globals.update({"marks": MARKS, "caution_headings": CAUTIONS})
    return environment


def render(template: str | Path, **values: Any) -> str:
    """Fill in a template (Jinja) as an HTML page, in which special characters are escaped.

    `template` is the name of a file beside this module, such as ``report.html.jinja``, or the path
    of a template elsewhere; `values` are its variables by name.
    """
    path = _HERE / template  # an absolute path names a template elsewhere
    return _environment(path.parent).get_template(path.name).render(**values)
