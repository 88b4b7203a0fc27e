"""Image files that belong to no data set.

This module imports no pandas, so that worker processes start fast.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr_compare.data_prep.base.errors import InputError, printable
from cxr_compare.data_prep.base.files import files_in, require_there
from cxr_compare.data_prep.images.dicom_header import clean_text
from cxr_compare.data_prep.images.image import DecodedImage, is_dicom, read_image
from cxr_compare.data_prep.images.refused_files import DECODER_CRASHED
from cxr_compare.data_prep.parallel import map_images

DICOM_IDS = {"sop_instance_uid": "SOPInstanceUID", "study_instance_uid": "StudyInstanceUID"}
"""Identifiers by which an archive finds an image, as columns and as elements of a header."""


@dataclass(frozen=True)
class LooseImage:
    """An image file: its decoded image, or the reason in one line why it cannot be read."""

    path: Path
    image: DecodedImage | None = None
    problem: str | None = None


def find_image_files(sources: Sequence[Path]) -> list[Path]:
    """List the files that a user named, and `files_in` the folders that the user named.

    Each file stands once; hidden ones are left out. A source that does not exist is refused.
    """
    files: dict[Path, None] = {}
    for source in sources:
        require_there(source)
        below = sorted(source / name for name in files_in(source)) if source.is_dir() else [source]
        visible = (path for path in below if not path.name.startswith("."))
        # A link to nothing is an image that cannot be read; a pipe is none.
        files.update(dict.fromkeys(p for p in visible if p.is_file() or not p.exists()))
    return list(files)


def read_dicom_ids(path: Path) -> dict[str, str | None]:
    """Read the identifiers of a DICOM file by `DICOM_IDS`; None where a file states none."""
    ids: dict[str, str | None] = dict.fromkeys(DICOM_IDS)
    try:
        if not is_dicom(path):
            return ids
        import pydicom  # 0.3 s, which other images are read without

        tags = [*DICOM_IDS.values()]
        with warnings.catch_warnings(action="ignore"):  # which quote a wrong value
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
            texts = {name: clean_text(header, keyword) for name, keyword in DICOM_IDS.items()}
    except Exception:  # noqa: BLE001 - pydicom raises all kinds on broken files
        return ids
    stated = {name: text for name, text in texts.items() if re.fullmatch("[0-9.]{1,64}", text)}
    return ids | stated


def read_loose_images(paths: Iterable[Path], *, workers: int = 0) -> Iterator[LooseImage]:
    """Decode image files that belong to no data set, and yield one result for each, in order.

    With 0 or 1 `workers` the files are read in this process.
    """
    return map_images(_read_one, paths, workers, on_crash=_crashed)


def _read_one(path: Path) -> LooseImage:
    try:
        str(path).encode()
        return LooseImage(path, read_image(path))
    except UnicodeEncodeError:  # no table can hold it
        problem = f"{printable(str(path))}: the name is not UTF-8; rename the file"
    except InputError as error:
        problem = str(error)
    return LooseImage(path, problem=problem)


def _crashed(path: Path) -> LooseImage:
    return LooseImage(path, problem=f"{path}: {DECODER_CRASHED}")
