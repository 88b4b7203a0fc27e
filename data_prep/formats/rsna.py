"""Format of the RSNA Pneumonia Detection Challenge (2018), stage 2, as Kaggle gives it.

``patientId`` there names an image, not a patient. Who the patient is comes from the public
mapping to NIH ChestX-ray14 (``rsna_to_nih.csv`` in the same folder); without it every image counts
as a patient of its own, and a split then leaks.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import read_json
from data_prep.contracts.schemas import REFERENCE_READER, SYNTHETIC
from data_prep.contracts.tables import is_member, read_text_csv, refuse_line, to_numbers
from data_prep.contracts.words import counted
from data_prep.formats.nih import find_entries, read_field_sizes
from data_prep.formats.source import (
    Exclusions,
    Format,
    ReadOptions,
    SourceBuilder,
    SourceTables,
    has_file,
    normal_views,
    reference_rows,
    require_format,
)

CLASSES = {
    "Normal": "normal",
    "No Lung Opacity / Not Normal": "not_normal",
    "Lung Opacity": "lung_opacity",
}
# Mean squared grey-level difference above which the public match of an RSNA image to an NIH image
# is doubtful: 98 of 26,684; the others lie far below.
_DOUBTFUL_MSE = 20.0
_BOX_EDGES = ["x", "y", "width", "height"]


def _read_labels(path: Path) -> pd.DataFrame:
    """Read ``stage_2_train_labels.csv``."""
    text = read_text_csv(path, ("patientId", *_BOX_EDGES, "Target"))
    numbers = {c: to_numbers(text[c], path, c) for c in (*_BOX_EDGES, "Target")}
    labels = pd.DataFrame({"image_id": text["patientId"], **numbers})
    refuse_line(labels["image_id"] == "", path, "patientId is empty; fill it in")
    return labels.reset_index(drop=True)


def _read_classes(path: Path) -> pd.DataFrame:
    """Read ``stage_2_detailed_class_info.csv`` as ``image_id, x_class``, one row a row."""
    text = read_text_csv(path, ("patientId", "class"))
    classes = text["class"].map(CLASSES)
    refuse_line(classes.isna(), path, f"; expected one of {', '.join(CLASSES)}", text["class"])
    return pd.DataFrame({"image_id": text["patientId"], "x_class": classes.astype("str")})


def _read_mapping(path: Path, name_space: str = "nih") -> pd.DataFrame:
    """Read the mapping from RSNA images to NIH images."""
    text = read_text_csv(path, ("patientId", "nih_image"))
    ids = text["patientId"]
    refuse_line(ids.duplicated(), path, " is mapped twice; keep one line", ids)
    claimed_twice = text["nih_image"].duplicated(keep=False)
    if "mse" in text.columns:
        # With the difference known, an image claimed twice is told by it: one of a pair is
        # near 1 and the other near 90, or both are one image, published twice.
        mse = to_numbers(text["mse"], path, "mse")
        doubtful = ~(mse <= _DOUBTFUL_MSE)
    else:
        doubtful = claimed_twice
    return pd.DataFrame(
        {
            "image_id": text["patientId"],
            "nih_image": text["nih_image"],
            "patient_id": f"{name_space}:" + text["nih_image"].str.split("_", n=1).str[0],
            "patient_id_source": np.where(doubtful, "mapped_unverified", "mapped"),
        }
    ).reset_index(drop=True)


def _find_headers(folder: Path) -> Path | None:
    """Find the public table of RSNA's DICOM headers, ``*dicom_headers.csv`` or ``.csv.gz``."""
    found = [p for p in folder.glob("*dicom_headers.csv*") if p.name.endswith((".csv", ".csv.gz"))]
    return min(found, default=None)


def _read_headers(path: Path) -> pd.DataFrame:
    """Read what the DICOM headers say of each image's person and view.

    Its PixelSpacing is left out: that of NIH's original file, not of the 1024 px one.
    """
    text = read_text_csv(path, ("PatientID",), ("ViewPosition", "PatientSex", "PatientAge"))
    people = pd.DataFrame(
        {
            "image_id": text["PatientID"],
            "view": normal_views(text["ViewPosition"]),
            "sex": text["PatientSex"].str.upper().where(text["PatientSex"] != ""),
            "age_years": to_numbers(text["PatientAge"], path, "PatientAge"),
        }
    ).drop_duplicates()
    ids = people["image_id"].rename("PatientID")
    twice = " appears more than once with different values; keep one line"
    refuse_line(ids.duplicated(), path, twice, ids)
    return people.reset_index(drop=True)


FINDING = "lung_opacity"
TARGETS: dict[str, dict[str, Any]] = {
    "opacity": {"any_of": [FINDING], "display_name": "Lung opacity"}
}

