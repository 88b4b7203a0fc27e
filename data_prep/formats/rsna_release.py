"""RSNA's own release of its challenge: DICOM folders by study, and the annotations of MD.ai.

The annotations are an export of an MD.ai project. Its label group ``Calculated`` is the result of
the adjudication; the other groups hold what single teams of readers drew, and are not read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.table_files import read_text_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_files import read_json_file
from cxr_compare.data_prep.formats.folder_scan import files_below, require_unique_ids
from cxr_compare.data_prep.formats.nih import SIDE, find_entries, read_field_sizes
from cxr_compare.data_prep.formats.rsna_classes import CLASSES, FINDING, TARGETS
from cxr_compare.data_prep.formats.rsna_mapping import (
    MAPPINGS_JSON,
    read_release_mapping,
    with_patients,
)
from cxr_compare.data_prep.formats.source import (
    NO_PIXELS,
    SourceBuilder,
    SourceTables,
    boxes_from_sizes,
    reference_rows,
)

ANNOTATIONS = "*annotations-adjudicated*.json"
"""Pattern of the name of the adjudicated annotations."""
KAGGLE_TEST = "stage_2_sample_submission.csv"
"""Kaggle's list of its 3,000 test images of stage 2."""
_ADJUDICATED = "Calculated"
_BOX = ("x", "y", "width", "height")


@dataclass(frozen=True)
class Adjudicated:
    """Final labels and boxes of the RSNA challenge, after readers' disagreements were settled.

    Attributes:
        labels: Table with the columns ``image`` (SOP instance UID or, where it is missing, the
            study UID) and ``name`` of the class, one row for each annotation.
        boxes: Table with the columns ``image`` (as in `labels`), ``x``, ``y`` (upper left corner),
            ``width`` and ``height`` in px; NaN where a value is no number.
    """

    labels: pd.DataFrame
    boxes: pd.DataFrame


def is_release(folder: Path) -> bool:
    """Return True if a folder holds the adjudicated annotations that RSNA itself publishes.

    Args:
        folder: Folder to check. Files in its subfolders are not looked at.
    """
    return next(folder.glob(ANNOTATIONS), None) is not None


def read_release(builder: SourceBuilder) -> SourceTables:
    """Read RSNA's own release of its challenge; no pixel is decoded.

    The id of an image is its name on Kaggle if the folder has RSNA's file of these names, and its
    SOP instance UID otherwise. Images without a final (adjudicated) label get the role ``unused``,
    that is, neither train, validation nor test.

    Args:
        builder: New object that knows the folder and the user's options, and collects notes.

    Returns:
        All tables of the data set.

    Raises:
        InputError: A file is not in the layout of the release.
    """
    source = builder.root
    path = _only_annotations(source)
    adjudicated = read_adjudicated(path)
    mapping_path = source / MAPPINGS_JSON
    mapping = read_release_mapping(mapping_path) if mapping_path.is_file() else None
    files = _image_files(source)
    labels, boxes = _by_image(adjudicated, files, mapping)
    images = _list_images(builder, files, labels, mapping, path)
    _exclude_contradictory(builder, labels, boxes)
    images = builder.exclusions.keep(images)
    classes = builder.exclusions.keep(labels.drop_duplicates("image_id"))
    images["source"] = "rsna"
    images = images.merge(
        classes.assign(x_class=classes["name"].map(CLASSES).astype(TEXT))[["image_id", "x_class"]],
        on="image_id",
        how="left",
    )
    unlabelled = images.loc[~is_member(images["image_id"], classes["image_id"]), "image_id"]
    if len(unlabelled):
        builder.notes.append(
            f"{counted(len(unlabelled), 'image', 'have')} no adjudicated label and are unused"
        )
    images = with_patients(
        images,
        mapping,
        unlabelled,
        builder,
        f"Put RSNA's {MAPPINGS_JSON} into the folder",
    )
    images = _with_field_sizes(images, source, mapping)
    present = (classes["name"] == "Lung Opacity").to_numpy()
    boxed = builder.exclusions.keep(boxes)
    complete = classes[~present | is_member(classes["image_id"], boxed["image_id"])]
    state = np.where(present, "present", "absent")
    return builder.build(
        images,
        reference_rows(classes["image_id"], FINDING, state=state, origin="consensus"),
        TARGETS,
        files=files[["image_id", "path"]],
        boxes=boxes_from_sizes(boxed["image_id"], FINDING, *(boxed[side] for side in _BOX)),
        box_coverage=reference_rows(complete["image_id"], FINDING, coverage="all"),
        split=pd.DataFrame({"image_id": unlabelled, "role": "unused"}),
        official=_kaggle_split(builder, images, unlabelled),
    )


