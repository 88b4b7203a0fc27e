"""What a format reader returns, and the one way from labels to the tables of a data set.

Every format says the same things: these are the images, and this person states that this finding is present,
absent or uncertain on this image, perhaps with a box. Readers write these statements as rows of one table;
`build` checks them and makes the tables `findings`, `boxes` and `box_coverage` of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.tables import empty_table
from cxr_compare.data_prep.formats.image_size import stored_size
from cxr_compare.data_prep.sources.boxes import Form, Unit, iou, read_boxes, upright

REFERENCE = "reference"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".dcm", ".dicom")
STATEMENT = ["image_id", "finding", "state", "reader", "origin", "b1", "b2", "b3", "b4"]
_NORMAL = {
    "normal",
    "no_finding",
    "no_findings",
    "none",
    "no",
    "nothing",
    "negative",
    "neg",
    "clear",
    "healthy",
    "background",
    "no_abnormality",
    "no_lesion",
    "no_disease",
    "unremarkable",
    "normalbefund",
    "gesund",
    "unauffaellig",
    "unauffällig",
    "kein_befund",
    "ohne_befund",
    "o_b",
    "sain",
    "sano",
    "正常",
    "所見なし",
    "異常なし",
    "異常無し",
    "未见异常",
    "无异常",
}
_UNKNOWN = {
    "",
    "unknown",
    "n_a",
    "na",
    "nan",
    "null",
    "todo",
    "not_available",
    "unbekannt",
    "unclear",
    "unlabelled",
}


@dataclass
class Options:
    """Choices of the user for reading.

    Attributes:
        columns: Column of each role in the user's own table, such as ``label=Finding``.
        class_names: Names of numbered classes in their order.
        patient_pattern: Regular expression that finds the patient in the name of an image file.
        raw_boxes: Boxes are of the stored pixels, before EXIF turns them.
        box_form: Meaning of a table's four numbers, if not that of their column names.
        box_unit: Unit of these numbers.
        reference: How several readers are joined: majority, any, all or reader:NAME.
    """

    columns: dict[str, str] = field(default_factory=dict)
    class_names: list[str] = field(default_factory=list)
    patient_pattern: str = ""
    raw_boxes: bool = False
    box_form: Form | None = None
    box_unit: Unit = "px"
    reference: str = "majority"


@dataclass
class Source:
    """The tables of a source before any pixel is decoded."""

    format: str
    root: Path
    images: pd.DataFrame
    findings: pd.DataFrame = field(default_factory=lambda: empty_table("findings"))
    boxes: pd.DataFrame = field(default_factory=lambda: empty_table("boxes"))
    coverage: pd.DataFrame = field(default_factory=lambda: empty_table("box_coverage"))
    roles: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame({"image_id": [], "role": []}, dtype="str")
    )
    targets: dict[str, list[str]] = field(default_factory=dict)
    excluded: dict[str, str] = field(default_factory=dict)  # image id -> reason
    notes: list[str] = field(default_factory=list)

    def exclude(self, ids: Any, reason: str) -> None:
        """Leave images out; the first reason of an image counts."""
        for image_id in ids:
            self.excluded.setdefault(str(image_id), reason)


def finding_name(text: str) -> str:
    """Return a label as the name of a finding: ``Pleural Thickening`` -> ``pleural_thickening``."""
    name = re.sub(r"[^\w]+", "_", text.strip().lower()).strip("_")
    return name


def is_normal(name: str) -> bool:
    """Return True if a label says that nothing was found."""
    return name in _NORMAL


_ABSENT = re.compile(r"^(?:no|without|absent|not|kein|keine|keinen|ohne)_(?P<name>\w+)$")


def denied(name: str, others: set[str]) -> str | None:
    """Return the finding that a label denies, such as ``no_opacity`` beside ``opacity``; else None."""
    match = _ABSENT.match(name)
    return match["name"] if match and match["name"] in others else None


def is_unknown(name: str) -> bool:
    """Return True if a label says that nothing is known."""
    return name in _UNKNOWN


def list_images(root: Path) -> pd.DataFrame:
    """Return the image files below a folder: ``path`` (relative), ``name`` and ``stem``."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    paths = sorted(
        p.relative_to(root).as_posix()
        for p in root.rglob("*")
        if p.suffix.lower() in IMAGE_SUFFIXES
    )
    paths = [p for p in paths if not any(part.startswith(".") for part in p.split("/"))]
    names = [p.rsplit("/", 1)[-1] for p in paths]
    return pd.DataFrame(
        {"path": paths, "name": names, "stem": [n.rsplit(".", 1)[0] for n in names]}, dtype="str"
    )