TRAIN_IMAGES = "stage_2_train_images"
TEST_IMAGES = "stage_2_test_images"
LABELS = "stage_2_train_labels.csv"
CLASS_INFO = "stage_2_detailed_class_info.csv"
MAPPING = "rsna_to_nih.csv"
_PHANTOM = "synth.json"
# Side of the published images, px.
SIDE = 1024


def _read_rsna(source: Path, _: ReadOptions) -> SourceTables:
    """Read the tables of an RSNA stage 2 folder; no pixel is decoded."""
    require_format(source, RSNA)
    labels = _read_labels(source / LABELS)
    train = _train_images(source, labels)
    classes = _read_classes(source / CLASS_INFO) if (source / CLASS_INFO).exists() else None
    people = _name_space(source)
    mapping = _read_mapping(source / MAPPING, people) if (source / MAPPING).exists() else None
    nih, headers = find_entries(source), _find_headers(source)
    return _rsna_tables(
        source,
        train=train,
        test=_list_images(source, TEST_IMAGES),
        labels=labels,
        classes=classes,
        mapping=mapping,
        field_sizes=read_field_sizes(nih) if nih else None,
        people=_read_headers(headers) if headers else None,
    )


def _train_images(source: Path, labels: pd.DataFrame) -> pd.DataFrame:
    """List ``image_id, path`` of the labelled images; without a folder of them, of no path."""
    if not (source / TRAIN_IMAGES).exists() and not (source / TEST_IMAGES).exists():
        ids = labels["image_id"].drop_duplicates().reset_index(drop=True)
        if ids.empty:
            raise InputError(f"{source / LABELS}: lists no image")
        return pd.DataFrame({"image_id": ids, "path": None}, dtype="str")
    train = _list_images(source, TRAIN_IMAGES)
    if train.empty:
        raise InputError(f"{source / TRAIN_IMAGES}: holds no images; unpack the download there")
    return train


def _name_space(source: Path) -> str:
    """Whose patient numbers the mapping gives: NIH's, or those of one phantom."""
    if not (source / _PHANTOM).exists():
        return "nih"
    return f"phantom-{read_json(source / _PHANTOM, 'synth')['arguments']['seed']}"


def _list_images(source: Path, folder: str) -> pd.DataFrame:
    """List ``image_id, path`` by file name; what a file is, its content will tell."""
    if not (source / folder).is_dir():
        return pd.DataFrame({"image_id": [], "path": []}, dtype="str")
    with os.scandir(source / folder) as entries:
        names = sorted(e.name for e in entries if e.is_file() and not e.name.startswith("."))
    files = pd.DataFrame(
        {"image_id": [Path(n).stem for n in names], "path": [f"{folder}/{n}" for n in names]},
        dtype="str",
    )
    repeated = files["image_id"].duplicated(keep=False)
    if repeated.any():
        pair = files.loc[repeated, "path"].iloc[:2].tolist()
        raise InputError(f"{source}: {pair[0]} and {pair[1]} have one id; keep one of them")
    return files


def _rsna_tables(
    root: Path,
    *,
    train: pd.DataFrame,
    test: pd.DataFrame,
    labels: pd.DataFrame,
    classes: pd.DataFrame | None = None,
    mapping: pd.DataFrame | None = None,
    field_sizes: pd.DataFrame | None = None,
    people: pd.DataFrame | None = None,
) -> SourceTables:
    """Join the source's tables and rule out what contradicts itself."""
    builder = SourceBuilder("rsna", root)
    notes, out = builder.notes, builder.out
    rows = builder.without_repeats(labels, LABELS)
    _rule_out(out, rows, train, classes)
    images = out.keep(pd.concat([train, test], ignore_index=True).drop_duplicates("image_id"))
    images["source"] = SYNTHETIC if (root / _PHANTOM).exists() else "rsna"
    images = _with_classes(images, classes, notes)
    images = _with_patients(images, mapping, set(test["image_id"]), builder)
    if field_sizes is not None and mapping is not None:
        sizes = mapping[["image_id", "nih_image"]].merge(field_sizes, on="nih_image")
        images = images.merge(sizes.drop(columns="nih_image"), on="image_id", how="left")
    if people is not None:
        images = images.merge(people, on="image_id", how="left")
    if images["path"].isna().all():
        notes.append(f"{TRAIN_IMAGES}: not there: a data set without pixels, to judge on only")
        images["height"] = images["width"] = pd.array([SIDE] * len(images), dtype="Int64")
    rows = out.keep(rows)
    one = rows.drop_duplicates("image_id")
    state = np.where(one["Target"] == 1, "present", "absent")
    # All lesions are boxed, except on a positive image that came without any box.
    complete = rows[(rows["Target"] == 0) | rows["x"].notna()].drop_duplicates("image_id")
    return builder.tables(
        images,
        reference_rows(one["image_id"], FINDING, state=state, origin="consensus"),
        TARGETS,
        paths=dict(train.dropna()[["image_id", "path"]].to_numpy().tolist()),
        boxes=_boxes(rows),
        box_coverage=reference_rows(complete["image_id"], FINDING, coverage="all"),
        split=out.keep(test[["image_id"]].assign(role="unused")),
    )


