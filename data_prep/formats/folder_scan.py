"""Listing of the files in a source folder."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.table_files import read_header
from cxr_compare.data_prep.contracts.text import TEXT


def has_match(*patterns: str) -> Callable[[Path], bool]:
    """Return a function that tests whether a folder contains certain files.

    Args:
        patterns: Glob patterns relative to the folder, such as ``*/data.yaml``.

    Returns:
        Function that is True for a folder in which a path matches at least one of the patterns.
    """

    def holds_match(folder: Path) -> bool:
        return any(next(folder.glob(pattern), None) is not None for pattern in patterns)

    return holds_match


_FILES_OPENED = 20  # of each pattern, to recognise a format by its content


def has_text(
    patterns: Sequence[str], texts: Sequence[bytes], *, without: Sequence[bytes] = ()
) -> Callable[[Path], bool]:
    """Return a function that tests whether a folder contains a file with certain content.

    Args:
        patterns: Glob patterns of files relative to the folder, such as ``*/*.json``.
        texts: Regular expressions of bytes, all of which such a file contains. ``^`` and ``$``
            match at each line.
        without: Regular expressions, none of which such a file contains.

    Returns:
        Function that is True for a folder in which one of the first files of a pattern fits.
    """

    def holds_text(folder: Path) -> bool:
        files = (path for p in patterns for path in islice(sorted(folder.glob(p)), _FILES_OPENED))
        return any(contains(path, texts, without) for path in files)

    return holds_text


def contains(path: Path, texts: Sequence[bytes], without: Sequence[bytes] = ()) -> bool:
    """Return True if a file contains all of some texts and none of some others.

    Args:
        path: Path of the file.
        texts: Regular expressions of bytes, all of which the file must contain.
        without: Regular expressions, none of which it may contain.

    Returns:
        True if the file can be read and fits.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            found = [re.search(text, view, re.MULTILINE) is not None for text in (*texts, *without)]
    except (OSError, ValueError):  # a folder, or an empty file
        return False
    return all(found[: len(texts)]) and not any(found[len(texts) :])


def has_columns(path: Path, *columns: str) -> bool:
    """Return True if a file exists and its first line names all given columns.

    Args:
        path: Path of a CSV file, which need not exist.
        *columns: Names of columns in lower case; the case in the file does not matter.

    Returns:
        True if all columns are there.

    Example:
        >>> has_columns(Path("no-such-file.csv"), "image_id")
        False
    """
    return set(columns) <= {name.lower() for name in read_header(path)}


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".dcm", ".dicom")


def files_below(root: Path, suffixes: str | tuple[str, ...] = "", folder: str = ".") -> list[str]:
    """Return the files below a folder, sorted within each folder. Hidden files are skipped.

    Args:
        root: Folder to which the returned paths are relative.
        suffixes: End of the file names in lower case, or several ends; "" takes every file.
        folder: Folder to search, relative to `root`; "." searches `root` itself.

    Returns:
        Paths relative to `root`, with ``/``.
    """
    paths = []
    for below, folders, names in os.walk(root / folder):
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__MACOSX")))
        inside = Path(below).relative_to(root)
        paths += [
            (inside / name).as_posix()
            for name in sorted(names)
            if name.lower().endswith(suffixes) and not name.startswith(".")
        ]
    return paths


def list_image_files(root: Path, folder: str = ".") -> pd.DataFrame:
    """Return the image files below a folder, which are recognised by their suffix.

    Args:
        root: Folder to which the paths are relative.
        folder: Folder to search, relative to `root`; "." searches `root` itself.

    Returns:
        A table with the columns ``path`` (relative to `root`) and ``image_id`` (name without
        suffix).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.png").write_bytes(b"")
        ...     list_image_files(Path(folder)).values.tolist()
        [['a.png', 'a']]
    """
    paths = sorted(files_below(root, IMAGE_SUFFIXES, folder))
    return pd.DataFrame({"path": paths, "image_id": [Path(p).stem for p in paths]}, dtype=TEXT)


def require_unique_ids(images: pd.DataFrame, root: Path) -> None:
    """Check that no two images have file names that give the same image id.

    Args:
        images: Table with columns ``path`` and ``image_id``.
        root: Folder of the image files, for the message.

    Raises:
        InputError: Two images have the same id; the message names their files.
    """
    repeated = images["image_id"].duplicated(keep=False)
    if repeated.any():
        first = images.loc[repeated].sort_values(["image_id", "path"])["path"].iloc[:2].tolist()
        raise InputError(f"{root}: {first[0]} and {first[1]} have one id; keep one of them")
