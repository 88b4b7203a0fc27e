"""The folder that label files go to: whole or not at all, with the pictures beside them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import make_folder
from data_prep.export.content import ImageEntry
from data_prep.formats.common import PICTURE_SUFFIXES
from data_prep.store.dataset import DataSet


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `out`; it takes that place at the end, or is removed.

    Raises:
        InputError: Something is there already, or the place may not be written.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp())
        >>> with whole_folder(place / "out") as folder:
        ...     _ = (folder / "a.txt").write_text("a")
        >>> [path.name for path in place.iterdir()]
        ['out']
    """
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is there and is no empty folder; choose a new one")
    make_folder(out.parent)
    temporary = make_folder(out.with_name(f".{out.name}.{os.getpid()}.tmp"))
    try:
        yield temporary
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@dataclass
class AnnotationFolder:
    """Where label files and pictures are put.

    Attributes:
        path: The folder.
        mode: ``none`` puts no pictures there, ``link`` symbolic links, ``copy`` copies.
        dataset: Where the pictures come from.
        advance: Told when an image is done.
        cannot: What the format cannot say, one line each.
    """

    path: Path
    mode: str
    dataset: DataSet
    advance: Callable[[int], None] = lambda n: None
    cannot: list[str] = field(default_factory=list)

    def write(self, name: str, text: str) -> None:
        """Write a text file below the folder."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def picture_name(self, image: ImageEntry) -> str:
        """The image's id as a file's name, with the suffix of its picture."""
        path = Path(image.picture or "")
        if self.mode != "none":
            path = self.dataset.image_path(image.image_id)
        return image.stem + (path.suffix if path.suffix.lower() in PICTURE_SUFFIXES else ".dcm")

    def put_picture(self, image: ImageEntry, name: str) -> None:
        """Put a picture of the source below the folder, if pictures are put at all.

        Raises:
            InputError: It is not there any more.
        """
        if self.mode == "none" or image.picture is None:
            return
        origin, place = self.dataset.image_path(image.image_id).resolve(), self.path / name
        if not origin.is_file():
            raise InputError(f"{origin}: the picture is gone; bring it back")
        place.parent.mkdir(parents=True, exist_ok=True)
        if self.mode == "link":
            place.symlink_to(origin)
        else:
            shutil.copyfile(origin, place)

    def cannot_say(self, number: int, text: str) -> None:
        """Remember what the format cannot say, if it is met at all; the text follows the number."""
        if number:
            self.cannot.append(f"{number:,} {text}")