def _only_annotations(source: Path) -> Path:
    paths = sorted(source.glob(ANNOTATIONS))
    if len(paths) > 1:
        raise InputError(f"{source}: holds {paths[0].name} and {paths[1].name}; keep one of them")
    return paths[0]


def read_adjudicated(path: Path) -> Adjudicated:
    """Read the final (adjudicated) labels from an export of a project at MD.ai.

    Args:
        path: The JSON file, with ``labelGroups`` and ``datasets``.

    Returns:
        The class of each annotation, and the boxes, as the file states them.

    Raises:
        InputError: The file has another layout, or the group of adjudicated labels has an unknown
            class.
    """
    content = read_json_file(path)
    names = _label_names(content, path)
    labels = []
    boxes = []
    for number, row in _annotations(content, path):
        name = names.get(str(row.get("labelId")))
        if name is None:  # of another group: a reader's, or a mark of the project's work
            continue
        image = row.get("SOPInstanceUID") or row.get("StudyInstanceUID")
        if not image:
            raise InputError(
                f"{path}: annotation {number} names neither image nor study; remove it"
            )
        labels.append((str(image), name))
        data = row.get("data")
        if data is None:
            continue
        if not isinstance(data, Mapping):
            raise InputError(
                f"{path}: annotation {number}: data is no box; give RSNA's file unchanged"
            )
        boxes.append((str(image), *(_number(data.get(side)) for side in _BOX)))
    if not labels:
        raise InputError(f"{path}: has no annotation of the group {_ADJUDICATED}")
    table = pd.DataFrame(labels, columns=["image", "name"], dtype=TEXT)
    box_table = pd.DataFrame(boxes, columns=["image", *_BOX])
    return Adjudicated(table, box_table.astype({"image": TEXT, **dict.fromkeys(_BOX, "float64")}))


def _label_names(content: Any, path: Path) -> dict[str, str]:
    """Return the names of the adjudicated classes by the id of their label."""
    groups = content.get("labelGroups") if isinstance(content, Mapping) else None
    if not isinstance(groups, list):
        raise InputError(f"{path}: has no labelGroups; give RSNA's annotations (an MD.ai export)")
    chosen = [
        group
        for group in groups
        if isinstance(group, Mapping) and group.get("name") == _ADJUDICATED
    ]
    if len(chosen) != 1:
        held = ", ".join(str(group.get("name")) for group in groups if isinstance(group, Mapping))
        raise InputError(
            f"{path}: needs one label group {_ADJUDICATED}, the adjudicated labels; it has "
            f"{held or 'none'}"
        )
    labels = chosen[0].get("labels")
    if not isinstance(labels, list) or not all(isinstance(label, Mapping) for label in labels):
        raise InputError(f"{path}: the label group {_ADJUDICATED} has no list of labels")
    names = {str(label.get("id")): str(label.get("name")).strip() for label in labels}
    unknown = sorted(set(names.values()) - set(CLASSES))
    if unknown:
        raise InputError(
            f"{path}: the group {_ADJUDICATED} has a class {unknown[0]!r}; expected one of "
            f"{', '.join(CLASSES)}"
        )
    return names


