"""What tells which format a folder is of."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

from data_prep.contracts.errors import InputError

_FIRST_FILES = 500


def has_file(*names: str) -> Callable[[Path], bool]:
    """A test of folders: one of the names is in it."""
    return lambda folder: any((folder / name).exists() for name in names)


def has_match(*patterns: str) -> Callable[[Path], bool]:
    """A test of folders: something in it fits one of the patterns."""
    return lambda folder: any(next(folder.glob(p), None) is not None for p in patterns)


def has_columns(path: Path, *columns: str) -> bool:
    """Whether a file is there whose first line names the columns.

    Args:
        path: A CSV file, or no file at all.
        *columns: Their names, in any case.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            names = {name.strip(' "').lower() for name in file.readline().strip().split(",")}
    except OSError:
        return False
    return set(columns) <= names


def require_folder(source: Path) -> None:
    """Check that a source is a folder with something in it.

    Raises:
        InputError: It is missing, a file, or empty.
    """
    if not source.exists():
        raise InputError(f"{source}: no such folder")
    if not source.is_dir():
        raise InputError(f"{source}: a file; give the folder that holds the data set")
    if next(source.iterdir(), None) is None:
        raise InputError(f"{source}: the folder is empty; give the folder that holds the data set")


def is_vindr(folder: Path) -> bool:
    """Whether a folder has the tables of VinDr-CXR.

    PhysioNet's, or Kaggle's ``train.csv``: other sets have one too, so its header decides.

    Args:
        folder: Any path.
    """
    if has_match("annotations_t*.csv", "image_labels_t*.csv")(folder):
        return True
    return has_columns(folder / "train.csv", "image_id", "class_name", "rad_id")


def holds_dicom(folder: Path) -> bool:
    """Whether one of the first files below a folder is DICOM by its content.

    Args:
        folder: An existing folder; names and folders in it may be anything.
    """
    files = (path for path in islice(folder.rglob("*"), _FIRST_FILES) if path.is_file())
    return any(_start(path)[128:] == b"DICM" for path in files)


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(132)
    except OSError:
        return b""
