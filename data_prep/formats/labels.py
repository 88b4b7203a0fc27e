"""Check of labels against boxes, and building of the tables of a source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

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
    if_widths: str = "Write corners: x2 = x1 + width, y2 = y1 + height",
    **tables: Any,
) -> SourceTables:
    """Build the tables of a source from the labels and boxes of one or more readers.

    Images whose labels contradict each other are excluded. The labels of the reference are added.

    Args:
        builder: Builder of the source.
        images: The images table.
        labels: Table with columns ``image_id, finding, reader, state, origin``.
        boxes: Table with columns ``image_id, finding, reader, x1, y1, x2, y2``.
        path: File with the labels, for messages.
        lacking: Noun for what an image without labels lacks, for a note.
        if_widths: Advice for the case that x2 and y2 seem to be widths and heights.
        **tables: Further tables for `SourceBuilder.build`.

    Raises:
        InputError: Every image is excluded.
    """
    exclude_contradictions(builder, labels, boxes, if_widths)
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
    builder: SourceBuilder, labels: pd.DataFrame, boxes: pd.DataFrame, if_widths: str = ""
) -> None:
    """Exclude the images whose labels and boxes contradict each other.

    Args:
        builder: Builder of the source, which collects the exclusions.
        labels: Labels of all readers.
        boxes: Boxes of all readers.
        if_widths: Advice for the case that x2 and y2 seem to be widths and heights.
    """
    exclusions = builder.exclusions
    exclusions.add(
        labels.loc[labels.duplicated(LABEL_KEY), "image_id"], "two states for one finding"
    )
    hint = " (x1, y1, x2, y2 is expected, not x, y, width, height)"
    builder.exclude_invalid_boxes(boxes, hint, if_widths)
    absent = labels.loc[labels["state"] == "absent", LABEL_KEY].drop_duplicates()
    contradicted = boxes.merge(absent, on=LABEL_KEY)["image_id"]
    exclusions.add(contradicted, "box of a finding that is labelled absent")


def add_boxed_findings(labels: pd.DataFrame, boxes: pd.DataFrame) -> pd.DataFrame:
    """Add a present finding for each box whose finding has no label.

    Args:
        labels: Labels with ``image_id``, ``finding``, ``reader``, ``state`` and ``origin``.
        boxes: Boxes with ``image_id``, ``finding`` and ``reader``.

    Returns:
        The labels with the added rows, whose origin is ``boxes``.
    """
    merged = boxes[LABEL_KEY].drop_duplicates().merge(labels[LABEL_KEY], how="left", indicator=True)
    implied = merged.loc[merged["_merge"] == "left_only", LABEL_KEY]
    implied = implied.assign(state="present", origin="boxes")
    return pd.concat([labels, implied], ignore_index=True) if len(implied) else labels
