"""Statements, which readers of formats return, and the way from them to the tables of a data set.

Every format says the same things: these are the images, and this person states that this finding is
present, absent or uncertain on this image, perhaps with a box. A reader writes these statements as
rows of one table; `build` checks them and makes the tables of the data set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_check import check_boxes
from cxr_compare.data_prep.contracts.box_readings import FORMS, UNITS, BoxReading
from cxr_compare.data_prep.contracts.boxes import EDGES, upright_boxes
from cxr_compare.data_prep.contracts.errors import InputError, counted_phrase
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.contracts.ids import are_rows_of, is_member
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.tables import empty_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.image_files import SIDEWAYS, ImageIndex, stored_size
from cxr_compare.data_prep.sources.joined_readers import with_reference
from cxr_compare.data_prep.sources.label_values import dictionary
from cxr_compare.data_prep.sources.source_tables import (
    LABEL_KEY,
    ReadOptions,
    Show,
    SourceTables,
    empty_roles,
    targets_from_findings,
)

BOX = ["b1", "b2", "b3", "b4"]
STATEMENT = ["image_id", "finding", "state", "reader", "origin", *BOX, "boxed", "implied"]
"""Columns of a table of statements, with four numbers of a box (NaN without one), and True if the
row has a box, and if it only follows from what others say."""
_TYPES = {
    **dict.fromkeys(STATEMENT[:5], TEXT),
    **dict.fromkeys(BOX, "float64"),
    "boxed": "bool",
    "implied": "bool",
}


class Statements:
    """The statements of a source, gathered row by row or table by table.

    Attributes:
        reading: How the boxes are read.
        unread: Image and reason of each annotation that gives no box.
        partial: Images and findings of which lesions share a box or have none.
        normal: Images and readers who state that nothing is found.
    """

    def __init__(self, reading: BoxReading | None = None) -> None:
        self.reading = reading or BoxReading()
        self.unread: list[tuple[str, str]] = []
        self.partial: set[tuple[str, str]] = set()
        self.normal: set[tuple[str, str]] = set()
        self._rows: list[tuple[Any, ...]] = []
        self._tables: list[pd.DataFrame] = []

    def add(
        self,
        image_id: str,
        finding: str,
        box: Sequence[float] | None = None,
        *,
        state: str = "present",
        reader: str = REFERENCE_READER,
        origin: str = "unknown",
        implied: bool = False,
    ) -> None:
        """Add a statement, with a box or without."""
        numbers = (np.nan,) * 4 if box is None else tuple(box)
        row = (image_id, finding, state, reader, origin, *numbers, box is not None, implied)
        self._rows.append(row)

    def add_table(self, table: pd.DataFrame) -> None:
        """Add a table of statements, as `joined_statements` takes it."""
        self._tables.append(table)

    def frame(self) -> pd.DataFrame:
        """Return all statements: columns `STATEMENT`."""
        rows = pd.DataFrame.from_records(self._rows, columns=STATEMENT)
        return joined_statements([rows, *self._tables])


def joined_statements(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Join tables of statements to one; columns of boxes, ``boxed`` and ``implied`` may lack.

    Without ``boxed``, a row is one with a box if any of its four numbers is there.
    """
    typed = [pd.DataFrame(columns=STATEMENT).astype(_TYPES)]
    for table in tables:
        if "boxed" not in table:
            table = table.assign(boxed=table.reindex(columns=BOX).notna().any(axis=1))
        if "implied" not in table:
            table = table.assign(implied=False)
        typed.append(table.reindex(columns=STATEMENT).astype(_TYPES))
    return pd.concat(typed, ignore_index=True)


