"""The report's templates: pages, and the sentences in ``words.txt.jinja``."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment

from data_prep.contracts.pages import template_environment
from evaluation.metrics.words import listing, number, policy_words, score_words

_HERE = Path(__file__).parent


@cache
def _environment(*folders: Path, autoescape: bool = True) -> Environment:
    environment = template_environment(*folders, _HERE, autoescape=autoescape)
    filters = (listing, number, policy_words, score_words)
    environment.filters.update({word.__name__: word for word in filters})
    return environment


def render(template: str, **values: Any) -> str:
    """Return a page as HTML; every value is escaped."""
    return render_from(_HERE, template, **values)


def render_from(folder: Path, template: str, **values: Any) -> str:
    """Return a page whose template lies in another folder."""
    return _environment(folder).get_template(template).render(**values)


def sentence(macro: str, *values: Any, template: str = "words.txt.jinja") -> str:
    """Return a macro of a text template as plain text, on one line.

    Example:
        >>> sentence("tried", {"settings_tried": 12})
        '12'
    """
    module: Any = _environment(autoescape=False).get_template(template).module
    return " ".join(str(getattr(module, macro)(*values)).split())
