"""The one way from label files with boxes (COCO, YOLO, VOC, labelme) to the tables of a data set.

A format yields the labels of one image after the other, as its files write them. In an image with
labels, every class that they could have named and did not is absent. The findings of an image
without a label file are unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.box_numbers import finite_or_nan
from cxr_compare.data_prep.contracts.box_readings import BoxReading
from cxr_compare.data_prep.contracts.errors import InputError, counted_phrase
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.limits import require_few_names
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.image_files import (
    ImageIndex,
    ids_of_paths,
    require_unique_ids,
)
from cxr_compare.data_prep.sources.label_names import name_labels
from cxr_compare.data_prep.sources.label_values import dictionary, normal_classes
from cxr_compare.data_prep.sources.patients import add_patients
from cxr_compare.data_prep.sources.source_tables import ReadOptions, Show, SourceTables
from cxr_compare.data_prep.sources.statements import Source, Statements, build, note_unlabelled

LONGEST_SIDE_PX = 1_000_000
"""Longest side of an image that a label file may state, px."""


@dataclass(frozen=True)
class Mark:
    """One annotation of an image.

    Attributes:
        label: Label as the file writes it.
        box: Four numbers in the form of the format; None for a label of the whole image.
        reader: Name of the person who made it.
        shares_box: True if the finding is present and its lesions have no box each, as in a crowd.
    """

    label: str
    box: Sequence[float] | None = None
    reader: str = REFERENCE_READER
    shares_box: bool = False


@dataclass
class ImageLabels:
    """Labels of one image in one label file.

    Attributes:
        image: Path of the image.
        file: Path of the label file, for messages.
        marks: Annotations of the image.
        absent: Labels that are absent where no mark names them; None for all of the source.
        readers: Persons who read the image. Nothing is absent for anybody else.
        facts: Values of columns of the images table, such as ``width`` and ``patient_id``.
        role: Role of the image in the publisher's split.
    """

    image: str
    file: str
    marks: list[Mark] = field(default_factory=list)
    absent: Collection[str] | None = ()
    readers: Collection[str] = (REFERENCE_READER,)
    facts: dict[str, Any] = field(default_factory=dict)
    role: str | None = None


@dataclass
class LabelFiles:
    """Label files of a source while they are read.

    Attributes:
        source: Source with the user's folder and options, notes and excluded images.
        reading: How boxes are read.
        index: Images of the folder; None if one file is read alone.
        classes: Labels that files name as classes, in the order in which they were found.
        counts: Number of cases by text of the note.
        unread: Path of the image and the reason, for each box that could not be read.
    """

    source: Source
    reading: BoxReading
    index: ImageIndex | None
    classes: dict[str, None] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    unread: list[tuple[str, str]] = field(default_factory=list)

    @property
    def images(self) -> ImageIndex:
        """Images of the user's folder."""
        if self.index is None:
            raise InputError(f"{self.source.root}: a file; give the folder that holds it")
        return self.index

    def cannot_read(self, image: str, reason: str, n_boxes: int = 1, position: str = "") -> None:
        """Leave out an image of which boxes cannot be read: its findings are unknown."""
        self.source.exclude([image], reason)
        self.unread += [(image, f"{position}: {reason}" if position else reason)] * n_boxes


ReadLabels = Callable[[LabelFiles], Iterator[ImageLabels]]


