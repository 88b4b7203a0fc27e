"""The files of VinDr-CXR, from PhysioNet or from the VinBigData challenge on Kaggle."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from data_prep.contracts.errors import InputError
from data_prep.contracts.schemas import REFERENCE_READER
from data_prep.contracts.text_lookup import renamed
from data_prep.formats.common import finding_name
from data_prep.formats.label_rules import EDGES, FINDING_KEY, STATE_WORDS
from data_prep.formats.source import first_line, read_text_csv, to_numbers

NO_FINDING = "no_finding"
LOCAL_FINDINGS = (
    "aortic_enlargement", "atelectasis", "calcification", "cardiomegaly", "clavicle_fracture",
    "consolidation", "edema", "emphysema", "enlarged_pa", "ild", "infiltration", "lung_cavity",
    "lung_cyst", "lung_opacity", "mediastinal_shift", "nodule_mass", "other_lesion",
    "pleural_effusion", "pleural_thickening", "pneumothorax", "pulmonary_fibrosis", "rib_fracture",
)  # fmt: skip
"""The 22 findings that the readers box; the other six columns are of the whole image."""

_OTHER_NAMES = {"other_disease": "other_diseases"}  # so in image_labels_test.csv alone
_CSV_EDGES = ["x_min", "y_min", "x_max", "y_max"]
_SIZE_TYPES = {"image_id": "str", "height": "float64", "width": "float64"}
_COPIES = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
_SIZES = (("dim0", "dim1"), ("height", "width"))


def read_image_labels(path: Path, *, by_readers: bool) -> pd.DataFrame:
    """Read ``image_labels_train.csv`` or ``image_labels_test.csv``.

    Args:
        path: The file: ``image_id``, for the training images ``rad_id``, and a column of 0 and 1
            a finding.
        by_readers: A row is one reader's; else it is the consensus, which is the reference.

    Returns:
        ``image_id, finding, reader, state, origin``, one row a cell that is not empty;
        ``No finding`` is the finding ``no_finding``.

    Raises:
        InputError: A column is missing, or a cell is neither 0 nor 1.
    """
    text = _lower_keys(read_text_csv(path, ()), path, ("image_id", *_reader_column(by_readers)))
    named = [c for c in text.columns if c not in ("image_id", "rad_id")]
    cells = text[named].to_numpy(dtype=object)
    words = pd.Series(cells.ravel(), dtype="str")
    states = renamed(words, {word: STATE_WORDS[word] for word in ("0", "1", "0.0", "1.0")})
    wrong = (states.isna() & (words != "")).to_numpy()
    if wrong.any():
        row, column = divmod(int(np.flatnonzero(wrong)[0]), len(named))
        raise InputError(
            f"{path}: line {text.index[row] + 2}: {named[column]}={cells[row, column]!r}; expected "
            "0 or 1"
        )
    findings = [finding_name(name) for name in named]
    rows = pd.DataFrame(
        {
            "image_id": np.repeat(text["image_id"].to_numpy(), len(named)),
            "finding": np.tile([_OTHER_NAMES.get(name, name) for name in findings], len(text)),
            "reader": np.repeat(_readers(text, by_readers), len(named)),
            "state": states,
        }
    )
    return _with_origin(rows[rows["state"].notna()], by_readers)


def read_annotations(path: Path, *, by_readers: bool) -> pd.DataFrame:
    """Read ``annotations_train.csv``, ``annotations_test.csv`` or the ``train.csv`` of Kaggle.

    Args:
        path: The file: ``image_id, class_name, x_min, y_min, x_max, y_max`` and, for the training
            images, ``rad_id``. The box of ``No finding`` is not read.
        by_readers: As for `read_image_labels`.

    Returns:
        ``image_id, finding, reader, x1, y1, x2, y2``, one row a line, NaN where there is no box.

    Raises:
        InputError: A column is missing or a cell is not a number.
    """
    required = ("image_id", *_reader_column(by_readers), "class_name", *_CSV_EDGES)
    text = _lower_keys(read_text_csv(path, ()), path, required)
    rows = pd.DataFrame(
        {
            "image_id": text["image_id"],
            "finding": renamed(
                text["class_name"],
                {name: finding_name(name) for name in text["class_name"].unique()},
            ),
            "reader": _readers(text, by_readers),
        }
    )
    for edge, column in zip(EDGES, _CSV_EDGES, strict=True):
        rows[edge] = to_numbers(text[column], path, column).where(rows["finding"] != NO_FINDING)
    return rows.reset_index(drop=True)


def findings_from_annotations(annotations: pd.DataFrame, *, by_readers: bool) -> pd.DataFrame:
    """What each reader says of each finding, where only annotations are published.

    A reader who read an image has a line for it, ``No finding`` if need be; what he did not mark
    is absent.

    Args:
        annotations: As from `read_annotations`.
        by_readers: As for `read_image_labels`.

    Returns:
        As `read_image_labels`; the findings are those that the file names.
    """
    marked = annotations[[*FINDING_KEY, "reader"]].drop_duplicates()
    read = marked[["image_id", "reader"]].drop_duplicates()
    names = pd.DataFrame({"finding": sorted(marked["finding"].unique())}, dtype="str")
    rows = read.merge(names, how="cross").merge(marked, how="left", indicator="state")
    said = rows["state"].astype("str").map({"both": "present", "left_only": "absent"})
    return _with_origin(rows.assign(state=said.astype("str")), by_readers)


def _reader_column(by_readers: bool) -> tuple[str, ...]:
    return ("rad_id",) if by_readers else ()


def _readers(text: pd.DataFrame, by_readers: bool) -> np.ndarray:
    if by_readers:
        return text["rad_id"].to_numpy()
    return np.full(len(text), REFERENCE_READER, dtype=object)


def _with_origin(rows: pd.DataFrame, by_readers: bool) -> pd.DataFrame:
    columns = [*FINDING_KEY, "reader", "state"]
    origin = "reader" if by_readers else "consensus"
    return rows[columns].assign(origin=origin).astype("str").reset_index(drop=True)


def _lower_keys(text: pd.DataFrame, path: Path, required: tuple[str, ...]) -> pd.DataFrame:
    """Bring the names of the columns that are no findings to lower case: some have ``rad_ID``."""
    known = {"image_id", "rad_id", "class_name", *_CSV_EDGES}
    text = text.rename(columns=lambda c: c.lower() if c.lower() in known else c)
    for column in required:
        if column not in text.columns:
            raise InputError(
                f"{path}: column '{column}' is missing; found {', '.join(text.columns)}"
            )
    for column in ("image_id", "rad_id"):
        if column in required and (text[column] == "").any():
            line = first_line(text[column] == "")
            raise InputError(f"{path}: line {line}: {column} is empty; fill it in")
    return text


def read_original_sizes(paths: list[Path]) -> pd.DataFrame:
    """Read the sizes of the original pictures that come with resized copies.

    Args:
        paths: Files such as ``train_meta.csv``: ``image_id, dim0, dim1`` (height and width, px).

    Returns:
        ``image_id, height, width``, float64; empty without a file.

    Raises:
        InputError: A column is missing or a cell is not a number.
    """
    tables = [pd.DataFrame(columns=["image_id", "height", "width"]).astype(_SIZE_TYPES)]
    for path in paths:
        text = read_text_csv(path, ("image_id",))
        names = next((pair for pair in _SIZES if set(pair) <= set(text.columns)), _SIZES[0])
        missing = [name for name in names if name not in text.columns]
        if missing:
            raise InputError(
                f"{path}: column '{missing[0]}' is missing; it must say the height and the width "
                "of the original pictures"
            )
        sizes = {
            side: to_numbers(text[name], path, name)
            for side, name in zip(("height", "width"), names, strict=True)
        }
        table = pd.DataFrame({"image_id": text["image_id"], **sizes})
        sides = table[["height", "width"]]
        wrong = ((sides <= 0) | np.isinf(sides)).any(axis=1)
        if wrong.any():
            raise InputError(f"{path}: line {first_line(wrong)}: a side is no number of pixels")
        tables.append(table)
    return pd.concat(tables, ignore_index=True).drop_duplicates("image_id", ignore_index=True)


def read_picture_sizes(images: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Read the sizes of pictures from their first bytes; DICOM files are left out.

    Args:
        images: ``image_id, path``.
        root: Folder that paths are relative to.

    Returns:
        ``image_id, height, width``, float64.
    """
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures: nothing is decoded here
        for image_id, path in zip(images["image_id"], images["path"], strict=True):
            try:
                with Image.open(root / path, formats=_COPIES) as picture:
                    rows.append((image_id, picture.height, picture.width))
            except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
                continue  # DICOM, or broken: the decoder will say so
    sizes = pd.DataFrame(rows, columns=["image_id", "height", "width"])
    return sizes.astype(_SIZE_TYPES)
