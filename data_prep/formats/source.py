"""What every format hands to `cxr prepare`, and what the registry knows of a format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.tables import empty_table
from data_prep.contracts.text_lookup import is_member, renamed


def has_file(*names: str) -> Callable[[Path], bool]:
    """A test of folders: one of the names is in it."""
    return lambda folder: any((folder / name).exists() for name in names)


def has_match(*patterns: str) -> Callable[[Path], bool]:
    """A test of folders: something in it fits one of the patterns."""
    return lambda folder: any(next(folder.glob(p), None) is not None for p in patterns)


def has_columns(path: Path, *columns: str) -> bool:
    """Whether a file is there whose first line names the columns."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            names = {name.strip(' "').lower() for name in file.readline().strip().split(",")}
    except OSError:
        return False
    return set(columns) <= names


def require_folder(source: Path) -> None:
    """Check that a source is a folder with something in it."""
    if not source.exists():
        raise InputError(f"{source}: no such folder")
    if not source.is_dir():
        raise InputError(f"{source}: a file; give the folder that holds the data set")
    if next(source.iterdir(), None) is None:
        raise InputError(f"{source}: the folder is empty; give the folder that holds the data set")


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
    r"""What a user may state beside the folder; each format takes some of it.

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
        format: The format's name, as in ``--format``.
        root: Folder that `images.path` is relative to.
        images: ``image_id, patient_id, patient_id_source, source, path`` and whatever else of the
            ``images`` table the source knows. ``path`` is missing for an image without pixels.
            ``field_width_mm`` and ``field_height_mm``, where there, are the true size of what the
            image shows; they become the pixel spacing once the image's size is known.
        findings: The ``findings`` table.
        boxes: The ``boxes`` table, not yet checked against the size of the images.
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


@dataclass(frozen=True)
class Format:
    """A format that `cxr prepare` reads: all that help, docs and detection say of it.

    Attributes:
        name: As in ``--format``.
        title: What it is, as the README and the docs say it.
        folder: What the source folder must hold, one sentence.
        detect: Whether a folder looks like it; reads names and first lines only.
        read: From a folder and the user's options to its tables; decodes no pixel.
        options: The `ReadOptions` that it takes.
        sources: Where the known data sets of this format are published.
    """

    name: str
    title: str
    folder: str
    detect: Callable[[Path], bool]
    read: Callable[[Path, ReadOptions], SourceTables]
    options: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


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


class WrongFormatError(InputError):
    """A folder is not in the format that was named."""


def require_format(source: Path, format: Format) -> None:  # noqa: A002 - the option's own name
    """Check that a folder can be of a format before anything is read."""
    require_folder(source)
    if format.detect(source):
        return
    for folder in (source.parent, *sorted(p for p in source.iterdir() if p.is_dir())[:50]):
        if format.detect(folder):
            raise InputError(
                f"{source}: not in {format.name} format, but {folder} is; give that folder"
            )
    raise WrongFormatError(f"{source}: not in {format.name} format")
