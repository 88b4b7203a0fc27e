"""The report's templates: pages, and the sentences in ``words.txt.jinja``."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluation.metrics.words import listing, number, policy_words, score_words


@cache
def _environment(autoescape: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=autoescape,  # noqa: S701 - off for plain text only
        undefined=StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "sort_keys": True}
    filters = (listing, number, policy_words, score_words)
    environment.filters.update({each.__name__: each for each in filters})
    return environment


def render(template: str, **values: Any) -> str:
    """Return a page as HTML; every value is escaped."""
    return _environment(autoescape=True).get_template(template).render(**values)


def sentence(macro: str, *values: Any, template: str = "words.txt.jinja") -> str:
    """Return a macro of a text template as plain text, on one line.

    Example:
        >>> sentence("tried", {"settings_tried": 12})
        '12'
    """
    module: Any = _environment(autoescape=False).get_template(template).module
    return " ".join(str(getattr(module, macro)(*values)).split())