@dataclass
class Source:
    """A source while it is read: its images, what is stated and left out, and notes for the user.

    Attributes:
        format: Name of the format, as in ``--format``.
        root: Folder to which the paths of the images are relative, or the one file that is read.
        options: Options of the user.
        show: Function that shows the user a line at once.
        index: Image files of the folder by their names; None if one file of labels is read alone.
        images: Table with ``image_id`` and ``path``, and later all facts of the images table.
        statements: What readers state of the images.
        classes: Labels that files name as classes, in the order in which they were found.
        counts: Number of cases by text of a note.
        notes: Notes for the user, one sentence each.
        patient_notes: Those of `notes` that warn of images of unknown patients.
        read_as: Sentences on how the label tables were read.
        excluded: Reason why an image, or a file without one, is left out, by its id or path.
        split: ``image_id, role`` of images whose role is fixed.
        official: ``image_id, role`` as the publisher assigned them.
        targets: Targets by name; None makes one of each finding.
        implied_note: End of the sentence with the number of labels that no row states.
    """

    format: str
    root: Path
    options: ReadOptions
    show: Show = lambda line: None
    index: ImageIndex | None = None
    images: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"image_id": [], "path": []}))
    statements: Statements = field(default_factory=Statements)
    classes: dict[str, None] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    patient_notes: list[str] = field(default_factory=list)
    read_as: list[str] = field(default_factory=list)
    excluded: dict[str, str] = field(default_factory=dict)
    split: pd.DataFrame = field(default_factory=empty_roles)
    official: pd.DataFrame = field(default_factory=empty_roles)
    targets: dict[str, Target] | None = None
    implied_note: str = ""
    _sizes: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def exclude(self, ids: Iterable[Any], reason: str) -> None:
        """Leave images, or files without an image, out; the first reason of each counts."""
        for image_id in ids:
            self.excluded.setdefault(str(image_id), reason)

    def keep(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of a table without those of images that are left out."""
        if not self.excluded:
            return table
        kept = ~is_member(table["image_id"], list(self.excluded))
        return table[kept].reset_index(drop=True)

    def stored_size(self, path: str) -> tuple[int, int, int]:
        """Return width and height (px) of an image as stored, and its EXIF orientation, 1 to 8."""
        if path not in self._sizes:
            self._sizes[path] = stored_size(self.root / path)
        return self._sizes[path]

    def labelled_size(self, path: str) -> tuple[int, int]:
        """Return width and height (px) of the pixels that the boxes of an image are of."""
        width, height, turn = self.stored_size(path)
        is_sideways = turn in SIDEWAYS and not self.options.raw_boxes
        return (height, width) if is_sideways else (width, height)

    @property
    def files(self) -> ImageIndex:
        """Image files of the user's folder."""
        if self.index is None:
            raise InputError(f"{self.root}: a file; give the folder that holds it")
        return self.index

    def add_names(self, names: Iterable[str]) -> None:
        """Let names that are of no image file be found by `match_ids`, and note how they differ."""
        note = "" if self.index is None else self.index.add_names(names)
        self.notes += [note] if note else []

    def find_image(
        self, name: str, file: str, folders: Sequence[str], role: str | None = None
    ) -> str | None:
        """Return the path of the image that a label file names; None if it is not exactly one."""
        matches = [name]
        if self.index is not None:  # the images of a single file need not exist
            matches = self.index.by_name(name, folders, role)
        if len(matches) == 1:
            return matches[0]
        fits = f"file_name fits {' and '.join(matches[:2])}" if matches else "no such image"
        self.exclude([f"{file}: {name}"], fits)
        return None

    def cannot_read(self, image: str, reason: str) -> None:
        """Leave out an image of which a mark cannot be read: its findings are unknown."""
        self.exclude([image], reason)
        self.statements.unread.append((image, reason))

    @contextmanager
    def reading_mark(self, image: str, position: str) -> Iterator[None]:
        """Leave out the image if a mark cannot be read, which an `InputError` says."""
        try:
            yield
        except InputError as error:
            self.cannot_read(image, f"{position}: {error}")


def user_reading(options: ReadOptions, reading: BoxReading) -> BoxReading:
    """Return how boxes are read if the user answered a question about them by ``--columns``."""
    form, unit = (options.role(f"box_{kind}") for kind in ("form", "unit"))
    for name, value, allowed in (("box_form", form, FORMS), ("box_unit", unit, UNITS)):
        if value is not None and value not in allowed:
            raise InputError(f"--columns {name}={value}: use {', '.join(allowed)}")
    if form is None and unit is None:
        return reading
    chosen: dict[str, Any] = {"form": form or reading.form, "unit": unit or reading.unit}
    return replace(reading, affirmed=True, **chosen)


def build(
    source: Source,
    *,
    coverage: str = "all",
    frame: tuple[float, float] | None = None,
) -> SourceTables:
    """Check the statements of a source and make its tables of them.

    Images whose statements contradict each other, or that have a box that cannot be used, are left
    out: their findings are unknown, not absent.

    Args:
        source: Source with its images, patients among their columns, and all that is stated.
        coverage: Which labels say that all lesions have a box: ``all`` for those that are absent or
            have a box; ``localised`` for these alone of findings with any box; ``boxed`` for those
            with a box; empty if boxes are complete nowhere.
        frame: Width and height (px) of the images that the boxes are of, if a file of another size
            is no image of the source; None if each image is its own frame.

    Raises:
        InputError: Boxes are probably in another form or unit, or every image is left out.
    """
    statements = source.statements
    rows = _without_idle_absences(statements.frame())
    rows = rows[is_member(rows["image_id"], source.images["image_id"])].reset_index(drop=True)
    _exclude_normal(source, rows, statements.normal)
    boxes = _boxes(source, rows[rows["boxed"]].reset_index(drop=True), frame)
    _exclude_contradictions(source, rows)
    paths = _paths(source.images)
    images, rows, boxes = (source.keep(table) for table in (source.images, rows, boxes))
    if images.empty:
        first = next((f"; {paths.get(i, i)}: {why}" for i, why in source.excluded.items()), "")
        raise InputError(f"{source.root}: no image can be used{first}")
    rows = rows.sort_values("boxed", kind="stable")  # the origin of a label is not that of its box
    findings = rows.drop_duplicates(LABEL_KEY).sort_index()
    findings = findings[[*LABEL_KEY, "state", "origin", "implied"]].reset_index(drop=True)
    findings, boxes = with_reference(findings, boxes, source.options.reference)
    if not findings["implied"].any():
        findings = findings.drop(columns="implied")
    targets = source.targets
    if targets is None:
        targets = targets_from_findings(sorted(set(findings["finding"])))
    return SourceTables(
        format=source.format,
        root=source.root,
        images=images.reset_index(drop=True),
        findings=findings,
        targets=targets,
        boxes=boxes,
        box_coverage=_coverage(findings, boxes, coverage, statements.partial),
        excluded=_excluded_table(source, paths),
        split=source.keep(source.split),
        official=source.keep(source.official),
        notes=tuple(source.notes),
        patient_notes=tuple(source.patient_notes),
        read_as=tuple(source.read_as),
        implied_note=source.implied_note,
    )


def _paths(images: pd.DataFrame) -> dict[str, Any]:
    """Return the path of each image with a file by its id."""
    if "path" not in images:
        return {}
    named = images.dropna(subset="path")
    return dict(zip(named["image_id"], named["path"], strict=True))


def _excluded_table(source: Source, paths: dict[str, Any]) -> pd.DataFrame:
    if not source.excluded:
        return empty_table("excluded")
    return pd.DataFrame(
        {
            "path": [paths.get(image_id, image_id) for image_id in source.excluded],
            "stage": "labels",
            "reason": list(source.excluded.values()),
        }
    )


def _without_idle_absences(rows: pd.DataFrame) -> pd.DataFrame:
    """Drop the implied absences of findings about which the same reader states something."""
    stated = rows.loc[~rows["implied"], LABEL_KEY].drop_duplicates()
    return rows[~(rows["implied"] & are_rows_of(rows[LABEL_KEY], stated))]


def _exclude_normal(source: Source, rows: pd.DataFrame, normal: set[tuple[str, str]]) -> None:
    """Leave out images of which one reader states a finding, and that nothing is found."""
    present = rows[(rows["state"] == "present") | rows["boxed"]]
    present = present[~is_member(present["finding"], dictionary()["nothing_on"])]
    readers = pd.MultiIndex.from_frame(present[["image_id", "reader"]])
    contradicted = readers.isin(pd.MultiIndex.from_tuples(sorted(normal), names=readers.names))
    source.exclude(present.loc[contradicted, "image_id"], "'no finding' beside a finding")


def _exclude_contradictions(source: Source, rows: pd.DataFrame) -> None:
    """Leave out images about which one reader says two things."""
    labels = rows[~rows["boxed"]]
    boxed = rows.loc[rows["boxed"], [*LABEL_KEY, "state"]]
    denied = labels.loc[labels["state"] == "absent", LABEL_KEY].merge(boxed[LABEL_KEY])
    absent = boxed.loc[boxed["state"] == "absent", "image_id"]
    source.exclude([*absent, *denied["image_id"]], "box of a finding that is labelled absent")
    is_alone = ~are_rows_of(boxed[LABEL_KEY], labels[LABEL_KEY])
    states = pd.concat([labels[[*LABEL_KEY, "state"]], boxed[is_alone]]).drop_duplicates()
    twice = states.duplicated(LABEL_KEY)
    source.exclude(states.loc[twice, "image_id"], "two states for one finding")


def _boxes(
    source: Source,
    rows: pd.DataFrame,
    frame: tuple[float, float] | None,
) -> pd.DataFrame:
    """Return the boxes as corners in px of the upright image; images of wrong boxes are left out.

    With the option ``raw_boxes`` they are turned with their images, as EXIF says.
    """
    sizes, misfits = _box_sizes(source, rows["image_id"])
    framed = sizes if frame is None else np.tile(np.asarray(frame), (len(rows), 1))
    reading = user_reading(source.options, source.statements.reading)
    reading = replace(reading, where=reading.where or str(source.root))
    unread = source.statements.unread
    checked = check_boxes(
        rows[BOX].to_numpy(np.float64), reading, framed, rows["image_id"].tolist(), unread
    )
    source.notes += checked.notes
    corners = checked.corners
    faults = np.where(checked.faults == "", misfits, checked.faults)
    if frame is not None:
        other = np.isfinite(sizes).all(axis=1) & (sizes != np.asarray(frame)).any(axis=1)
        text = f"boxes are of {frame[0]:g} x {frame[1]:g} px, and the file is not"
        faults = np.where(other & (faults == ""), text, faults)
    for row in np.flatnonzero(faults != ""):
        source.exclude([rows["image_id"].iloc[row]], faults[row])
    if source.options.raw_boxes:
        corners = _turn(source, rows["image_id"], corners)
    table = rows[LABEL_KEY].assign(**dict(zip(EDGES, corners.T, strict=True)))
    once = table.drop_duplicates(ignore_index=True)
    if len(once) < len(table):
        text = "boxes are repeats of another box: these are dropped"
        source.notes.append(counted_phrase(len(table) - len(once), text))
    return once


def _box_sizes(source: Source, ids: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return the size of the image of each box, and why it is not the stated one.

    Sizes are read from the files, else taken from the labels: shape ``(N, 2)``, NaN where unknown.
    The reasons, empty texts in most cases, have the shape ``(N,)``.
    """
    images = source.images[is_member(source.images["image_id"], ids.unique())]
    sides = images.reindex(columns=["width", "height"]).astype("float64").to_numpy()
    paths = images["path"] if "path" in images else pd.Series(None, index=images.index)
    measured = {
        image_id: _size_of_image(source, path, stated)
        for image_id, path, stated in zip(images["image_id"], paths, sides, strict=True)
    }
    sizes = np.full((len(ids), 2), np.nan)
    reasons = np.full(len(ids), "", dtype=object)
    for row, image_id in enumerate(ids):
        sizes[row], reasons[row] = measured[image_id]
    return sizes, reasons


def _size_of_image(source: Source, path: Any, stated: np.ndarray) -> tuple[np.ndarray, str]:
    """Return the size of an image in px, and why it is not the stated one, else ""."""
    if not isinstance(path, str) or source.root.is_file():
        return stated, ""
    try:
        size = source.labelled_size(path)
    except InputError:  # found again, and listed, when the image is decoded
        return stated, ""
    for name, side, actual in zip(("width", "height"), stated, size, strict=True):
        if not np.isnan(side) and side != actual:
            reason = f"not of the stated size: {name} {side:g}, the image has {actual} px"
            return np.array(size), reason
    return np.array(size), ""


def _turn(source: Source, ids: pd.Series, corners: np.ndarray) -> np.ndarray:
    """Turn boxes and stated sizes of stored pixels as EXIF turns their images."""
    images = source.images
    corners = corners.copy()
    sides = images.reindex(columns=["width", "height"]).to_numpy(dtype="float64").copy()
    rows_of_image = pd.Series(range(len(ids))).groupby(ids.to_numpy()).indices
    for row, (image_id, path) in enumerate(zip(images["image_id"], images["path"], strict=True)):
        try:
            width, height, turn = source.stored_size(path)
        except InputError:  # found again, and listed, when the image is decoded
            continue
        if turn in SIDEWAYS:
            sides[row] = sides[row, ::-1].copy()
        rows = rows_of_image.get(image_id)
        if turn > 1 and rows is not None:
            corners[rows] = upright_boxes(corners[rows], (width, height), turn)
    if {"width", "height"} <= set(images.columns):
        source.images = images.assign(width=sides[:, 0], height=sides[:, 1])
    return corners


def _coverage(
    findings: pd.DataFrame, boxes: pd.DataFrame, kind: str, partial: set[tuple[str, str]]
) -> pd.DataFrame:
    """List the images and findings on which a reader has drawn a box around every lesion."""
    if not kind:
        return empty_table("box_coverage")
    boxed = are_rows_of(findings[LABEL_KEY], boxes[LABEL_KEY])
    is_partial = np.zeros(len(findings), dtype=bool)
    if partial:
        pairs = pd.MultiIndex.from_frame(findings[LABEL_KEY[:2]])
        is_partial = pairs.isin(pd.MultiIndex.from_tuples(sorted(partial)))
    is_absent = (findings["state"] == "absent").to_numpy(copy=True)
    if kind == "boxed":
        is_absent[:] = False
    elif kind == "localised":
        is_absent &= is_member(findings["finding"], boxes["finding"])
    is_present = (findings["state"] == "present").to_numpy()
    rows = findings.loc[is_absent | (is_present & (boxed | is_partial)), LABEL_KEY]
    said = np.where(is_partial, "some", "all")[rows.index]
    return rows.assign(coverage=said).astype(TEXT).reset_index(drop=True)


def note_unlabelled(source: Source, *, unused: bool, remedy: str = "") -> None:
    """Note the images without a label, and with `unused` give them that role if none has one.

    `remedy` says how a file of this format calls an image negative.
    """
    ids = source.keep(source.images)["image_id"]
    labelled = source.statements.frame()["image_id"].unique()
    unlabelled = ids[~is_member(ids, labelled)]
    if unlabelled.empty:
        return
    text = "images have no label: their findings are unknown, not absent"
    if unused and source.split.empty:
        text = "images have no label: such images are unused, since their findings are unknown"
        roles = pd.DataFrame({"image_id": unlabelled, "role": "unused"}, dtype=TEXT)
        source.split = roles.reset_index(drop=True)
    text += f"; {remedy}" if remedy else ""
    source.notes.append(counted_phrase(len(unlabelled), text))
