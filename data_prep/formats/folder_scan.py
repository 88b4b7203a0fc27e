"""List the files of a source folder and recognise what it holds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.table_files import header_of
from cxr_compare.data_prep.contracts.text import TEXT


def has_match(*patterns: str) -> Callable[[Path], bool]:
    """A test of folders: something in it has one of the names, or fits one of the patterns."""
    return lambda folder: any(next(folder.glob(p), None) is not None for p in patterns)


def has_columns(path: Path, *columns: str) -> bool:
    """Whether a file is there whose first line names the columns."""
    return set(columns) <= {name.lower() for name in header_of(path)}


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".dcm", ".dicom")


def files_below(root: Path, suffixes: str | tuple[str, ...] = "", folder: str = ".") -> list[str]:
    """Relative paths of the files below a folder that end so; hidden ones are passed over."""
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
    """``path, image_id`` of the images below a folder, known by the suffix of their names."""
    paths = sorted(files_below(root, IMAGE_SUFFIXES, folder))
    return pd.DataFrame({"path": paths, "image_id": [Path(p).stem for p in paths]}, dtype=TEXT)


def require_unique_ids(images: pd.DataFrame, root: Path) -> None:
    """Refuse two images whose names give one image id."""
    repeated = images["image_id"].duplicated(keep=False)
    if repeated.any():
        first = images.loc[repeated].sort_values(["image_id", "path"])["path"].iloc[:2].tolist()
        raise InputError(f"{root}: {first[0]} and {first[1]} have one id; keep one of them")
