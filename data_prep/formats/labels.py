"""Check of labels against boxes, and building of the tables of a source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.box_values import BoxReading
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.formats.reference import LABEL_KEY, add_reference
from cxr_compare.data_prep.formats.source import SourceBuilder, SourceTables


def tables_from_labels(
    builder: SourceBuilder,
    images: pd.DataFrame,
    labels: pd.DataFrame,
    boxes: pd.DataFrame,
    *,
    path: Path,
    lacking: str = "label",
    reading: BoxReading | None = None,
    **tables: Any,
) -> SourceTables:
    """Build the tables of a data set from labels and boxes of one or more readers.

    A reader is a person who labelled images. Images whose labels contradict each other are left
    out. Labels of a reader ``reference`` are added, which join those of all readers and are used
    for training and evaluation.

    Args:
        builder: Object that knows the source folder (the user's files) and the user's options, and
            collects notes and excluded images.
        images: Images table: one row for each image, with patient, path and size.
        labels: Table with columns ``image_id, finding, reader``, ``state`` (present, absent or
            uncertain) and ``origin`` (kind of label, such as ``radiologists``).
        boxes: Table with columns ``image_id, finding, reader, x1, y1, x2, y2``, edges in px of the
            original image.
        path: File with the labels, for messages.
        lacking: Noun for what an image without labels lacks, such as "label" or "report", for a
            note.
        reading: Format in which the boxes were read; None for corners.
        **tables: Further tables by name for `data_prep.formats.source.SourceBuilder.build`, such as
            ``split``.

    Returns:
        All tables of the data set, before pixels are decoded.

    Raises:
        InputError: Every image is left out.
    """
    exclude_contradictions(builder, labels, boxes, images, reading)
    images, boxes = builder.upright(images, boxes)
    images, labels, boxes = (builder.exclusions.keep(frame) for frame in (images, labels, boxes))
    if images.empty:
        raise InputError(f"{path}: rules out every image; {builder.exclusions.first()}")
    findings, boxes, coverage = add_reference(builder, add_boxed_findings(labels, boxes), boxes)
    n_unlabelled = int((~is_member(images["image_id"], findings["image_id"])).sum())
    if n_unlabelled:
        builder.notes.append(
            f"{counted(n_unlabelled, 'image', 'have')} no {lacking}: their findings are unknown, "
            "not absent"
        )
    return builder.build(images, findings, boxes=boxes, box_coverage=coverage, **tables)


def exclude_contradictions(
    builder: SourceBuilder,
    labels: pd.DataFrame,
    boxes: pd.DataFrame,
    images: pd.DataFrame | None = None,
    reading: BoxReading | None = None,
    unread: Sequence[tuple[str, str]] = (),
) -> None:
    """Leave out the images whose labels and boxes contradict each other.

    They are images with two labels of one reader for one finding, with a box of a finding that the
    reader calls absent, or with an impossible box.

    Args:
        builder: Object that collects notes and excluded images. The images are added to its
            `exclusions`.
        labels: Table with columns ``image_id, finding, reader`` (person who labelled) and
            ``state``.
        boxes: Table with columns ``image_id, finding, reader, x1, y1, x2, y2``, px of the original
            image.
        images: Table of the images with their paths; None if their sizes are not known.
        reading: Format in which the boxes were read; None for corners.
        unread: Image and reason of each box that could not be read.

    Raises:
        InputError: A tenth or more of the boxes cannot be used.
    """
    exclusions = builder.exclusions
    exclusions.add(
        labels.loc[labels.duplicated(LABEL_KEY), "image_id"], "two states for one finding"
    )
    hint = " (x1, y1, x2, y2 is expected, not x, y, width, height)"
    builder.exclude_invalid_boxes(boxes, hint, images=images, reading=reading, unread=unread)
    absent = labels.loc[labels["state"] == "absent", LABEL_KEY].drop_duplicates()
    contradicted = boxes.merge(absent, on=LABEL_KEY)["image_id"]
    exclusions.add(contradicted, "box of a finding that is labelled absent")


def add_boxed_findings(labels: pd.DataFrame, boxes: pd.DataFrame) -> pd.DataFrame:
    """Add the label "present" for each box whose finding has no label on its image.

    Args:
        labels: Table with ``image_id``, ``finding``, ``reader`` (person who labelled), ``state``
            and ``origin`` (kind of label).
        boxes: Table with ``image_id``, ``finding`` and ``reader``.

    Returns:
        The labels with the added rows, whose ``origin`` is ``boxes``.
    """
    merged = boxes[LABEL_KEY].drop_duplicates().merge(labels[LABEL_KEY], how="left", indicator=True)
    implied = merged.loc[merged["_merge"] == "left_only", LABEL_KEY]
    implied = implied.assign(state="present", origin="boxes")
    return pd.concat([labels, implied], ignore_index=True) if len(implied) else labels
