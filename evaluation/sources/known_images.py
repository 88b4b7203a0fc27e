"""Images and findings that rows of predictions may name, and the matching of their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_classes import findings_of_classes, names_finding
from cxr_compare.data_prep.contracts.errors import InputError, counted_phrase
from cxr_compare.data_prep.contracts.ids import is_member, renamed
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.label_names import name_labels
from cxr_compare.evaluation.boxes.box_checks import check_names, near_ids
from cxr_compare.evaluation.boxes.read_table import ReadTable, file_stem
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.sources.import_options import ImportOptions

if TYPE_CHECKING:
    from cxr_compare.data_prep.dataset import DataSet

_SHOWN = 5  # largest number of names that a message lists
_ENDING = r"(?i)\.(?:png|jpe?g|tiff?|bmp|webp|dcm|dicom)$"


@dataclass(frozen=True)
class KnownImages:
    """The images and findings that rows of predictions may name, with their ground truth.

    Attributes:
        images: Table with one row for each image: ``image_id``, and where known ``path``, ``width``
            and ``height`` (px).
        findings: Names of the findings that rows may be about, sorted.
        usual_finding: Finding of rows that name none; None if nothing decides it.
        labels: 1.0 (positive) or 0.0 (negative) by image id; empty if there are several targets.
        boxes: True boxes: ``image_id`` and edges in px of the original image.
        splits: Names of the divisions of the images into training, validation and test images.
        ids_of_role: Function that returns the ids of the images with a role in a split.
        where: Folder or name of the ground truth, for messages.
    """

    images: pd.DataFrame
    findings: tuple[str, ...]
    usual_finding: str | None
    labels: pd.Series
    boxes: pd.DataFrame
    splits: tuple[str, ...]
    ids_of_role: Callable[[str, str], pd.Index]
    where: str

    @classmethod
    def of_data_set(cls, dataset: DataSet) -> KnownImages:
        """Return the images of a data set."""
        targets = list(dataset.targets.values())
        usual = None
        labels = pd.Series(dtype=np.float64)
        if len(targets) == 1:
            (target,) = targets
            usual = target.name if target.name in target.any_of else None
            rows = dataset.findings[dataset.findings["reader"] == REFERENCE_READER]
            rows = rows[is_member(rows["finding"], target.any_of) & (rows["state"] != "uncertain")]
            present = rows["state"] == "present"
            labels = present.groupby(rows["image_id"].to_numpy()).max().astype(float)
        return cls(
            images=dataset.images,
            findings=tuple(sorted({name for target in targets for name in target.any_of})),
            usual_finding=usual,
            labels=labels,
            boxes=dataset.boxes,
            splits=tuple(dataset.ids.split_ids),
            ids_of_role=dataset.image_ids,
            where=str(dataset.folder),
        )

    @classmethod
    def of_truth(cls, truth: LabelledImages) -> KnownImages:
        """Return the images of a ground truth in memory, which has one finding and one split."""
        return cls(
            images=truth.images.reindex(columns=["image_id", "path", "width", "height"]),
            findings=truth.findings,
            usual_finding=truth.finding,
            labels=truth.label.dropna(),
            boxes=truth.true_boxes,
            splits=(truth.split,),
            ids_of_role=lambda role, _: truth.ids_of(role),
            where=truth.source,
        )

    @cached_property
    def ids_by_name(self) -> dict[str, str]:
        """Image id by each name of an image."""
        return ids_by_name(self.images)

    def sizes_of(self, image_ids: pd.Series) -> np.ndarray:
        """Return width and height of images in px, shape ``(N, 2)``; NaN where they are unknown."""
        sizes = self.images.set_index("image_id")[["width", "height"]].astype(np.float64)
        return sizes.reindex(image_ids).to_numpy()


def ids_by_name(images: pd.DataFrame) -> dict[str, str]:
    """Map every name by which an image may be called to its image id.

    Names are the id itself, the name that files of this image have in exports of this package, and
    the name of the image's own file (column ``path``, missing where unknown) without folder and
    suffix. A file name that two images share is left out.
    """
    from cxr_compare.data_prep.export.content import file_stems

    images = images.sort_values("image_id")
    ids = images["image_id"].tolist()
    stems = [file_stem(path) if isinstance(path, str) else "" for path in images["path"]]
    is_ambiguous = pd.Series(stems).duplicated(keep=False)
    by_file = {
        stem: image_id
        for stem, image_id, ambiguous in zip(stems, ids, is_ambiguous, strict=True)
        if not ambiguous
    }
    by_exported_name = dict(zip(file_stems(images["image_id"]), ids, strict=True))
    return by_file | by_exported_name | {image_id: image_id for image_id in ids}


def ids_from_names(names: pd.Series, ids: dict[str, str]) -> pd.Series:
    """Replace names of images by their ids in a data set; an unknown name stays as it is.

    Names may have a suffix such as ``.png``. `ids` is what `ids_by_name` returns.
    """
    if is_member(names, list(ids.values())).all():
        return names.astype(TEXT)
    unique_names = pd.Series(names.unique(), dtype=TEXT)
    stems = unique_names.str.replace(_ENDING, "", regex=True)
    id_by_name = {
        name: ids.get(name, ids.get(stem, name))
        for name, stem in zip(unique_names, stems, strict=True)
    }
    return renamed(names.astype(TEXT), id_by_name)


def name_rows(read: ReadTable, known: KnownImages) -> None:
    """Give the rows of a table the ids of the known images, and the findings of their classes."""
    rows = read.rows
    if "file_name" in rows:  # decides over the number, if it is the name of a known image
        stems = rows.pop("file_name").map(file_stem).astype(TEXT)
        if stems.isin(list(known.ids_by_name)).any():
            rows["image_id"] = stems
    names = rows["image_id"].astype(TEXT)
    if is_member(names, known.images["image_id"]).all():
        rows["image_id"] = names
    else:
        rows["image_id"] = ids_from_names(names, known.ids_by_name)
        rows["image_id"], note = by_last_parts(rows["image_id"], known.images["image_id"])
        read.notes += note
    check_names(names, rows["image_id"], read.where, rows["place"])
    _name_findings(read, known)


def by_last_parts(names: pd.Series, ids: pd.Series) -> tuple[pd.Series, list[str]]:
    """Return the image of each name by its last part, where each fits exactly one image.

    Folders and endings of files, such as ``/data/test/p1.png``, may stand in the names or in the
    ids. If a name fits no image or two names fit one, all stay as they are. A sentence is returned
    if names were matched so.

    Example:
        >>> ids = pd.Series(["a", "b"])
        >>> by_last_parts(pd.Series(["/data/a.png", "/data/b.png"]), ids)[0].tolist()
        ['a', 'b']
        >>> by_last_parts(pd.Series(["x/a.png", "y/a.png"]), ids)[0].tolist()
        ['x/a.png', 'y/a.png']
    """
    unique_names = pd.Series(names.unique(), dtype=TEXT)
    if is_member(unique_names, ids).all():
        return names, []
    id_by_part = dict(zip(_last_parts(ids), ids, strict=True))
    images = [id_by_part.get(part) for part in _last_parts(unique_names)]
    if None in images or len(set(images)) < len(images) or len(id_by_part) < len(ids):
        return names, []
    by_name = {name: str(image) for name, image in zip(unique_names, images, strict=True)}
    name, image = next((name, image) for name, image in by_name.items() if name != image)
    note = f"Names of images are matched by their last part: '{name}' is image '{image}'."
    return renamed(names.astype(TEXT), by_name), [note]


def _last_parts(names: pd.Series) -> pd.Series:
    parts = names.astype(TEXT).str.replace("\\", "/", regex=False).str.rsplit("/", n=1).str[-1]
    return parts.str.replace(_ENDING, "", regex=True)


def _name_findings(read: ReadTable, known: KnownImages) -> None:
    """Replace classes by findings; leave them out if all rows are of the only finding."""
    rows = read.rows
    if "finding" not in rows:
        return
    classes = rows["finding"]
    findings = findings_of_classes(classes, known.findings)
    if findings is not None:
        name_labels(classes[is_member(findings, known.findings)].unique(), read.where, "column")
        rows["finding"] = findings
        return
    (name,) = classes.unique()
    if names_finding(name):
        read.notes.append(f"All boxes are of class '{name}', which is taken for the finding.")
    read.rows = rows.drop(columns="finding")


def finding_of_rows(read: ReadTable, known: KnownImages, options: ImportOptions) -> pd.Series:
    """Return each row's finding: its own, that of the options, the usual one, or the only one."""
    if "finding" in read.rows:
        if options.finding is not None:
            raise InputError(
                f"{read.where}: names the findings of its rows; leave --finding out"
                f"{read.class_advice}"
            )
        return read.rows["finding"]
    finding = options.finding or options.usual_finding or known.usual_finding
    if finding is None and len(known.findings) != 1:
        raise InputError(
            f"{read.where}: names no finding of {', '.join(known.findings)}; "
            f"{options.advice.finding}"
        )
    return pd.Series(finding or known.findings[0], index=read.rows.index, dtype=TEXT)


