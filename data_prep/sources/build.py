"""The way from the statements of a source to the tables of a data set.

What is checked of labels and boxes is checked here, for all formats.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.box_check import TRUE_BOXES, fit
from cxr_compare.data_prep.base.boxes import EDGES, NUMBERS
from cxr_compare.data_prep.base.errors import InputError, counted_phrase
from cxr_compare.data_prep.base.ids import DICOM_SUFFIXES, TEXT, are_rows_of, is_member
from cxr_compare.data_prep.base.tables import FINDING_KEY, LABEL_KEY
from cxr_compare.data_prep.sources.readers import with_reference
from cxr_compare.data_prep.sources.source import SourceTables, targets_from_findings
from cxr_compare.data_prep.sources.statements import (
    Source,
    joined_statements,
    no_finding,
    take_user_reading,
)
from cxr_compare.data_prep.sources.words import dictionary

_FEW, _MANY = 4, 0.1  # images, and share of all, with contradictory labels that are left out


def build(source: Source, *, coverage: str | Sequence[str] = "all") -> SourceTables:
    """Check the statements of a source and make its tables of them.

    `coverage` says which findings have no box where they are absent: ``all``, those that are
    ``localised`` anywhere, or some by name if anything is boxed.
    """
    rows = joined_statements(source.statements)
    if rows["implied"].any():
        stated = rows.loc[~rows["implied"], LABEL_KEY].drop_duplicates()
        rows = rows[~(rows["implied"] & are_rows_of(rows[LABEL_KEY], stated))]
    rows = rows[is_member(rows["image_id"], source.images["image_id"])].reset_index(drop=True)
    _exclude_contradictions(source, rows)
    boxes = _boxes(source, rows[rows["boxed"]].reset_index(drop=True))
    paths = source.images.dropna(subset="path").set_index("image_id")["path"]
    reasons = {paths.get(name, name): reason for name, reason in source.left_out.items()}
    images = source.keep(source.images)
    if images.empty:
        first = next((f"; {path}: {reason}" for path, reason in reasons.items()), "")
        raise InputError(f"{source.root}: no image can be used{first}")
    if source.index is not None:
        source.record.add("image_files", number=len(source.index.images))
        used = {*source.images["path"].dropna(), *reasons}
        n_unnamed = sum(path not in used for path in source.index.images)
        if n_unnamed:
            source.record.add("unnamed_files", number=n_unnamed)
    rows = source.keep(rows)
    rows = rows.sort_values("boxed", kind="stable")  # the origin of a label is not that of its box
    findings = rows.drop_duplicates(LABEL_KEY).sort_index(ignore_index=True)
    findings = findings[[*LABEL_KEY, "state", "origin", "implied"]]
    rule = source.options.reference
    findings, boxes = with_reference(findings, source.keep(boxes), rule)
    excluded = {"path": list(reasons), "stage": "labels", "reason": list(reasons.values())}
    return SourceTables(
        source.root,
        images=images,
        findings=findings,
        targets=source.targets or targets_from_findings(sorted(findings["finding"].unique())),
        boxes=boxes,
        box_coverage=_coverage(findings, boxes, source.partial, coverage),
        excluded=pd.DataFrame(excluded, dtype=TEXT),
        split=source.keep(source.split),
        official=source.keep(source.official),
        notes=source.notes,
        read=source.record.table(),
        implied_note=source.implied_note,
        categories=source.categories,
        reading=source.reading,
        unlabelled=tuple(source.unlabelled),
    )


def _exclude_contradictions(source: Source, rows: pd.DataFrame) -> None:
    """Leave out images about which one reader says two things; refuse them if they are many."""
    n_before = len(source.left_out)
    if source.normal:
        positive_rows = rows[(rows["state"] == "present") | rows["boxed"]]
        positive_rows = positive_rows[
            ~is_member(positive_rows["finding"], dictionary()["nothing_on"])
        ]
        normal = pd.DataFrame(source.normal, columns=["image_id", "reader"], dtype=TEXT)
        is_normal = are_rows_of(positive_rows[["image_id", "reader"]], normal)
        source.exclude(positive_rows.loc[is_normal, "image_id"], "'no finding' beside a finding")
    states = rows
    if rows["boxed"].any():
        labels, boxed = rows[~rows["boxed"]], rows[rows["boxed"]]
        is_denied = are_rows_of(boxed[LABEL_KEY], rows.loc[rows["state"] == "absent", LABEL_KEY])
        source.exclude(boxed.loc[is_denied, "image_id"], "box of a finding that is labelled absent")
        is_alone = ~are_rows_of(boxed[LABEL_KEY], labels[LABEL_KEY])  # labels count before boxes
        states = pd.concat([labels, boxed[is_alone]])
    states = states.loc[states.duplicated(LABEL_KEY, keep=False), [*LABEL_KEY, "state"]]
    states = states.drop_duplicates()
    is_second = states.duplicated(LABEL_KEY)
    source.exclude(states.loc[is_second, "image_id"], "two states for one finding")
    images = [*source.left_out][n_before:]
    if len(images) > max(_FEW, _MANY * len(source.images)):
        ways = [source.options.caller.remedy({"reader": "COLUMN"}, "a column says who read them")]
        raise InputError(
            f"{source.root}: the labels of {len(images)} of {len(source.images)} images contradict "
            f"each other: {images[0]} has {source.left_out[images[0]]}; keep the rows that count",
            ways if "columns" in source.format.options else [],
        )


def _boxes(source: Source, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the boxes as corners in px of the upright image; images of wrong boxes leave."""
    ids = rows["image_id"]
    take_user_reading(source)
    where = source.reading.where or str(source.root)
    source.reading = reading = replace(source.reading, where=where)
    if len(rows):
        source.record.add("box_form", reading.form)
        source.record.add("box_unit", reading.unit)
    stated, actual = _box_sizes(source, ids, in_px=reading.unit == "px")
    rules = replace(TRUE_BOXES, either=source.size is not None, stretched=source.stretched)
    numbers, unread = rows[NUMBERS].to_numpy(np.float64), source.unread
    fitted = fit(numbers, reading, rows, stated, actual, rules, unread)
    source.notes += fitted.notes
    for image_id, fault in zip(ids, fitted.faults, strict=True):
        source.exclude([image_id] if fault else [], fault)
    if source.stretched and source.images["path"].notna().any():
        source.images = source.images.drop(columns=["width", "height"], errors="ignore")
    _state_sizes(source, ids[fitted.is_copy], actual[fitted.is_copy])
    table = rows[LABEL_KEY].assign(**dict(zip(EDGES, fitted.corners.T, strict=True)))
    once = table.drop_duplicates(ignore_index=True)
    if len(once) < len(table):
        text = "boxes are repeats of another box: these are dropped"
        source.notes.append(counted_phrase(len(table) - len(once), text))
    return once


