"""Templates of the report: pages as HTML, files as text, and single sentences."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.pages import template_environment
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.statistics.figure_text import number, score_text

_HERE = Path(__file__).parent


@cache
def _environment(*folders: Path, autoescape: bool = True) -> Environment:
    environment = template_environment(*folders, _HERE, autoescape=autoescape)
    filters = (counted, listing, number, policy_text, score_text)
    environment.filters.update({word.__name__: word for word in filters})
    return environment


def render(template: str | Path, **values: Any) -> str:
    """Return a page as HTML, where every value is escaped, or another file as text."""
    path = _HERE / template  # a whole path is of a template that lies elsewhere
    escaped = path.name.endswith(".html.jinja")
    return _environment(path.parent, autoescape=escaped).get_template(path.name).render(**values)


def sentence(macro: str, *values: Any, template: str = "words.txt.jinja") -> str:
    """Return a macro of a text template as plain text, on one line."""
    module: Any = _environment(autoescape=False).get_template(template).module
    return " ".join(str(getattr(module, macro)(*values)).split())
