"""Statements, which readers of formats return, and the way from them to the tables of a data set.

A statement is a row: a reader says of a finding on an image that it is present, absent or
uncertain, and where. What is checked of labels and boxes is checked here, for all formats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.box_check import (
    ENOUGH_COPIES,
    FORMS,
    UNITS,
    BoxReading,
    check_boxes,
    misfit,
    scaled_to_files,
    size_text,
)
from cxr_compare.data_prep.base.boxes import EDGES, SIDEWAYS, are_scaled, upright_boxes
from cxr_compare.data_prep.base.errors import InputError, counted, counted_phrase
from cxr_compare.data_prep.base.ids import TEXT, are_rows_of, is_member
from cxr_compare.data_prep.base.tables import FINDING_KEY, LABEL_KEY, REFERENCE_READER
from cxr_compare.data_prep.sources.image_files import ImageIndex, stem, stored_size, unfit
from cxr_compare.data_prep.sources.readers import with_reference
from cxr_compare.data_prep.sources.source import (
    ReadOptions,
    Show,
    SourceTables,
    targets_from_findings,
    unlabelled_line,
)
from cxr_compare.data_prep.sources.words import dictionary

BOX = ["b1", "b2", "b3", "b4"]
STATEMENT = ["image_id", "finding", "state", "reader", "origin", *BOX, "boxed", "implied"]
"""Columns of a table of statements: four numbers of a box (NaN without one), and True if the row
has a box, and if it only follows from what others say."""
_MOST_REASONS = 3  # for which images were left out, in one message
_TYPES = {
    **dict.fromkeys(STATEMENT[:5], TEXT),
    **dict.fromkeys(BOX, "float64"),
    **dict.fromkeys(STATEMENT[-2:], "bool"),
}
_NO_STATEMENTS = pd.DataFrame(columns=STATEMENT).astype(_TYPES)


class Statements:
    """The statements of a source, gathered row by row or table by table.

    Attributes:
        reading: How the numbers of boxes are read.
        unread: Image and reason of each mark that cannot be read.
        partial: Images and findings of which only some lesions are boxed.
        normal: Images and readers who say that nothing is found.
    """

    def __init__(self) -> None:
        self.reading = BoxReading()
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
        """Add a table of statements; columns of boxes, ``boxed`` and ``implied`` may lack."""
        self._tables.append(table)

    def frame(self) -> pd.DataFrame:
        """Return all statements: columns `STATEMENT`."""
        rows = pd.DataFrame.from_records(self._rows, columns=STATEMENT)
        return joined_statements([rows, *self._tables] if self._rows else self._tables)


def joined_statements(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Join tables of statements to one with all columns."""
    typed = [_NO_STATEMENTS]
    for table in tables:
        has_numbers = table.reindex(columns=BOX).notna().any(axis=1)
        full = table.assign(
            boxed=table.get("boxed", has_numbers), implied=table.get("implied", False)
        )
        full = full.reindex(columns=STATEMENT)
        untyped = {name: kind for name, kind in _TYPES.items() if full[name].dtype != kind}
        typed.append(full.astype(untyped))
    return pd.concat(typed, ignore_index=True)