def _annotations(content: Mapping[str, Any], path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the number and the record of each annotation, of all data sets of the project."""
    datasets = content.get("datasets")
    if not isinstance(datasets, list):
        raise InputError(f"{path}: has no datasets; give RSNA's annotations (an MD.ai export)")
    number = 0
    for dataset in datasets:
        rows = dataset.get("annotations") if isinstance(dataset, Mapping) else None
        if not isinstance(rows, list):
            raise InputError(f"{path}: a data set of it has no list of annotations")
        for row in rows:
            number += 1
            if not isinstance(row, Mapping):
                raise InputError(f"{path}: annotation {number} is no record")
            yield number, row


def _number(value: Any) -> float:
    """Return a number of JSON, and not a number for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else np.nan


def _image_files(source: Path) -> pd.DataFrame:
    """List the image files: ``path``, and the UIDs that their folders and their name state."""
    paths = [PurePosixPath(path) for path in files_below(source, (".dcm", ".dicom"))]
    return pd.DataFrame(
        {
            "path": [str(path) for path in paths],
            "sop_uid": [path.stem for path in paths],
            "study_uid": [path.parts[-3] if len(path.parts) > 2 else "" for path in paths],
        },
        dtype=TEXT,
    )


def _by_image(
    adjudicated: Adjudicated, files: pd.DataFrame, mapping: pd.DataFrame | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give files, labels and boxes the id of their image; `files` gets a column ``image_id``.

    An annotation that names only a study belongs to the image of that study if it has one.
    """
    names = (
        {} if mapping is None else dict(zip(mapping["sop_uid"], mapping["image_id"], strict=True))
    )
    files["image_id"] = files["sop_uid"].map(lambda uid: names.get(uid, uid)).astype(TEXT)
    alone = files[~files["study_uid"].duplicated(keep=False)]
    of_study = dict(zip(alone["study_uid"], alone["image_id"], strict=True))
    is_file = set(files["sop_uid"])

    def image_id(uid: str) -> str:
        return names.get(uid, uid) if uid in is_file or uid in names else of_study.get(uid, uid)

    labels = adjudicated.labels.assign(image_id=adjudicated.labels["image"].map(image_id))
    boxes = adjudicated.boxes.assign(image_id=adjudicated.boxes["image"].map(image_id))
    return (
        labels.astype({"image_id": TEXT}).drop_duplicates(["image_id", "name"], ignore_index=True),
        boxes.astype({"image_id": TEXT}).drop_duplicates(["image_id", *_BOX], ignore_index=True),
    )


def _list_images(
    builder: SourceBuilder,
    files: pd.DataFrame,
    labels: pd.DataFrame,
    mapping: pd.DataFrame | None,
    annotations: Path,
) -> pd.DataFrame:
    """List ``image_id, path`` of the images; without files, those with a label."""
    if mapping is not None:
        n_unmapped = int((~is_member(files["sop_uid"], mapping["sop_uid"])).sum())
        if n_unmapped:
            builder.notes.append(
                f"{MAPPINGS_JSON} does not name {counted(n_unmapped, 'image')}, whose SOP "
                "instance UID is the id"
            )
    if files.empty:
        builder.notes.append(NO_PIXELS)
        images = labels[["image_id"]].drop_duplicates(ignore_index=True)
        images["path"] = pd.Series(pd.NA, index=images.index, dtype=TEXT)
        images["height"] = images["width"] = pd.array([SIDE] * len(images), dtype="Int64")
        return images
    require_unique_ids(files, builder.root)
    lost = labels.loc[~is_member(labels["image_id"], files["image_id"]), "image_id"]
    builder.exclusions.add(lost, f"label in {annotations.name}, but no image file")
    return files[["image_id", "path"]].copy()


def _exclude_contradictory(
    builder: SourceBuilder, labels: pd.DataFrame, boxes: pd.DataFrame
) -> None:
    """Exclude images with two classes, with a box on a negative image, or with a wrong box."""
    exclusions = builder.exclusions
    ids = labels["image_id"]
    exclusions.add(ids[ids.duplicated()], f"two classes in the group {_ADJUDICATED}")
    positive = labels.loc[labels["name"] == "Lung Opacity", "image_id"]
    on_negative = ~is_member(boxes["image_id"], positive)
    exclusions.add(boxes.loc[on_negative, "image_id"], "box on an image without lung opacity")
    edges = boxes_from_sizes(boxes["image_id"], FINDING, *(boxes[side] for side in _BOX))
    builder.exclude_invalid_boxes(edges)


def _with_field_sizes(
    images: pd.DataFrame, source: Path, mapping: pd.DataFrame | None
) -> pd.DataFrame:
    """Add the true size of the images, where NIH's table is in the folder."""
    entries = find_entries(source)
    if entries is None or mapping is None:
        return images
    sizes = read_field_sizes(entries)
    if sizes is None:
        return images
    sizes = mapping[["image_id", "nih_image"]].merge(sizes, on="nih_image")
    return images.merge(sizes.drop(columns="nih_image"), on="image_id", how="left")


def _kaggle_split(
    builder: SourceBuilder, images: pd.DataFrame, unlabelled: pd.Series
) -> pd.DataFrame | None:
    """Return the split of Kaggle's stage 2 without the training images of its test patients.

    None if Kaggle's list of test images is not in the folder, or names none of the images.
    """
    path = builder.root / KAGGLE_TEST
    if not path.is_file():
        return None
    listed = read_text_table(path, ("patientId",))["patientId"]
    tested = is_member(images["image_id"], listed)
    if not tested.any():
        builder.notes.append(
            f"{KAGGLE_TEST} names none of the images, so there is no official split: their names "
            f"on Kaggle are in {MAPPINGS_JSON}"
        )
        return None
    role = pd.Series(np.where(tested, "test", "train"), index=images.index, dtype=TEXT)
    role[is_member(images["image_id"], unlabelled)] = "unused"
    test_patients = images.loc[role == "test", "patient_id"]
    shared = (role == "train") & is_member(images["patient_id"], test_patients)
    role[shared] = "unused"
    doubtful = (images["patient_id_source"] == "mapped_unverified") & (role == "test")
    role[doubtful] = "unused"
    builder.notes.append(
        f"The official split is Kaggle's, but {counted(int(shared.sum()), 'training image')} of "
        "test patients are unused"
    )
    return pd.DataFrame({"image_id": images["image_id"], "role": role})
