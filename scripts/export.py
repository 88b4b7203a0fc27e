"""`cxr export`: the labels of a data set for other programs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from data_prep.contracts.errors import InputError


def export(
    data: Annotated[Path, typer.Argument(help="Data set folder, as made by cxr prepare.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    format: Annotated[  # noqa: A002 - the option's own name
        str, typer.Option(help="coco, voc, yolo, or kaggle (CSV of the RSNA challenge).")
    ],
    split: Annotated[
        str | None, typer.Option(help="Also write the roles of this split, as 'default'.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The findings of this target only; kaggle holds one target.")
    ] = None,
    reader: Annotated[str, typer.Option(help="Whose labels.")] = "reference",
    images: Annotated[
        str | None,
        typer.Option(
            help="Images beside the labels: png or jpeg (rendered in 8 bits, as the models see "
            "them, of the original's size), link, copy or none. By default png for yolo, jpeg "
            "for voc, none for coco and kaggle."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that render; all processors if left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Write a data set's labels as other programs read them, and say what those cannot hold.

    cxr prepare reads coco and voc back without loss. The folder appears whole or not at all.

    Example: cxr export data/rsna out/rsna-yolo --format yolo --split default
    """
    from data_prep.contracts.workers import cpu_count
    from data_prep.export.export import WRITERS, export_annotations
    from data_prep.store.dataset import DataSet
    from scripts import console

    if (data / "run.json").is_file():
        raise InputError(
            f"{data}: a run; --format onnx and openvino come later, and {', '.join(WRITERS)} are "
            "for data sets"
        )
    dataset = DataSet.open(data)
    with console.progress("Writing", len(dataset.images)) as advance:
        summary = export_annotations(
            dataset,
            out,
            format,
            split=split,
            reader=reader,
            target=target,
            images=images,
            workers=cpu_count() if workers is None else workers,
            advance=advance,
        )
    for line in summary.lines:
        console.say(line)
    console.next_step(
        f"cxr import PREDICTIONS --data {shlex.quote(str(data))} --name NAME --out OUT, for what "
        "another program predicts"
    )
    if as_json:
        console.emit_json(summary.payload)
