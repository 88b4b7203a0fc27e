"""The way from the statements of a source to the tables of a data set.

What is checked of labels and boxes is checked here, for all formats.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.box_check import (
    ENOUGH_COPIES,
    check_boxes,
    misfit,
    scaled_to_files,
    size_text,
)
from cxr_compare.data_prep.base.boxes import EDGES, SIDEWAYS, are_scaled, upright_boxes
from cxr_compare.data_prep.base.errors import InputError, counted_phrase
from cxr_compare.data_prep.base.ids import TEXT, are_rows_of, is_member
from cxr_compare.data_prep.base.tables import FINDING_KEY, LABEL_KEY
from cxr_compare.data_prep.sources.readers import with_reference
from cxr_compare.data_prep.sources.source import SourceTables, targets_from_findings
from cxr_compare.data_prep.sources.statements import (
    BOX,
    Source,
    no_finding,
    user_reading,
)
from cxr_compare.data_prep.sources.words import dictionary


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
    if source.index is not None:
        source.record.add("fact", role="image_files", rows=len(source.index.images))
    rows = source.statements.frame()
    stated = rows.loc[~rows["implied"], LABEL_KEY].drop_duplicates()
    rows = rows[~(rows["implied"] & are_rows_of(rows[LABEL_KEY], stated))]
    rows = rows[is_member(rows["image_id"], source.images["image_id"])].reset_index(drop=True)
    _exclude_contradictions(source, rows)
    boxes = _boxes(source, rows[rows["boxed"]].reset_index(drop=True), frame, resized)
    paths = source.images.dropna(subset="path").set_index("image_id")["path"]
    reasons = {paths.get(name, name): reason for name, reason in source.left_out.items()}
    images = source.keep(source.images)
    if images.empty:
        first = next((f"; {path}: {reason}" for path, reason in reasons.items()), "")
        raise InputError(f"{source.root}: no image can be used{first}")
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
        box_coverage=_coverage(findings, boxes, source.statements.partial, coverage),
        excluded=pd.DataFrame(excluded, dtype=TEXT),
        split=source.keep(source.split),
        official=source.keep(source.official),
        notes=source.notes,
        read=source.record.table(),
        implied_note=source.implied_note,
        questions=source.questions,
        categories=source.categories,
    )


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
    reading = user_reading(source, source.statements.reading)
    reading = replace(reading, where=reading.where or str(source.root))
    stated, actual = _box_sizes(source, ids, frame, in_px=reading.unit == "px")
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
    source: Source, ids: pd.Series, frame: tuple[float, float] | None, *, in_px: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the size in px that each box is of, and that of the file, each ``(N, 2)``."""
    images = source.images[is_member(source.images["image_id"], ids.unique())]
    images = images.reindex(columns=["image_id", "path", "width", "height"])
    has_files = not source.labels_alone
    sizes: dict[str, np.ndarray] = {}
    for image_id, path, *sides in images.itertuples(index=False):
        stated = actual = np.array(frame or sides, dtype=np.float64)
        if has_files and isinstance(path, str):
            with suppress(InputError):  # found again, and listed, when the image is decoded
                actual = np.array(source.labelled_size(path), dtype=np.float64)
        elif source.measure is not None and not in_px:
            own = source.measure(image_id)
            actual = actual if own is None else np.array(own, dtype=np.float64)
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
    some = pd.DataFrame(sorted(partial), columns=FINDING_KEY, dtype=TEXT)
    is_partial = are_rows_of(findings[FINDING_KEY], some)
    is_covered = (findings["state"] == "absent") & is_member(findings["finding"], complete)
    is_covered |= (findings["state"] == "present") & (is_boxed | is_partial)
    coverage = np.where(is_partial, "some", "all")
    rows = findings[LABEL_KEY].assign(coverage=coverage)[is_covered]
    return rows.astype(TEXT).reset_index(drop=True)


def require_finding(source: Source, tables: SourceTables) -> None:
    """Refuse the tables of a source that has labels, and in which no image shows a finding."""
    states = tables.findings["state"]
    if len(states) and not is_member(states, ["present", "uncertain"]).any():
        raise no_finding(source, str(source.root), "no image shows a finding")
