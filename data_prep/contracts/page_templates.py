"""Templates of HTML pages: each fills in ``page.html.jinja``, styled by ``page.css.jinja``."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


@cache
def template_environment(*folders: Path, autoescape: bool = True) -> Environment:
    """Return the Jinja environment for templates of some folders.

    Args:
        *folders: Folders of the templates; that of the common frame is added.
        autoescape: Whether to escape HTML in values; False only for plain text.

    Returns:
        The environment; a name that a template uses and the caller does not give is an error.

    Example:
        >>> template_environment().from_string("{{ name }}").render(name="a < b")
        'a &lt; b'
    """
    environment = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=autoescape,  # noqa: S701 - off for plain text only
        undefined=StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "sort_keys": True}
    return environment
