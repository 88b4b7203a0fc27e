"""Hook of mkdocs: beside each page of the site its Markdown, and ``llms.txt``, which lists them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_SNIPPET = re.compile(r'^--8<-- "([^":]+)(?::([\w-]+))?"$', re.MULTILINE)
_MARKS = re.compile(r"^<!-- .* -->\n+", re.MULTILINE)
_ROOT = Path(__file__).resolve().parents[1]

_pages: dict[str, str] = {}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> None:
    """Keep the Markdown of a page, with the parts of other files that it shows."""
    text = _MARKS.sub("", _SNIPPET.sub(_part, markdown))
    # The site shows the docstring of a name here, which its help prints, too.
    text = re.sub(r"^::: (\S+)$", r"`help(\1)`", text, flags=re.MULTILINE)
    _pages[page.file.src_uri] = text


def on_post_build(config: Any, **_: Any) -> None:
    """Write a twin of each page, and the list of all by the parts of the navigation."""
    site = Path(config.site_dir)
    for path, text in _pages.items():
        (site / path).write_text(text, encoding="utf-8")
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", ""]
    for entry in config.nav:
        if isinstance(entry, str):
            lines += [_line(entry)]
            continue
        for title, below in entry.items():
            lines += ["", f"## {title}", "", *map(_line, _paths(below))]
    (site / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _part(match: re.Match[str]) -> str:
    path, name = match.groups()
    text = (_ROOT / path).read_text(encoding="utf-8")
    if name is None:
        return text
    begin, end = (f"<!-- --8<-- [{word}:{name}] -->" for word in ("start", "end"))
    return text.partition(begin)[2].partition(end)[0].strip()


def _paths(below: Any) -> list[str]:
    """Return the pages of a part of the navigation, in its order."""
    if isinstance(below, str):
        return [below]
    parts = below.values() if isinstance(below, dict) else below
    return [path for part in parts for path in _paths(part)]


def _line(path: str) -> str:
    """Return the line of a page: its title, its twin, and the question with which it begins."""
    title, first, *_ = _pages[path].split("\n\n")
    asked = re.match(r"[^?]+\?", " ".join(first.split()))
    question = f": {asked[0]}" if asked else ""
    return f"- [{title.removeprefix('# ')}]({path}){question}"
