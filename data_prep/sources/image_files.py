"""Files of a source: its images, how label files name them, and what a file contains."""

from __future__ import annotations

import mmap
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

import pandas as pd
from PIL import Image, UnidentifiedImageError

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.table_files import read_header
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.images.refused_files import plain_reason, require_file, require_size

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".dcm", ".dicom")
_SUFFIX = re.compile(rf"(?i)(?<=[^/])(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))})$")
_ELSEWHERE = re.compile(r"[/\\]|\.\.|\w+:")  # begin of a path on another machine, or an address
_LABEL_SUFFIXES = (".json", ".xml", ".txt", ".csv", ".yaml", ".yml")
_ROLE = re.compile(
    r"(?<![a-z])(?:(?P<train>train(?:ing)?)|(?P<val>val(?:id(?:ation)?)?)|(?P<test>test(?:ing)?)"
    r"|(?P<unused>unused|unlabell?ed))(?![a-z])"
)
_FILES_OPENED = 20  # of each pattern, to recognise a format by its content
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "GIF")
_EXIF_ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations by which width and height change places."""


def files_below(root: Path, suffixes: str | tuple[str, ...] = "") -> list[str]:
    """Return the files below a folder, relative to it and sorted within each folder.

    `suffixes` are one or several ends of the file names in lower case; "" takes every file. Hidden
    files are skipped.
    """
    paths = []
    for below, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__MACOSX")))
        inside = Path(below).relative_to(root)
        paths += [
            (inside / name).as_posix()
            for name in sorted(names)
            if name.lower().endswith(suffixes) and not name.startswith(".")
        ]
    return paths


def list_images(root: Path) -> pd.DataFrame:
    """Return the image files below a folder, which are recognised by their suffix.

    Returns:
        Sorted table with ``path`` (relative to `root`) and ``name`` (file name without suffix).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.png").write_bytes(b"")
        ...     list_images(Path(folder)).values.tolist()
        [['a.png', 'a']]
    """
    paths = sorted(files_below(root, IMAGE_SUFFIXES))
    return pd.DataFrame({"path": paths, "name": [stem(path) for path in paths]}, dtype=TEXT)


def stem(path: str) -> str:
    """Return the name of a file without its folder and suffix."""
    return posixpath.splitext(posixpath.basename(path))[0]


def without_suffix(path: str) -> str:
    r"""Return a path with ``/`` and without the suffix of an image file; a UID has dots, too.

    Example:
        >>> without_suffix("images\\a.png"), without_suffix("1.2.840")
        ('images/a', '1.2.840')
    """
    return _SUFFIX.sub("", path.replace("\\", "/"))


def folders_agree(name: str, other: str) -> bool:
    """Return True if one of two paths of an image is in all folders of the other.

    A folder ``images`` does not count.

    Example:
        >>> folders_agree("p1/0.png", "p2/0.png"), folders_agree("p1/0.png", "images/0.png")
        (False, True)
    """
    parts = [path.replace("\\", "/").lower().split("/")[:-1] for path in (name, other)]
    one, two = ({*folders} - {"", ".", "images"} for folders in parts)
    return one <= two or two <= one


def ids_of_paths(paths: pd.Series) -> pd.Series:
    """Return the id of each image: its name without suffix where that is unique, else its path.

    Example:
        >>> ids_of_paths(pd.Series(["a/0.png", "b/0.png", "b/1.2.840"])).tolist()
        ['a/0', 'b/0', '1.2.840']
    """
    long = paths.astype(TEXT).map(without_suffix).astype(TEXT)
    short = long.str.rsplit("/", n=1).str[-1]
    return short.where(~short.duplicated(keep=False), long)


def require_unique_ids(images: pd.DataFrame, root: Path) -> None:
    """Refuse two images (``path``, ``image_id``) whose file names give the same image id."""
    repeated = images["image_id"].duplicated(keep=False)
    if repeated.any():
        first = images.loc[repeated].sort_values(["image_id", "path"])["path"].iloc[:2].tolist()
        raise InputError(f"{root}: {first[0]} and {first[1]} have one id; keep one of them")


def role_from_path(text: str) -> str | None:
    """Return train, val, test or unused if a file name or path states one of them.

    The last folder or file name that states one of them decides.

    Example:
        >>> role_from_path("labels/train2017"), role_from_path("valid/images")
        ('train', 'val')
        >>> role_from_path("trainval.txt"), role_from_path("constrained/0001.png")
        (None, None)
    """
    for part in reversed(text.lower().split("/")):
        match = _ROLE.search(part)
        if match:
            return match.lastgroup
    return None


def roles_of_paths(*paths: str) -> list[str]:
    """Return the role that the first of some paths states, in a list; an empty list without."""
    roles = [role for role in map(role_from_path, paths) if role]
    return roles[:1]


class ImageIndex:
    """Search for the image files below a folder by the names that label files give them.

    A label file may name an image by a path on another machine, by its file name alone, or only by
    having the same name itself. Only images below the folder are ever found.

    Attributes:
        paths: Paths of all image files, relative to the folder, sorted.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.paths: list[str] = list_images(root)["path"].tolist()
        self._path_set = set(self.paths)
        self._by_name: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for path in self.paths:
            self._by_name.setdefault(posixpath.basename(path).lower(), []).append(path)
            self._by_stem.setdefault(stem(path), []).append(path)

    def by_name(self, name: str, folders: Iterable[str], role: str | None = None) -> list[str]:
        """Find the files of an image by the name or path that a label file gives it.

        Exactly one path is returned if it is clear which image is meant, otherwise none or several.
        A file in other folders than a relative path says is another image. The folders are those in
        which the image may be, the likeliest first. If the label file belongs to a role (``train``,
        ``val`` or ``test``) and several images match, those in a folder of this name come first.
        """
        parts = [p for p in name.replace("\\", "/").split("/") if p not in ("", ".")]
        folders = list(folders)
        for start in range(len(parts)):
            for folder in folders:
                path = posixpath.normpath(posixpath.join(folder, *parts[start:]))
                if path in self._path_set or self._is_unlisted(path):
                    return [path]
        if not parts:
            return []
        last = parts[-1]
        matches = self._by_name.get(last.lower(), [])
        for name_of_file in (last, posixpath.splitext(last)[0]):  # a UID has full stops
            matches = matches or self._by_stem.get(name_of_file, [])
        if len(matches) > 1 or not _ELSEWHERE.match(name):
            matches = [path for path in matches if folders_agree(name, path)]
        if len(matches) > 1 and role:
            of_role = [p for p in matches if role_from_path(posixpath.dirname(p)) == role]
            return of_role or matches
        return matches

    def _is_unlisted(self, path: str) -> bool:
        """Return True for a file of any suffix that is no label file and that a label names."""
        if path.startswith(("..", "/")) or path.lower().endswith(_LABEL_SUFFIXES):
            return False
        try:
            return (self._root / path).is_file()
        except (OSError, ValueError):  # a name too long, or with a null character
            return False

    def by_stem(self, name: str, folders: Iterable[str]) -> list[str]:
        """Find the image files that have the name of a label file, apart from the suffix."""
        matches = self._by_stem.get(name, [])
        for folder in folders:
            near = [path for path in matches if posixpath.dirname(path) == folder]
            if near:
                return near
        return matches


