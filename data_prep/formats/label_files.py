"""Conversion of label files with boxes (COCO, VOC, YOLO) to the tables of a data set.

Each of these formats collects the content of its files image by image. The following steps are the
same for all. In an image with a label file, every class without a box is absent. The findings of an
image without a label file are unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.box_values import BoxReading
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted, counted_phrase
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.limits import require_few_names
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_files import read_text_file
from cxr_compare.data_prep.formats.class_names import NO_FINDING_CLASSES
from cxr_compare.data_prep.formats.exclusions import Exclusions
from cxr_compare.data_prep.formats.folder_scan import IMAGE_SUFFIXES, require_unique_ids
from cxr_compare.data_prep.formats.implied_negatives import ImpliedNegatives
from cxr_compare.data_prep.formats.label_names import Label, name_labels
from cxr_compare.data_prep.formats.labels import add_boxed_findings, exclude_contradictions
from cxr_compare.data_prep.formats.patients import named_patients, patients_from_names
from cxr_compare.data_prep.formats.reference import LABEL_KEY, add_reference
from cxr_compare.data_prep.formats.source import SourceBuilder, SourceTables


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file.

    Args:
        path: Path of the file, in any encoding that `decode_text` knows.

    Returns:
        The lines without line breaks.

    Raises:
        InputError: The file cannot be read as text.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "test_list.txt").write_text("a.png")
        ...     read_lines(Path(folder, "test_list.txt"))
        ['a.png']
    """
    return read_text_file(path).splitlines()


def ids_of_paths(paths: pd.Series) -> pd.Series:
    """Return the id of each image: its name without suffix where that is unique, else its path.

    Args:
        paths: Paths of all images of a data set, with ``/`` or backslashes between folders.

    Example:
        >>> ids_of_paths(pd.Series(["a/0.png", "b/0.png", "b/1.2.840"])).tolist()
        ['a/0', 'b/0', '1.2.840']
    """
    long = paths_without_suffix(paths)
    short = long.str.rsplit("/", n=1).str[-1]
    return short.where(~short.duplicated(keep=False), long)


def paths_without_suffix(paths: pd.Series) -> pd.Series:
    """Return paths with ``/`` between folders and without the suffix of an image file."""
    suffixes = "|".join(suffix.removeprefix(".") for suffix in sorted(IMAGE_SUFFIXES))
    plain = paths.astype(TEXT).str.replace("\\", "/", regex=False)
    return plain.str.replace(rf"(?i)([^/])\.(?:{suffixes})$", r"\1", regex=True)


def _name_images(paths: Iterable[str], root: Path) -> dict[str, str]:
    """Return the id of each image by its path."""
    frame = pd.DataFrame({"path": list(paths)}, dtype=TEXT)
    frame["image_id"] = ids_of_paths(frame["path"])
    require_unique_ids(frame, root)
    return dict(zip(frame["path"], frame["image_id"], strict=True))


_TEXTS = ("patient_id", "study_id", "view", "sex")


def _images_table(images: dict[str, dict[str, Any]], builder: SourceBuilder) -> pd.DataFrame:
    """Build the images table from the facts of each image by path."""
    root = builder.root
    space = builder.root.resolve().name
    paths = pd.Series(list(images), dtype=TEXT)
    facts = pd.DataFrame(list(images.values()), index=paths.index)
    facts = facts.dropna(axis="columns", how="all")
    for column in _TEXTS:
        if column in facts.columns:
            facts[column] = facts[column].astype(TEXT)
    if "patient_id" not in facts.columns:
        facts["patient_id"] = pd.Series(index=paths.index, dtype=TEXT)
    ids = paths.map(_name_images(paths, root)).astype(TEXT)
    stated = add_name_space(named_patients(facts["patient_id"], str(root)), space)
    by_name = patients_from_names(
        paths.str.rsplit("/", n=1).str[-1], builder.options.patient_pattern, space
    )
    people = builder.patients(stated.fillna(by_name), f"{space}:image-" + ids)
    facts["patient_id"] = people["patient_id"]
    facts["patient_id_source"] = people["patient_id_source"]
    n_assumed = int((people["patient_id_source"] == "assumed_image").sum())
    if n_assumed:
        builder.warn_of_unknown_patients(
            f"the patient of {counted(n_assumed, 'image')} is not known, so each",
            remedy="Give --patient-pattern if the file names contain the patient",
        )
    return facts.assign(source=space, image_id=ids, path=paths)


