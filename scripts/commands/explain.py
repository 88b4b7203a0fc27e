"""`cxr explain`."""

from __future__ import annotations

from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts import console
from cxr_compare.scripts.console import Shown
from cxr_compare.scripts.options import AnyPath


def explain(
    boxes: AnyPath,
    *,
    figure: str | None = None,
    data: AnyPath | None = None,
    truth: AnyPath | None = None,
    split: str = "default",
) -> Shown:
    """Say which average precision a published number is: boxes by the rules of seven programs.

    The rules are those of COCO, Pascal VOC, Ultralytics and RSNA, for several lowest scores, of all
    test images and of those with a lesion.

    Args:
        boxes: Predicted boxes: a table, COCO results, or a folder of YOLO files.
        figure: Figure that another program gave, such as 0.4712, in the digits that it gave: only
            the rules that give it are shown, or else the nearest one.
        data: Data set of cxr prepare, with the true boxes.
        truth: True boxes in place of a data set: COCO, a table, or a folder of YOLO files.
        split: Split of the data set whose test images are evaluated.
    """
    from cxr_compare.data_prep.dataset import DataSet
    from cxr_compare.evaluation.sources.import_options import ImportOptions
    from cxr_compare.evaluation.sources.imported import read_predicted_boxes
    from cxr_compare.evaluation.sources.truth_files import truth_set
    from cxr_compare.studies.box_protocols import nearest, protocol_figures, rows_that_give

    if (truth is None) == (data is None):
        raise InputError("explain: give either data or truth")
    options = ImportOptions("boxes")
    if truth is None:
        dataset = DataSet.open(str(data))
    else:
        truth = Path(truth)
        dataset = truth_set(truth, None)
        for note in dataset.info.notes:
            console.say(note)
        if truth.suffix.lower() == ".json":
            options = ImportOptions("boxes", coco_truth=truth)
    predicted, true = read_predicted_boxes(Path(boxes), dataset, options)
    table = protocol_figures(predicted, true, dataset.image_ids("test", split))
    chosen = table if figure is None else nearest(table, str(figure))
    lines = [
        f"{row.value:.4f}  {row.program}, IoU {row.iou}, boxes from score {row.floor:g}, "
        f"images: {row.images}"
        for row in chosen.itertuples()
    ]
    if figure is not None and rows_that_give(table, str(figure)).empty:
        lines.insert(0, f"None of these rules gives {figure}; the nearest is")
    return Shown("\n".join(lines), chosen.to_dict("records"))
