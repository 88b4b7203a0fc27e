"""The one way from label files with boxes (COCO, YOLO, VOC, labelme) to the tables of a data set.

A format yields the labels of one image after the other, as its files write them. In an image with
labels, every class that they could have named and did not is absent. The findings of an image
without a label file are unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
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
from cxr_compare.data_prep.sources.image_facts import LONGEST_SIDE_PX
from cxr_compare.data_prep.sources.image_files import ImageIndex
from cxr_compare.data_prep.sources.label_names import name_labels
from cxr_compare.data_prep.sources.label_rows import table_statements
from cxr_compare.data_prep.sources.label_values import dictionary, normal_classes
from cxr_compare.data_prep.sources.own_table import add_facts, name_images
from cxr_compare.data_prep.sources.source_tables import FINDING_KEY, ReadOptions, Show, SourceTables
from cxr_compare.data_prep.sources.statements import Source, build, note_unlabelled
from cxr_compare.data_prep.sources.table_roles import read_tables, recognise_tables


@dataclass(frozen=True)
class Mark:
    """One annotation of an image.

    Attributes:
        label: Label as the file writes it.
        box: Four numbers in the form of the format; None for a label of the whole image.
        reader: Name of the person who made it.
        shares_box: True if the finding is present and its lesions have no box each, as in a crowd.
        state: State of the finding if the file states one; None for that of the label.
        is_around: True if the shape is no upright rectangle, and the box is around it.
    """

    label: str
    box: Sequence[float] | None = None
    reader: str = REFERENCE_READER
    shares_box: bool = False
    state: str | None = None
    is_around: bool = False

    def with_box(self, box: Sequence[float], is_around: bool = True) -> Mark:
        """Return the mark with the box of its shape, or with the box around it."""
        return replace(self, box=box, is_around=is_around)


@dataclass
class ImageLabels:
    """Labels of one image in one label file.

    Attributes:
        image: Path of the image.
        file: Path of the label file, for messages.
        absent: Labels that are absent where no mark names them; None for all labels of the source
            that are no answer to a question of their own (`Mark.state`).
        readers: Persons who read the image. Nothing is absent for anybody else.
        facts: Values of columns of the images table, such as ``width`` and ``patient_id``.
        roles: Roles of the image in the publisher's split; one, unless it contradicts itself.
    """

    image: str
    file: str
    marks: list[Mark] = field(default_factory=list)
    absent: Collection[str] | None = ()
    readers: Collection[str] = (REFERENCE_READER,)
    facts: dict[str, Any] = field(default_factory=dict)
    roles: Collection[str] = ()


ReadLabels = Callable[[Source], Iterator[ImageLabels]]


def read_annotations(
    name: str,
    read: ReadLabels,
    root: Path,
    options: ReadOptions,
    show: Show,
    reading: BoxReading | None = None,
    roles: Collection[str] = (),
    coverage: str = "all",
    tables: Sequence[Path] | None = None,
) -> SourceTables:
    """Read a folder of images with label files, or one file whose images need not exist.

    `name` is that of the format, and `roles` are those of ``--columns`` that it reads itself.
    Without `reading` it writes boxes as corners in px. `coverage` says which labels mean that all
    lesions have a box, as in `build`. `tables` are label tables of the user, which are joined with
    the label files; None takes those that the user named before the folder.
    """
    if tables is None:
        tables = options.labels
        # A finding that only the table has is boxed nowhere.
        coverage = "localised" if tables else coverage
    for text in () if tables else options.columns:
        if text.partition("=")[0] not in ("box_form", "box_unit", *roles):
            raise InputError(f"--columns {text}: --format {name} has no columns; leave it out")
    index = None if root.is_file() else ImageIndex(root)
    source = Source(name, root, options, show, index)
    statements = source.statements
    statements.reading = reading or BoxReading()
    gathered = list(read(source))
    paths = list(dict.fromkeys(labels.image for labels in gathered))
    if not paths:
        reasons = [f"{path}: {reason}" for path, reason in source.excluded.items()]
        reasons.append(f"no label file in {name} format names an image")
        raise InputError(f"{root}: no image can be used; {reasons[0]}")
    texts = read_tables(source, tables)
    beside = recognise_tables(texts, source, need_labels=False) if texts else []
    ids = name_images(source, beside, paths)
    source.excluded = {ids.get(path, path): why for path, why in source.excluded.items()}
    add_facts(source, beside, _facts(gathered, ids))
    statements.unread = [(ids.get(image, image), reason) for image, reason in statements.unread]
    _add_statements(source, gathered, ids)
    n_around = sum(mark.is_around for item in gathered for mark in item.marks)
    source.counts["shapes have no upright box: the box around each of these is taken"] += n_around
    source.notes[:0] = [counted_phrase(n, text) for text, n in source.counts.items() if n]
    source.implied_note = "findings are absent because a label file has no box of them"
    if beside:
        table_statements(source, beside, add_to_marks=True)
    else:
        note_unlabelled(source, unused=True)
    source.official = _official(source, gathered, ids)
    made = build(source, coverage=coverage)
    if made.findings.empty:
        first = next(iter(source.excluded.values()), "no label")
        raise InputError(f"{root}: no image can be used; {first}")
    if root.is_file():
        missing = pd.Series(index=made.images.index, dtype=TEXT)
        made.images["path"] = missing
    denied = _denied_boxes(made) if beside else made.boxes.iloc[:0]
    if denied.empty:
        return made
    text = (
        "boxes are of findings that a table denies, so the labels of the table are used "
        f"(the first on image {denied['image_id'].iloc[0]}); correct these if the boxes are right"
    )
    note = counted_phrase(len(denied), text)
    return replace(made, notes=(*made.notes, note))


def _denied_boxes(made: SourceTables) -> pd.DataFrame:
    """Return the boxes of readers of findings that are absent by the label of a table."""
    findings = made.findings
    is_stated = (findings["reader"] == REFERENCE_READER) & (findings["origin"] != "consensus")
    absent = findings.loc[is_stated & (findings["state"] == "absent"), FINDING_KEY]
    return made.boxes[made.boxes["reader"] != REFERENCE_READER].merge(absent)


def _facts(gathered: Sequence[ImageLabels], ids: dict[str, str]) -> pd.DataFrame:
    """Return what label files state of each image; of several files the first counts."""
    facts: dict[str, dict[str, Any]] = {}
    for labels in gathered:
        image_id = ids[labels.image]
        facts[image_id] = labels.facts | facts.get(image_id, {})
    table = pd.DataFrame(list(facts.values())).dropna(axis=1, how="all")
    for column in set(table.columns) - {"width", "height", "age_years"}:
        table[column] = table[column].astype(TEXT)
    return table.assign(image_id=pd.Series(list(facts), dtype=TEXT))


def _add_statements(source: Source, gathered: Sequence[ImageLabels], ids: dict[str, str]) -> None:
    """Add the statements of all label files, and what is absent because no mark names it."""
    labels = [*source.classes, *(mark.label for item in gathered for mark in item.marks)]
    labels += [label for item in gathered for label in item.absent or ()]
    labels = list(dict.fromkeys(labels))
    require_few_names(labels, source.root)
    meanings = _meanings(labels, str(source.root), source.show)
    stated = {mark.label for item in gathered for mark in item.marks if mark.state is None}
    drawn = {*source.classes, *stated, *(label for item in gathered for label in item.absent or ())}
    findings = {meanings[label][0] for label in drawn} - {""}
    boxes_of: dict[tuple[str, str, str], tuple[str, list[Sequence[float]]]] = {}
    for item in gathered:
        image_id = ids[item.image]
        absent = findings
        if item.absent is not None:
            absent = {meanings[label][0] for label in item.absent} - {""}
        for reader in dict.fromkeys([*item.readers, *(mark.reader for mark in item.marks)]):
            marks = [mark for mark in item.marks if mark.reader == reader]
            could_name = absent if reader in item.readers else set()
            boxes = _add_marks(source, image_id, reader, marks, meanings, could_name)
            for finding, own in boxes.items():
                key = (image_id, reader, finding)
                first, others = boxes_of.setdefault(key, (item.file, own))
                if sorted(map(tuple, others)) != sorted(map(tuple, own)):
                    problem = f"boxed differently in {first} and {item.file}"
                    source.exclude([image_id], problem)


def _add_marks(
    source: Source,
    image_id: str,
    reader: str,
    marks: Sequence[Mark],
    meanings: dict[str, tuple[str, str]],
    absent: set[str],
) -> dict[str, list[Sequence[float]]]:
    """Add what one reader says of an image, and return the boxes of each finding."""
    statements = source.statements
    add = partial(statements.add, image_id, reader=reader, origin="boxes")
    boxes: dict[str, list[Sequence[float]]] = {}
    is_open = False
    for mark in marks:
        finding, state = meanings[mark.label]
        if mark.state and state == "present":
            state = mark.state
        box = mark.box
        if box is not None and state in ("normal", "absent"):
            source.counts["boxes are of a class that says 'absent': these are dropped"] += 1
            box = None
        if state == "normal":
            statements.normal.add((image_id, reader))
        is_open |= state == "unknown"
        if not finding:
            continue
        add(finding, box, state=state)
        drawn = boxes.setdefault(finding, [])
        if box is not None:
            drawn.append(box)
        if mark.shares_box:
            statements.partial.add((image_id, finding))
    for finding in () if is_open else sorted(absent - boxes.keys()):
        add(finding, state="absent", implied=True)
        boxes[finding] = []
    return boxes


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
    for label, (finding, state) in named.labels.items():
        meanings[label] = ("", "normal") if finding in normal_classes() else (finding, state)
    return meanings


def _official(source: Source, gathered: Sequence[ImageLabels], ids: dict[str, str]) -> pd.DataFrame:
    """Return the published role of every image; empty without two different roles."""
    rows = [(ids[item.image], role) for item in gathered for role in item.roles]
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


def sides_of(width: Any, height: Any) -> dict[str, int | None]:
    """Return the size of an image that a label file states, px; None for what is missing or 0.

    Example:
        >>> sides_of("1024", None)
        {'width': 1024, 'height': None}
    """
    sides: dict[str, int | None] = {}
    for name, number in zip(("width", "height"), finite_or_nan([width, height]), strict=True):
        if number > LONGEST_SIDE_PX or number < 0:
            raise InputError(f"a {name} of {number:g} px, which no image has")
        is_side = number > 0 and number.is_integer()
        sides[name] = int(number) if is_side else None
    return sides
