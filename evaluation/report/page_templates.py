"""Templates of HTML pages.

Each template fills in the frame ``page.html.jinja``, which uses the styles in ``page.css.jinja``
and ``cards.css.jinja``.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cxr_compare.evaluation.overlays.colours import SYSTEM_MARKS


@cache
def template_environment() -> Environment:
    """Return the Jinja environment for the templates in this folder.

    It escapes HTML in values, and raises an error if a template uses a name that the caller does
    not pass.

    Examples:
        >>> template_environment().from_string("{{ name }}").render(name="a < b")
        'a &lt; b'
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.globals["marks"] = SYSTEM_MARKS
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "sort_keys": True}
    return environment