class Statements:
    """The statements of a source, gathered row by row.

    Args:
        form: Meaning of a box's four numbers.
        unit: Their unit.
    """

    def __init__(self, form: Form = "xyxy", unit: Unit = "px") -> None:
        self.form, self.unit = form, unit
        self.rows: list[tuple[Any, ...]] = []
        self.unread: dict[str, str] = {}  # image id -> what could not be read
        self.n_unread = 0

    def add(
        self,
        image_id: str,
        finding: str,
        box: Any = None,
        *,
        state: str = "present",
        reader: str = REFERENCE,
        origin: str = "unknown",
    ) -> None:
        """Add a statement, with a box or without."""
        numbers = (np.nan,) * 4 if box is None else tuple(box)
        self.rows.append((image_id, finding, state, reader, origin, *numbers))

    def cannot_read(self, image_id: str, reason: str) -> None:
        """Note an annotation that gives no box: its image is left out, for it is not negative."""
        self.unread.setdefault(image_id, reason)
        self.n_unread += 1

    def frame(self) -> pd.DataFrame:
        """Return the statements as a table."""
        frame = pd.DataFrame(self.rows, columns=STATEMENT)
        return frame.astype(
            {**dict.fromkeys(STATEMENT[:5], "str"), **dict.fromkeys(STATEMENT[5:], "float64")}
        )


def build(
    source: Source,
    statements: pd.DataFrame,
    options: Options,
    *,
    form: Form,
    unit: Unit = "px",
    coverage: str = "",
    unread: dict[str, str] | None = None,
    n_unread: int = 0,
    where: str = "",
    frame: tuple[float, float] | None = None,
    exclusive: tuple[tuple[str, ...], ...] = (),
) -> Source:
    """Check the statements of a source and make its tables of them.

    Args:
        source: Source with its images.
        statements: Rows with the columns `STATEMENT`.
        options: Choices of the user.
        form: Meaning of the four numbers of a box.
        unit: Their unit.
        coverage: "all" if every stated finding without a box is known to have none; "boxed" if this holds
            only for images and findings with a box; empty if boxes are not complete anywhere.
        unread: Images with an annotation that gives no box, and the reason.
        n_unread: Number of such annotations.
        where: File, for messages.
        frame: Width and height of the images that the boxes are of; None if each image is its own frame.
        exclusive: Groups of findings of which at most one can be present.
    """
    known = statements["image_id"].isin(set(source.images["image_id"]))
    statements = statements[known].reset_index(drop=True)
    boxed = statements[STATEMENT[5:]].notna().any(axis=1).to_numpy()
    _check_contradictions(source, statements, boxed, exclusive)
    for image_id, reason in (unread or {}).items():
        source.exclude([image_id], reason)
    boxes = _boxes(
        source,
        statements[boxed].reset_index(drop=True),
        options,
        form,
        unit,
        frame,
        where,
        unread,
        n_unread,
    )
    left = ~source.images["image_id"].isin(list(source.excluded))
    keep = set(source.images["image_id"][left])
    key = ["image_id", "finding", "reader"]
    findings = statements.drop_duplicates(key)[[*key, "state", "origin"]]
    source.findings = _with_reference(findings[findings["image_id"].isin(keep)], options.reference)
    present = source.findings[source.findings["state"] == "present"]
    agreed = pd.MultiIndex.from_frame(boxes[["image_id", "finding", "reader"]]).isin(
        pd.MultiIndex.from_frame(present[key])
    )
    source.boxes = boxes[boxes["image_id"].isin(keep) & agreed].reset_index(drop=True)
    stated = source.findings[[*key, "state"]]
    if coverage:
        pairs = pd.MultiIndex.from_frame(source.boxes[["image_id", "finding"]])
        has = pd.MultiIndex.from_frame(stated[["image_id", "finding"]]).isin(pairs)
        complete = has | ((stated["state"] == "absent").to_numpy() & (coverage == "all"))
        source.coverage = stated.loc[complete, key].assign(coverage="all").reset_index(drop=True)
    if not source.targets:
        source.targets = {name: [name] for name in sorted(set(source.findings["finding"]))}
    source.roles = source.roles[source.roles["image_id"].isin(keep)]
    return source


