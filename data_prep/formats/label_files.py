"""From label files that draw boxes (COCO, VOC, YOLO) to the tables of a data set.

A reader gathers what the files say, image by image; what follows from it is the same for all:
an image that has a label file is free of every class that has no box in it, and an image that
has none is unknown.

Label files name images loosely: by a path on another machine, by a name alone, or only by having
the same name. Only images below the source folder are ever found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted, counted_phrase
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.schemas import EDGE_TOLERANCE_PX, REFERENCE_READER
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_files import read_text_file
from cxr_compare.data_prep.formats.class_names import NO_FINDING
from cxr_compare.data_prep.formats.cxr_extension import LabelRows
from cxr_compare.data_prep.formats.exclusions import Exclusions
from cxr_compare.data_prep.formats.folder_scan import require_unique_ids
from cxr_compare.data_prep.formats.labels import add_boxed_findings, exclude_contradictions
from cxr_compare.data_prep.formats.patients import patients_from_names
from cxr_compare.data_prep.formats.reference import ROW, with_reference
from cxr_compare.data_prep.formats.source import SourceBuilder, SourceTables


def read_lines(path: Path) -> list[str]:
    """The lines of a text file."""
    return read_text_file(path).splitlines()


def _name_images(paths: Iterable[str], root: Path) -> dict[str, str]:
    """The id of each image: its name without the suffix, where only one has that name."""
    frame = pd.DataFrame({"path": list(paths)}, dtype=TEXT)
    long = frame["path"].str.replace(r"([^/])\.[^./]*$", r"\1", regex=True)
    short = long.str.rsplit("/", n=1).str[-1]
    ids = short.where(~short.duplicated(keep=False), long)
    require_unique_ids(frame.assign(image_id=ids), root)
    return dict(zip(frame["path"], ids, strict=True))


_NEEDED = ("image_id", "patient_id", "patient_id_source", "source")
_TEXTS = (*_NEEDED, "study_id", "view", "sex")


def _images_table(images: dict[str, dict[str, Any]], builder: SourceBuilder) -> pd.DataFrame:
    """Make the images table."""
    root = builder.root
    space = builder.root.resolve().name
    paths = pd.Series(list(images), dtype=TEXT)
    facts = pd.DataFrame(list(images.values()), index=paths.index)
    facts = facts.dropna(axis="columns", how="all")
    for column in _TEXTS:
        if column in facts.columns:
            facts[column] = facts[column].astype(TEXT)
        elif column in _NEEDED:
            facts[column] = pd.Series(index=paths.index, dtype=TEXT)
    unnamed = facts["image_id"].isna()
    ids = facts["image_id"].where(~unnamed, paths.map(_name_images(paths[unnamed], root)))
    repeated = ids.duplicated()
    if repeated.any():
        raise InputError(f"{root}: two images have the id {ids[repeated].iloc[0]!r}; rename one")
    stated = in_name_space(facts["patient_id"], space)
    by_name = patients_from_names(
        paths.str.rsplit("/", n=1).str[-1], builder.options.patient_pattern, space
    )
    people = builder.patients(stated.fillna(by_name), f"{space}:image-" + ids)
    told = facts["patient_id_source"].where(stated.notna()).fillna(people["patient_id_source"])
    facts["patient_id"] = people["patient_id"]
    facts["patient_id_source"] = told
    assumed = int((told == "assumed_image").sum())
    if assumed:
        builder.warn_of_own_patients(
            f"the patient of {counted(assumed, 'image')} is not known, so each",
            remedy="Give --patient-pattern if the file names tell the patient",
        )
    facts["source"] = facts["source"].fillna(space)
    return facts.assign(image_id=ids, path=paths)


def in_name_space(patients: pd.Series, space: str) -> pd.Series:
    """Patients as ``space:patient``, where they do not have a name space already."""
    return patients.where(patients.str.contains(":"), f"{space}:" + patients)


@dataclass
class LabelFiles:
    """What the label files of a source say; an image's path stands for its image."""

    builder: SourceBuilder
    # path -> what is known of the image beside labels: columns of the images table
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    # path of a labelled image -> the findings that its file was labelled for
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # boxes of these, reader `reference`; and all that a `cxr` object says
    rows: LabelRows = field(default_factory=LabelRows)
    # image and finding whose lesions are not each in a box of their own
    partial: set[tuple[str, str]] = field(default_factory=set)
    roles: list[tuple[str, str]] = field(default_factory=list)  # image and its published role
    # what the user must know, with how often it was met; the text follows the number
    seen: Counter[str] = field(default_factory=Counter)
    # targets that the source names itself
    targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    # path of a labelled image -> who read it; where it lacks, the reference
    read_by: dict[str, set[str]] = field(default_factory=dict)
    # keys of `images` that are no files, as the label files say themselves
    without_pixels: set[str] = field(default_factory=set)

    def add_box(
        self, image: str, finding: str, edges: Iterable[float], reader: str = REFERENCE_READER
    ) -> None:
        """Add a box of a reader: x1, y1, x2, y2, px of the original image."""
        self.rows.boxes.append((image, finding, reader, *edges))

    @property
    def out(self) -> Exclusions:
        """Images that cannot be used."""
        return self.builder.out

    def tables(self) -> SourceTables:
        """Conclude what the labels mean, and rule out what contradicts itself."""
        builder = self.builder
        out = self.builder.out
        root = self.builder.root
        if self.without_pixels and not self.without_pixels >= set(self.images):
            out.add(sorted(self.without_pixels), "no such image")
        if not self.images:
            path, reason = next(iter(out.reasons.items()), (root, "holds no label file"))
            raise InputError(f"{root}: no image can be used; {path}: {reason}")
        files = _images_table(self.images, builder)
        ids = dict(zip(files["path"], files["image_id"], strict=True))
        out.reasons = {ids.get(path, path): reason for path, reason in out.reasons.items()}
        boxes = self._boxes(ids)
        findings, coverage = self._labels(ids, boxes)
        self._rule_out(findings, coverage, boxes)
        images = out.keep(files)
        boxes = out.keep(boxes)
        coverage = out.keep(coverage)
        findings = out.keep(findings)
        own = findings["reader"] == REFERENCE_READER
        drawn = boxes[boxes["reader"] == REFERENCE_READER]
        labels = [add_boxed_findings(findings[own], drawn), findings[~own]]
        findings = pd.concat(labels, ignore_index=True)
        if images.empty or findings.empty:
            paths = {image_id: path for path, image_id in ids.items()}
            reasons = (f"{paths.get(name, name)}: {why}" for name, why in out.reasons.items())
            raise InputError(f"{root}: no image can be used; {next(reasons, 'no label')}")
        if self.read_by:
            findings, boxes, made = with_reference(builder, findings, boxes)
            coverage = pd.concat([coverage, made]).drop_duplicates(ROW, ignore_index=True)
        unknown = images.loc[~is_member(images["image_id"], findings["image_id"]), ["image_id"]]
        self.seen["images have no label: unknown, not negative; left unused"] = len(unknown)
        official = self._official(images, ids)
        if self.without_pixels:
            images["path"] = pd.Series(index=images.index, dtype=TEXT)
        builder.notes[:0] = [counted_phrase(n, text) for text, n in self.seen.items() if n]
        return builder.tables(
            images,
            findings,
            self.targets or None,
            files=files,
            boxes=boxes,
            box_coverage=coverage,
            split=unknown.assign(role="unused").reset_index(drop=True),
            official=official,
        )

    def _rule_out(
        self, findings: pd.DataFrame, coverage: pd.DataFrame, boxes: pd.DataFrame
    ) -> None:
        """Rule out images whose reference labels cannot be right."""
        labels = findings[findings["reader"] == REFERENCE_READER]
        drawn = boxes[boxes["reader"] == REFERENCE_READER]
        exclude_contradictions(self.builder, labels, drawn)
        present = labels.loc[labels["state"] == "present", ROW]
        whole = coverage.loc[coverage["coverage"] == "all", ROW].merge(present, on=ROW)
        merged = whole.merge(boxes[ROW].drop_duplicates(), on=ROW, how="left", indicator=True)
        self.out.add(
            merged.loc[merged["_merge"] == "left_only", "image_id"],
            "labelled present with every lesion boxed, but has no box",
        )

    def _boxes(self, ids: dict[str, str]) -> pd.DataFrame:
        """The boxes table; rounding below 0 is taken off, and what means 'no finding' left out."""
        boxes = _frame(self.rows.boxes, [*ROW, *EDGES], ids)
        once = boxes.drop_duplicates(ignore_index=True)
        self.seen["boxes appear more than once: kept once"] = len(boxes) - len(once)
        edges = once[EDGES]
        once[EDGES] = edges.mask((edges < 0) & (edges >= -EDGE_TOLERANCE_PX), 0.0)
        if not any(NO_FINDING & set(names) for names in set(self.classes.values())):
            return once
        nothing = is_member(once["finding"], NO_FINDING)
        self.seen["boxes of a class that means 'no finding': left out"] = int(nothing.sum())
        ill = once.loc[~nothing, "image_id"]
        both = nothing & is_member(once["image_id"], ill)
        self.out.add(once.loc[both, "image_id"], "boxed as 'no finding' and with a finding")
        return once[~nothing].reset_index(drop=True)

    def _labels(
        self, ids: dict[str, str], boxes: pd.DataFrame
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The findings and box_coverage tables, with what a label file says by its silence."""
        findings = _frame(self.rows.states, [*ROW, "state", "origin"], ids)
        coverage = _frame(self.rows.coverage, [*ROW, "coverage"], ids)
        labelled = self._labelled(ids)
        partial = _frame([(*pair, "some") for pair in self.partial], [*ROW[:2], "partly"], ids)
        boxed = boxes[ROW].drop_duplicates().assign(state="present")
        joined = labelled.merge(boxed, on=ROW, how="left").merge(partial, on=ROW[:2], how="left")
        where_partly = joined["partly"].map({"some": "present"}).astype(TEXT)
        state = joined["state"].astype(TEXT).fillna(where_partly).fillna("absent")
        implied = joined[ROW].assign(state=state, origin="boxes")
        silent = int((state == "absent").sum())
        self.seen["findings are absent because a label file has no box of them"] = silent
        complete = joined[ROW].assign(coverage=joined["partly"].fillna("all"))
        return (
            pd.concat([findings, implied], ignore_index=True),
            pd.concat([coverage, complete], ignore_index=True),
        )

    def _labelled(self, ids: dict[str, str]) -> pd.DataFrame:
        """Each labelled image with each finding that its file was labelled for."""
        kinds = {names: str(number) for number, names in enumerate(set(self.classes.values()))}
        rows = [(path, kinds[names]) for path, names in self.classes.items()]
        members = [(kind, name) for names, kind in kinds.items() for name in names]
        findings = pd.DataFrame(members, columns=["kind", "finding"], dtype=TEXT)
        findings = findings[~is_member(findings["finding"], NO_FINDING)]
        labelled = _frame(rows, ["image_id", "kind"], ids).merge(findings, on="kind")
        named = [(path, reader) for path, readers in self.read_by.items() for reader in readers]
        labelled = labelled.merge(_frame(named, ["image_id", "reader"], ids), how="left")
        return labelled[ROW].fillna({"reader": REFERENCE_READER})

    def _official(self, images: pd.DataFrame, ids: dict[str, str]) -> pd.DataFrame | None:
        """The published role of every image; nothing where no two roles are published."""
        rows = [(path, role) for path, role in self.roles if path in ids]
        published = _frame(rows, ["image_id", "role"], ids).drop_duplicates()
        published = published[is_member(published["image_id"], images["image_id"])]
        repeated = published["image_id"].duplicated(keep=False)
        both = int(published.loc[repeated, "image_id"].nunique())
        self.seen["images have two roles in the published split: unused in it"] = both
        role = published[~repeated].set_index("image_id")["role"]
        if role[role != "unused"].nunique() < 2:
            return None
        roles = images["image_id"].map(role).fillna("unused").astype(TEXT)
        return pd.DataFrame({"image_id": images["image_id"], "role": roles})


def _frame(
    rows: Sequence[tuple[Any, ...]], columns: list[str], ids: dict[str, str]
) -> pd.DataFrame:
    """A table of rows whose first item is an image, with the image's id in its place."""
    frame = pd.DataFrame.from_records(list(rows), columns=columns)
    for column in columns:
        frame[column] = frame[column].astype("float64" if column in EDGES else TEXT)
    frame["image_id"] = frame["image_id"].map(ids).fillna(frame["image_id"]).astype(TEXT)
    return frame
