"""The systems that a command names: ``PATH``, ``NAME=PATH``, or several seeds of one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.folders import read_json
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions, is_predictions_folder
from cxr_compare.evaluation.decisions.decision import Decision
from cxr_compare.evaluation.decisions.test_set import TestSet
from cxr_compare.evaluation.decisions.tuning import tune
from cxr_compare.evaluation.report.files import SYSTEMS
from cxr_compare.evaluation.systems.eligibility import check_data_set
from cxr_compare.scripts import console
from cxr_compare.scripts.options import split_name
from cxr_compare.scripts.runner import Argument
from cxr_compare.scripts.runtime import load_model
from cxr_compare.serving.backends import require_torch
from cxr_compare.serving.export_spec import is_export, validation_folder

if TYPE_CHECKING:
    from cxr_compare.serving.backends import Model

_EXPORTS = "exports"  # within a run's folder, see cxr_compare.serving.backends


def _split_seeds(system: str) -> tuple[str | None, list[Path]]:
    """Split ``NAME=PATH,PATH``, several training seeds of one system; a bare path is one.

    Example:
        >>> _split_seeds("A=out/a,out/b"), _split_seeds("out/a")
        (('A', [PosixPath('out/a'), PosixPath('out/b')]), (None, [PosixPath('out/a')]))
    """
    name, path = split_name(system)
    each = str(path).split(",") if name and not path.exists() else [str(path)]
    if not all(each):
        raise InputError(f"{system}: expected NAME=PATH,PATH of several training seeds")
    return name, [Path(one) for one in each]


class System(NamedTuple):
    """A system that a command names: its display name, and the folder of each training seed."""

    name: str | None
    paths: list[Path]


def read_systems(
    value: str | Path | Sequence[str | Path] | Mapping[str, Any],
) -> list[System]:
    """Systems from words, or by name.

    Example:
        >>> read_systems(["A=out/a,out/b"]) == read_systems({"A": ["out/a", Path("out/b")]})
        True
    """
    if isinstance(value, Mapping):
        return [System(name, _folders(source)) for name, source in value.items()]
    words = [value] if isinstance(value, str | Path) else value
    return [System(*_split_seeds(str(word))) for word in words]


def _folders(source: Any) -> list[Path]:
    """Of a text, a path, predictions or a run, or of several of them."""
    sources = [source] if isinstance(source, str) or not isinstance(source, Sequence) else source
    return [Path(one if isinstance(one, str | Path) else one.folder) for one in sources]


if TYPE_CHECKING:
    Systems: TypeAlias = Any  # words, or sources by name: a verb gets a list of `System`
else:
    Systems = Annotated[list[str], Argument(read=read_systems)]


def require_predictable(systems: Sequence[System]) -> None:
    """Refuse runs where the packages that they predict with are not installed.

    Raises:
        InputError: They are not.
    """
    for path in (path for system in systems for path in system.paths):
        if is_run(path):
            require_torch(path)


def open_systems(
    systems: Sequence[System], test_set: TestSet, out: Path
) -> dict[str, list[Predictions]]:
    """Open each system's training seeds by its name; runs are predicted into ``out/systems``."""
    _require_fit(systems, test_set.dataset)
    opened: dict[str, list[Predictions]] = {}
    for name, paths in systems:
        names = [f"{name}-{number}" for number in range(1, len(paths) + 1)] if paths[1:] else [name]
        members = [
            _open_system(path, test_set, out, member_name)
            for path, member_name in zip(paths, names, strict=True)
        ]
        opened[name or members[0].name] = members
    _require_names(opened, len(systems))
    return opened


def _require_fit(systems: Sequence[System], dataset: DataSet) -> None:
    """Look at every system before the first is predicted, which may take hours."""
    names = set()
    for name, paths in systems:
        for path in paths:
            if predicts(path):
                kind = "export" if is_export(path) else "run"
                facts = read_json(path / f"{kind}.json", kind)
                usual = str(facts.get("name", path))  # an export is named when it is opened
                dataset.require_labelled({own: own for own in facts.get("findings", ())}, path)
            else:
                predictions = Predictions.open(path)
                usual = predictions.name
                check_data_set(name or usual, predictions, dataset)
        names.add(name or usual)
    _require_names(names, len(systems))


