"""Format `vindr`: VinDr-CXR, as on PhysioNet or as in the VinBigData challenge on Kaggle.

Three of 17 radiologists read each training image independently. The labels of the test images are
the consensus of five radiologists.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.finding_names import finding_name
from cxr_compare.data_prep.contracts.ids import is_member, renamed
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.table_files import read_text_table
from cxr_compare.data_prep.contracts.tables import empty_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_columns import refuse_line, to_numbers
from cxr_compare.data_prep.formats.folder_scan import (
    IMAGE_SUFFIXES,
    has_columns,
    has_match,
    list_image_files,
    require_unique_ids,
)
from cxr_compare.data_prep.formats.image_size import image_size
from cxr_compare.data_prep.formats.reference import LABEL_KEY, add_reference
from cxr_compare.data_prep.formats.source import Format, SourceBuilder, SourceTables
from cxr_compare.data_prep.formats.targets import targets_from_findings

_NO_FINDING = "no_finding"
BOXED_FINDINGS = (
    "aortic_enlargement",
    "atelectasis",
    "calcification",
    "cardiomegaly",
    "clavicle_fracture",
    "consolidation",
    "edema",
    "emphysema",
    "enlarged_pa",
    "ild",
    "infiltration",
    "lung_cavity",
    "lung_cyst",
    "lung_opacity",
    "mediastinal_shift",
    "nodule_mass",
    "other_lesion",
    "pleural_effusion",
    "pleural_thickening",
    "pneumothorax",
    "pulmonary_fibrosis",
    "rib_fracture",
)
"""The 22 findings that the readers box; the other six columns describe the whole image."""

_OTHER_NAMES = {"other_disease": "other_diseases"}  # named so in image_labels_test.csv only
_CELLS = {"": "", "0": "absent", "0.0": "absent", "1": "present", "1.0": "present"}
_CSV_EDGES = ["x_min", "y_min", "x_max", "y_max"]
_SIZE_TYPES = {"image_id": TEXT, "height": "float64", "width": "float64"}
_SIZES = (("dim0", "dim1"), ("height", "width"))
# If at least this many images have boxes, and all boxes fit into the resized copies of the images,
# the boxes were resized with the copies.
_ENOUGH_TO_TELL = 20


@dataclass(frozen=True)
class _Part:
    """Labels and boxes of the training or the test images."""

    images: pd.DataFrame  # ``image_id, path``
    findings: pd.DataFrame  # with ``reader`` and ``origin``; ``no_finding`` included
    boxes: pd.DataFrame  # rows of the annotations that name a finding
    label_file: str | None  # name of the file that lists the labelled images, or None


def _read_vindr(builder: SourceBuilder) -> SourceTables:
    """Read the tables of VinDr-CXR; no pixel is decoded."""
    source = builder.root
    notes = builder.notes
    exclusions = builder.exclusions
    train = _read_part(source, "train", notes)
    test = _read_part(source, "test", notes)
    if train.images.empty and test.images.empty:
        raise InputError(f"{source}: train/ and test/ hold no images; unpack the download there")
    files = pd.concat([train.images, test.images], ignore_index=True)
    require_unique_ids(files, source)
    for part in (train, test):
        _exclude_contradictory(builder, part)
    images = exclusions.keep(files)
    if images.empty:
        raise InputError(f"{source}: every image is ruled out; {exclusions.first()}")
    findings = exclusions.keep(pd.concat([train.findings, test.findings], ignore_index=True))
    findings = findings[findings["finding"] != _NO_FINDING]
    boxes = exclusions.keep(pd.concat([train.boxes, test.boxes], ignore_index=True))
    boxes = _in_pixels_of_the_files(boxes, images, source, notes)
    findings, boxes, coverage = add_reference(builder, findings, boxes, BOXED_FINDINGS)
    ids = images["image_id"]
    is_labelled = is_member(ids, findings["image_id"])
    read_alone = findings.loc[findings["origin"] == "reader", "image_id"]
    labelled_by = np.where(is_member(ids, read_alone), "readers", "consensus")
    roles = np.repeat(["train", "test"], [len(train.images), len(test.images)])
    official = exclusions.keep(files[["image_id"]].assign(role=roles))
    builder.warn_of_unknown_patients("VinDr-CXR names no patients, so each image")
    names = sorted(findings["finding"].unique())
    return builder.build(
        images.assign(
            patient_id="vindr:" + ids,
            patient_id_source="assumed_image",
            source="vindr",
            view="PA",  # as the publisher states; the headers do not state the view
            x_labels=pd.Series(labelled_by, index=images.index, dtype=TEXT).where(is_labelled),
        ),
        findings,
        targets_from_findings(names, any_finding=True),
        files=files,
        boxes=boxes,
        box_coverage=coverage,
        split=images.loc[~is_labelled, ["image_id"]].assign(role="unused").reset_index(drop=True),
        official=official if train.label_file and test.label_file else None,
    )


def _read_part(source: Path, name: str, notes: list[str]) -> _Part:
    """Read the images of ``train/`` or ``test/`` with their labels and boxes."""
    images = list_image_files(source, name)
    by_readers = name == "train"
    labels = _find(source, f"image_labels_{name}.csv")
    marks = _find(source, f"annotations_{name}.csv") or (
        _find(source, "train.csv") if by_readers else None
    )
    boxes = _read_annotations(marks, by_readers) if marks else empty_table("boxes")
    findings = empty_table("findings")
    if labels is not None:
        findings = _read_image_labels(labels, by_readers)
        if marks is None:
            notes.append(f"annotations_{name}.csv is missing, so no {name} image has boxes")
    elif marks is not None:
        findings = _findings_from_annotations(boxes, by_readers)
    n_labelled = findings["image_id"].nunique()
    if n_labelled and images.empty:
        notes.append(f"{name}/ holds no images, so the labels of {n_labelled} images are left out")
        findings = findings.iloc[:0]
        boxes = boxes.iloc[:0]
    if len(images) and not n_labelled:
        notes.append(f"{counted(len(images), 'image', 'have')} no labels in {name}/ and are unused")
    label_file = labels or marks
    return _Part(
        images=images[["path", "image_id"]],
        findings=findings,
        boxes=boxes[boxes["finding"] != _NO_FINDING].reset_index(drop=True),
        label_file=label_file.name if label_file and len(images) else None,
    )


def _find(source: Path, name: str) -> Path | None:
    paths = (source / "annotations" / name, source / name)
    return next((path for path in paths if path.is_file()), None)


def _read_image_labels(path: Path, by_readers: bool) -> pd.DataFrame:
    """Read ``image_labels_train.csv`` or ``image_labels_test.csv``."""
    text = _read_rows(path, by_readers)
    named = [c for c in text.columns if c not in ("image_id", "rad_id", "reader")]
    for name in named:
        refuse_line(renamed(text[name], _CELLS).isna(), path, "; expected 0 or 1", text[name])
    text = text.rename(columns={name: finding_name(name) for name in named})
    rows = text.rename(columns=_OTHER_NAMES).melt(
        ["image_id", "reader", *(["rad_id"] if by_readers else [])],
        var_name="finding",
        value_name="state",
        ignore_index=False,
    )
    rows["state"] = renamed(rows["state"], _CELLS)
    return _with_origin(rows[rows["state"] != ""].sort_index(kind="stable"), by_readers)


def _read_annotations(path: Path, by_readers: bool) -> pd.DataFrame:
    """Read ``annotations_train.csv``, ``annotations_test.csv`` or the ``train.csv`` of Kaggle."""
    text = _read_rows(path, by_readers, ("class_name", *_CSV_EDGES))
    names = {name: finding_name(name) for name in text["class_name"].unique()}
    rows = text[["image_id"]].assign(
        finding=renamed(text["class_name"], names), reader=text["reader"]
    )
    for edge, column in zip(EDGES, _CSV_EDGES, strict=True):
        rows[edge] = to_numbers(text[column], path, column).where(rows["finding"] != _NO_FINDING)
    return rows.reset_index(drop=True)


def _findings_from_annotations(annotations: pd.DataFrame, by_readers: bool) -> pd.DataFrame:
    """Build the findings of each reader where only annotations are published.

    A reader who read an image has at least one line for it, perhaps ``No finding``. Findings that
    the reader did not mark are absent.
    """
    marked = annotations[LABEL_KEY].drop_duplicates()
    read = marked[["image_id", "reader"]].drop_duplicates()
    names = pd.DataFrame({"finding": sorted(marked["finding"].unique())}, dtype=TEXT)
    rows = read.merge(names, how="cross").merge(marked, how="left", indicator="state")
    state = rows["state"].astype(TEXT).map({"both": "present", "left_only": "absent"})
    return _with_origin(rows.assign(state=state.astype(TEXT)), by_readers)


def _with_origin(rows: pd.DataFrame, by_readers: bool) -> pd.DataFrame:
    origin = "reader" if by_readers else "consensus"
    return rows[[*LABEL_KEY, "state"]].assign(origin=origin).astype(TEXT).reset_index(drop=True)


def _read_rows(path: Path, by_readers: bool, required: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read a table of labels or boxes, with the radiologist or ``reference`` as ``reader``.

    Columns that are no findings get names in lower case, since some files have ``rad_ID``.
    """
    keys = ("image_id", "rad_id") if by_readers else ("image_id",)
    names = {"image_id", "rad_id", "class_name", *_CSV_EDGES}
    text = read_text_table(
        path, (*keys, *required), rename_column=lambda c: c.lower() if c.lower() in names else c
    )
    for column in keys:
        refuse_line(text[column] == "", path, f"{column} is empty; fill it in")
    return text.assign(reader=text["rad_id"] if by_readers else REFERENCE_READER)