def _check_contradictions(
    source: Source,
    statements: pd.DataFrame,
    boxed: np.ndarray,
    exclusive: tuple[tuple[str, ...], ...],
) -> None:
    """Leave out images about which one reader says two things."""
    key = ["image_id", "finding", "reader"]
    states = statements.groupby(key)["state"].nunique()
    for image_id, finding, _ in states.index[states > 1]:
        source.exclude([image_id], f"labels contradict each other: {finding} is present and absent")
    absent = statements[boxed & (statements["state"] == "absent")]
    source.exclude(absent["image_id"], "box of a finding that is stated to be absent")
    for group in exclusive:
        present = statements[statements["finding"].isin(group) & (statements["state"] == "present")]
        several = present.groupby("image_id")["finding"].nunique()
        source.exclude(several.index[several > 1], f"several of {', '.join(group)} are present")


def _boxes(
    source: Source,
    rows: pd.DataFrame,
    options: Options,
    form: Form,
    unit: Unit,
    frame: tuple[float, float] | None,
    where: str,
    unread: dict[str, str] | None,
    n_unread: int,
) -> pd.DataFrame:
    """Return the boxes as corners in px of the upright image; images of wrong boxes are left out."""
    path_of = dict(
        zip(
            source.images["image_id"],
            source.images.get("path", pd.Series(dtype="str")),
            strict=False,
        )
    )
    stated = {}
    if {"width", "height"} <= set(source.images.columns):
        stated = dict(
            zip(
                source.images["image_id"],
                source.images[["width", "height"]].to_numpy(float),
                strict=True,
            )
        )
    sizes = np.full((len(rows), 2), np.nan)
    turns = np.ones(len(rows), dtype=int)
    measured: dict[str, tuple[float, float, int]] = {}
    for row, image_id in enumerate(rows["image_id"]):
        if image_id not in measured:
            measured[image_id] = _labelled_size(
                source, image_id, path_of.get(image_id), stated.get(image_id), options
            )
        *sizes[row], turns[row] = measured[image_id]
    corners, reasons = read_boxes(
        rows[STATEMENT[5:]].to_numpy(np.float64),
        form,
        unit,
        sizes if frame is None else np.tile(frame, (len(rows), 1)),
        rows["image_id"].to_numpy(),
        where or str(source.root),
        n_unread,
        next(iter((unread or {}).values()), ""),
        source.notes,
    )
    if frame is not None:  # boxes of a published size: a file of another size is no file of the set
        other = np.isfinite(sizes).all(axis=1) & (sizes != np.array(frame)).any(axis=1)
        source.exclude(
            rows["image_id"][other], f"boxes are of {frame[0]:g} x {frame[1]:g} px, the file is not"
        )
    for row in np.flatnonzero(reasons != ""):
        source.exclude([rows["image_id"][row]], reasons[row])
    if options.raw_boxes:
        for row in np.flatnonzero(turns > 1):
            corners[row] = upright(corners[row : row + 1], tuple(sizes[row]), int(turns[row]))[0]
    elif (turns > 1).any():
        n = rows["image_id"][turns > 1].nunique()
        source.notes.append(
            f"{counted(n, 'image')} with boxes are turned as their EXIF says, and boxes must be of the turned image; "
            "if they are of the stored pixels, say --raw-boxes"
        )
    table = rows[["image_id", "finding", "reader"]].assign(
        **dict(zip(EDGES, corners.T, strict=True))
    )
    table = table[(reasons == "")].drop_duplicates()
    repeats = int((reasons == "").sum()) - len(table)
    table = pd.concat([table, _joined_boxes(table)], ignore_index=True)
    if repeats:
        source.notes.append(f"{counted(repeats, 'repeated box')} dropped")
    return table.reset_index(drop=True)