@dataclass
class Source(SourceTables):
    """A source while its reader gathers images, statements and notes; `build` makes its tables.

    Attributes:
        options: Options of the user.
        show: Shows a line to the user.
        index: Image files of the folder; None if the source is one file.
        statements: What readers say of the images.
        classes: Labels that could be named, in their order.
        counts: Number of cases by the phrase that tells of them.
        left_out: Reason by image, or by file without an image, that is left out.
        label_files: Label files that were read, for messages.
    """

    options: ReadOptions = field(default_factory=ReadOptions)
    show: Show = lambda line: None
    index: ImageIndex | None = None
    statements: Statements = field(default_factory=Statements)
    classes: dict[str, None] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, str] = field(default_factory=dict)
    label_files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list, kw_only=True)
    patient_notes: list[str] = field(default_factory=list, kw_only=True)
    read_as: list[str] = field(default_factory=list, kw_only=True)
    _sizes: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def say(self, line: str) -> None:
        """Show a line on how labels are read, and record it."""
        self.show(line)
        self.read_as.append(line)

    def exclude(self, ids: Iterable[Any], reason: str) -> None:
        """Leave images, or files without an image, out; the first reason of each counts."""
        for image_id in ids:
            self.left_out.setdefault(str(image_id), reason)

    def keep(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of a table without those of images that are left out."""
        return table[~is_member(table["image_id"], self.left_out)].reset_index(drop=True)

    def stored_size(self, path: str) -> tuple[int, int, int]:
        """Return width and height (px) of an image as stored, and its EXIF orientation."""
        if path not in self._sizes:
            self._sizes[path] = stored_size(self.root / path)
        return self._sizes[path]

    def labelled_size(self, path: str) -> tuple[int, int]:
        """Return width and height (px) of the image that boxes are of: upright, or as stored."""
        width, height, turn = self.stored_size(path)
        is_sideways = turn in SIDEWAYS and not self.options.raw_boxes
        return (height, width) if is_sideways else (width, height)

    @property
    def files(self) -> ImageIndex:
        """Image files of the user's folder."""
        if self.index is None:
            raise InputError(f"{self.root}: a file; give the folder that holds it")
        return self.index

    def add_names(self, names: Iterable[str], taken: Iterable[str] = ()) -> None:
        """Let names that are of no image file be found by `match_ids`, and note how they differ.

        Files that are `taken` are of other names.
        """
        note = self.files.add_names(names, taken)
        self.notes += [note] if note else []

    def find_image(
        self, name: str, file: str, folders: Sequence[str], role: str | None = None
    ) -> str | None:
        """Return the path of the image that a label file names; None if it is not exactly one."""
        matches = self.files.by_name(name, folders, role)
        if len(matches) == 1:
            return matches[0]
        reason = unfit(matches)
        near = [] if matches else self.files.by_stem(stem(name), ())
        if near:
            reason += f"; {near[0]} has its name, but is in another folder: correct the path"
        self.exclude([f"{file}: {name}"], reason)
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
    for kind, allowed in (("form", FORMS), ("unit", UNITS)):
        answer: Any = options.role(f"box_{kind}")
        if answer is None:
            continue
        if answer not in allowed:
            raise InputError(f"--columns box_{kind}={answer}: use {', '.join(allowed)}")
        reading = replace(reading, affirmed=True, **{kind: answer})
    return reading


def build(
    source: Source,
    *,
    coverage: str | Sequence[str] = "all",
    frame: tuple[float, float] | None = None,
    resized: bool = False,
) -> SourceTables:
    """Check the statements of a source and make its tables of them.

    `coverage` says which findings have no box where they are absent: ``all``, those that are
    ``localised`` anywhere, or some by name if anything is boxed. `frame` is the size in px that the
    boxes of all images are of; files of another size are left out. With `resized`, files of any
    size are copies of images that the boxes are of, else files of the stated shape are.
    """
    rows = source.statements.frame()
    stated = rows.loc[~rows["implied"], LABEL_KEY].drop_duplicates()
    rows = rows[~(rows["implied"] & are_rows_of(rows[LABEL_KEY], stated))]
    rows = rows[is_member(rows["image_id"], source.images["image_id"])].reset_index(drop=True)
    _exclude_contradictions(source, rows)
    boxes = _boxes(source, rows[rows["boxed"]].reset_index(drop=True), frame, resized)
    paths = source.images.dropna(subset="path").set_index("image_id")["path"]
    reasons = {paths.get(name, name): reason for name, reason in source.left_out.items()}
    source.images = source.keep(source.images)
    if source.images.empty:
        first = next((f"; {path}: {reason}" for path, reason in reasons.items()), "")
        raise InputError(f"{source.root}: no image can be used{first}")
    if reasons:
        excluded = {"path": list(reasons), "stage": "labels", "reason": list(reasons.values())}
        source.excluded = pd.DataFrame(excluded)
    rows = source.keep(rows)
    rows = rows.sort_values("boxed", kind="stable")  # the origin of a label is not that of its box
    findings = rows.drop_duplicates(LABEL_KEY).sort_index(ignore_index=True)
    findings = findings[[*LABEL_KEY, "state", "origin", "implied"]]
    rule = source.options.reference
    source.findings, source.boxes = with_reference(findings, source.keep(boxes), rule)
    source.box_coverage = _coverage(source, coverage)
    source.split, source.official = source.keep(source.split), source.keep(source.official)
    if not source.targets:
        source.targets = targets_from_findings(sorted(set(source.findings["finding"])))
    source.statements = Statements()  # not kept while pixels are decoded
    return source


def _exclude_contradictions(source: Source, rows: pd.DataFrame) -> None:
    """Leave out images about which one reader says two things."""
    labels, boxed = rows[~rows["boxed"]], rows[rows["boxed"]]
    named = rows[(rows["state"] == "present") | rows["boxed"]]
    named = named[~is_member(named["finding"], dictionary()["nothing_on"])]
    normal = pd.DataFrame(source.statements.normal, columns=["image_id", "reader"], dtype=TEXT)
    is_normal = are_rows_of(named[["image_id", "reader"]], normal)
    source.exclude(named.loc[is_normal, "image_id"], "'no finding' beside a finding")
    is_denied = are_rows_of(boxed[LABEL_KEY], rows.loc[rows["state"] == "absent", LABEL_KEY])
    source.exclude(boxed.loc[is_denied, "image_id"], "box of a finding that is labelled absent")
    is_alone = ~are_rows_of(boxed[LABEL_KEY], labels[LABEL_KEY])  # a label counts before its box
    states = pd.concat([labels, boxed[is_alone]])[[*LABEL_KEY, "state"]].drop_duplicates()
    is_second = states.duplicated(LABEL_KEY)
    source.exclude(states.loc[is_second, "image_id"], "two states for one finding")


def _boxes(
    source: Source, rows: pd.DataFrame, frame: tuple[float, float] | None, resized: bool
) -> pd.DataFrame:
    """Return the boxes as corners in px of the upright image; images of wrong boxes leave."""
    ids = rows["image_id"]
    reading = user_reading(source.options, source.statements.reading)
    reading = replace(reading, where=reading.where or str(source.root))
    stated, actual = _box_sizes(source, ids, frame)
    values = rows[BOX].to_numpy(np.float64)
    if resized and ids.nunique() >= ENOUGH_COPIES and (values[:, 2:] <= actual + 1).all():
        stated = actual  # the boxes were resized with the images
    unread = source.statements.unread
    files = actual if frame is None else None
    checked = check_boxes(values, reading, stated, ids.tolist(), unread, files)
    source.notes += checked.notes
    for row in np.flatnonzero(checked.faults != ""):
        source.exclude([ids[row]], checked.faults[row])
    is_other = np.isfinite(stated).all(axis=1) & (stated != actual).any(axis=1)
    is_copy = is_other
    if not resized:
        is_copy = are_scaled(stated, actual) if frame is None else np.zeros_like(is_other)
    is_unlike = is_other & ~is_copy
    for row in np.flatnonzero(is_unlike):
        source.exclude([ids[row]], misfit(stated[row], actual[row]))
    if frame is None and is_unlike.any():
        line = _unlike_line(ids[is_unlike].tolist(), stated[is_unlike], actual[is_unlike])
        if is_unlike.all():
            raise InputError(f"{reading.where}: {line}")
        source.notes.append(line)
    if resized:
        source.images = source.images.drop(columns=["width", "height"], errors="ignore")
    corners, notes = scaled_to_files(checked.corners, stated, actual, is_copy, ids.tolist())
    source.notes += notes
    _state_sizes(source, ids[is_copy], actual[is_copy])
    if source.options.raw_boxes:
        corners = _turned(source, ids, corners)
    table = rows[LABEL_KEY].assign(**dict(zip(EDGES, corners.T, strict=True)))
    once = table.drop_duplicates(ignore_index=True)
    if len(once) < len(table):
        text = "boxes are repeats of another box: these are dropped"
        source.notes.append(counted_phrase(len(table) - len(once), text))
    return once


def _unlike_line(images: Sequence[str], stated: np.ndarray, actual: np.ndarray) -> str:
    """Return what to do about boxes on images of another shape than the labels state."""
    (width, height), (own_width, own_height) = stated[0], actual[0]
    text = (
        "images have boxes that cannot be used, since the labels state another shape of the image. "
        f"Image '{images[0]}' has {size_text(actual[0])}, and the labels state "
        f"{size_text(stated[0])}: if its boxes are px of the image, remove the stated size; if the "
        "image was stretched, write boxes and size in px of the image (x times "
        f"{own_width:g} / {width:g}, y times {own_height:g} / {height:g})"
    )
    return counted_phrase(len({*images}), text)


def _box_sizes(
    source: Source, ids: pd.Series, frame: tuple[float, float] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the size in px that each box is of, and that of the file, each ``(N, 2)``."""
    images = source.images[is_member(source.images["image_id"], ids.unique())]
    images = images.reindex(columns=["image_id", "path", "width", "height"])
    has_files = source.root.is_dir()
    sizes: dict[str, np.ndarray] = {}
    for image_id, path, *sides in images.itertuples(index=False):
        stated = actual = np.array(frame or sides, dtype=np.float64)
        if has_files and isinstance(path, str):
            with suppress(InputError):  # found again, and listed, when the image is decoded
                actual = np.array(source.labelled_size(path), dtype=np.float64)
        sizes[image_id] = np.array([np.where(np.isfinite(stated), stated, actual), actual])
    both = np.array([sizes[image_id] for image_id in ids], dtype=np.float64).reshape(-1, 2, 2)
    return both[:, 0], both[:, 1]


def _state_sizes(source: Source, ids: pd.Series, sizes: np.ndarray) -> None:
    """Replace the stated sizes of images by those of their files, of which they are copies."""
    sides = ["width", "height"]
    if len(ids) and set(sides) <= set(source.images):
        own_sizes = pd.DataFrame(sizes, ids, sides)
        own_sizes = own_sizes[~own_sizes.index.duplicated()]
        images = source.images.set_index("image_id")
        images.loc[own_sizes.index, sides] = own_sizes
        source.images = images.reset_index()


def _turned(source: Source, ids: pd.Series, corners: np.ndarray) -> np.ndarray:
    """Turn boxes and stated sizes of stored pixels as EXIF turns their images."""
    corners, images = corners.copy(), source.images.copy()
    for row, image_id, path in images[["image_id", "path"]].itertuples():
        try:
            width, height, turn = source.stored_size(path)
        except InputError:  # found again, and listed, when the image is decoded
            continue
        own = (ids == image_id).to_numpy()
        if turn > 1 and own.any():
            corners[own] = upright_boxes(corners[own], (width, height), turn)
        if turn in SIDEWAYS and {"width", "height"} <= set(images.columns):
            images.loc[row, ["width", "height"]] = images.loc[row, ["height", "width"]].tolist()
    source.images = images
    return corners


def _coverage(source: Source, complete: str | Sequence[str]) -> pd.DataFrame:
    """List the images and findings on which a reader has drawn a box around every lesion."""
    findings, boxes = source.findings, source.boxes
    if complete == "all":
        complete = findings["finding"].unique().tolist()
    elif complete == "localised" or boxes.empty:
        complete = boxes["finding"].unique().tolist()
    is_boxed = are_rows_of(findings[LABEL_KEY], boxes[LABEL_KEY])
    some = pd.DataFrame(sorted(source.statements.partial), columns=FINDING_KEY, dtype=TEXT)
    is_partial = are_rows_of(findings[FINDING_KEY], some)
    is_covered = (findings["state"] == "absent") & is_member(findings["finding"], complete)
    is_covered |= (findings["state"] == "present") & (is_boxed | is_partial)
    coverage = np.where(is_partial, "some", "all")
    rows = findings[LABEL_KEY].assign(coverage=coverage)[is_covered]
    return rows.astype(TEXT).reset_index(drop=True)


def note_unlabelled(source: Source, *, unused: bool, way: str) -> None:
    """Note the images without a label, and with `unused` give them that role if none has one.

    `way` says how they are called negative.
    """
    ids = source.keep(source.images)["image_id"]
    unlabelled = ids[~is_member(ids, source.statements.frame()["image_id"].unique())]
    if unlabelled.empty:
        return
    taken = "unknown, not negative"
    if unused and source.split.empty:
        taken = "unknown, so that no split uses them"
        source.split = pd.DataFrame({"image_id": unlabelled, "role": "unused"}, dtype=TEXT)
    source.notes.append(unlabelled_line(len(unlabelled), taken, way))


def require_finding(source: Source) -> None:
    """Refuse the tables of a source that has labels, and in which no image shows a finding."""
    states = source.findings["state"]
    if len(states) and not is_member(states, ["present", "uncertain"]).any():
        raise no_finding(source, str(source.root), "no image shows a finding")


def no_finding(source: Source, where: str, problem: str) -> InputError:
    """Return the error of a source in which no image shows a finding, with what was left out."""
    first: dict[str, str] = {}
    for name, reason in source.left_out.items():
        first.setdefault(reason, name)
    reasons = [f"{name}: {reason}" for reason, name in first.items()][:_MOST_REASONS]
    left_out = f" ({counted(len(source.left_out), 'image')} left out: {'; '.join(reasons)})"
    return InputError(
        f"{where}: {problem}{left_out if reasons else ''}: there is no finding to learn; add "
        "images that show one"
    )
