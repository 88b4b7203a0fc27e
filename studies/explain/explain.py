"""`cxr explain`: find the rules by which another program computed its figure of predicted boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cxr_compare import DataSet, InputError
from cxr_compare.scripts import console
from cxr_compare.scripts.command_frame import (
    AnyPath,
    Argument,
    DataFolder,
    Outcome,
    as_path,
    command,
)


@command
def explain(
    boxes: AnyPath,
    *,
    figure: Annotated[Sequence[str], Argument(metavar="FIGURE")],
    data: DataFolder | None = None,
    truth: AnyPath | None = None,
    split: str = "default",
    finding: str | None = None,
    class_names: str | None = None,
    coco_truth: AnyPath | None = None,
    scale: float | None = None,
) -> Outcome:
    """Find the rules behind another program's average precision.

    The command computes the average precision of the boxes by the rules of COCO, Pascal VOC,
    Ultralytics and RSNA, and with one or two of these rules changed. It says which rules give the
    figure, and how many arbitrary figures they would give as well. All predicted boxes on test
    images count, however low their scores. If far more boxes would match a true box if they were
    read in another way, such as y before x, the answer says so.

    Args:
        boxes: Predicted boxes: CSV, COCO results JSON, or folder of YOLO files, as in cxr import.
        figure: Average precision that the program gave on the test images, such as 0.4712. Give the
            option again for further figures of the same program, which are explained together:
            ap75=0.31 (at IoU 0.75), score0.3=0.44 (of boxes with a score of at least 0.3).
        data: Data set that cxr prepare made, with the true boxes.
        truth: True boxes, in place of --data: COCO JSON, a CSV, or a folder of COCO or YOLO files,
            which also names the images without a box. Without roles all images are test images.
        split: Split (which images are for training, validation and test) whose test images the
            figure is of. By default it is the split that cxr prepare made.
        finding: Finding of the rows that name none, such as lung_opacity. Needed only if there are
            several findings.
        class_names: Class names of YOLO files in their order, with commas, or a data.yaml. By
            default data.yaml in the folder or in a folder above it.
        coco_truth: With --data, the COCO annotation file whose image and category ids the results
            use. Its crowds (iscrowd) count as in COCO. A --truth in COCO JSON is used so, too.
        scale: Factor from the px of the boxes to px of the original image, such as 2 for boxes of
            an image that was halved. 1 says that the boxes are in px of the original image, where
            the command asks.

    Returns:
        The answer in words; as a dictionary, it also has the rules of the nearest protocols.

    Raises:
        InputError: A figure cannot be read, a row is wrong, or there is no predicted or true box on
            the test images.

    Example:
        cxr explain results.json --data out/data --figure 0.4712 --figure ap75=0.3127
    """
    from cxr_compare.evaluation.sources.import_options import ImportOptions
    from cxr_compare.evaluation.sources.imported import read_predicted_boxes
    from cxr_compare.evaluation.sources.truth_files import truth_set
    from cxr_compare.studies.explain.protocols import explain_figure

    boxes = as_path(boxes)
    data = as_path(data)
    truth = as_path(truth)
    coco_truth = as_path(coco_truth)
    if data is not None and truth is None:
        dataset = DataSet.open(data)
    elif truth is not None and data is None:
        dataset = truth_set(truth, None)
        for note in dataset.info.notes:
            console.say(note)
        if truth.suffix == ".json":
            coco_truth = coco_truth or truth
    else:
        raise InputError("explain: give either --data SET or --truth FILE")
    options = ImportOptions(
        "boxes", finding=finding, class_names=class_names, coco_truth=coco_truth, scale=scale
    )
    predicted, true = read_predicted_boxes(boxes, dataset, options)
    test_ids = dataset.image_ids("test", split)
    answer = explain_figure(list(figure), predicted, true, test_ids, dataset.images)
    return Outcome(answer["text"], answer)