def _exclude_contradictory(builder: SourceBuilder, part: _Part) -> None:
    """Exclude images without a file or label, and images whose readers contradict themselves."""
    if part.label_file is None:
        return
    exclusions = builder.exclusions
    images = part.images["image_id"]
    findings = part.findings
    boxes = part.boxes
    labelled = findings["image_id"].drop_duplicates()
    exclusions.add(images[~is_member(images, labelled)], f"no row in {part.label_file}")
    for rows in (labelled, boxes["image_id"]):
        exclusions.add(
            rows[~is_member(rows, images)], f"row in {part.label_file}, but no image file"
        )
    exclusions.add(
        findings.loc[findings.duplicated(LABEL_KEY), "image_id"], "two labels by one reader"
    )
    present = findings[findings["state"] == "present"]
    is_normal = present["finding"] == _NO_FINDING
    key = ["image_id", "reader"]
    with_finding = present.loc[~is_normal, key].drop_duplicates()
    both = present.loc[is_normal, key].merge(with_finding, on=key)
    exclusions.add(both["image_id"], "a reader says both 'No finding' and a finding")
    builder.exclude_invalid_boxes(boxes)
    absent = findings.loc[findings["state"] == "absent", LABEL_KEY]
    contradicted = boxes.merge(absent.drop_duplicates(), on=LABEL_KEY)["image_id"]
    exclusions.add(contradicted, "box of a finding that its reader labels absent")


