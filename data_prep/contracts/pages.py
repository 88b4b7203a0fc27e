"""Pages: each fills in ``page.html.jinja`` in the colours of ``page.css.jinja``."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data_prep.contracts.folders import atomic_path


@cache
def template_environment(*folders: Path, autoescape: bool = True) -> Environment:
    """The templates of some folders, with the frame of all pages."""
    environment = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=autoescape,  # noqa: S701 - off for plain text only
        undefined=StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "sort_keys": True}
    return environment


def write_html(path: Path, html: str) -> Path:
    """Write a page in one step; return its path."""
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path