def has_match(*patterns: str) -> Callable[[Path], bool]:
    """Return a function that is True for a folder with a path that matches a glob pattern."""

    def holds_match(folder: Path) -> bool:
        return any(next(folder.glob(pattern), None) is not None for pattern in patterns)

    return holds_match


def has_file(patterns: Sequence[str], is_one: Callable[[Path], bool]) -> Callable[[Path], bool]:
    """Return a function that tests a file, or the files of a folder that match glob patterns."""

    def holds_file(path: Path) -> bool:
        if path.is_file():
            return is_one(path)
        files = (file for p in patterns for file in islice(sorted(path.glob(p)), _FILES_OPENED))
        return any(map(is_one, files))

    return holds_file


def contains(path: Path, texts: Sequence[bytes]) -> bool:
    """Return True if a file can be read, and contains all of some texts (regular expressions)."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return all(re.search(text, view, re.MULTILINE) is not None for text in texts)
    except (OSError, ValueError):  # a folder, or an empty file
        return False


def has_columns(path: Path, *columns: str) -> bool:
    """Return True if a file exists and its first line names all given columns, in any case.

    Example:
        >>> has_columns(Path("no-such-file.csv"), "image_id")
        False
    """
    return set(columns) <= {name.lower() for name in read_header(path)}


def image_size(path: Path) -> tuple[int, int]:
    """Return the width and height in px of the upright image, after any EXIF orientation."""
    width, height, turn = stored_size(path)
    return (height, width) if turn in SIDEWAYS else (width, height)


def stored_size(path: Path) -> tuple[int, int, int]:
    """Return width and height (px) of an image as stored, and its EXIF orientation, 1 to 8.

    They are read from the header of the file; the pixels are not decoded. A damaged image, or one
    larger than the limit, is refused.
    """
    require_file(path)
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            turn = image.getexif().get(_EXIF_ORIENTATION, 1)
    except UnidentifiedImageError:
        width, height = _dicom_size(path)
        turn = 1
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"{path}: larger than the limit; make it smaller") from None
    except Exception as error:  # noqa: BLE001 - Pillow raises all kinds on broken files
        raise InputError(f"{path}: its size cannot be read ({plain_reason(error)})") from None
    require_size(path, width, height)
    return width, height, turn if turn in range(2, 9) else 1


def _dicom_size(path: Path) -> tuple[int, int]:
    import pydicom  # 0.3 s, which labels of other images are read without

    try:
        header = pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=["Rows", "Columns"], force=True
        )
        return int(header.Columns), int(header.Rows)
    except Exception:  # noqa: BLE001 - pydicom raises all kinds on broken files
        raise InputError(f"{path}: neither DICOM nor a known image format") from None