def read_annotations(
    name: str,
    read: ReadLabels,
    root: Path,
    options: ReadOptions,
    show: Show,
    reading: BoxReading | None = None,
    roles: Collection[str] = (),
) -> SourceTables:
    """Read a folder of images with label files, or one file whose images need not exist.

    Args:
        name: Name of the format.
        read: Function that yields the labels of each image.
        root: The folder or file.
        options: Options of the user.
        show: Function that shows the user a line.
        reading: How the format writes boxes; None for corners in px.
        roles: Roles of ``--columns`` that the format reads itself.

    Raises:
        InputError: Boxes are not understood, or no image can be used.
    """
    for text in options.columns:
        if text.partition("=")[0] not in ("box_form", "box_unit", *roles):
            raise InputError(f"--columns {text}: --format {name} has no columns; leave it out")
    source = Source(name, root, options, show)
    index = None if root.is_file() else ImageIndex(root)
    files = LabelFiles(source, reading or BoxReading(), index)
    gathered = list(read(files))
    paths = list(dict.fromkeys(labels.image for labels in gathered))
    if not paths:
        first = next((f"{path}: {why}" for path, why in source.excluded.items()), "no label file")
        raise InputError(f"{root}: no image can be used; {first}")
    ids = _name_images(source, paths)
    facts: dict[str, dict[str, Any]] = {path: {} for path in paths}
    for labels in gathered:
        facts[labels.image] = labels.facts | facts[labels.image]
    source.excluded = {ids.get(path, path): why for path, why in source.excluded.items()}
    _set_images(source, facts, ids)
    statements = Statements(files.reading)
    statements.unread = [(ids.get(image, image), reason) for image, reason in files.unread]
    _add_statements(source, statements, gathered, ids, files)
    source.notes[:0] = [counted_phrase(n, text) for text, n in files.counts.items() if n]
    note_unlabelled(source, statements, unused=True)
    source.official = _official(source, gathered, ids)
    source.implied_note = "findings are absent because a label file has no box of them"
    tables = build(source, statements)
    if tables.findings.empty:
        first = next(iter(source.excluded.values()), "no label")
        raise InputError(f"{root}: no image can be used; {first}")
    if root.is_file():
        missing = pd.Series(index=tables.images.index, dtype=TEXT)
        tables.images["path"] = missing
    return tables


def _name_images(source: Source, paths: Sequence[str]) -> dict[str, str]:
    """Return the id of each image by its path."""
    frame = pd.DataFrame({"path": paths}, dtype=TEXT)
    frame["image_id"] = ids_of_paths(frame["path"])
    require_unique_ids(frame, source.root)
    return dict(zip(frame["path"], frame["image_id"], strict=True))


def _set_images(source: Source, facts: dict[str, dict[str, Any]], ids: dict[str, str]) -> None:
    """Set the images of the source, with the facts of each image by path."""
    space = source.root.resolve().name
    paths = pd.Series(list(facts), dtype=TEXT)
    table = pd.DataFrame(list(facts.values()), index=paths.index).dropna(axis=1, how="all")
    for column in {"patient_id", "study_id", "view", "sex"} & set(table.columns):
        table[column] = table[column].astype(TEXT)
    named = {"image_id": paths.map(ids).astype(TEXT), "path": paths, "source": space}
    source.images = table.assign(**named)
    add_patients(source, space)


@dataclass
class _Opinion:
    """Opinion of one reader on one finding of one image."""

    state: str
    boxes: list[tuple[float, ...]] = field(default_factory=list)
    shares_box: bool = False
    implied: bool = False


def _add_statements(
    source: Source,
    statements: Statements,
    gathered: Sequence[ImageLabels],
    ids: dict[str, str],
    files: LabelFiles,
) -> None:
    """Add the statements of all label files, and what is absent because no mark names it."""
    labels = [*files.classes, *(mark.label for item in gathered for mark in item.marks)]
    labels += [label for item in gathered for label in item.absent or ()]
    labels = list(dict.fromkeys(labels))
    require_few_names(labels, source.root)
    meanings = _meanings(labels, str(source.root), source.show)
    findings = {finding for finding, _ in meanings.values() if finding}
    known: dict[tuple[str, str], tuple[str, dict[str, _Opinion]]] = {}
    for item in gathered:
        image_id = ids[item.image]
        absent = findings
        if item.absent is not None:
            absent = {meanings[label][0] for label in item.absent} - {""}
        for reader in dict.fromkeys([*item.readers, *(mark.reader for mark in item.marks)]):
            opinions, fault = _opinions(item, reader, meanings, absent, files)
            first, earlier = known.setdefault((image_id, reader), (item.file, {}))
            shared = earlier.keys() & opinions.keys()
            if any(sorted(earlier[f].boxes) != sorted(opinions[f].boxes) for f in shared):
                fault = fault or f"boxed differently in {first} and {item.file}"
            if fault:
                source.exclude([image_id], fault)
            known[image_id, reader] = (first, opinions | earlier)
    for (image_id, reader), (_, said) in known.items():
        for finding, opinion in said.items():
            add = partial(statements.add, image_id, finding, reader=reader, origin="boxes")
            if opinion.shares_box:
                statements.partial.add((image_id, finding))
            for box in opinion.boxes:
                add(box, state=opinion.state)
            if not opinion.boxes or opinion.shares_box:
                add(state=opinion.state, implied=opinion.implied)


