"""`cxr import`: predictions of other software, or a reader's, as a system like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_prep.contracts.words import counted
from scripts import console
from scripts.next_steps import show_next


def import_predictions(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV of scores or boxes, COCO results JSON, or a folder of YOLO prediction files."
        ),
    ],
    data: Annotated[Path, typer.Option(help="Data set that cxr prepare made.")],
    out: Annotated[Path, typer.Option(help="Predictions folder to make.")],
    name: Annotated[str, typer.Option(help="Name of the system in the report.")],
    finding: Annotated[
        str | None,
        typer.Option(help="Finding of rows that name none; may be left out where there is one."),
    ] = None,
    image_column: Annotated[str, typer.Option(help="CSV column of image ids.")] = "image_id",
    score_column: Annotated[str, typer.Option(help="CSV column of scores.")] = "score",
    finding_column: Annotated[str, typer.Option(help="CSV column of findings.")] = "finding",
    images: Annotated[
        str,
        typer.Option(
            help="Boxes only. all: an image without a box was run and had nothing; listed: only "
            "images with a box or a file were run; FILE: these too, a name a line."
        ),
    ] = "all",
    class_names: Annotated[
        str | None,
        typer.Option(
            help="YOLO only: names of the classes, with commas, in the order of their numbers; or "
            "the data.yaml that names them. By default data.yaml in the folder or above."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Its val and test images are expected.")] = "default",
    ignore_unknown: Annotated[
        bool,
        typer.Option(
            "--ignore-unknown",
            help="Leave out images and findings that the data set does not have.",
        ),
    ] = False,
    coco_truth: Annotated[
        Path | None,
        typer.Option(help="COCO annotation file that the results' image and category ids are of."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            help="key.csv of the blind study (cxr overlay --blind) that FILE is read for."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Import predictions of any other software, or a radiologist's readings.

    CSV: image_id,score[,finding] or image_id,x1,y1,x2,y2,score[,finding], boxes in pixels of the
    original image. YOLO: one .txt an image, named like it, of lines "class cx cy w h confidence",
    as Ultralytics writes them with save_txt=True save_conf=True. Scores lie between 0 and 1. Boxes
    are taken as they are, without suppression.

    Example: cxr import preds.csv --data out/data --out out/other --name "CheXNet, published"
    --image-column "Image Index" --score-column prob_Pneumonia

    Example: cxr import runs/detect/predict --data out/data --out out/yolo --name YOLO
    --class-names out/yolo-set/data.yaml
    """
    from data_prep.store.folder_kinds import require_kind

    require_kind(data, "data set")  # before what is heavy: a wrong folder is said at once
    from evaluation.systems.imported import ColumnNames
    from evaluation.systems.imported import import_predictions as import_from

    predictions = import_from(
        file,
        data,
        out,
        name=name,
        columns=ColumnNames(image_column, score_column, finding_column),
        finding=finding,
        class_names=class_names,
        split=split,
        images=images,
        ignore_unknown=ignore_unknown,
        coco_truth=coco_truth,
        key=key,
    )
    info = predictions.info
    rows = predictions.boxes if predictions.kind == "boxes" else predictions.scores
    ran = len(predictions.images_run)
    for note in info["notes"]:
        console.say(note)
    console.say(f"{name}: {len(rows)} {predictions.kind} on {counted(ran, 'image')}")
    console.say(f"Predictions: {out}")
    show_next(out, data)
    if as_json:
        console.emit_json({"folder": str(out), "images": ran, **info})
