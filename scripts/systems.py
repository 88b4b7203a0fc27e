"""The systems that a command names: ``PATH``, ``NAME=PATH``, or several seeds of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.contracts.errors import InputError
from evaluation.report.files import SYSTEMS

if TYPE_CHECKING:
    from data_prep.store.dataset import DataSet, Target
    from data_prep.store.predictions import Predictions


def split_name(system: str) -> tuple[str | None, Path]:
    """Split ``NAME=PATH``; a bare path has no name.

    Example:
        >>> split_name("A=out/a"), split_name("out/a")
        (('A', PosixPath('out/a')), (None, PosixPath('out/a')))
    """
    name, equals, path = system.partition("=")
    if not equals:
        return None, Path(system)
    if not name or not path:
        raise InputError(f"{system}: expected NAME=PATH")
    return name, Path(path)


def split_seeds(system: str) -> tuple[str | None, list[Path]]:
    """Split ``NAME=PATH,PATH``, several training seeds of one system; a bare path is one.

    Example:
        >>> split_seeds("A=out/a,out/b"), split_seeds("out/a")
        (('A', [PosixPath('out/a'), PosixPath('out/b')]), (None, [PosixPath('out/a')]))
    """
    name, path = split_name(system)
    each = str(path).split(",") if name and not path.exists() else [str(path)]
    if not all(each):
        raise InputError(f"{system}: expected NAME=PATH,PATH of several training seeds")
    return name, [Path(one) for one in each]


def open_seeds(
    name: str | None, paths: list[Path], dataset: DataSet, target: Target, out: Path, split: str
) -> list[Predictions]:
    """Open every training seed of a system, see `_open_system`; of several each has its number."""
    called = [f"{name}-{place + 1}" for place in range(len(paths))] if paths[1:] else [name]
    return [
        _open_system(path, dataset, target, out, split, label)
        for path, label in zip(paths, called, strict=True)
    ]


def _open_system(
    path: Path, dataset: DataSet, target: Target, out: Path, split: str, name: str | None
) -> Predictions:
    """Open predictions; a run is predicted (into the report's ``systems``) and tuned first."""
    from data_prep.store.predictions import Predictions

    if not is_run(path):
        return Predictions.open(path)
    from evaluation.decisions.decision import Decision
    from evaluation.decisions.tuning import tune
    from scripts.predict import predict_data_set, worth_of_training
    from scripts.runtime import choose_device, tune_cpu

    folder = out / SYSTEMS / (name or path.name)
    is_done = (folder / "predictions.json").is_file()
    tune_cpu(megapixels=0.0 if is_done else worth_of_training(path, dataset, split))
    from serving.trained_model import TrainedModel  # imports torch, which reads the settings then

    model = TrainedModel.open(path, device=choose_device("auto"))
    if not is_done:
        predict_data_set(model, dataset, folder, split, None, name)
    elif Predictions.open(folder).info["inference_id"] != model.inference_id():
        raise InputError(
            f"{folder}: holds predictions of another training than {path}; remove it, or choose "
            "another --out"
        )
    predictions = Predictions.open(folder)
    if predictions.decision(target.name) is None:
        options: dict[str, Any] = {"split": split}
        if own := decision_of_run(path, model.inference_id(), dataset, target, split):
            as_run = Decision.from_json(own)  # chosen anew: other batches, other last digits
            options |= {"policies": tuple(as_run.thresholds), "search": as_run.searched}
            options["options"] = as_run.options
        decision = tune(predictions, dataset, target, **options)
        predictions.write_decision(target.name, decision.to_json())
    return predictions


def is_run(path: Path) -> bool:
    """Whether a system is given as a complete run, which has to be predicted first."""
    from data_prep.store.predictions import is_predictions_folder

    return (path / "run.json").is_file() and not is_predictions_folder(path)


def decision_of_run(
    run: Path, inference_id: str, dataset: DataSet, target: Target, split: str
) -> dict[str, Any] | None:
    """What a run decides by, where it was chosen for the same predictions, labels and split."""
    from data_prep.contracts.json_files import read_json
    from training.run_folder import RunFolder

    path = RunFolder(run).decision_file(target.name)
    if not path.is_file():
        return None
    decision = read_json(path, "decision")
    same = {
        "inference_id": inference_id,
        "content_id": dataset.ids["content_id"],
        "labels_id": dataset.ids["labels_id"],
        "split_id": dataset.ids["split_ids"][split],
    }
    hidden = {"schema_version", "contract"}
    if {key: decision["chosen_on"].get(key) for key in same} != same:
        return None
    return {key: value for key, value in decision.items() if key not in hidden}


def predict_images(
    run: Path, dataset: DataSet, target: Target, image_ids: list[str], split: str, folder: Path
) -> Predictions:
    """Predict chosen images with a run into a folder, decided as the run decides.

    With a decision the run's validation images come along, from which it follows.
    """
    from data_prep.store.predictions import Predictions
    from scripts.predict import predict_data_set
    from scripts.runtime import choose_device, tune_cpu

    tune_cpu()
    from serving.trained_model import TrainedModel

    model = TrainedModel.open(run, device=choose_device("auto"))
    decision = decision_of_run(run, model.inference_id(), dataset, target, split)
    known = None if decision is None else Predictions.open(model.run.validation)
    predict_data_set(model, dataset, folder, split, None, None, image_ids=image_ids, known=known)
    predictions = Predictions.open(folder)
    if decision is not None:
        predictions.write_decision(target.name, decision)
    return predictions
