"""The page on which overlays are leafed through."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from cxr_compare.data_prep.base.files import file_digest, write_text
from cxr_compare.data_prep.base.records import write_json

_PAGE = "index.html"
_RECORD = "overlays.json"
_STYLE = """html{scroll-snap-type:y mandatory}body{margin:0;font:16px/1.5 system-ui,sans-serif;
background:#111;color:#ddd}figure{margin:0;min-height:100vh;scroll-snap-align:start;display:flex;
flex-direction:column;justify-content:center;align-items:center}img{max-width:100%;
max-height:calc(100vh - 3rem)}figcaption{padding:.5rem;overflow-wrap:anywhere}
@media (max-width:720px){figure{align-items:flex-start;overflow-x:auto}img{max-width:none;
max-height:none;zoom:.75}figcaption{position:sticky;left:0}}"""


def write_leaf_page(folder: Path, names: Sequence[str], files: Sequence[Path]) -> Path:
    """Write a page that shows one overlay a screen, and the record of the folder last.

    Return the path of the page.
    """
    figures = []
    for number, (name, file) in enumerate(zip(map(escape, names), files, strict=True), start=1):
        picture = f'<img src="{quote(file.name)}" alt="Overlay of {name}" loading="lazy">'
        caption = f"<figcaption>{number} of {len(files)}: {name}</figcaption>"
        figures.append(f"<figure>{picture}{caption}</figure>")
    content = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Overlays</title><style>{_STYLE}</style></head>
<body><main>{"".join(figures)}</main></body></html>
"""
    path = write_text(folder / _PAGE, content)
    digests = {file.name: file_digest(file) for file in (*files, path)}
    write_json(folder / _RECORD, "overlays", {"files": digests})
    return path
