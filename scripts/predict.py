"""`cxr predict`: what a trained model says about a data set, or about loose files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from data_prep.contracts.errors import InputError
from data_prep.contracts.words import counted
from data_prep.work.addresses import path_of, recorded_path
from scripts import console
from scripts.answers import OVERLAYS, AnswerOutput, PolicyOption, show_answers
from scripts.next_steps import show_next
from scripts.options import AddressOption, DeviceOption, EngineOption, own_split

if TYPE_CHECKING:
    import numpy as np

    from classification.saliency import MapMethod
    from data_prep.store.dataset import DataSet, Target
    from data_prep.store.predictions import Part, Predictions, PredictionWriter
    from data_prep.work.engine import Engine
    from evaluation.decisions.test_set import TestSet
    from serving.backends import ChosenBackend
    from serving.exported.exported_model import ExportedModel
    from serving.trained_model import TrainedModel

    Model: TypeAlias = TrainedModel | ExportedModel

# Images in one file of a predictions folder: few files, and little to do again after Ctrl-C.
PART_SIZE = 1024
_MOST_SENT = 128  # images that a worker of an engine predicts before it answers
LATENCY_IMAGES = 20
_PREPROCESS = "preprocess.json"


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
        predict_data_set(model, dataset, out, split, batch_size, name, engine=parts_by)
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


def predict_data_set(
    model: Model,
    dataset: DataSet,
    out: Path,
    split: str,
    batch_size: int | None,
    name: str | None,
    *,
    validation_of: Target | None = None,
    image_ids: Sequence[str] | None = None,
    known: Predictions | None = None,
    engine: Engine | None = None,
) -> None:
    """Predict the val and test images of a split, or chosen ones, into a predictions folder.

    With `validation_of` the val images alone, for the operating point of that target. No cost is
    measured of those, nor of chosen images, as nobody compares them. What is `known` of the same
    model already is taken over. An engine predicts in parts, the processors of this process
    otherwise.
    """
    import numpy as np
    import pandas as pd

    from data_prep.store.predictions import PredictionWriter
    from scripts.prepare import open_store
    from serving.part_predictor import predict_parts

    _require_labels(model, dataset)
    roles = dataset.split(split)
    asked = ["val", "test"] if validation_of is None else ["val"]
    wanted = roles.loc[roles["role"].isin(asked), "image_id"].sort_values()
    if image_ids is not None:
        wanted = pd.Series(sorted(image_ids), dtype=wanted.dtype)
    store = open_store(dataset, model.preprocess.size, engine)
    sizes = dataset.images[["image_id", "width", "height"]]
    info = _describe(model, name) | {
        "data_set": {
            "name": dataset.name,
            "content_id": dataset.ids["content_id"],
            "split": split,
            "split_id": dataset.ids["split_ids"][split],
        }
    }
    if validation_of is not None:
        info["target"] = asdict(validation_of)
    with PredictionWriter(out, info) as writer:
        if known is not None:
            tables = {name: getattr(known, name) for name in ("scores", "boxes", "maps")}
            writer.add(known.images, **{n: table for n, table in tables.items() if len(table)})
        todo = pd.Index(wanted[~wanted.isin(writer.done)])
        title = "Predicting" if validation_of is None else "Predicting validation images"
        with console.progress(title, len(todo)) as advance:
            at_once = batch_size or model.batch_size
            parts = (
                model.predict(store, todo, sizes, at_once)
                if engine is None
                else predict_parts(engine, model, store, todo, sizes, at_once, sent_size(at_once))
            )
            write_parts(writer, parts, advance, PART_SIZE)
        if validation_of is not None or image_ids is not None:
            _copy_seen(model, writer)
            return
        samples = np.stack([store.image(image_id) for image_id in wanted[:LATENCY_IMAGES]])
        _finish(model, writer, samples)


def predict_validation(
    run: Path, test_set: TestSet, *, device: Literal["cpu", "cuda"] = "cpu"
) -> Predictions:
    """A run's predictions of its validation images, in the run's folder; made where absent."""
    from data_prep.store.predictions import Predictions
    from training.run_folder import RunFolder

    folder = RunFolder.open(run).validation
    if not (folder / "predictions.json").is_file():
        from serving.trained_model import TrainedModel

        model = TrainedModel.open(run, device=device)
        predict_data_set(
            model, test_set.dataset, folder, test_set.split, None, None,
            validation_of=test_set.target,
        )  # fmt: skip
    return Predictions.open(folder)


def freeze_decision(
    run: Path, test_set: TestSet, *, device: Literal["cpu", "cuda"] = "cpu"
) -> None:
    """Choose the decision by which a run answers for single images; the last step of training.

    It is what `cxr tune` chooses by default, on the run's validation images, and lies in the run's
    folder with the predictions that it was chosen on. One that is there stays.
    """
    from training.run_folder import RunFolder

    if RunFolder(run).decision_file(test_set.target.name).is_file():
        return
    from evaluation.decisions.thresholds import POLICIES
    from evaluation.decisions.tuning import tune

    predictions = predict_validation(run, test_set, device=device)
    decision = tune(predictions, test_set)
    predictions.write_decision(test_set.target.name, decision.to_dict())
    policy = POLICIES[0]
    chosen = decision.thresholds[policy]
    point = (
        f"no threshold ({chosen.reason})"
        if chosen.threshold is None
        else f"positive from score {chosen.threshold:.3g} on"
    )
    console.say(
        f"Operating point ({policy}, "
        f"{counted(decision.chosen_on['n_images'], 'validation image')}): {point}"
    )


def _require_labels(model: Model, dataset: DataSet) -> None:
    known = sorted(set(dataset.findings["finding"]))
    learnt = dict(zip(model.findings, model.names or model.learnt, strict=True))
    lacking = [name for name in learnt if name not in known]
    if not lacking:
        return
    shared = [own if own == name else f"{own}={name}" for name, own in learnt.items()
              if name in known]  # fmt: skip
    if shared:
        advice = f"'cxr predict --finding {' --finding '.join(shared)}' leaves the others out"
    else:
        advice = (
            f"where one of these means the same, 'cxr predict --finding {learnt[lacking[0]]}=NAME' "
            "predicts it under that name"
        )
    raise InputError(
        f"{model.folder}: predicts '{lacking[0]}', which {dataset.folder} does not label; it "
        + (f"has {', '.join(known)}; {advice}" if known else "has no labels")
    )


def _describe(model: Model, name: str | None) -> dict[str, Any]:
    from evaluation.systems.eligibility import sets_of_run, unknown_training_data

    info, usual = model.info, str(model.info["name"])
    if model.backend != "torch":
        usual = f"{usual} ({model.backend} {model.precision})"
    return {
        "system": name or usual,
        "kind": model.kind,
        "seed": info["seed"],
        "findings": list(model.findings),
        **({"names": dict(model.names)} if model.names else {}),
        "inference_id": model.inference_id(),
        "training_id": model.training_id(),
        "backend": model.backend,
        "precision": model.precision,
        **({} if model.backend == "torch" else {"exported_from": model.training_id()}),
        **({"compiled": True} if model.compiled else {}),
        "run": recorded_path(path_of(str(info.get("folder", model.folder)))),
        "trained_on": sets_of_run(info),
        **({"seen_unknown": unknown} if (unknown := unknown_training_data(info)) else {}),
        **({} if model.tta is None else {"tta": model.tta}),
        **({} if model.kind == "boxes" else {"maps": {"method": model.maps}}),
    }


def _finish(
    model: Model, writer: PredictionWriter, sample_images: np.ndarray | None = None
) -> None:
    """Copy what the model has seen, and measure its cost, last: the machine is then quiet."""
    _copy_seen(model, writer)
    console.say("Measuring what one image takes")  # no bar: drawing it would be measured, too
    writer.info["cost"] = model.cost(sample_images)


def _copy_seen(model: Model, writer: PredictionWriter) -> None:
    import shutil

    from data_prep.contracts.folders import atomic_path, provenance

    folder = model.folder if model.backend == "torch" else run_of_export(model)
    if folder is None:
        console.say(
            f"{model.folder}: its run is not at hand ({model.info['folder']}), so which patients "
            "it learned from is unknown; put the run back there and predict again"
        )
    else:
        with atomic_path(writer.folder / "seen.parquet") as temporary:
            shutil.copyfile(folder / "seen.parquet", temporary)
    writer.info |= provenance()


def run_of_export(model: Model) -> Path | None:
    """The run that an export was made from, where it lies above it or where it lay then.

    An export holds no patient ids: what it learned from is read from its run.
    """
    from data_prep.contracts.json_files import read_json

    for run in (model.folder.absolute().parent.parent, path_of(model.info["folder"])):
        if (run / "run.json").is_file() and (run / "seen.parquet").is_file():
            facts = read_json(run / "run.json", "run")
            if all(model.info[key] == value for key, value in facts.items() if key in model.info):
                return run
    return None


def sent_size(batch_size: int) -> int:
    """Images that a worker predicts before it answers: whole batches, and files hold whole answers.

    Example:
        >>> sent_size(16), sent_size(48), sent_size(300)
        (128, 96, 300)
    """
    of_file = -(-PART_SIZE // batch_size)
    most = max(1, _MOST_SENT // batch_size)
    return batch_size * max(n for n in range(1, most + 1) if of_file % n == 0)


def write_parts(
    writer: PredictionWriter,
    batches: Iterable[Part],
    advance: Callable[[int], object],
    size: int,
) -> None:
    """Write predictions while the next ones are made; calls `advance` with what is predicted."""
    from data_prep.work.pool import write_behind

    def counted() -> Iterator[Part]:
        for batch in batches:
            yield batch
            advance(len(batch.images))

    write_behind(lambda part: writer.add(part.images, **part.tables), _join(counted(), size))


def _join(parts: Iterable[Part], size: int) -> Iterator[Part]:
    """Gather batches into parts of about `size` images: one file each on the disk."""
    from data_prep.store.predictions import joined_parts

    held: list[Part] = []
    for part in parts:
        held.append(part)
        if sum(len(p.images) for p in held) >= size:
            yield joined_parts(held)
            held = []
    if held:
        yield joined_parts(held)
