"""Rendering of the templates of label files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.page_templates import template_environment


def render_template(template: str, **values: Any) -> str:
    """Fill in a template of a label file, such as the XML of Pascal VOC.

    Args:
        template: File name of the template in the folder ``export``, such as ``voc.xml.jinja``.
        **values: Values by the names that the template uses.

    Returns:
        Text of the label file.
    """
    return template_environment(Path(__file__).parent).get_template(template).render(values)