def _require_names(names: Collection[str], wanted: int) -> None:
    if len(names) < wanted:
        raise InputError("compare: two systems have one name; give each its own: NAME=PATH")


def _open_system(path: Path, test_set: TestSet, out: Path, name: str | None) -> Predictions:
    """Open predictions; a run or export is predicted (into ``systems``) and tuned first."""
    if not predicts(path):
        return Predictions.open(path)

    console.say(f"Loading {name or path}")
    target, model = test_set.target, load_model(path)
    folder = out / SYSTEMS / (name or system_folder(path))
    predictions = predict_once(model, path, test_set.dataset, folder, test_set.split, name)
    if predictions.decision(target.name) is None:
        options: dict[str, Any] = {}
        chosen_with = None if is_export(path) else model.inference_id()
        if own := decision_of_run(path, chosen_with, test_set):
            as_run = Decision.from_dict(own)  # chosen anew: other batches, other last digits
            options = {"policies": tuple(as_run.thresholds), "options": as_run.options}
        decision = tune(predictions, test_set, **options)
        predictions.write_decision(target.name, decision.to_dict())
    return predictions


def predicts(path: Path) -> bool:
    """Whether a system is given as a complete run, or as an export of one."""
    return is_run(path) or is_export(path)


def system_folder(path: Path) -> str:
    """Name of the folder that holds the predictions of a run or export within a report.

    Example:
        >>> system_folder(Path("out/chexnet")), system_folder(Path("out/chexnet/exports/onnx-fp32"))
        ('chexnet', 'chexnet-onnx-fp32')
    """
    own = path if path.name not in ("", "..") else path.resolve()
    return f"{own.parent.parent.name}-{own.name}" if own.parent.name == _EXPORTS else own.name


def predict_once(
    model: Model, path: Path, dataset: DataSet, folder: Path, split: str, name: str | None = None,
    **chosen: Any,
) -> Predictions:  # fmt: skip
    """Predictions of a model, made where they are missing; refuses those of another training."""
    if not (folder / "predictions.json").is_file():
        from cxr_compare.serving.predict_folder import predict_data_set

        return predict_data_set(model, dataset, folder, split, console, name=name, **chosen)
    predictions = Predictions.open(folder)
    if predictions.info["inference_id"] != model.inference_id():
        raise InputError(
            f"{folder}: holds predictions of another training than {path}; remove it, or choose "
            "another --out"
        )
    return predictions


def is_run(path: Path) -> bool:
    """Whether a system is given as a complete run, which has to be predicted first."""
    return (path / "run.json").is_file() and not is_predictions_folder(path)


def decision_of_run(
    run: Path, inference_id: str | None, test_set: TestSet
) -> dict[str, Any] | None:
    """What a run decides by, where it was chosen for the same predictions, labels and split.

    An export holds its run's decision, chosen on any device, only if it is of the same training:
    there is no `inference_id` to check.
    """
    path = validation_folder(run) / "decisions" / f"{test_set.target.name}.json"
    if not path.is_file():
        return None
    decision = read_json(path, "decision")
    same = {key: test_set.ids[key] for key in ("content_id", "labels_id", "split_id")}
    same |= {} if inference_id is None else {"inference_id": inference_id}
    hidden = {"schema_version", "contract"}
    if {key: decision["chosen_on"].get(key) for key in same} != same:
        return None
    return {key: value for key, value in decision.items() if key not in hidden}


def predict_images(run: Path, test_set: TestSet, image_ids: list[str], folder: Path) -> Predictions:
    """Predict chosen images with a run into a folder, decided as the run decides.

    With a decision the run's validation images come along, from which it follows.
    """
    model = load_model(run)
    decision = decision_of_run(run, model.inference_id(), test_set)
    predictions = predict_once(
        model, run, test_set.dataset, folder, test_set.split, image_ids=image_ids,
        made_before=None if decision is None else Predictions.open(run / "validation"),
    )  # fmt: skip
    if decision is not None:
        predictions.write_decision(test_set.target.name, decision)
    return predictions
