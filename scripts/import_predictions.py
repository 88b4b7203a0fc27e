"""`cxr import`: predictions of other software, or a reader's, as a system like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scripts import console


def import_predictions(
    file: Annotated[Path, typer.Argument(help="CSV of scores or boxes, or COCO results JSON.")],
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
            "images with a box were run."
        ),
    ] = "all",
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
    original image. Scores lie between 0 and 1. Boxes are taken as they are, without suppression.

    Example: cxr import preds.csv --data out/data --out out/other --name "CheXNet, published"
    --image-column "Image Index" --score-column prob_Pneumonia
    """
    from data_prep.contracts.folders import provenance
    from data_prep.store.dataset import DataSet
    from data_prep.store.predictions import PredictionWriter
    from evaluation.systems.imported import ColumnNames, read_imported

    dataset = DataSet.open(data)
    imported = read_imported(
        file,
        dataset,
        columns=ColumnNames(image_column, score_column, finding_column),
        finding=finding,
        split=split,
        run_on=images,
        ignore_unknown=ignore_unknown,
        coco_truth=coco_truth,
        key=key,
    )
    info = {
        "system": name,
        "seed": None,
        "kind": imported.kind,
        "findings": sorted(imported.rows["finding"].unique()),
        "inference_id": imported.inference_id,
        "data_set": {
            "name": dataset.name,
            "content_id": dataset.ids["content_id"],
            "split": split,
            "split_id": dataset.ids.get("split_ids", {}).get(split),
        },
        "cost": dict.fromkeys(
            ("parameters", "flops", "latency_ms", "latency_device", "batch_size")
        ),
        "trained_on": "unknown",
        "imported_from": file.name,
        "notes": imported.notes,
        **provenance(),
    }
    with PredictionWriter(out, info) as writer:
        tables = {imported.kind: imported.rows}
        writer.add(imported.images, scores=tables.get("scores"), boxes=tables.get("boxes"))
    ran = int((imported.images["status"] == "ok").sum())
    for note in imported.notes:
        console.say(note)
    console.say(f"{name}: {len(imported.rows)} {imported.kind} on {ran} images")
    console.say(f"Predictions: {out}")
    if as_json:
        console.emit_json({"folder": str(out), "images": ran, **info})
