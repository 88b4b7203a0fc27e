"""The page on which overlays are looked through, and the files of a folder of overlays."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import numpy as np
from PIL import Image

from cxr_compare.data_prep.base.files import file_digest, write_text
from cxr_compare.data_prep.base.folders import require_writable
from cxr_compare.data_prep.base.image_names import without_ending
from cxr_compare.data_prep.base.records import write_json
from cxr_compare.evaluation.overlays.sheet import first_answer
from cxr_compare.evaluation.report.case_selection import ImageKind
from cxr_compare.evaluation.report.page_templates import template_environment

if TYPE_CHECKING:
    from cxr_compare.evaluation.overlays.draw import Pixels
    from cxr_compare.evaluation.overlays.sheet import Panel

OVERLAY_END = "-overlay.png"
"""End of the name of each overlay, by which those of a former call are recognised."""
OVERLAYS_PAGE = "index.html"
_RECORD = "overlays.json"
_THUMBNAIL = 112
"""Longer side of a thumbnail, px."""
_NO_NAME = '/\\:*?"<>|'
"""Signs that stand in no name of a file on some system."""
_LONGEST_STEM = 230
"""Bytes of the name of an overlay, with its end and a number 255 at most."""


class Overlay(NamedTuple):
    """One drawn image on the page.

    Attributes:
        image: Id of the image, in addresses of the page.
        name: Name of the image for the reader.
        file: Name of the file beside the page.
        lines: What is known and said of the image, in words.
        thumbnail: ``src`` of its small picture.
        first: Where the first answer of a system begins in the file, px from the left.
    """

    image: str
    name: str
    file: str
    lines: Sequence[str]
    thumbnail: str
    first: int = 0


def overlay_of(image: str, name: str, file: str, panels: Sequence[Panel]) -> Overlay:
    """Return a drawn image, whose panels stand in a file."""
    thumbnail = thumbnail_of(panels[0].pixels)
    return Overlay(image, name, file, lines_of(panels), thumbnail, first_answer(panels))


def lines_of(panels: Sequence[Panel]) -> list[str]:
    """Return the captions of panels, without the name of the image: a line for each panel."""
    texts = [(panel.name, [line for line in panel.lines if line]) for panel in panels]
    first = texts[0][1][1:]
    rest = [f"{name}: {', '.join(lines)}" for name, lines in texts[1:]]
    return [*([", ".join(first)] if first else []), *rest]


def thumbnail_of(pixels: Pixels) -> str:
    """Return the ``src`` of a small JPEG of an image, grey or RGB."""
    return picture_source(pixels, _THUMBNAIL, 75)


def picture_source(pixels: Pixels, side: int, quality: int) -> str:
    """Return the ``src`` of a JPEG with a longer side of at most `side` px."""
    picture = Image.fromarray(np.asarray(pixels))
    picture.thumbnail((side, side))
    content = io.BytesIO()
    picture.save(content, "jpeg", quality=quality, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def overlay_file(folder: Path, name: str, taken: Iterable[Path]) -> Path:
    """Return the file for the overlay of an image, numbered if another image has its name.

    Only the ending of a known format leaves the name of an image: a UID has dots, too.
    """
    plain = without_ending(name)
    stem = "".join("_" if sign in _NO_NAME or not sign.isprintable() else sign for sign in plain)
    while len(stem.encode()) > _LONGEST_STEM:
        stem = stem[:-1]
    names = (f"{stem}-{number}" if number > 1 else stem for number in count(1))
    used = {path.name.casefold() for path in taken}  # some disks take A and a for one name
    file = next(name for name in names if f"{name}{OVERLAY_END}".casefold() not in used)
    return folder / f"{file}{OVERLAY_END}"


def require_overlay_folder(folder: Path) -> None:
    """Refuse a folder that holds anything but overlays, finished or not."""
    own = [path.name for path in folder.glob(f"*{OVERLAY_END}")]
    require_writable(folder, "set of overlays", [OVERLAYS_PAGE, *own], overwrite=True)


def remove_overlays(folder: Path) -> None:
    """Remove the overlays of a former call and its page, so that none stays beside another page."""
    record, overlays = folder / _RECORD, {*folder.glob(f"*{OVERLAY_END}")}
    if record.is_file() or overlays:  # a killed call may have left the page without a record
        (folder / OVERLAYS_PAGE).unlink(missing_ok=True)
        record.unlink(missing_ok=True)
    for path in overlays:
        path.unlink()


def write_overlay_page(
    folder: Path,
    title: str,
    overlays: Sequence[Overlay],
    kinds: Sequence[ImageKind],
    *,
    total: int,
    report: Path | None = None,
    remark: str = "",
) -> Path:
    """Write the page of all overlays, with a tab for each kind of image, and return its path.

    `kinds` have all images of a kind, by `Overlay.image`, also those that are not drawn; `total` is
    the number of images of all kinds.
    """
    position = {overlay.image: place for place, overlay in enumerate(overlays)}
    every = ImageKind("all", "All", tuple(position))
    tabs = [_tab(kind, position) for kind in kinds]
    page = (
        template_environment()
        .get_template("overlays.html.jinja")
        .render(
            title=title,
            overlays=[_plain(overlay) for overlay in overlays],
            thumbnails=[overlay.thumbnail for overlay in overlays],
            kinds=[
                {**_tab(every, position), "total": total},
                *(tab for tab in tabs if tab["images"]),
            ],
            report=None if report is None else _relative(report, folder),
            remark=remark,
        )
    )
    return write_text(folder / OVERLAYS_PAGE, page)


def write_overlay_record(folder: Path, files: Iterable[Path]) -> None:
    """Write the record of a folder of overlays, with the digests of its files."""
    digests = {file.name: file_digest(file) for file in (*files, folder / OVERLAYS_PAGE)}
    write_json(folder / _RECORD, "overlays", {"files": digests})


def _tab(kind: ImageKind, position: Mapping[str, int]) -> dict[str, Any]:
    images = [position[image] for image in kind.image_ids if image in position]
    return {
        "key": kind.key,
        "title": kind.title,
        "images": images,
        "total": len(kind.image_ids),
    }


def _plain(overlay: Overlay) -> dict[str, Any]:
    """Return what the script of the page shows; a picture stands once, as ``src`` in its strip."""
    shown = {**overlay._asdict(), "file": quote(overlay.file), "lines": list(overlay.lines)}
    del shown["thumbnail"]
    return shown


def _relative(path: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(path, folder)).as_posix())
