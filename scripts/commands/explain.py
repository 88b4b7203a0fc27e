"""`cxr explain`: the average precision of boxes by the rules of other programs."""

from __future__ import annotations

from typing import Annotated

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.scripts import console
from cxr_compare.scripts.options import DataFolder
from cxr_compare.scripts.outcome import Outcome
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path
from cxr_compare.scripts.runner import command


@command
def explain(
    boxes: AnyPath,
    *,
    figure: Annotated[str | None, Argument(read=str)] = None,
    data: DataFolder | None = None,
    truth: AnyPath | None = None,
    split: str = "default",
) -> Outcome:
    """Compute the average precision of boxes by other programs' rules.

    The rules are those of COCO, Pascal VOC, Ultralytics and RSNA, for several lowest scores, of all
    test images and of those with a lesion.

    Args:
        boxes: Predicted boxes: CSV, COCO results JSON, or folder of YOLO files, as in cxr import.
        figure: Figure that another program gave, such as 0.4712: only the rules that give it are
            printed, or else the nearest one.
        data: Data set that cxr prepare made, with the true boxes.
        truth: True boxes, in place of --data: COCO JSON, a CSV, or a folder of COCO or YOLO files.
        split: Split whose test images are evaluated.

    Returns:
        The figure by each set of rules.

    Example:
        cxr explain results.json --data out/data --figure 0.4712
    """
    from cxr_compare.evaluation.sources.import_options import ImportOptions
    from cxr_compare.evaluation.sources.imported import read_predicted_boxes
    from cxr_compare.evaluation.sources.truth_files import truth_set
    from cxr_compare.studies.box_protocols import nearest, protocol_figures, rows_that_give

    data, truth = as_path(data), as_path(truth)
    coco = None
    if data is not None and truth is None:
        dataset = DataSet.open(data)
    elif truth is not None and data is None:
        dataset = truth_set(truth, None)
        for note in dataset.info.notes:
            console.say(note)
        coco = truth if truth.suffix.lower() == ".json" else None
    else:
        raise InputError("explain: give either --data SET or --truth FILE")
    options = ImportOptions("boxes", coco_truth=coco)
    predicted, true = read_predicted_boxes(as_path(boxes), dataset, options)
    table = protocol_figures(predicted, true, dataset.image_ids("test", split))
    chosen = table if figure is None else nearest(table, figure)
    lines = [
        f"{row.value:.4f}  {row.program}, IoU {row.iou}, boxes from score {row.floor:g}, "
        f"images: {row.images}"
        for row in chosen.itertuples()
    ]
    if figure is not None and rows_that_give(table, figure).empty:
        lines.insert(0, f"None of these rules gives {figure}; the nearest is")
    return Outcome("\n".join(lines), chosen.to_dict("records"))