def _joined_boxes(table: pd.DataFrame) -> pd.DataFrame:
    """Return boxes of the reader ``reference``: boxes of several readers with an IoU above 0.5 are one, their mean."""
    people = table[table["reader"] != REFERENCE]
    rows = []
    for (image_id, finding), group in people.groupby(["image_id", "finding"], sort=False):
        left = group[EDGES].to_numpy(float)
        while len(left):
            same = iou(left[0], left) > 0.5
            rows.append((image_id, finding, REFERENCE, *left[same].mean(axis=0)))
            left = left[~same]
    return pd.DataFrame(rows, columns=["image_id", "finding", "reader", *EDGES])


def _labelled_size(
    source: Source, image_id: str, path: Any, stated: np.ndarray | None, options: Options
) -> tuple[float, float, int]:
    """Return the size that the boxes of an image are of, and its EXIF orientation."""
    if not isinstance(path, str):
        return (*stated, 1) if stated is not None else (np.nan, np.nan, 1)
    try:
        width, height, turn = stored_size(source.root / path)
    except InputError:  # found again, and listed, when the image is decoded
        return (*stated, 1) if stated is not None else (np.nan, np.nan, 1)
    if turn >= 5 and not options.raw_boxes:
        width, height = height, width
    if stated is not None and np.isfinite(stated).all() and (stated != (width, height)).any():
        text = f"labels are of {stated[0]:g} x {stated[1]:g} px, the image has {width} x {height}"
        source.exclude([image_id], text)
    return width, height, turn


def _with_reference(findings: pd.DataFrame, rule: str) -> pd.DataFrame:
    """Join the labels of several readers to those of the reader ``reference``."""
    people = findings[findings["reader"] != REFERENCE]
    if people.empty:
        return findings.reset_index(drop=True)
    name = rule.removeprefix("reader:")
    if rule.startswith("reader:"):
        if name not in set(people["reader"]):
            raise InputError(
                f"there is no reader {name!r}; readers are {', '.join(sorted(set(people['reader']))[:9])}"
            )
        joined = people[people["reader"] == name].assign(reader=REFERENCE)
        return pd.concat([findings, joined], ignore_index=True)
    votes = people.assign(
        vote=people["state"].map({"present": 1.0, "absent": 0.0, "uncertain": 0.5})
    )
    grouped = votes.groupby(["image_id", "finding"], sort=False)
    share = grouped["vote"].mean()
    low, high = {"majority": (0.5, 0.5), "any": (0.0, 0.0), "all": (1 - 1e-9, 1 - 1e-9)}[rule]
    state = np.where(share > high, "present", np.where(share < low, "absent", "uncertain"))
    state = np.where((share == 0) & (rule == "any"), "absent", state)
    joined = pd.DataFrame({"state": state, "origin": grouped["origin"].first()}).reset_index()
    return pd.concat([findings, joined.assign(reader=REFERENCE)], ignore_index=True)


def add_patients(
    source: Source, options: Options, prefix: str, pattern: str = "", *, in_path: bool = False
) -> None:
    """Complete the patients: stated ones, else those in file names, else each image is one."""
    images = source.images
    pattern = options.patient_pattern or pattern
    names = images["path"].fillna(images["image_id"])
    patient = (
        images["patient_id"]
        if "patient_id" in images
        else pd.Series(pd.NA, index=images.index, dtype="str")
    )
    if pattern:
        try:
            found = (names if in_path else names.str.rsplit("/", n=1).str[-1]).str.extract(pattern)
        except (re.error, ValueError) as error:
            raise InputError(
                f"--patient-pattern {pattern!r}: {error}; it needs one group in brackets"
            ) from None
        patient = patient.where(patient.notna(), found.bfill(axis=1).iloc[:, 0])
    known = patient.notna() & (patient != "")
    origin = images.get("patient_id_source", pd.Series("given", index=images.index)).where(
        known, "assumed_image"
    )
    source.images = images.assign(
        patient_id=prefix + ":" + patient.where(known, images["image_id"]).astype("str"),
        patient_id_source=origin,
    )
    unused = set(source.roles.loc[source.roles["role"] == "unused", "image_id"])
    n = int((~known & ~images["image_id"].isin(unused)).sum())
    if n:
        source.notes.append(
            f"WARNING: the patient of {counted(n, 'image')} is not known, so each counts as one: the same person may be "
            "in training and test. --patient-pattern finds patients in file names"
        )
