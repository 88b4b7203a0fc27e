"""`cxr predict`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from cyclopts import Parameter

from cxr_compare.commands import console
from cxr_compare.commands.options import (
    AnyPath,
    DataFolder,
    Device,
    Engine,
    Named,
    Policy,
    Texts,
    comma_parts,
    is_run,
    open_runs,
    require_engine,
    run_names,
)
from cxr_compare.data_prep.base.errors import InputError, as_typed
from cxr_compare.data_prep.base.files import require_there
from cxr_compare.data_prep.base.folders import folder_kind, require_folder, unfinished_kind

if TYPE_CHECKING:
    from cxr_compare.data_prep.predictions import Predictions
    from cxr_compare.serving.answer import Answers
else:
    Answers = Predictions = Any  # the help needs no pandas

_NO_IMAGES = ("data set", "run", "predictions", "report")


@dataclass
class PredictionsOfRuns:
    """Predictions of the runs of a folder.

    Attributes:
        folder: Folder of their folders.
        predictions: By name of the run's folder.
    """

    folder: Path
    predictions: dict[str, Predictions] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the lines of each."""
        return "\n".join(map(str, self.predictions.values()))

    def to_dict(self) -> dict[str, Any]:
        """Return what is stored of each, for JSON."""
        return {name: predictions.to_dict() for name, predictions in self.predictions.items()}


def predict(
    *paths: Annotated[
        AnyPath,
        Parameter(help="Runs, exports or a folder of runs, NAME=PATH renames; then images."),
    ],
    data: DataFolder | None = None,
    split: str | None = None,
    views: Texts | None = None,
    out: AnyPath | None = None,
    csv: AnyPath | None = None,
    dicom_ids: bool = False,
    policy: Policy = None,
    device: Device = "auto",
    engine: Engine = "local",
) -> Answers | Predictions | PredictionsOfRuns:
    """Answer for images and folders of images, or predict the images of a data set.

    Args:
        split: Split of the data set, whose validation and test images are predicted.
        views: Views of each image of a data set that a detector joins with the plain one, in place
            of those of its training: flip, scale0.8, scale1.2, with commas.
        out: Folder of the predictions of a data set; for images the folder of their overlays, or
            the PNG of one.
        csv: Table of the answers to write.
        dicom_ids: Add SOPInstanceUID and StudyInstanceUID of DICOM files to the table and to JSON.
            They identify patients.
    """
    if not all(isinstance(path, str | Path) for path in paths):
        raise InputError("predict: give paths; an opened run answers by its own method predict")
    require_engine(engine)
    runs, images = _sorted_paths(run_names(paths))
    for_images = {"csv": csv and str(csv), "dicom_ids": dicom_ids or None, "policy": policy}
    for_data = {
        "split": split,
        "views": views,
        "engine": None if engine == "local" else engine,
    }
    others = for_data if data is None else for_images
    unused = {name: value for name, value in others.items() if value is not None}
    if unused:
        kind = "the images of a data set" if data is None else "images, not for a data set"
        raise InputError(f"{as_typed(unused)}: is for {kind}; leave it out")
    if data is not None:
        if len(paths) != 1 or images:
            raise InputError(
                "data: is predicted by one run, or one folder of runs; give that alone"
            )
        if out is None:
            raise InputError("out: is needed with data; name the folder to make")
        if engine == "ray" and device == "cuda":
            raise InputError("device: engine ray computes on processors; leave device out")
        if views is not None:
            views = comma_parts(views)
            _check_views(runs, views)
        options: Any = {"split": split or "default", "device": device, "engine": engine}
        return _predict_data(runs, Path(data), Path(out), views=views, **options)
    if not images:
        raise InputError(
            "predict: images are missing; write cxr predict RUNS IMAGES, or for a data set cxr "
            "predict RUN --data DATA --out OUT"
        )
    from cxr_compare.data_prep.images.loose_images import find_image_files
    from cxr_compare.serving.answer_files import answer_files

    files = find_image_files(images)
    answering = open_runs(runs, policy=policy, device=device)
    out, csv = (None if path is None else Path(path) for path in (out, csv))
    answer_options: Any = {"out": out, "csv": csv, "dicom_ids": dicom_ids}
    return answer_files(answering, files, **answer_options, progress=console)


def _sorted_paths(named_paths: Sequence[Named]) -> tuple[list[Named], list[Path]]:
    """Tell runs and images apart; a folder of another kind, or a name for no run, is refused."""
    runs = [(name, path) for name, path in named_paths if is_run(path)]
    others = [(name, path) for name, path in named_paths if not is_run(path)]
    for name, path in others:
        kind = folder_kind(path) or unfinished_kind(path)
        if name is not None:
            raise InputError(f"{name}={path}: is no run; a name is that of a run")
        require_there(path)
        if kind is not None and kind.name == "data set":
            call = f"cxr predict RUN --data {shlex.quote(str(path))} --out PREDICTIONS"
            raise InputError(f"{path}: is a data set; write {call}")
        if kind is not None and kind.name in _NO_IMAGES:
            require_folder(path, "run")
    if not runs:
        raise InputError("predict: give a run of cxr train or an export, and then images")
    return runs, [path for _, path in others]


def _check_views(runs: Sequence[Named], views: Sequence[str]) -> None:
    """Refuse views that are none, and runs that take none, before any of them is predicted."""
    from cxr_compare.configs.load import require_views
    from cxr_compare.configs.settings import View
    from cxr_compare.serving.onnx_file import EXPORT_FILE
    from cxr_compare.training.run_folder import RunFolder

    if not views:
        raise InputError(f"views: is empty; choose from {', '.join(get_args(View))}")
    require_views(views)
    for _, path in runs:
        if (path / EXPORT_FILE).is_file():
            raise InputError(f"views: {path} is an export, which joins none; give its run")
        run = RunFolder.open(path)
        if run.info.model_kind != "detector":
            raise InputError(f"views: {path} is a classifier, which joins none; leave views out")
        own = "augmentation" in run.info.own_parts
        if "flip" in views and not own and not run.config.augmentation.horizontal_flip:
            console.say(
                f"note: {path} learned from no mirrored image (augmentation.horizontal_flip is 0): "
                "the view flip was not measured on such a run"
            )


def _predict_data(
    runs: Sequence[Named],
    data: Path,
    out: Path,
    *,
    views: Sequence[str] | None,
    split: str,
    device: str,
    engine: str,
) -> Predictions | PredictionsOfRuns:
    from cxr_compare.data_prep.dataset import DataSet
    from cxr_compare.serving.network import open_network
    from cxr_compare.serving.predict_data import predict_data_set, predicted_before

    dataset = DataSet.open(data)
    of_runs = PredictionsOfRuns(out)
    for name, path in runs:
        network = open_network(path, device if engine == "local" else "cpu")
        if views is not None:
            network.views = tuple(views)
        options: Any = {"name": name, "engine": engine}
        if len(runs) == 1:
            return predict_data_set(network, dataset, out, split, console, **options)
        folder = out / path.name
        before = predicted_before(network, dataset, folder, split)
        of_runs.predictions[path.name] = before or predict_data_set(
            network, dataset, folder, split, console, **options
        )
    return of_runs
