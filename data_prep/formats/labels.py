"""Check labels and boxes against each other and build the tables of a source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.formats.reference import ROW, with_reference
from cxr_compare.data_prep.formats.source import SourceBuilder, SourceTables


def stated_tables(
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
    """Conclude what the labels and boxes mean that a table (`path`) states, of one or more readers.

    An image without any has no `lacking`, says its note; `tables` go on to the builder.
    """
    exclude_contradictions(builder, labels, boxes, if_widths)
    images, labels, boxes = (builder.out.keep(frame) for frame in (images, labels, boxes))
    if images.empty:
        raise InputError(f"{path}: rules out every image; {builder.out.first()}")
    findings, boxes, coverage = with_reference(builder, add_boxed_findings(labels, boxes), boxes)
    unknown = int((~is_member(images["image_id"], findings["image_id"])).sum())
    if unknown:
        builder.notes.append(
            f"{counted(unknown, 'image', 'have')} no {lacking}: unknown, not negative"
        )
    return builder.tables(images, findings, boxes=boxes, box_coverage=coverage, **tables)


def exclude_contradictions(
    builder: SourceBuilder, labels: pd.DataFrame, boxes: pd.DataFrame, if_widths: str = ""
) -> None:
    """Rule out images whose label cannot be right."""
    out = builder.out
    out.add(labels.loc[labels.duplicated(ROW), "image_id"], "two states for one finding")
    hint = " (x1, y1, x2, y2 is expected, not x, y, width, height)"
    builder.rule_out_boxes(boxes, hint, if_widths)
    absent = labels.loc[labels["state"] == "absent", ROW].drop_duplicates()
    contradicted = boxes.merge(absent, on=ROW)["image_id"]
    out.add(contradicted, "box of a finding that is labelled absent")


def add_boxed_findings(labels: pd.DataFrame, boxes: pd.DataFrame) -> pd.DataFrame:
    """Add a present finding for each box whose finding has no label."""
    merged = boxes[ROW].drop_duplicates().merge(labels[ROW], how="left", indicator=True)
    implied = merged.loc[merged["_merge"] == "left_only", ROW]
    implied = implied.assign(state="present", origin="boxes")
    return pd.concat([labels, implied], ignore_index=True) if len(implied) else labels
