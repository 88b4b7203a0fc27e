"""Which image a label file is about, what its id is, and which role its folder gives.

Label files name images loosely: by a path on another machine, by a name alone, or only by having
the same name. Only images below the source folder are ever found.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pydicom
from PIL import Image, UnidentifiedImageError

from data_prep.contracts.errors import InputError
from data_prep.formats.source import list_image_files
from data_prep.images.decoded_image import (
    MAX_FILE_BYTES,
    plain_reason,
    require_file,
    require_size,
)
from data_prep.work.local_copies import open_image

_ROLE = re.compile(
    r"(?<![a-z])(?:(?P<train>train(?:ing)?)|(?P<val>val(?:id(?:ation)?)?)|(?P<test>test(?:ing)?)"
    r"|(?P<unused>unused|unlabell?ed))(?![a-z])"
)
_LABEL_SUFFIXES = (".json", ".xml", ".txt", ".csv", ".yaml", ".yml")
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "GIF")
_EXIF_ORIENTATION, _LYING = 0x0112, (5, 6, 7, 8)


def role_of(text: str) -> str | None:
    """The role that a name or path says: the last folder or file that names one decides.

    Example:
        >>> role_of("labels/train2017"), role_of("valid/images"), role_of("instances_test.json")
        ('train', 'val', 'test')
        >>> role_of("trainval.txt"), role_of("constrained/0001.png")
        (None, None)
    """
    for part in reversed(text.lower().split("/")):
        match = _ROLE.search(part)
        if match:
            return match.lastgroup
    return None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig").splitlines()
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or "is not text in UTF-8"
        raise InputError(f"{path}: cannot be read ({reason})") from None


class ImageIndex:
    """The images below a folder, found by what label files call them.

    Attributes:
        paths: Relative paths with ``/``, sorted.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.paths: list[str] = list_image_files(root)["path"].tolist()
        self._known = set(self.paths)
        self._by_name: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        self._by_place: dict[tuple[str, str], list[str]] = {}
        for path in self.paths:
            folder, name = posixpath.split(path)
            stem = posixpath.splitext(name)[0]
            self._by_name.setdefault(name.lower(), []).append(path)
            self._by_stem.setdefault(stem, []).append(path)
            self._by_place.setdefault((folder, stem), []).append(path)

    def by_name(self, name: str, folders: Iterable[str], role: str | None = None) -> list[str]:
        """Find an image by the name or path that a label file gives."""
        parts = [p for p in name.replace("\\", "/").split("/") if p not in ("", ".")]
        folders = list(folders)
        for start in range(len(parts)):
            for folder in folders:
                path = posixpath.normpath(posixpath.join(folder, *parts[start:]))
                if path in self._known or self._is_unlisted(path):
                    return [path]
        if not parts:
            return []
        last = parts[-1]
        matches = self._by_name.get(last.lower()) or self._by_stem.get(posixpath.splitext(last)[0])
        if matches and len(matches) > 1 and role:
            matches = [
                path for path in matches if role_of(posixpath.dirname(path)) == role
            ] or matches
        return matches or []

    def _is_unlisted(self, path: str) -> bool:
        """A file that the label names exactly is an image whatever its suffix, or without one."""
        if path.startswith(("..", "/")) or path.lower().endswith(_LABEL_SUFFIXES):
            return False
        try:
            return (self._root / path).is_file()
        except (OSError, ValueError):  # a name too long, or with a null character
            return False

    def by_stem(self, stem: str, folders: Iterable[str]) -> list[str]:
        """Find an image that has the name of a label file."""
        for folder in folders:
            matches = self._by_place.get((folder, stem))
            if matches:
                return matches
        return self._by_stem.get(stem, [])


def name_images(paths: Iterable[str], root: Path) -> dict[str, str]:
    """Give each image its image id: its name without the suffix, where only one has that name.

    Example:
        >>> name_images(["train/1.png", "test/1.png", "test/2.png"], Path("."))
        {'train/1.png': 'train/1', 'test/1.png': 'test/1', 'test/2.png': '2'}
    """
    frame = pd.DataFrame({"path": list(paths)}, dtype="str")
    long = frame["path"].str.replace(r"(?<=[^/])\.[^./]*$", "", regex=True)
    short = long.str.rsplit("/", n=1).str[-1]
    ids = short.where(~short.duplicated(keep=False), long)
    repeated = ids.duplicated(keep=False)
    if repeated.any():
        first = frame.loc[ids == ids[repeated].iloc[0], "path"].iloc[:2].tolist()
        raise InputError(f"{root}: {first[0]} and {first[1]} have one id; keep one of them")
    return dict(zip(frame["path"], ids, strict=True))


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image, px, from its header alone, upright as its EXIF says."""
    with open_image(path, MAX_FILE_BYTES) as file:
        return _size_of(file)


def _size_of(path: Path) -> tuple[int, int]:
    require_file(path)
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            if image.getexif().get(_EXIF_ORIENTATION) in _LYING:
                width, height = height, width
    except UnidentifiedImageError:
        width, height = _dicom_size(path)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"{path}: larger than the limit; make it smaller") from None
    except Exception as error:  # noqa: BLE001 - Pillow raises all kinds on broken files
        raise InputError(f"{path}: its size cannot be read ({plain_reason(error)})") from None
    require_size(path, width, height)
    return width, height


def _dicom_size(path: Path) -> tuple[int, int]:
    try:
        header = pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=["Rows", "Columns"], force=True
        )
        return int(header.Columns), int(header.Rows)
    except Exception:  # noqa: BLE001 - pydicom raises all kinds on broken files
        raise InputError(f"{path}: neither DICOM nor a known image format") from None
