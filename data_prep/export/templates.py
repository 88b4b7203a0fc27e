"""Rendering of the templates of label files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.page_templates import template_environment


def render_template(template: str, **values: Any) -> str:
    """Render a template of this package.

    Args:
        template: File name of the template, such as ``voc.xml.jinja``.
        **values: Values that the template names.

    Returns:
        The text.
    """
    return template_environment(Path(__file__).parent).get_template(template).render(values)
