"""Sentences from templates: the code chooses a kind and its values, a template words them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.statistics.figure_text import number, range_text, score_text


def percent(share: float, digits: int = 1) -> str:
    """Return a share in per cent, without the sign.

    Example:
        >>> percent(0.4567)
        '45.7'
    """
    return f"{100 * share:.{digits}f}"


_FILTERS = {
    "counted": counted,
    "listing": listing,
    "number": number,
    "percent": percent,
    "policy": policy_text,
    "score": score_text,
}


@dataclass(frozen=True)
class Templates:
    """Templates of sentences: one Jinja macro for each kind of sentence.

    Attributes:
        source: The macros as Jinja text. Line breaks and repeated spaces count as one space.

    Example:
        >>> templates = Templates("{% macro size(n) %} {{ n|counted('image') }} {% endmacro %}")
        >>> templates.text("size", n=2)
        '2 images'
    """

    source: str

    @cached_property
    def _macros(self) -> Any:
        import jinja2  # only now: most callers never need a sentence

        environment = jinja2.Environment(
            autoescape=False,  # noqa: S701 - plain text, which pages escape
            undefined=jinja2.StrictUndefined,
        )
        environment.filters.update(_FILTERS)
        environment.globals["span"] = range_text
        return environment.from_string(self.source).module

    def text(self, kind: str, /, **values: Any) -> str:
        """Return the sentence of a kind.

        Args:
            kind: Name of the macro.
            **values: Its arguments.
        """
        return " ".join(str(getattr(self._macros, kind)(**values)).split())