def keep_known(read: ReadTable, known: KnownImages, options: ImportOptions) -> None:
    """Refuse rows of images and findings that the data set lacks, or leave them out with a note."""
    rows = read.rows
    had_rows = not rows.empty
    for column, values, noun, also, last in (
        ("image_id", known.images["image_id"], "images", read.advice, ""),
        ("finding", known.findings, "findings", "", read.class_advice),
    ):
        is_unknown = ~is_member(rows[column], values)
        if not is_unknown.any():
            continue
        names = rows.loc[is_unknown, column].unique()
        examples = ", ".join(repr(name[:80]) for name in names[:_SHOWN])
        if len(names) > _SHOWN:
            examples += ", ..."
        if not options.ignore_unknown:
            first = rows.loc[is_unknown, "place"].iloc[0]
            missing = counted_phrase(len(names), f"{noun} are")
            near = near_ids(names[:_SHOWN], values) if column == "image_id" else {}
            questions = "".join(f"; is {wrong!r} image {right!r}?" for wrong, right in near.items())
            raise InputError(
                f"{read.where}: {missing} not in {known.where} ({examples}), the first at "
                f"{first}{questions}; correct them{also}, or {options.advice.unknown_rows}{last}"
            )
        read.notes.append(
            counted_phrase(len(names), f"{noun} unknown to the data set left out ({examples}).")
        )
        rows = rows[~is_unknown]
    if rows.empty and had_rows:
        raise InputError(f"{read.where}: no row is of an image and finding of {known.where}")
    read.rows = rows.reset_index(drop=True)