def _rule_out(
    out: Exclusions, rows: pd.DataFrame, train: pd.DataFrame, classes: pd.DataFrame | None
) -> None:
    """Rule out images whose label cannot be right; a wrong box is a wrong label."""
    ids, edges = rows["image_id"], rows[_BOX_EDGES]
    out.add(train.loc[~is_member(train["image_id"], ids), "image_id"], f"no row in {LABELS}")
    out.add(ids[~is_member(ids, train["image_id"])], f"row in {LABELS}, but no image file")
    out.add(ids[~rows["Target"].isin([0, 1])], "Target is neither 0 nor 1")
    targets = rows.groupby("image_id")["Target"].nunique()
    out.add(targets.index[targets > 1], "Target is both 0 and 1")
    given = edges.notna()
    out.add(ids[(rows["Target"] == 0) & given.any(axis=1)], "Target 0 with a box")
    unusable = given.any(axis=1).to_numpy() & ~np.isfinite(edges.to_numpy()).all(axis=1)
    out.add(ids[unusable], "box with a missing or infinite number")
    out.add(ids[(edges[["width", "height"]] <= 0).any(axis=1)], "box of zero or negative size")
    out.add(ids[(edges[["x", "y"]] < 0).any(axis=1)], "box outside the image")
    if classes is None:
        return
    kinds = classes.drop_duplicates()
    out.add(kinds.loc[kinds["image_id"].duplicated(), "image_id"], f"two classes in {CLASS_INFO}")
    opaque = ids.map(kinds.drop_duplicates("image_id").set_index("image_id")["x_class"])
    disagree = opaque.notna() & ((opaque == "lung_opacity") != (rows["Target"] == 1))
    out.add(ids[disagree], f"Target disagrees with {CLASS_INFO}")


def _with_classes(
    images: pd.DataFrame, classes: pd.DataFrame | None, notes: list[str]
) -> pd.DataFrame:
    if classes is None:
        notes.append(f"{CLASS_INFO}: not there, so 'normal' and 'not normal' cannot be told apart")
        return images
    return images.merge(classes.drop_duplicates("image_id"), on="image_id", how="left")


def _with_patients(
    images: pd.DataFrame,
    mapping: pd.DataFrame | None,
    unlabelled: set[str],
    builder: SourceBuilder,
) -> pd.DataFrame:
    """Add ``patient_id`` and its source; a labelled image of unknown patient makes a note."""
    columns = ["image_id", "patient_id", "patient_id_source"]
    if mapping is None:
        mapping = pd.DataFrame(columns=columns, dtype="str")
    images = images.merge(mapping[columns], on="image_id", how="left")
    unknown = images["patient_id"].isna()
    images.loc[unknown, "patient_id"] = "rsna:" + images.loc[unknown, "image_id"]
    images.loc[unknown, "patient_id_source"] = "assumed_image"
    n_labelled = int((unknown & ~is_member(images["image_id"], unlabelled)).sum())
    if n_labelled:
        builder.warn_of_own_patients(
            f"the patient of {counted(n_labelled, 'image')} is not known",
            remedy=f"Put the public {MAPPING} (columns patientId, nih_image) into the folder",
        )
    n_doubtful = int((images["patient_id_source"] == "mapped_unverified").sum())
    if n_doubtful:
        builder.notes.append(
            f"{counted(n_doubtful, 'image', 'have')} a doubtful patient: used for training only"
        )
    return images


def _boxes(rows: pd.DataFrame) -> pd.DataFrame:
    boxed = rows[rows["x"].notna()]
    return pd.DataFrame(
        {
            "image_id": boxed["image_id"],
            "finding": FINDING,
            "x1": boxed["x"],
            "y1": boxed["y"],
            "x2": boxed["x"] + boxed["width"],
            "y2": boxed["y"] + boxed["height"],
            "reader": REFERENCE_READER,
        }
    ).reset_index(drop=True)


RSNA = Format(
    name="rsna",
    title="RSNA Pneumonia Detection Challenge 2018",
    folder="`stage_2_train_labels.csv`, with `stage_2_train_images/` where there are pixels",
    detect=has_file(TRAIN_IMAGES, LABELS),
    read=_read_rsna,
    sources=("kaggle.com/c/rsna-pneumonia-detection-challenge",),
)