def _in_pixels_of_the_files(
    boxes: pd.DataFrame, images: pd.DataFrame, source: Path, notes: list[str]
) -> pd.DataFrame:
    """Scale boxes, which are in pixels of the original, to images that are resized copies."""
    once = boxes.drop_duplicates(ignore_index=True)
    if len(once) < len(boxes):
        notes.append(
            f"{counted(len(boxes) - len(once), 'box', 'repeat')} another one and were dropped"
        )
    boxed = images[is_member(images["image_id"], once["image_id"])]
    sizes = _read_image_sizes(boxed, source).set_index("image_id")
    if sizes.empty:  # all DICOM: the originals
        return once
    files = [path for path in (_find(source, f"{n}_meta.csv") for n in ("train", "test")) if path]
    originals = _read_original_sizes(files).set_index("image_id").reindex(sizes.index)
    reach = once.groupby("image_id")[["y2", "x2"]].max().reindex(sizes.index).to_numpy()
    outside = (reach > sizes.to_numpy() + 1).any(axis=1)
    if not outside.any() and len(sizes) >= _ENOUGH_TO_TELL:
        return once
    unknown = outside & originals.isna().any(axis=1).to_numpy()
    if unknown.any():
        first = boxed.set_index("image_id")["path"][sizes.index[unknown][0]]
        raise InputError(
            f"{source}: the boxes of {first} reach out of it, so it is a resized copy: add "
            "train_meta.csv (image_id, dim0, dim1: height and width of the original), which gives "
            f"the scale ({int(unknown.sum())} such images)"
        )
    scale = (sizes / originals).fillna(1.0)
    resized = int((scale != 1.0).any(axis=1).sum())
    if not resized:
        return once
    notes.append(
        f"{resized} boxed images differ in size from their originals in train_meta.csv. They are "
        "taken as copies that were resized without padding, and their boxes were scaled"
    )
    by_row = scale.reindex(once["image_id"]).fillna(1.0).to_numpy()[:, [1, 0, 1, 0]]
    edges = once[EDGES].to_numpy() * by_row
    return once.assign(**dict(zip(EDGES, edges.T, strict=True)))