def add_name_space(patients: pd.Series, space: str) -> pd.Series:
    """Put a prefix before patient ids that have none, as in ``nih:00019124``.

    The prefix names the origin of the ids, so that equal ids of different hospitals stay different
    patients.

    Args:
        patients: Patient ids as text, missing if unknown.
        space: Prefix without its colon, such as ``nih``.

    Returns:
        The ids; those that had a prefix, and missing ones, are unchanged.
    """
    return patients.where(patients.str.contains(":"), f"{space}:" + patients)


@dataclass
class LabelFiles:
    """Labels and boxes from label files (COCO, VOC, YOLO), collected image by image.

    `build_tables` turns them into the tables of a data set. Until then an image is identified by
    its path.

    Attributes:
        builder: Object that knows the source folder (the user's files) and the user's options, and
            collects notes and excluded images.
        images: By path of an image, its values of columns of the images table.
        classes: By path of a labelled image, the findings that its label file could have named: its
            classes. A class without a box on the image is absent.
        boxes: Tuples ``image, finding, reader, x1, y1, x2, y2``, edges in px of the original image.
        partial: Pairs of image path and finding (disease) for which lesions on the image share a
            box or have none.
        roles: Pairs of image path and ``train``, ``val`` or ``test``, as the publisher assigned the
            image.
        counts: Number of cases by text of the note. The text follows the number, as in "3 boxes
            appear more than once".
        unread: Path of the image and the reason, for each box that could not be read. The image is
            left out.
        reading: Format in which the boxes were read.
        read_by: By path of a labelled image, the names of the people (readers) who labelled it. An
            image that is not listed was labelled by the reader ``reference``.
        denied: Image path, finding and reader where a class says that the finding is absent.
    """

    builder: SourceBuilder
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    boxes: list[tuple[Any, ...]] = field(default_factory=list)
    partial: set[tuple[str, str]] = field(default_factory=set)
    roles: list[tuple[str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    unread: list[tuple[str, str]] = field(default_factory=list)
    reading: BoxReading = field(default_factory=BoxReading)
    read_by: dict[str, set[str]] = field(default_factory=dict)
    denied: set[tuple[str, str, str]] = field(default_factory=set)

    def add_box(
        self, image: str, label: Label, edges: Iterable[float], reader: str = REFERENCE_READER
    ) -> None:
        """Add a box that a person (reader) drew on an image.

        Args:
            image: Path of the image.
            label: Finding (disease) that the box outlines. If its class says that the finding is
                absent, the box is dropped.
            edges: Edges ``x1, y1, x2, y2`` in px of the original image.
            reader: Name of the person. The default is ``reference``, whose labels are used for
                training and evaluation.
        """
        if label.state == "absent":
            self.denied.add((image, label.finding, reader))
            self.counts["boxes are of a class that says 'absent': these are dropped"] += 1
        else:
            self.boxes.append((image, label.finding, reader, *edges))

    def name_boxes(self, where: str, others: Iterable[str] = ()) -> dict[str, Label]:
        """Name the findings of boxes that were added with their class names as findings.

        Args:
            where: File or folder, for messages.
            others: Class names beside those of boxes.

        Returns:
            Finding and state by class name.
        """
        named = name_labels([*(row[1] for row in self.boxes), *others], where, "class")
        for note in named.notes:
            self.builder.show(note)
        rows = self.boxes
        self.boxes = []
        for image, text, reader, *edges in rows:
            self.add_box(image, named.labels[text], edges, reader)
        return named.labels

    def add_unread(self, image: str, reason: str, n_boxes: int = 1, place: str = "") -> None:
        """Leave out an image of which boxes cannot be read: its findings are unknown.

        Args:
            image: Path of the image, or of the label file if no image is known.
            reason: What is wrong.
            n_boxes: Number of the boxes.
            place: Position in the label file, for a message about a single box.
        """
        self.exclusions.add([image], reason)
        self.unread += [(image, f"{place}: {reason}" if place else reason)] * n_boxes

    @property
    def exclusions(self) -> Exclusions:
        """Images and files that are left out of the data set, with their reasons."""
        return self.builder.exclusions

    def build_tables(self) -> SourceTables:
        """Build the tables of the data set from the labels of all images.

        Images whose labels contradict each other are excluded.

        Returns:
            All tables of the data set, before pixels are decoded.

        Raises:
            InputError: Every image is left out.
        """
        builder = self.builder
        exclusions = builder.exclusions
        root = builder.root
        if not self.images:
            path, reason = next(iter(exclusions.reasons.items()), (root, "holds no label file"))
            raise InputError(f"{root}: no image can be used; {path}: {reason}")
        require_few_names({name for names in set(self.classes.values()) for name in names}, root)
        files = _images_table(self.images, builder)
        ids = dict(zip(files["path"], files["image_id"], strict=True))
        exclusions.reasons = {
            ids.get(path, path): reason for path, reason in exclusions.reasons.items()
        }
        boxes = self._boxes(ids)
        findings, coverage = self._labels(ids, boxes)
        exclude_contradictions(builder, findings, boxes, files, self.reading, self.unread)
        files, boxes = builder.upright(files, boxes)
        images = exclusions.keep(files)
        boxes = exclusions.keep(boxes)
        coverage = exclusions.keep(coverage)
        findings = exclusions.keep(findings)
        is_reference = findings["reader"] == REFERENCE_READER
        drawn = boxes[boxes["reader"] == REFERENCE_READER]
        parts = [add_boxed_findings(findings[is_reference], drawn), findings[~is_reference]]
        findings = pd.concat(parts, ignore_index=True)
        if images.empty or findings.empty:
            paths = {image_id: path for path, image_id in ids.items()}
            reasons = (
                f"{paths.get(name, name)}: {why}" for name, why in exclusions.reasons.items()
            )
            raise InputError(f"{root}: no image can be used; {next(reasons, 'no label')}")
        if self.read_by:
            findings, boxes, made = add_reference(builder, findings, boxes)
            coverage = pd.concat([coverage, made]).drop_duplicates(LABEL_KEY, ignore_index=True)
        unknown = images.loc[~is_member(images["image_id"], findings["image_id"]), ["image_id"]]
        unlabelled_note = (
            "images have no label: such images are unused, since their findings are unknown"
        )
        self.counts[unlabelled_note] = len(unknown)
        official = self._official(images, ids)
        if root.is_file():
            images["path"] = pd.Series(index=images.index, dtype=TEXT)
        builder.notes[:0] = [counted_phrase(n, text) for text, n in self.counts.items() if n]
        return builder.build(
            images,
            findings,
            files=files,
            boxes=boxes,
            box_coverage=coverage,
            split=unknown.assign(role="unused").reset_index(drop=True),
            official=official,
        )

    def _boxes(self, ids: dict[str, str]) -> pd.DataFrame:
        """Build the boxes table, without repeats and without boxes that mean 'no finding'."""
        boxes = _frame(self.boxes, [*LABEL_KEY, *EDGES], ids)
        once = boxes.drop_duplicates(ignore_index=True)
        self.counts["boxes are repeats of another box: these are dropped"] = len(boxes) - len(once)
        denied = _frame(sorted(self.denied), LABEL_KEY, ids)
        partial = _frame(sorted(self.partial), LABEL_KEY[:2], ids)
        for affirmed in (once.merge(denied, on=LABEL_KEY), partial.merge(denied)):
            self.exclusions.add(affirmed["image_id"], "two states for one finding")
        if not any(NO_FINDING_CLASSES & set(names) for names in set(self.classes.values())):
            return once
        nothing = is_member(once["finding"], NO_FINDING_CLASSES)
        self.counts["boxes are of a class that means 'no finding': these are dropped"] = int(
            nothing.sum()
        )
        ill = once.loc[~nothing, "image_id"]
        both = nothing & is_member(once["image_id"], ill)
        self.exclusions.add(once.loc[both, "image_id"], "boxed as 'no finding' and with a finding")
        return once[~nothing].reset_index(drop=True)

    def _labels(
        self, ids: dict[str, str], boxes: pd.DataFrame
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Build the findings and box_coverage tables.

        A finding is absent where the file of an image was labelled for it and has no box of it.
        """
        labelled = self._labelled(ids)
        partial = _frame(
            [(*pair, "some") for pair in self.partial], [*LABEL_KEY[:2], "partly"], ids
        )
        boxed = boxes[LABEL_KEY].drop_duplicates().assign(state="present")
        joined = labelled.merge(boxed, on=LABEL_KEY, how="left").merge(
            partial, on=LABEL_KEY[:2], how="left"
        )
        where_partly = joined["partly"].map({"some": "present"}).astype(TEXT)
        state = joined["state"].astype(TEXT).fillna(where_partly).fillna("absent")
        findings = joined[LABEL_KEY].assign(state=state, origin="boxes")
        absent = joined.loc[state == "absent", LABEL_KEY]
        self.builder.implied = ImpliedNegatives(
            absent,
            lambda rows: counted_phrase(
                len(rows), "findings are absent because a label file has no box of them"
            ),
        )
        coverage = joined[LABEL_KEY].assign(coverage=joined["partly"].fillna("all"))
        return findings, coverage

    def _labelled(self, ids: dict[str, str]) -> pd.DataFrame:
        """Return a row for each image, reader and finding that a label file covers."""
        kinds = {names: str(number) for number, names in enumerate(set(self.classes.values()))}
        rows = [(path, kinds[names]) for path, names in self.classes.items()]
        members = [(kind, name) for names, kind in kinds.items() for name in names]
        findings = pd.DataFrame(members, columns=["kind", "finding"], dtype=TEXT)
        findings = findings[~is_member(findings["finding"], NO_FINDING_CLASSES)]
        labelled = _frame(rows, ["image_id", "kind"], ids).merge(findings, on="kind")
        named = [(path, reader) for path, readers in self.read_by.items() for reader in readers]
        labelled = labelled.merge(_frame(named, ["image_id", "reader"], ids), how="left")
        return labelled[LABEL_KEY].fillna({"reader": REFERENCE_READER})

    def _official(self, images: pd.DataFrame, ids: dict[str, str]) -> pd.DataFrame | None:
        """Return the published role of every image, or None without two different roles."""
        rows = [(path, role) for path, role in self.roles if path in ids]
        published = _frame(rows, ["image_id", "role"], ids).drop_duplicates()
        published = published[is_member(published["image_id"], images["image_id"])]
        repeated = published["image_id"].duplicated(keep=False)
        both = int(published.loc[repeated, "image_id"].nunique())
        self.counts["images have two roles in the published split: these are unused in it"] = both
        role = published[~repeated].set_index("image_id")["role"]
        if role[role != "unused"].nunique() < 2:
            return None
        roles = images["image_id"].map(role).fillna("unused").astype(TEXT)
        return pd.DataFrame({"image_id": images["image_id"], "role": roles})


def _frame(
    rows: Sequence[tuple[Any, ...]], columns: list[str], ids: dict[str, str]
) -> pd.DataFrame:
    """Build a table of rows whose first item is the path of an image, and insert the image ids."""
    frame = pd.DataFrame.from_records(list(rows), columns=columns)
    for column in columns:
        frame[column] = frame[column].astype("float64" if column in EDGES else TEXT)
    frame["image_id"] = frame["image_id"].map(ids).fillna(frame["image_id"]).astype(TEXT)
    return frame
