"""From label files that draw boxes (COCO, VOC, YOLO) to the tables of a data set.

A reader gathers what the files say, image by image; what follows from it is the same for all:
an image that has a label file is free of every class that has no box in it, and an image that
has none is unknown.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.schemas import EDGE_TOLERANCE_PX, EDGES, REFERENCE_READER
from data_prep.contracts.text_lookup import is_member
from data_prep.contracts.words import counted, counted_phrase
from data_prep.formats.cxr_extension import LabelRows, as_number
from data_prep.formats.match_images import name_images
from data_prep.formats.source import (
    VIEW_NAMES,
    Exclusions,
    SourceBuilder,
    SourceTables,
    finding_name,
    no_roles,
    one_target_each,
    patients_from_names,
    reference_rows,
)

_FREE_KEYS = ("patient_id", "study_id", "view", "sex", "age_years")
"""What a label file may say of an image in plain words, beside its labels."""

_SEXES = {"M": "M", "MALE": "M", "F": "F", "FEMALE": "F", "O": "O", "OTHER": "O"}
_NEEDED = ("image_id", "patient_id", "patient_id_source", "source")
_TEXTS = (*_NEEDED, "study_id", "view", "sex")


def plain_facts(given: dict[str, Any]) -> dict[str, Any]:
    """Take what is known of the free keys; what is no such value counts as not there."""
    words = {
        key: str(given[key]).strip()
        for key in _FREE_KEYS
        if isinstance(given.get(key), str | int | float)
    }
    facts: dict[str, Any] = {key: words.get(key) for key in ("patient_id", "study_id")}
    view = words.get("view", "").upper()
    facts["view"] = VIEW_NAMES.get(view, "other") if view else None
    facts["sex"] = _SEXES.get(words.get("sex", "").upper())
    facts["age_years"] = as_number(given.get("age_years"))
    return {key: value for key, value in facts.items() if value not in (None, "")}


def stated_size(given: Any) -> int | None:
    """A height or width that a label file states, px; None where it states none.

    Example:
        >>> stated_size("1024"), stated_size(1024.0), stated_size(0), stated_size("big")
        (1024, 1024, None, None)
    """
    number = as_number(given)
    return int(number) if number is not None and number >= 1 and number.is_integer() else None


def _images_table(
    images: dict[str, dict[str, Any]], pattern: str | None, builder: SourceBuilder
) -> pd.DataFrame:
    """Make the images table."""
    root, space = builder.root, builder.root.resolve().name
    paths = pd.Series(list(images), dtype="str")
    facts = pd.DataFrame(list(images.values()), index=paths.index)
    facts = facts.dropna(axis="columns", how="all")
    for column in _TEXTS:
        if column in facts.columns:
            facts[column] = facts[column].astype("str")
        elif column in _NEEDED:
            facts[column] = pd.Series(index=paths.index, dtype="str")
    unnamed = facts["image_id"].isna()
    ids = facts["image_id"].where(~unnamed, paths.map(name_images(paths[unnamed], root)))
    repeated = ids.duplicated()
    if repeated.any():
        raise InputError(f"{root}: two images have the id {ids[repeated].iloc[0]!r}; rename one")
    guessed = patients_from_names(
        paths.str.rsplit("/", n=1).str[-1], pattern, space, "image-" + ids
    )
    named = facts["patient_id"].notna()
    patient = facts["patient_id"].where(
        facts["patient_id"].fillna(":").str.contains(":"), space + ":" + facts["patient_id"]
    )
    facts["patient_id"] = patient.where(named, guessed["patient_id"])
    facts["patient_id_source"] = (
        facts["patient_id_source"].fillna("given").where(named, guessed["patient_id_source"])
    )
    assumed = int((facts["patient_id_source"] == "assumed_image").sum())
    if assumed:
        builder.warn_of_own_patients(
            f"the patient of {counted(assumed, 'image')} is not known",
            remedy="Give --patient-pattern if the file names tell the patient",
        )
    facts["source"] = facts["source"].fillna(space)
    return facts.assign(image_id=ids, path=paths)


FINDING_KEY = ["image_id", "finding"]

STATE_WORDS = {
    **dict.fromkeys(("present", "positive", "true", "yes", "1", "1.0"), "present"),
    **dict.fromkeys(("absent", "negative", "false", "no", "0", "0.0"), "absent"),
    **dict.fromkeys(("uncertain", "-1", "-1.0"), "uncertain"),
}
"""How people write a state, in lower case."""


def rule_out_contradictions(
    builder: SourceBuilder, labels: pd.DataFrame, boxes: pd.DataFrame
) -> None:
    """Rule out images whose label cannot be right."""
    out = builder.out
    out.add(labels.loc[labels.duplicated(FINDING_KEY), "image_id"], "two states for one finding")
    builder.rule_out_boxes(boxes, " (x1, y1, x2, y2 is expected, not x, y, width, height)")
    absent = labels.loc[labels["state"] == "absent", FINDING_KEY].drop_duplicates()
    contradicted = boxes.merge(absent, on=FINDING_KEY)["image_id"]
    out.add(contradicted, "box of a finding that is labelled absent")


def with_boxed_findings(labels: pd.DataFrame, boxes: pd.DataFrame) -> pd.DataFrame:
    """Add a present finding for each box whose finding has no label."""
    boxed = boxes[FINDING_KEY].drop_duplicates()
    merged = boxed.merge(labels[FINDING_KEY], on=FINDING_KEY, how="left", indicator=True)
    implied = merged.loc[merged["_merge"] == "left_only", FINDING_KEY].assign(
        reader=REFERENCE_READER, state="present", origin="boxes"
    )
    return pd.concat([labels, implied], ignore_index=True) if len(implied) else labels


def coverage_of_boxed_findings(labels: pd.DataFrame, boxes: pd.DataFrame) -> pd.DataFrame:
    """All lesions are boxed where there is a box, and where a finding boxed elsewhere is absent."""
    boxed_findings = is_member(labels["finding"], boxes["finding"])
    absent = labels.loc[boxed_findings & (labels["state"] == "absent"), FINDING_KEY]
    present = labels.loc[labels["state"] == "present", FINDING_KEY]
    boxed = present.merge(boxes[FINDING_KEY].drop_duplicates(), on=FINDING_KEY)
    complete = pd.concat([absent, boxed])
    return reference_rows(complete["image_id"], complete["finding"], coverage="all")


NO_FINDING = frozenset({"no_finding", "no_findings", "normal", "healthy", "background"})
"""Class names that say that nothing is there; some converters box the whole image with them."""

_KEY = ["image_id", "finding", "reader"]


def class_finding(name: str, where: str) -> str:
    """The finding that a class of a label file means.

    Example:
        >>> class_finding("Nodule/Mass", "x"), class_finding("肺 结节", "x")
        ('nodule_mass', '肺_结节')
    """
    plain = finding_name(name) if name.isascii() else re.sub(r"\W+", "_", name.lower()).strip("_")
    if not plain:
        raise InputError(f"{where}: class name {name!r} has no letter; give it a name")
    return plain


def to_edges(values: Iterable[Any]) -> list[float]:
    """Edges or sides of a box as numbers; what is no finite number becomes NaN."""
    numbers = (as_number(value) for value in values)
    return [math.nan if number is None else number for number in numbers]


@dataclass
class LabelFiles:
    """What the label files of a source say; an image's path stands for its image."""

    # path -> what is known of the image beside labels: columns of the images table
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    # path of a labelled image -> the findings that its file was labelled for
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # boxes of these, reader `reference`; and all that a `cxr` object says
    rows: LabelRows = field(default_factory=LabelRows)
    # image and finding whose lesions are not each in a box of their own
    partial: set[tuple[str, str]] = field(default_factory=set)
    roles: list[tuple[str, str]] = field(default_factory=list)  # image and its published role
    # images that cannot be used
    out: Exclusions = field(default_factory=lambda: Exclusions("labels"))
    # what the user must know, with how often it was met; the text follows the number
    seen: Counter[str] = field(default_factory=Counter)
    # targets that the source names itself
    targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    # keys of `images` that are no files, as the label files say themselves
    without_pixels: set[str] = field(default_factory=set)

    def add_box(self, image: str, finding: str, edges: Iterable[float]) -> None:
        """Add a box of the reference: x1, y1, x2, y2, px of the original image."""
        self.rows.boxes.append((image, finding, REFERENCE_READER, *edges))

    def tables(self, format: str, root: Path, pattern: str | None) -> SourceTables:  # noqa: A002
        """Conclude what the labels mean, and rule out what contradicts itself."""
        if self.without_pixels and not self.without_pixels >= set(self.images):
            self.out.add(sorted(self.without_pixels), "no such image")
        self._require_any(root)
        builder = SourceBuilder(format, root)
        images = _images_table(self.images, pattern, builder)
        ids = dict(zip(images["path"], images["image_id"], strict=True))
        out = builder.out
        out.reasons = {ids.get(path, path): reason for path, reason in self.out.reasons.items()}
        boxes = self._boxes(ids, out)
        findings, coverage = self._labels(ids, boxes)
        _rule_out(builder, findings, coverage, boxes)
        images, boxes, coverage = out.keep(images), out.keep(boxes), out.keep(coverage)
        findings = _with_boxed(out.keep(findings), boxes)
        paths = {image_id: path for path, image_id in ids.items()}
        if images.empty or findings.empty:
            reasons = (f"{paths.get(name, name)}: {why}" for name, why in out.reasons.items())
            raise InputError(f"{root}: no image can be used; {next(reasons, 'no label')}")
        unknown = images.loc[~is_member(images["image_id"], findings["image_id"]), ["image_id"]]
        self.seen["images have no label: unknown, not negative; left unused"] = len(unknown)
        official = self._official(images, ids)
        if self.without_pixels:
            images["path"] = pd.Series(index=images.index, dtype="str")
        builder.notes[:0] = [counted_phrase(n, text) for text, n in self.seen.items() if n]
        return builder.tables(
            images,
            findings,
            self.targets or one_target_each(findings["finding"]),
            paths=paths,
            boxes=boxes,
            box_coverage=coverage,
            split=unknown.assign(role="unused").reset_index(drop=True),
            official=official,
        )

    def _require_any(self, root: Path) -> None:
        if not self.images:
            path, reason = next(iter(self.out.reasons.items()), (root, "holds no label file"))
            raise InputError(f"{root}: no image can be used; {path}: {reason}")

    def _boxes(self, ids: dict[str, str], out: Exclusions) -> pd.DataFrame:
        """The boxes table; rounding below 0 is taken off, and what means 'no finding' left out."""
        boxes = _frame(self.rows.boxes, [*_KEY, *EDGES], ids)
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
        out.add(once.loc[both, "image_id"], "boxed as 'no finding' and with a finding")
        return once[~nothing].reset_index(drop=True)

    def _labels(
        self, ids: dict[str, str], boxes: pd.DataFrame
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The findings and box_coverage tables, with what a label file says by its silence."""
        findings = _frame(self.rows.states, [*_KEY, "state", "origin"], ids)
        coverage = _frame(self.rows.coverage, [*_KEY, "coverage"], ids)
        labelled = self._labelled(ids)
        partial = _frame([(*pair, "some") for pair in self.partial], [*_KEY[:2], "partly"], ids)
        boxed = boxes[_KEY].drop_duplicates().assign(state="present")
        joined = labelled.merge(boxed, on=_KEY, how="left").merge(partial, on=_KEY[:2], how="left")
        state = joined["state"].fillna(joined["partly"].map({"some": "present"})).fillna("absent")
        implied = joined[_KEY].assign(state=state, origin="boxes")
        silent = int((state == "absent").sum())
        self.seen["findings are absent because a label file has no box of them"] = silent
        complete = joined[_KEY].assign(coverage=joined["partly"].fillna("all"))
        return (
            pd.concat([findings, implied], ignore_index=True),
            pd.concat([coverage, complete], ignore_index=True),
        )

    def _labelled(self, ids: dict[str, str]) -> pd.DataFrame:
        """Each labelled image with each finding that its file was labelled for."""
        kinds = {names: str(number) for number, names in enumerate(set(self.classes.values()))}
        rows = [(path, kinds[names]) for path, names in self.classes.items()]
        members = [(kind, name) for names, kind in kinds.items() for name in names]
        findings = pd.DataFrame(members, columns=["kind", "finding"], dtype="str")
        findings = findings[~is_member(findings["finding"], NO_FINDING)]
        labelled = _frame(rows, ["image_id", "kind"], ids).merge(findings, on="kind")
        return labelled[["image_id", "finding"]].assign(reader=REFERENCE_READER)

    def _official(self, images: pd.DataFrame, ids: dict[str, str]) -> pd.DataFrame:
        """The published role of every image; nothing where no two roles are published."""
        rows = [(path, role) for path, role in self.roles if path in ids]
        published = _frame(rows, ["image_id", "role"], ids).drop_duplicates()
        published = published[is_member(published["image_id"], images["image_id"])]
        repeated = published["image_id"].duplicated(keep=False)
        both = int(published.loc[repeated, "image_id"].nunique())
        self.seen["images have two roles in the published split: unused in it"] = both
        role = published[~repeated].set_index("image_id")["role"]
        if role[role != "unused"].nunique() < 2:
            return no_roles()
        roles = images["image_id"].map(role).fillna("unused").astype("str")
        return pd.DataFrame({"image_id": images["image_id"], "role": roles})


def _frame(
    rows: Sequence[tuple[Any, ...]], columns: list[str], ids: dict[str, str]
) -> pd.DataFrame:
    """A table of rows whose first item is an image, with the image's id in its place."""
    frame = pd.DataFrame.from_records(list(rows), columns=columns)
    for column in columns:
        frame[column] = frame[column].astype("float64" if column in EDGES else "str")
    frame["image_id"] = frame["image_id"].map(ids).fillna(frame["image_id"]).astype("str")
    return frame


def _with_boxed(findings: pd.DataFrame, boxes: pd.DataFrame) -> pd.DataFrame:
    """Add a present finding of the reference for each of its boxes that has no label."""
    own = findings["reader"] == REFERENCE_READER
    drawn = boxes[boxes["reader"] == REFERENCE_READER]
    labels = with_boxed_findings(findings[own], drawn)
    return pd.concat([labels, findings[~own]], ignore_index=True)


def _rule_out(
    builder: SourceBuilder, findings: pd.DataFrame, coverage: pd.DataFrame, boxes: pd.DataFrame
) -> None:
    """Rule out images whose reference labels cannot be right."""
    labels = findings[findings["reader"] == REFERENCE_READER]
    rule_out_contradictions(builder, labels, boxes[boxes["reader"] == REFERENCE_READER])
    present = labels.loc[labels["state"] == "present", _KEY]
    whole = coverage.loc[coverage["coverage"] == "all", _KEY].merge(present, on=_KEY)
    boxed = boxes[_KEY].drop_duplicates()
    merged = whole.merge(boxed, on=_KEY, how="left", indicator=True)
    builder.out.add(
        merged.loc[merged["_merge"] == "left_only", "image_id"],
        "labelled present with every lesion boxed, but has no box",
    )
