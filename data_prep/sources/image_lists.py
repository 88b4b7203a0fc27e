"""Lists of images of a split, in the forms in which papers and repositories publish them."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.column_names import column_names, find_column, split_column
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.schemas import ROLE_NAMES
from cxr_compare.data_prep.contracts.table_files import read_table_file, refuse_line
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_files import read_text_file
from cxr_compare.data_prep.sources.image_files import IMAGE_SUFFIXES, without_suffix

# RSNA's tables call the column of images patientId, so that a patient is recognised by other names.
_IMAGE_COLUMNS = ("imageid", *column_names("file"))
_PATIENT_COLUMNS = column_names("patient")
_FIRST_CELL = re.compile(
    rf"""(?i)"[^"]*"|'[^']*'|[^,;\t]*?(?:{"|".join(map(re.escape, IMAGE_SUFFIXES))})(?=[\s,;]|$)"""
    r"|[^,;\s]*"
)
_RSNA_IMAGE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def image_name(cell: str) -> str:
    """Return the id of an image from a cell that is its id, file name or path.

    Example:
        >>> image_name("stage_2_train_images/0004cfab.dcm"), image_name("00000001_000.png")
        ('0004cfab', '00000001_000')
        >>> image_name("1.2.276.0.7230010")
        '1.2.276.0.7230010'
    """
    return posixpath.basename(without_suffix(cell.strip().strip("\"'").rstrip("/")))


def read_image_list(path: Path) -> pd.Series:
    r"""Read the ids in a text file that lists images, such as the published test images of a paper.

    The first cell of a line is the id, file name or path of an image, which may be followed by its
    label or other cells, separated by commas, semicolons, tabs or spaces. A file name, or an id in
    quotes, may have spaces. A header is recognised. A file that lists no image is refused.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "test.txt").write_text("images/a.png 0\nimages/b.png 1\n")
        ...     read_image_list(Path(folder, "test.txt")).tolist()
        ['a', 'b']
    """
    if not path.is_file():
        reason = "is a folder; give the file of the list" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {reason}")
    lines = [line.strip() for line in read_text_file(path).splitlines() if line.strip()]
    cells = [match[0].strip("\"'") for match in map(_FIRST_CELL.match, lines) if match]
    if cells and find_column(cells[:1], (*_IMAGE_COLUMNS, *_PATIENT_COLUMNS)):
        cells = cells[1:]
    if not cells:
        raise InputError(f"{path}: lists no image; write one image id a line")
    return pd.Series([image_name(cell) for cell in cells], dtype=TEXT).drop_duplicates()


def read_role_table(path: Path) -> pd.DataFrame:
    r"""Read a table that assigns images or patients to train, validation and test.

    It has a column such as ``image_id``, ``filename`` or ``patient_id``, and one such as ``role``,
    ``split`` or ``subset``, or of any name, with the values train, val, test or unused, or a word
    such as training; an id with two of them is refused. A column ``patientId`` whose cells are
    image names of the RSNA challenge is read as a column of images. The result has ``image_id`` or
    ``patient_id``, and ``role``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "split.csv").write_text("filename,split\na.png,training\n")
        ...     read_role_table(Path(folder, "split.csv")).iloc[0].tolist()
        ['a', 'train']
    """
    text = read_table_file(path).text
    columns = [str(name) for name in text.columns]
    role = split_column(text, str(path), "Call it role")
    if role is None:
        raise InputError(
            f"{path}: has no column of roles (role or split); add one with train, val or test, or "
            "give two lists: the test images here and those of training with --train"
        )
    image = find_column(columns, _IMAGE_COLUMNS)
    patient = find_column(columns, _PATIENT_COLUMNS)
    key = image or patient
    if key is None:
        raise InputError(f"{path}: has no column of images or patients; call it image_id")
    roles = text[role].str.lower().map(ROLE_NAMES)
    refuse_line(roles.isna(), path, "; use train, val, test or unused", text[role])
    refuse_line(text[key] == "", path, f"{key} is empty; fill it in")
    names_images = image is not None or text[key].str.lower().str.fullmatch(_RSNA_IMAGE).all()
    ids = text[key].map(image_name) if names_images else text[key]
    kind = "image_id" if names_images else "patient_id"
    table = pd.DataFrame({kind: ids.astype(TEXT), "role": roles.astype(TEXT)})
    if kind == "image_id":  # one row for each box is usual
        several = table.drop_duplicates()[kind]
        repeated = several[several.duplicated()]
        if len(repeated):
            reason = f" has two roles; give image {repeated.iloc[0]!r} one"
            refuse_line(ids == repeated.iloc[0], path, reason, text[key])
    return table.drop_duplicates(ignore_index=True)