def _box_sizes(source: Source, ids: pd.Series, *, in_px: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the size in px that each box is stated to be of, and that of its file, ``(N, 2)``."""
    images = source.images[is_member(source.images["image_id"], ids.unique())]
    images = images.reindex(columns=["image_id", "path", "width", "height"])
    unknown = (np.nan, np.nan)
    sizes = {}
    for image_id, path, *sides in images.itertuples(index=False):
        file_size = None
        is_copy = isinstance(path, str) and not path.lower().endswith(DICOM_SUFFIXES)
        if not source.labels_alone and isinstance(path, str):
            with suppress(InputError):  # found again, and listed, when the image is decoded
                file_size = source.image_size(path)
        elif source.measure is not None and not in_px:
            file_size = source.measure(image_id)
        sizes[image_id] = (is_copy and source.size) or sides, file_size or unknown
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


def _coverage(
    findings: pd.DataFrame,
    boxes: pd.DataFrame,
    partial: Set[tuple[str, str]],
    complete: str | Sequence[str],
) -> pd.DataFrame:
    """List the images and findings on which a reader has drawn a box around every lesion."""
    if complete == "all":
        complete = findings["finding"].unique().tolist()
    elif complete == "localised" or boxes.empty:
        complete = boxes["finding"].unique().tolist()
    is_boxed = are_rows_of(findings[LABEL_KEY], boxes[LABEL_KEY])
    partly_boxed = pd.DataFrame(sorted(partial), columns=FINDING_KEY, dtype=TEXT)
    is_partial = are_rows_of(findings[FINDING_KEY], partly_boxed)
    is_covered = (findings["state"] == "absent") & is_member(findings["finding"], complete)
    is_covered |= (findings["state"] == "present") & (is_boxed | is_partial)
    coverage = np.where(is_partial, "some", "all")
    rows = findings[LABEL_KEY].assign(coverage=coverage)[is_covered]
    return rows.astype(TEXT).reset_index(drop=True)


def require_finding(source: Source, tables: SourceTables) -> None:
    """Refuse the tables of a source that has labels, and in which no image shows a finding.

    A truth of cxr compare may be of one class.
    """
    states = tables.findings["state"]
    if source.options.caller.compares or states.empty:
        return
    if not is_member(states, ["present", "uncertain"]).any():
        raise no_finding(source, str(source.root), "no image shows a finding")
