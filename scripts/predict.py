"""`cxr predict`: what a trained model says about a data set, or about loose files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from data_prep.contracts.errors import InputError
from scripts import console
from scripts.answers import OVERLAYS, AnswerOutput, PolicyOption, show_answers
from scripts.next_steps import show_next
from scripts.options import AddressOption, DeviceOption, EngineOption, own_split

if TYPE_CHECKING:
    from classification.saliency import MapMethod
    from data_prep.store.dataset import DataSet
    from serving.backends import ChosenBackend
    from serving.exported.exported_model import ExportedModel
    from serving.trained_model import TrainedModel

    Model: TypeAlias = TrainedModel | ExportedModel


def predict(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN [RUN ...] IMAGE|FOLDER ...",
            help="Folders that cxr train made, each as PATH or NAME=PATH, then images (DICOM, PNG, "
            "JPEG, TIFF, ...) or folders of images; with --data one run alone.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for one overlay PNG an image, 'predicted' by default; with --data the "
            "predictions folder to make.",
        ),
    ] = None,
    *,
    data: Annotated[
        Path | None,
        typer.Option(help="Data set that cxr prepare made: predict its val and test images."),
    ] = None,
    policy: PolicyOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the answers as JSON for a program.")
    ] = False,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Table to write: a row an image and system; boxes as x1,y1,x2,y2,score;... in px."
        ),
    ] = None,
    dicom: Annotated[
        Path | None,
        typer.Option(
            help="Folder for a DICOM structured report (TID 1500) and a DICOM Secondary Capture of "
            "the overlay for each DICOM image, in its study; needs cxr-compare[dicom]."
        ),
    ] = None,
    overlay: Annotated[
        bool, typer.Option("--overlay/--no-overlay", help="Whether to draw the overlays.")
    ] = True,
    show: Annotated[bool, typer.Option("--open", help="Open the overlay in a viewer.")] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse what does not look like a frontal chest X-ray."),
    ] = False,
    split: Annotated[
        str | None,
        typer.Option(help="Predict this split's val and test images; by default the run's."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the system; the run's if absent.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images at a time; by default what suits back end and size."),
    ] = None,
    backend: Annotated[
        Literal["torch", "onnx", "openvino", "auto"] | None,
        typer.Option(
            help="What computes: torch; or onnx or openvino with the export that cxr export put in "
            "RUN/exports; or auto, the fastest of these that is there. torch if left out."
        ),
    ] = None,
    precision: Annotated[
        Literal["fp32", "bf16", "int8"] | None,
        typer.Option(
            help="bf16 and int8 (exports alone) are faster; decisions made at one do not fit "
            "another. fp32 if left out, for an export its own."
        ),
    ] = None,
    device: DeviceOption = "auto",
    finding: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LEARNT=NAME",
            help="Only this finding of the model, under the name that the data set gives it: "
            "pneumonia=lung_opacity, or pneumonia where both call it so. May be repeated; all "
            "other findings are left out.",
        ),
    ] = None,
    tta: Annotated[
        str,
        typer.Option(
            metavar="VIEWS",
            help="Test-time augmentation: flip,scale0.8,scale1.2 or some of them; joins the views.",
        ),
    ] = "",
    maps: Annotated[
        Literal["cam", "gradcam", "layercam"],
        typer.Option(
            help="How a classifier shows where it sees the finding; layercam has finer cells."
        ),
    ] = "cam",
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile", help="Let torch compile the network: a minute, then a little faster."
        ),
    ] = False,
    engine: EngineOption = "local",
    address: AddressOption = None,
) -> None:
    """Answer for images, or predict the val and test images of a data set.

    Each image gets one line a system: the decision at the run's operating point, the calibrated
    probability, the boxes in px; and one PNG with what each system shows. Exit status 1: some
    files were left out; 2: nothing could be answered.

    With --data, --split, --finding, --tta and --maps the boxes or scores of a data set are written
    for cxr tune and cxr compare; an interrupted run goes on with the same command.

    Example: cxr predict out/retinanet out/chexnet film.dcm

    Example: cxr predict out/retinanet --data out/data --out out/retinanet-predictions
    """
    for_images = {
        "json": as_json, "csv": csv, "dicom": dicom, "open": show, "strict": strict,
        "policy": policy, "no-overlay": not overlay,
    }  # fmt: skip
    for_data = {
        "split": split, "finding": finding, "tta": tta, "maps": maps != "cam", "compile": compile_,
        "engine": engine != "local", "address": address,
    }  # fmt: skip
    if data is None:
        if given := [option for option, value in for_data.items() if value]:
            raise InputError(
                f"predict: --{given[0]} is for a data set; add --data, or leave it out"
            )
        options = {
            "policy": policy, "backend": backend, "precision": precision, "device": device,
        }  # fmt: skip
        show_answers(
            paths,
            AnswerOutput(None if not overlay else out or Path(OVERLAYS), csv, dicom, as_json, show),
            {**options, "name": name},
            batch_size,
            strict=strict,
        )
        return
    if given := [option for option, value in for_images.items() if value]:
        raise InputError(f"predict: --{given[0]} is for images; leave out --data or --{given[0]}")
    if len(paths) != 1 or out is None:
        raise InputError("predict --data: give one run, and a folder for the predictions as --out")
    from data_prep.store.dataset import DataSet
    from data_prep.work.engine import open_engine
    from scripts.machines.runtime import runs_on_gpu
    from serving.backends import choose_backend
    from serving.predict_folder import predict_data_set

    run, dataset = Path(paths[0]), DataSet.open(data)
    split = own_split(split, [run], dataset)
    torch_alone = {"--tta": tta, f"--maps {maps}": maps != "cam", "--compile": compile_}
    if engine == "ray":
        if compile_ or device == "cuda":
            option = "--compile" if compile_ else "--device cuda"
            raise InputError(
                f"{option}: --engine ray predicts on processors, as it is; leave it out"
            )
        device = "cpu"
    chosen = choose_backend(
        run,
        backend,
        precision,
        needs_torch=next((option for option, given in torch_alone.items() if given), None),
        gpu=backend == "auto" and runs_on_gpu(device),
        data=data,
    )
    if backend == "auto":
        console.say(chosen.words)
    if chosen.backend == "torch":
        model: Model = _open_trained(chosen, dataset, split, device, tta, maps, compile_)
    else:
        from serving.exported.exported_model import ExportedModel

        model = ExportedModel.open(chosen.folder)
    if finding:
        model = model.with_names(_parse_names(finding))
    with open_engine(engine, address=address) as workers:
        parts_by = workers if engine == "ray" else None
        predict_data_set(
            model, dataset, out, split, console, batch_size=batch_size, name=name, engine=parts_by
        )
    console.say(f"Predictions: {out}")
    show_next(out, data)


def _open_trained(
    chosen: ChosenBackend,
    dataset: DataSet,
    split: str,
    device: str,
    tta: str,
    maps: MapMethod,
    compiled: bool,
) -> TrainedModel:
    from scripts.machines.runtime import choose_device, tune_cpu

    tune_cpu()
    from data_prep.augment.views import View, parse_views
    from serving.trained_model import TrainedModel  # imports torch, which reads the settings then

    model = TrainedModel.open(
        chosen.folder,
        precision="bf16" if chosen.precision == "bf16" else "fp32",
        device=choose_device(device),
        views=parse_views(tta) if tta else (View(),),
        maps=maps,
        compiled=compiled,
    )
    if compiled:
        console.say(f"Compiled in {model.warm_up(model.batch_size):.0f} s")
    return model


def _parse_names(given: list[str]) -> dict[str, str]:
    """Read LEARNT=NAME, or NAME alone, some of them.

    Example:
        >>> _parse_names(["pneumonia=lung_opacity", "mass"])
        {'pneumonia': 'lung_opacity', 'mass': 'mass'}
    """
    names: dict[str, str] = {}
    for text in given:
        learnt, equals, name = (part.strip() for part in text.partition("="))
        if not learnt or (equals and not name):
            raise InputError(f"--finding {text!r}: write LEARNT=NAME, pneumonia=lung_opacity")
        if learnt in names:
            raise InputError(f"--finding {text!r}: {learnt} is already called {names[learnt]!r}")
        names[learnt] = name or learnt
    return names
