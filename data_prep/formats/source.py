"""What every reader of a public data set hands to `cxr prepare`, and which format a folder has."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.schemas import ROLES
from data_prep.contracts.tables import empty_table
from data_prep.contracts.text_lookup import is_member, renamed

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


VIEW_NAMES = {
    "PA": "PA",
    "AP": "AP",
    "AP SUPINE": "AP",
    "LL": "LL",
    "RL": "LL",
    "LATERAL": "LL",
    "L": "LL",
}


def no_roles() -> pd.DataFrame:
    """An empty ``image_id, role`` table."""
    return pd.DataFrame({"image_id": [], "role": []}, dtype="str")


@dataclass(frozen=True)
class ReadOptions:
    r"""What a user may tell a reader beside the folder; each format uses some of it.

    Attributes:
        reference: How several readers of one image become the reference: ``majority``, ``any``,
            ``all`` or ``reader:NAME``.
        labels: Table of labels that lies elsewhere.
        class_names: Names of the classes where the format only numbers them.
        patient_pattern: Regular expression that finds the patient in a file's name; its first
            group is the patient, and the group's name, where it has one, the name space:
            ``(?P<nih>\d{8})_`` turns ``00019124_092.png`` into ``nih:00019124``.
    """

    reference: str = "majority"
    labels: Path | None = None
    class_names: tuple[str, ...] = ()
    patient_pattern: str | None = None


@dataclass(frozen=True)
class SourceTables:
    """One data set as its publisher gives it, before any pixel is read.

    Attributes:
        format: The reader's name, as in ``--format``.
        root: Folder that `images.path` is relative to.
        images: ``image_id, patient_id, patient_id_source, source, path`` and whatever else of the
            ``images`` table the source knows. ``path`` is missing for an image without pixels.
            ``field_width_mm`` and ``field_height_mm``, where there, are the true size of what the
            picture shows; they become the pixel spacing once the picture's size is known.
        findings: The ``findings`` table.
        boxes: The ``boxes`` table, not yet checked against the size of the pictures.
        box_coverage: The ``box_coverage`` table.
        excluded: Files and images that the labels rule out: ``path, stage, reason``.
        targets: Name of a target -> ``{"any_of": [...], "display_name": ...}``.
        split: ``image_id, role`` where the source fixes the role; other images are drawn.
        official: ``image_id, role`` of the publisher's own split, which becomes the split
            ``official`` beside the drawn one; empty where there is none.
        notes: What a user must know about this source, one sentence each.
    """

    format: str
    root: Path
    images: pd.DataFrame
    findings: pd.DataFrame
    boxes: pd.DataFrame
    box_coverage: pd.DataFrame
    excluded: pd.DataFrame
    targets: dict[str, dict[str, Any]]
    split: pd.DataFrame
    official: pd.DataFrame = field(default_factory=no_roles)
    notes: tuple[str, ...] = ()


@dataclass
class Exclusions:
    """Images ruled out one rule at a time; the first reason for an image stands.

    Example:
        >>> out = Exclusions("labels")
        >>> out.add(["a", "a"], "two labels")
        >>> out.add(["a", "b"], "no label")
        >>> out.table({"a": "img/a.png"})["path"].tolist()
        ['img/a.png', 'b']
    """

    stage: str
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, image_ids: Iterable[str], reason: str) -> None:
        """Rule out images for one reason."""
        for image_id in image_ids:
            self.reasons.setdefault(image_id, reason)

    def keep(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of a frame whose ``image_id`` is not ruled out."""
        if not self.reasons:
            return frame
        return frame[~is_member(frame["image_id"], list(self.reasons))].reset_index(drop=True)

    def table(self, paths: dict[str, str]) -> pd.DataFrame:
        """The ``excluded`` table; an image without a known path is listed by its id."""
        if not self.reasons:
            return empty_table("excluded")
        return pd.DataFrame(
            {
                "path": [paths.get(image_id, image_id) for image_id in self.reasons],
                "stage": self.stage,
                "reason": list(self.reasons.values()),
            }
        )


def normal_views(text: pd.Series) -> pd.Series:
    """Bring view names to PA, AP, LL or other; empty becomes missing."""
    upper = text.fillna("").astype("str").str.strip().str.upper()
    return renamed(upper, {name: VIEW_NAMES.get(name, "other") for name in upper.unique() if name})


# In this order: the first that fits is the likely one, so the vague ones stand last.
_MARKS: dict[str, Callable[[Path], bool]] = {
    "rsna": has_file("stage_2_train_images", "stage_2_train_labels.csv"),
    "csv": has_file("images.csv", "labels.csv"),
    "nih": has_match("Data_Entry_2017*.csv", "Data_Entry_2017*.csv.gz"),
    "vindr": lambda folder: is_vindr(folder) or is_vindr(folder / "annotations"),
    "kermany": has_file(
        "PNEUMONIA",
        *(f"{place}{role}/PNEUMONIA" for place in ("", "chest_xray/") for role in ROLES[:3]),
    ),
    "covid": lambda folder: (
        has_file(
            "COVID", "COVID-19", "COVID-19_Radiography_Dataset", "COVID-19 Radiography Database"
        )(folder)
        or has_columns(folder / "metadata.csv", "patientid", "finding")
        or has_columns(folder / "data.csv", "patient_id", "image_id", "projection")
    ),
    "voc": has_match("Annotations/*.xml", "*.xml", "*/*.xml"),
    "yolo": lambda folder: (
        has_match("data.yaml", "obj.names", "labels/*.txt", "labels/*/*.txt", "*/labels/*.txt")(
            folder
        )
        or (has_file("images")(folder) and has_match("*/*.txt")(folder))
    ),
    "coco": has_match("annotations/*.json", "*.json", "*/_annotations.coco.json"),
    "dicom": holds_dicom,
}


def detect_format(folder: Path) -> str | None:
    """Guess the format of a source folder from what lies in it.

    Args:
        folder: An existing folder.

    Returns:
        A value of ``--format``, or None where nothing fits.
    """
    return next((name for name, fits in _MARKS.items() if fits(folder)), None)


def require_source(source: Path, format: str) -> None:  # noqa: A002 - the option's own name
    """Check that a folder can be of a format before anything is read.

    Args:
        source: Folder given by the user.
        format: The format that the user named.

    Raises:
        InputError: The folder is missing or empty, or looks like another format or another level
            of the same one.
    """
    require_folder(source)
    if _MARKS[format](source):
        return
    for folder in (source.parent, *sorted(p for p in source.iterdir() if p.is_dir())[:50]):
        if _MARKS[format](folder):
            raise InputError(f"{source}: not in {format} format, but {folder} is; give that folder")
    likely = detect_format(source)
    advice = f"it looks like --format {likely}" if likely else "no known format fits it"
    raise InputError(f"{source}: not in {format} format; {advice}")