def _opinions(
    item: ImageLabels,
    reader: str,
    meanings: dict[str, tuple[str, str]],
    absent: Collection[str],
    files: LabelFiles,
) -> tuple[dict[str, _Opinion], str]:
    """Return what one reader says of each finding of an image, and what contradicts itself."""
    opinions: dict[str, _Opinion] = {}
    states = set()
    fault = ""
    for mark in item.marks:
        finding, state = meanings[mark.label]
        if mark.reader != reader:
            continue
        states.add(state)
        if not finding:
            is_dropped = state == "normal" and mark.box is not None
            text = "boxes are of a class that means 'no finding': these are dropped"
            files.counts[text] += is_dropped
            continue
        opinion = opinions.setdefault(finding, _Opinion(state))
        if opinion.state != state:
            fault = "two states for one finding"
        if state == "absent":
            is_dropped = mark.box is not None
            files.counts["boxes are of a class that says 'absent': these are dropped"] += is_dropped
            continue
        opinion.shares_box |= mark.shares_box
        if mark.box is not None:
            opinion.boxes.append(tuple(mark.box))
    if {"normal", "present"} <= states:
        fault = "'no finding' beside a finding"
    if reader in item.readers and "unknown" not in states:
        for finding in sorted(set(absent) - opinions.keys()):
            opinions[finding] = _Opinion("absent", implied=True)
    return opinions, fault


def _meanings(labels: Sequence[str], where: str, show: Show) -> dict[str, tuple[str, str]]:
    """Return the finding and the state that each label means.

    The state is present or absent, or ``normal`` or ``unknown`` with an empty finding.
    """
    unknown = dictionary()["unknown"]
    known = [label for label in labels if label.strip().lower() not in unknown]
    named = name_labels(known, where, "class")
    for note in named.notes:
        show(note)
    meanings = dict.fromkeys(labels, ("", "unknown"))
    for label in known:
        finding, state = named.labels[label]
        meanings[label] = ("", "normal") if finding in normal_classes() else (finding, state)
    return meanings


def _official(source: Source, gathered: Sequence[ImageLabels], ids: dict[str, str]) -> pd.DataFrame:
    """Return the published role of every image; empty without two different roles."""
    rows = [(ids[item.image], item.role) for item in gathered if item.role]
    published = pd.DataFrame(rows, columns=["image_id", "role"], dtype=TEXT).drop_duplicates()
    images = source.keep(source.images)
    published = published[is_member(published["image_id"], images["image_id"])]
    repeated = published["image_id"].duplicated(keep=False)
    both = int(published.loc[repeated, "image_id"].nunique())
    if both:
        text = "images have two roles in the published split: these are unused in it"
        source.notes.append(counted_phrase(both, text))
    role = published[~repeated].set_index("image_id")["role"]
    if role[role != "unused"].nunique() < 2:
        return pd.DataFrame({"image_id": [], "role": []}, dtype=TEXT)
    roles = images["image_id"].map(role).fillna("unused").astype(TEXT)
    return pd.DataFrame({"image_id": images["image_id"], "role": roles})


def parse_side(value: Any) -> int | None:
    """Return a height or width in px that a label file states; None if it is missing or 0.

    Example:
        >>> parse_side("1024"), parse_side(0), parse_side(None)
        (1024, None, None)
    """
    (number,) = finite_or_nan([value])
    if number != number or not number.is_integer():
        return None
    if not 0 <= number <= LONGEST_SIDE_PX:
        raise InputError(f"a side of {number:g} px, which no image has")
    return int(number) or None
