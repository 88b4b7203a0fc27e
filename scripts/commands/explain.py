"""`cxr explain`."""

from __future__ import annotations

from pathlib import Path

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.scripts import console
from cxr_compare.scripts.console import Shown
from cxr_compare.scripts.options import AnyPath, Columns, roles_of


def explain(
    boxes: AnyPath,
    *,
    figure: str | None = None,
    data: AnyPath | None = None,
    truth: AnyPath | None = None,
    columns: Columns = None,
    split: str = "default",
) -> Shown:
    """Say which average precision a published number is: boxes by the rules of seven programs.

    The rules are those of COCO, Pascal VOC, Ultralytics and RSNA, for several lowest scores, of all
    test images and of those with a lesion. Without a figure the lines are those of all boxes and
    images; `--json` has all.

    Args:
        boxes: Predicted boxes: a table, COCO results, or a folder of YOLO files.
        figure: Figure that another program gave, such as 0.4712, in the digits that it gave: only
            the rules that give it are shown, or else the nearest one.
        data: Data set of cxr prepare, with the true boxes.
        truth: True boxes in place of a data set: COCO, or a table of labels and boxes.
        columns: Names of columns as ROLE=COLUMN: of the truth; boxes.score, boxes.image,
            boxes.finding and boxes.box_form of the predicted boxes.
        split: Split of the data set whose test images are evaluated.
    """
    from cxr_compare.data_prep.dataset import DataSet
    from cxr_compare.evaluation.boxes.matching import pair_boxes
    from cxr_compare.evaluation.boxes.other_programs import (
        nearest,
        protocol_figures,
        rows_that_give,
    )
    from cxr_compare.evaluation.inputs.boxes_of_findings import (
        SYSTEM,
        boxes_of_data_set,
        boxes_of_file,
        predicted_boxes,
    )
    from cxr_compare.evaluation.verdict.box_checks import placed_boxes, placement_notes
    from cxr_compare.scripts.compared_systems import split_roles

    if (truth is None) == (data is None):
        raise InputError("explain: give either data or truth")
    of_truth, of_results = split_roles(roles_of(columns))
    if other := of_results.keys() - {"", SYSTEM}:
        raise InputError(f"columns: there is no '{min(other)}'; write {SYSTEM}.ROLE=COLUMN")
    if truth is not None:
        true = boxes_of_file(Path(truth), of_truth)
    elif of_truth:
        raise InputError(f"columns: {min(of_truth)} is of a truth, and the data set has its own")
    else:
        true = boxes_of_data_set(DataSet.open(str(data)), split)
    roles = of_results.get("", {}) | of_results.get(SYSTEM, {})
    predicted, notes = predicted_boxes(Path(boxes), true, roles)
    for one in true.truths:
        boxes_of_one = predicted[predicted["finding"] == one.finding]
        placed = placed_boxes(one, pair_boxes(boxes_of_one, one.boxes, one.ids[one.is_boxed]))
        notes += [note.text for note in placement_notes(placed, one.finding)]
    for line in notes:
        console.say(line)
    table = protocol_figures(predicted, true.table, true.image_ids)
    chosen = table if figure is None else nearest(table, str(figure))
    shown_rows = chosen
    if figure is None:
        shown_rows = table[(table["floor"] == table["floor"].min()) & (table["images"] == "all")]
    lines = [
        f"{row.value:.4f}  {row.program}, IoU {row.iou}, boxes from score {row.floor:g}, "
        f"images: {row.images}"
        for row in shown_rows.itertuples()
    ]
    if figure is None:
        lines.append(
            f"All {len(table)} values, also of images with a lesion alone and of higher lowest "
            "scores, are in json; give figure to find the rules that give it"
        )
    if figure is not None and rows_that_give(table, str(figure)).empty:
        lines.insert(0, f"None of these rules gives {figure}; the nearest is")
    return Shown("\n".join(lines), chosen.to_dict("records"))
