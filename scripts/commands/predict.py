"""`cxr predict`: let a trained model predict a data set or single image files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.work.shards import read_shard, refuse_shard
from cxr_compare.scripts import console
from cxr_compare.scripts.options import (
    Backend,
    DataFolder,
    Device,
    Policy,
    Precision,
    Shards,
    open_workers,
    own_split,
    shard_outcome,
    split_name,
    uses_cluster,
)
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path
from cxr_compare.scripts.runner import command
from cxr_compare.scripts.runs import (
    RunGiven,
    RunsAndImages,
    open_runs,
    read_paths,
    require_backends,
    sort_paths,
)
from cxr_compare.scripts.runtime import choose_device, runs_on_gpu, tune_cpu
from cxr_compare.serving.backends import ChosenBackend, choose_backend, open_model
from cxr_compare.serving.export_spec import is_joint

if TYPE_CHECKING:
    from cxr_compare.data_prep.store.predictions import Predictions
    from cxr_compare.scripts.outcome import Outcome
    from cxr_compare.serving.answers import Answers
    from cxr_compare.serving.predictor import Predictor

_OVERLAYS = "predicted"


@command
def predict(
    *paths: RunsAndImages,
    out: AnyPath | None = None,
    data: DataFolder | None = None,
    policy: Policy = None,
    csv: AnyPath | None = None,
    overlay: bool = True,
    strict: bool = False,
    verbose: bool = False,
    split: str | None = None,
    batch_size: Annotated[int | None, Argument(minimum=1)] = None,
    backend: Backend = None,
    precision: Precision = None,
    device: Device = "auto",
    finding: Annotated[list[str] | None, Argument(metavar="LEARNT=NAME")] = None,
    tta: Annotated[str, Argument(metavar="VIEWS")] = "",
    maps: Literal["cam", "gradcam", "layercam"] = "cam",
    join: Shards = (),
) -> Answers | Predictions | Outcome:
    """Predict images, or the validation and test images of a data set.

    For single images the command prints one line for each image and system (decision, calibrated
    probability, boxes in px) and draws one PNG for each image. For a folder, or for more than 10
    images, it prints a table with one row for each system. It says which images trained a run, and
    which run was not shown to be better than guessing. With --data it writes the boxes or scores of
    a data set, for cxr tune and cxr compare; if it is interrupted, run it again. CXR_SHARD=3/64
    predicts the third of 64 shards of a data set into the folder OUT-3-of-64, and --join joins all
    of them. Exit status 1 means that some files were left out, and 2 that no file could be
    predicted.

    Args:
        paths: Runs (folders of cxr train) or exports (of cxr export), each as PATH or NAME=PATH,
            followed by images (DICOM, PNG, JPEG, TIFF, ...) or folders of images. With --data give
            one run and no images.
        out: Folder for the PNG files, by default 'predicted'; from Python none are drawn by
            default. With --data it is the predictions folder to make.
        data: Data set whose validation and test images are predicted.
        csv: CSV file to write, with one row for each image and system.
        overlay: Draw the overlays, one PNG for each image. --no-overlay writes none, which is
            faster.
        strict: Refuse images with a warning, such as one that is no frontal chest X-ray. Without it
            they are predicted, and the warning is shown in place of a decision.
        verbose: Print one line for each image and system also for a folder or for many images.
            Without it, such a call prints one row for each system.
        split: Split (which images are for training, validation and test) whose validation and test
            images are predicted, with --data. By default it is the split that the run learned from.
        batch_size: Number of images that are predicted at a time. By default it follows from the
            model and the device. Lower it if memory is short.
        finding: Predict only this finding of the model, with --data. LEARNT=NAME renames it to the
            name in the data set, such as pneumonia=lung_opacity.
        tta: Test-time augmentation of a detector, which joins the boxes of several versions of an
            image: flip (mirrored), scale0.8 and scale1.2 (resized), or some of them with commas.
            none predicts the plain image. By default it is what the validation images chose, if
            the configuration of the run named views (training.tta), and else none.
        maps: Method of a classifier's activation maps, which show where it sees the finding.
            layercam has a finer grid than cam and gradcam.

    Returns:
        The predictions, image by image; with --data the predictions of the data set, and with
        CXR_SHARD a text on the shard.

    Raises:
        InputError: A path is wrong, options do not fit each other, or no image could be predicted.

    Example:
        cxr predict out/retinanet out/chexnet image.dcm

        cxr predict out/retinanet --data out/data --out out/retinanet-predictions
    """
    out = as_path(out)
    data = as_path(data)
    csv = as_path(csv)
    for_images = {
        "csv": csv,
        "strict": strict,
        "policy": policy,
        "no-overlay": not overlay,
        "verbose": verbose,
    }
    for_data = {
        "split": split,
        "finding": finding,
        "tta": tta,
        "maps": maps != "cam",
        "join": join,
    }
    words = read_paths(paths)
    how: dict[str, Any] = {"backend": backend, "precision": precision, "device": device}
    if data is None:
        _refuse(for_data, "a data set; add --data, or leave it out")
        refuse_shard("is for a data set; add --data")
        runs, sources = sort_paths(words)
        require_backends(runs, how)
        from cxr_compare.serving.image_files import AnswerOutput, find_images, reserved_table

        printed = console.printed_as()
        overlays = out if printed is None else out or Path(_OVERLAYS)
        with reserved_table(csv):
            output = AnswerOutput(overlays if overlay else None, csv, printed)
            files = find_images(sources, output)
            from cxr_compare.serving.answer_files import answer_files
            from cxr_compare.serving.answers import MOST_LINES

            begun, others = files
            n_files = len(begun) + len(others)
            is_many = n_files > MOST_LINES or any(path.is_dir() for path in sources)
            output = replace(output, has_lines=verbose or not is_many, has_summary=is_many)
            loaded = open_runs(runs, {**how, "policy": policy})
            return answer_files(
                loaded, files, console, output=output, batch_size=batch_size, strict=strict
            )
    _refuse(for_images, "images; leave it out, or --data")
    if len(words) != 1 or out is None:
        raise InputError("predict --data: give one run, and a folder for the predictions as --out")
    shard = read_shard(join=bool(join))
    if uses_cluster():
        if device == "cuda":
            raise InputError("--device cuda: CXR_ENGINE=ray predicts on processors; leave it out")
        how["device"] = "cpu"
    name, run = split_name(words[0])
    require_backends([RunGiven(name, run)], how)
    how |= {"tta": _views_of(run, tta, backend), "maps": maps}
    chosen = _choose_backend(run, data, how)  # before the data set is read, which takes time
    from cxr_compare.data_prep.dataset import DataSet
    from cxr_compare.serving.predict_folder import predict_data_set, predict_shard

    dataset = DataSet.open(data)
    split = own_split(split, [run], dataset)
    model = _open_model(chosen, how)
    if finding:
        model = model.with_names(parse_finding_names(finding))
    with open_workers() as workers:
        options: dict[str, Any] = {
            "batch_size": batch_size,
            "name": name,
            "cluster": None if isinstance(workers, int) else workers,
        }
        if shard is not None:
            made = predict_shard(model, dataset, out, split, console, shard, **options)
            return shard_outcome(*made)
        options["join"] = [as_path(folder) for folder in join]
        return predict_data_set(model, dataset, out, split, console, **options)


def _refuse(options: dict[str, Any], advice: str) -> None:
    """Refuse the first option that was given and is for something else."""
    if unfit := [option for option, value in options.items() if value]:
        raise InputError(f"predict: --{unfit[0]} is for {advice}")


def _views_of(run: Path, tta: str, backend: str | None) -> str:
    """Return the views that are predicted: those that were given, else those that the run chose."""
    if tta == "none":
        return ""
    record = run / "run.json"
    if tta or backend not in (None, "auto", "torch") or not record.is_file():
        return tta
    from cxr_compare.training.run_info import RunInfo

    views = ",".join(RunInfo.read(record).tta or ())
    if views:
        console.say(f"Views {views}, chosen on validation; --tta none predicts without them")
    return views


def _choose_backend(run: Path, data: Path, how: dict[str, Any]) -> ChosenBackend:
    """Choose what predicts a data set: a run, or the export of it that computes fastest."""
    torch_alone = {"--tta": how["tta"], f"--maps {how['maps']}": how["maps"] != "cam"}
    return choose_backend(
        run,
        how["backend"],
        how["precision"],
        needs_torch=next((option for option, value in torch_alone.items() if value), None),
        gpu=how["backend"] == "auto" and runs_on_gpu(how["device"]),
        data=data,
    )


def _open_model(chosen: ChosenBackend, how: dict[str, Any]) -> Predictor:
    """Load what predicts a data set."""
    from cxr_compare.data_prep.store.views import View, parse_views

    if how["backend"] == "auto":
        console.say(chosen.words)
    if chosen.backend != "torch" and not is_joint(chosen.folder):
        return open_model(chosen.folder)
    tune_cpu()
    return open_model(
        chosen.folder,
        precision="bf16" if chosen.precision == "bf16" else "fp32",
        device=choose_device(how["device"]),
        views=parse_views(how["tta"]) if how["tta"] else (View(),),
        maps=how["maps"],
    )


def parse_finding_names(texts: list[str]) -> dict[str, str]:
    """Read texts LEARNT=NAME into the data set's name of each finding by the model's name.

    A text without ``=`` keeps the name that the model learned. Raises InputError if a text has
    another form, or names the same finding of the model a second time.
    """
    names: dict[str, str] = {}
    for text in texts:
        learnt, equals, name = (part.strip() for part in text.partition("="))
        if not learnt or (equals and not name):
            raise InputError(f"--finding {text!r}: write LEARNT=NAME, pneumonia=lung_opacity")
        if learnt in names:
            raise InputError(f"--finding {text!r}: {learnt} is already called {names[learnt]!r}")
        names[learnt] = name or learnt
    return names
