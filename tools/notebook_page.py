"""Turn an executed notebook into Markdown with pictures, which GitHub and the site both show."""

from __future__ import annotations

import base64
import json
import re
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple


class NotebookPage(NamedTuple):
    """A notebook as Markdown of cells and outputs, and the PNG pictures of these by file name."""

    markdown: str
    pictures: dict[str, bytes]


def page_from_notebook(path: Path, picture_prefix: str) -> NotebookPage:
    """Convert a notebook that was run.

    A code cell becomes a Python block. Each of its outputs follows it in the richest form that
    Markdown holds: a picture, HTML, or a block of text. The first cell, which introduces the
    notebook, is left out: the page that takes the text in has an introduction of its own.

    The names of the pictures are the prefix, a number and ``.png``.
    """
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in cells[1:]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            picture = output.get("data", {}).get("image/png")
            if picture is None:
                parts.append(_text_of(output))
                continue
            name = f"{picture_prefix}{len(pictures) + 1}.png"
            pictures[name] = base64.b64decode("".join(picture))
            parts.append(f"![Output of the code above]({name})")
    return NotebookPage("\n\n".join(parts), pictures)


def _text_of(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "text/html" in data:
        source = "".join(data["text/html"]).strip()
        if source.startswith("<pre>"):
            return f"```text\n{unescape(source.removeprefix('<pre>').removesuffix('</pre>'))}\n```"
        source = re.sub(r"<style.*?</style>\s*", "", source, flags=re.DOTALL)
        source = re.sub(r">\s*\n\s*<", "><", source)
        # The site draws tables that have no class and no style of their own.
        return re.sub(r' (?:border="1"|class="dataframe"|style="[^"]*")', "", source)
    text = "".join(output.get("text") or data.get("text/plain") or "").rstrip()
    return f"```text\n{text}\n```"
