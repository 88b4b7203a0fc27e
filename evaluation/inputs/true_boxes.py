"""True boxes of a truth, from tables, files and outputs of libraries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.data_prep.base.ids import match_ids
from cxr_compare.data_prep.base.names import display_name, finding_name, names_finding
from cxr_compare.data_prep.base.user_tables import is_table_file
from cxr_compare.data_prep.sources.source import EMPTY_EDGES, SHOWS_NOTHING
from cxr_compare.evaluation.inputs.box_classes import other_class
from cxr_compare.evaluation.inputs.files import read_rows
from cxr_compare.evaluation.inputs.image_sizes import ImageFiles, measured
from cxr_compare.evaluation.inputs.px_boxes import boxes_in_px, clipped
from cxr_compare.evaluation.notes import reading_notes
from cxr_compare.evaluation.truth import UNNAMED, Truth, no_boxes


def with_boxes(
    truth: Truth,
    boxes: Any,
    written: Mapping[str, str] | None = None,
    where: str = "boxes",
    files: ImageFiles | None = None,
) -> Truth:
    """Add true boxes; they count on negative images and on positive ones that have a box.

    `written` says how the boxes are written (box_form, box_unit), if the user does. Only boxes that
    are shares take the sizes of image files: boxes in px may be of another copy of the images.
    """
    if isinstance(boxes, str | Path):
        where = str(boxes)
        if Path(boxes).is_file() and not is_table_file(Path(boxes)):
            raise InputError(
                f"{boxes}: boxes beside labels are a table of image_id,x1,y1,x2,y2; a COCO file "
                "holds the labels, too: give it as truth alone"
            )
    order = pd.Series(truth.ids, truth.ids) if truth.order is None else truth.order
    word = "line" if isinstance(boxes, str | Path) else "row"
    rows = read_rows(boxes, order, {}, where, word=word)
    rows.where = where
    if not rows.are_boxes:
        raise InputError(f"{where}: no four columns are the edges of boxes; call them x1,y1,x2,y2")
    if "score" in rows.table:
        rows.table = rows.table.drop(columns="score")
    if "finding" in rows.table and truth.categories:
        rows.table = rows.table.drop(columns="finding")
    if "finding" in rows.table:
        kinds = set(filter(names_finding, rows.table["finding"].astype(str)))
        if truth.finding == UNNAMED and len(kinds) == 1:
            finding = finding_name(kinds.pop())
            truth = replace(truth, finding=finding, title=display_name(finding))
        other = other_class(rows.table["finding"].astype(str), [truth.finding])
        if other:
            raise InputError(
                f"{where}: image '{rows.table['image_id'][other[0]]}' has a box of '{other[1]}', "
                f"and the labels are of '{truth.finding}'"
            )
    found, note = match_ids(rows.table["image_id"], truth.ids, where)
    rows.table["image_id"] = rows.table["image_id"].map(found)
    crowds = rows.table.get("crowd", pd.Series(False, rows.table.index)).astype(bool)
    crowded = rows.table["image_id"][crowds]
    rows.table = rows.table[~crowds].reset_index(drop=True)
    rows.notes = [note] if note else []
    in_px = dict(written or {}).get("box_unit", rows.unit) == "px"
    sized = truth if in_px else replace(measured(truth, files), presumed=False)
    table = boxes_in_px(rows, sized, written or {}, name="", as_given=True)
    table = clipped(table, sized, rows)[["image_id", *EDGES]].reset_index(drop=True)
    twice = int(table.duplicated().sum())
    if twice:
        rows.notes.append(f"{counted(twice, 'box', 'are')} given twice, and each counts.")
    notes = (*truth.notes, *reading_notes(rows.notes, "True boxes"))
    label = truth.images["label"].reindex(table["image_id"]).to_numpy()
    if (label == 0).any():
        image = table["image_id"][int((label == 0).argmax())]
        raise InputError(f"{where}: image '{image}' has a box, and its label says negative")
    negative = truth.ids[(truth.images["label"] == 0).to_numpy()]
    # A crowd is not boxed lesion by lesion.
    boxed = negative.union(pd.Index(table["image_id"].unique())).difference(pd.Index(crowded))
    boxes = table if len(table) else no_boxes()
    return replace(truth, boxes=boxes, boxed=boxed, notes=notes)


def keep_false_alarms(truth: Truth, where: str) -> Truth:
    """Return a truth that says how images without a lesion are listed, if it lists none.

    To remove the predictions for them would remove false alarms.
    """
    if truth.boxes.empty or (truth.images["label"] == 0).any():
        return truth
    way = SHOWS_NOTHING["coco"] if where.lower().endswith(".json") else EMPTY_EDGES
    remedy = (
        f"{where} lists no image without a lesion: if they show nothing, {way} there, so that "
        "boxes on it count as false"
    )
    return replace(truth, unlisted=remedy)