def _read_original_sizes(paths: list[Path]) -> pd.DataFrame:
    """Read the sizes of the original images that come with resized copies."""
    tables = [pd.DataFrame(columns=list(_SIZE_TYPES)).astype(_SIZE_TYPES)]
    for path in paths:
        text = read_text_table(path, ("image_id",))
        names = next((pair for pair in _SIZES if set(pair) <= set(text.columns)), None)
        if names is None:
            raise InputError(
                f"{path}: needs columns dim0 and dim1, the height and the width of the originals"
            )
        height, width = (to_numbers(text[name], path, name) for name in names)
        sides = pd.DataFrame({"height": height, "width": width})
        wrong = ((sides <= 0) | np.isinf(sides)).any(axis=1)
        refuse_line(wrong, path, "a side is no number of pixels")
        tables.append(text[["image_id"]].join(sides))
    return pd.concat(tables, ignore_index=True).drop_duplicates("image_id", ignore_index=True)


def _read_image_sizes(images: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Read the sizes of images from their headers; DICOM files are left out."""
    rows = []
    for image_id, path in zip(images["image_id"], images["path"], strict=True):
        if not path.lower().endswith(IMAGE_SUFFIXES[-2:]):
            with suppress(InputError):  # a broken file is reported when it is decoded
                width, height = image_size(root / path)
                rows.append((image_id, height, width))
    return pd.DataFrame(rows, columns=list(_SIZE_TYPES)).astype(_SIZE_TYPES)


def _has_tables(folder: Path) -> bool:
    """Return True for PhysioNet's tables or, by its header, for the ``train.csv`` of Kaggle."""
    if has_match("annotations_t*.csv", "image_labels_t*.csv")(folder):
        return True
    return has_columns(folder / "train.csv", "image_id", "class_name", "rad_id")


VINDR = Format(
    name="vindr",
    title="VinDr-CXR",
    folder="`[annotations/]annotations_*.csv` and `image_labels_*.csv`; or Kaggle's `train.csv`",
    detect=lambda folder: _has_tables(folder) or _has_tables(folder / "annotations"),
    read=_read_vindr,
    options=("reference",),
    sources=(
        "physionet.org/content/vindr-cxr",
        "kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection",
    ),
)
