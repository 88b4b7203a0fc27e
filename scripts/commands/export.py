"""`cxr export`: write a run that predicts without torch, or labels for other software."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from cxr_compare.data_prep.contracts.errors import TRAIN_PACKAGES, InputError, require_packages
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.identify_folder import folder_kind, require_kind
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.scripts import console
from cxr_compare.scripts.options import DataFolder
from cxr_compare.scripts.outcome import Outcome
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path
from cxr_compare.scripts.runner import command
from cxr_compare.scripts.runtime import tune_cpu
from cxr_compare.serving.backends import export_folder
from cxr_compare.serving.export_spec import PACKAGES, is_joint

if TYPE_CHECKING:
    from cxr_compare.data_prep.export.export import ExportSummary
    from cxr_compare.serving.export_spec import Format, Precision, Proof

_RUN_FORMATS = ("onnx", "openvino")


@command
def export(
    source: Annotated[AnyPath, Argument(metavar="RUN|DATA")],
    out: Annotated[AnyPath | None, Argument(option="--out")] = None,
    *,
    format: str = "",  # noqa: A002 - the option's own name
    precision: Literal["fp32", "bf16", "int8"] | None = None,
    data: DataFolder | None = None,
    split: str | None = None,
    target: str | None = None,
    reader: str | None = None,
    images: str | None = None,
) -> Outcome | ExportSummary:
    """Write a run for use without torch, or the labels of a data set.

    Only runs (folders of cxr train) can be exported. A network of other software cannot, because
    only its predictions are known here.

    An exported run is kept only if its boxes, scores, maps and decisions agree with those of the
    run; card.json holds the differences. An export to onnx of a detector also holds
    model_with_boxes.onnx, whose outputs are the image score and the boxes. The options --precision
    and --data apply to a run. The option --split and those after it apply to a data set.

    When it has exported a data set, the command lists the labels that the chosen format cannot
    hold.

    Args:
        source: Run (folder of cxr train) or data set (folder of cxr prepare) to export.
        out: Folder to make, by position or as --out. For a run it is RUN/exports/FORMAT-PRECISION
            by default.
        format: For a run: onnx or openvino. For a data set: coco or yolo.
        precision: Number format of the exported run, by default fp32. bf16 and int8 are only for
            openvino, and need --data.
        data: Data set that the run was trained on. Its validation images check the export, and its
            training images calibrate int8. Without it fp32 is checked on synthetic images.
        split: Also write the roles (train, val, test) of this split, such as 'default'.
        target: Write only the findings of this target (a finding, or a group of findings). Without
            it all findings are written.
        reader: Reader whose labels are written. By default the reference labels of all readers are
            written.
        images: How images are put beside the labels: png (8 bits at the original size, as the
            models see them), link or none. The default is png for yolo, none for coco.

    Returns:
        A summary of what was written. For a run it says how far the export's answers differ from
        those of the run.

    Raises:
        InputError: The export gives other answers than its run, or the options do not fit each
            other.

    Example:
        cxr export out/chexnet --format openvino --precision int8 --data out/data

        cxr export out/chexnet --format onnx --out out/chexnet-onnx

        cxr export data/rsna out/rsna-yolo --format yolo --split default
    """
    source = as_path(source)
    out = as_path(out)
    data = as_path(data)
    if not format:
        raise InputError(
            f"export: --format is missing: {', '.join(_RUN_FORMATS)} for a run; coco, "
            "or yolo for a data set"
        )
    for_data = {
        "split": split,
        "target": target,
        "reader": reader,
        "images": images,
    }
    if format in _RUN_FORMATS:
        _refuse(for_data, f"is for a data set's labels, not for --format {format}")
        exported, proof = _export_run(
            source, out, cast("Format", format), precision or "fp32", data
        )
        return Outcome(
            f"{proof.summary()}\nExport: {exported}",
            {"export": str(exported), **proof.to_json()},
            next_steps=(f"cxr predict {shlex.quote(str(exported))} IMAGE",),
        )
    for_runs = {"precision": precision, "data": data}
    _refuse(for_runs, f"is for a run; --format {format} writes a data set's labels")
    if out is None:
        raise InputError("export: give the folder to make behind the data set, or as --out")
    return _export_labels(source, out, format, {**for_data, "reader": reader or "reference"})


def _refuse(options: Mapping[str, object], why: str) -> None:
    if given := [name for name, value in options.items() if value is not None]:
        raise InputError(f"export: --{given[0]} {why}")


def _export_run(
    run: Path,
    out: Path | None,
    format: Format,  # noqa: A002
    precision: Precision,
    data: Path | None,
) -> tuple[Path, Proof]:
    """Export a run; return the folder of the export and how far it agrees with the run."""
    kind = folder_kind(run)
    if kind is not None and kind.name == "predictions" and not is_joint(run):
        raise InputError(
            f"{run}: holds predictions; only a run of cxr train can be exported, and a network of "
            "other software cannot: export it with that software"
        )
    if not is_joint(run):
        require_kind(run, "run")
    # The way to every format leads over ONNX.
    needed = ["onnx", PACKAGES[format], *(["nncf"] if precision == "int8" else []), *TRAIN_PACKAGES]
    require_packages(f"export --format {format}", "export", needed)
    tune_cpu()
    from cxr_compare.serving.export import export_joint, export_run

    dataset = None if data is None else DataSet.open(data)
    out = out or export_folder(run, format, precision)
    if is_joint(run):
        console.say(f"Exporting the members as {format} {precision}, and checking them")
        return out, export_joint(run, out, format, precision, dataset, console)
    size = Preprocess.read(run / "preprocess.json").size
    store = None if dataset is None else dataset.make_store(size, console)
    console.say(f"Exporting as {format} {precision}, and checking it against the run")
    return out, export_run(run, out, format, precision, dataset, store)


def _export_labels(
    data: Path,
    out: Path,
    format: str,  # noqa: A002
    options: dict[str, Any],
) -> ExportSummary:
    if (data / "run.json").is_file():
        raise InputError(
            f"{data}: is a run, which --format {' or '.join(_RUN_FORMATS)} exports; --format "
            f"{format} is for data sets"
        )
    require_kind(data, "data set")
    from cxr_compare.data_prep.export.export import export_annotations

    dataset = DataSet.open(data)
    with console.track("Writing", len(dataset.images)) as advance:
        return export_annotations(dataset, out, format, advance=advance, **options)
