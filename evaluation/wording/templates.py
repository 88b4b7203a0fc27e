"""Sentences from templates: the code chooses a kind and its values, and a template words them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.statistics.figure_text import number, range_text, score_text


def percent(share: float, digits: int = 1) -> str:
    """Return a share in per cent as text, without the sign.

    Args:
        share: Share in [0, 1].
        digits: Number of decimals.

    Returns:
        The text, such as "45.7".

    Example:
        >>> percent(0.4567)
        '45.7'
    """
    return f"{100 * share:.{digits}f}"


_MACRO = re.compile(r"{%-?\s*macro (?P<name>\w+)\(.*?{%-?\s*endmacro\s*-?%}", re.DOTALL)
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
    def _sources(self) -> dict[str, str]:
        """Text of each macro, by its name."""
        return {macro["name"]: macro[0] for macro in _MACRO.finditer(self.source)}

    def _needed(self, kind: str) -> list[str]:
        """Return the names of a macro and of all macros that it calls."""
        needed = [kind]
        for name in needed:  # the loop also visits the names that it adds
            words = set(re.findall(r"\w+", self._sources[name]))
            needed += sorted(words & self._sources.keys() - set(needed))
        return needed

    @cache  # noqa: B019 - templates are constants of modules
    def _macro(self, kind: str) -> Any:
        """Return one compiled macro; to compile all macros takes ten times as long."""
        import jinja2  # imported here, since most callers never need a sentence

        environment = jinja2.Environment(
            autoescape=False,  # noqa: S701 - plain text, which pages escape
            undefined=jinja2.StrictUndefined,
        )
        environment.filters.update(_FILTERS)
        environment.globals["span"] = range_text
        source = "\n".join(self._sources[name] for name in self._needed(kind))
        return getattr(environment.from_string(source).module, kind)

    def text(self, kind: str, /, **values: Any) -> str:
        """Return the text of one template, filled in with values.

        Args:
            kind: Name of the Jinja macro, such as ``size``.
            **values: Arguments of the macro by name, such as ``n=2``.

        Returns:
            The sentence, with single spaces and without a line break.

        Example:
            >>> templates = Templates("{% macro hello(name) %} Hello  {{ name }}. {% endmacro %}")
            >>> templates.text("hello", name="reader")
            'Hello reader.'
        """
        return " ".join(str(self._macro(kind)(**values)).split())
