"""`cxr import`: make a system of the predictions of other software."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts.console import say
from cxr_compare.scripts.options import DataFolder, read_roles
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path
from cxr_compare.scripts.result_columns import require_box_answers
from cxr_compare.scripts.runner import command

if TYPE_CHECKING:
    from cxr_compare.data_prep.store.predictions import Predictions
    from cxr_compare.evaluation.boxes.read_table import ColumnNames


def _read(given: Any) -> Any:
    """Return a DataFrame as it is; take all else as the name of a file or a folder."""
    return given if hasattr(given, "columns") else Path(given)


@command
def import_predictions(
    file: Annotated[Any, Argument(read=_read)],
    *,
    data: DataFolder,
    out: AnyPath,
    name: str | None = None,
    finding: str | None = None,
    columns: Annotated[Sequence[str], Argument(read=read_roles, metavar="ROLE=COLUMN")] = (),
    images: str = "all",
    class_names: str | None = None,
    split: str = "default",
    ignore_unknown: bool = False,
    coco_truth: AnyPath | None = None,
    scale: float | None = None,
) -> Predictions:
    """Import predictions of other software.

    A CSV has the columns image_id,score[,finding] or image_id,x1,y1,x2,y2,score[,finding], with
    boxes in px of the original image. The columns x,y,width,height and other usual names (filename,
    prob, xmin) are recognised, and the command says which it took. A Kaggle submission with the
    column PredictionString (RSNA, VinBigData) is read as boxes. A folder of YOLO files holds one
    .txt for each image, with lines "class cx cy w h confidence" (Ultralytics: save_txt=True
    save_conf=True). Scores lie between 0 and 1; other image scores, such as logits, are taken for
    their ranks if their column is named by --columns score=COLUMN. All boxes are kept, also those
    that overlap.

    Args:
        file: CSV (in Python also a DataFrame), COCO results JSON, or folder of YOLO files.
        data: Data set that cxr prepare made.
        out: Predictions folder to make.
        name: Name of the system in the report, by default that of the file. A DataFrame needs one.
        finding: Finding of the rows that name none, such as lung_opacity. Needed only if the data
            set has several findings.
        columns: Columns of the CSV as ROLE=COLUMN, for the roles image, score and finding, such as
            "image=Image Index,score=prob". A role that is left out is found by the usual names.
            finding= says that no column holds the classes of boxes; image=id or image=file_name,
            what the image_id of COCO results is.
            box_form=xyxy (or xywh, cxcywh), box_unit=share (or px, percent, thousandth) and
            box_order=yxyx (y before x) say how boxes of any file are written. score= says that no
            column holds the scores of boxes.
        images: Images that the software was run on; only for files of boxes. all: every image (but
            no validation image if only test images have a box; with --coco-truth only its images).
            listed: images with a box or a file. FILE: in addition the names in this file, one on
            each line.
        class_names: Class names of YOLO files in their order, with commas, or a data.yaml. By
            default data.yaml in the folder or in a folder above it.
        split: Split (which images are for training, validation and test) whose validation and test
            images are expected in the file. Other images may be missing.
        ignore_unknown: Leave out images and findings that the data set does not have. Without it
            they are refused, and the message names them.
        coco_truth: COCO annotation file whose image and category ids the results use. Its images
            count as those that the software was run on.
        scale: Factor from the px of the boxes to px of the original image, such as 2 for boxes of
            an image that was halved. 1 says that the boxes are in px of the original image, where
            the command asks.

    Returns:
        The imported predictions.

    Raises:
        InputError: A row is wrong, or an image is unknown or missing. The message names the file,
            the row and the value.

    Example:
        cxr import preds.csv --data out/data --out out/other --name "CheXNet, published"
        --columns "image=Image Index,score=prob_Pneumonia"

        cxr import runs/detect/predict --data out/data --out out/yolo --name YOLO
        --class-names out/yolo-set/data.yaml
    """
    data = as_path(data)
    out = as_path(out)
    coco_truth = as_path(coco_truth)
    from cxr_compare.evaluation.sources.import_folder import import_file
    from cxr_compare.evaluation.sources.import_options import ImportOptions

    if name is None:
        if not isinstance(file, Path):
            raise InputError("--name is missing: name the system, as a DataFrame has no file name")
        name = file.resolve().stem
    options = ImportOptions(
        name,
        columns=_column_names(columns),
        finding=finding,
        class_names=class_names,
        split=split,
        images=images,
        ignore_unknown=ignore_unknown,
        coco_truth=coco_truth,
        scale=scale,
    )
    predictions = import_file(file, data, out, options)
    for note in predictions.info.notes:
        say(note)
    return predictions


_COLUMN_ROLES = ("image", "score", "finding", "box_form", "box_unit", "box_order")


def _column_names(roles: Sequence[str]) -> ColumnNames:
    """Return the columns of a CSV of predictions, from texts ROLE=COLUMN."""
    from cxr_compare.evaluation.boxes.read_table import ColumnNames

    names: dict[str, Any] = dict(text.split("=", 1) for text in roles if "=" in text)
    for text in roles:
        role, equals, column = text.partition("=")
        has_column = column or role in ("finding", "score")  # no column holds classes, or scores
        if role not in _COLUMN_ROLES or not equals or not has_column:
            raise InputError(
                f"--columns {text}: write image=COLUMN, score=COLUMN or finding=COLUMN"
            )
    require_box_answers(names)
    return ColumnNames(**names, score_is_named="score" in names)
