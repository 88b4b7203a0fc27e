"""Predictions of the systems of a command: stored ones are opened, runs are predicted first."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo
from cxr_compare.data_prep.store.prediction_writer import (
    is_predictions_folder,
    remove_prediction_leftovers,
)
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.choose import declare
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.report.files import SYSTEMS
from cxr_compare.evaluation.sources.eligibility import check_data_set
from cxr_compare.evaluation.sources.ensemble import (
    join_both,
    joined_id,
    joined_predictions,
    truths_of_findings,
)
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.read_predictions import store_decision, stored_decision
from cxr_compare.evaluation.sources.stored_predictions import tune_predictions
from cxr_compare.evaluation.thresholds import POLICIES
from cxr_compare.evaluation.tuning_options import TuningOptions
from cxr_compare.scripts import console
from cxr_compare.scripts.given_systems import (
    GivenSystem,
    SystemPaths,
    same_name,
    seeds_to_join,
)
from cxr_compare.scripts.runtime import load_model
from cxr_compare.serving.backends import require_torch
from cxr_compare.serving.export_spec import ExportSpec, is_export, validation_folder

if TYPE_CHECKING:
    from cxr_compare.serving.predictor import Predictor

_EXPORTS = "exports"  # within a run's folder, see cxr_compare.serving.backends


class ComparedSystem(NamedTuple):
    """A system to compare, after values in memory have been turned into predictions."""

    name: str | None
    members: list[Path | Predictions]

    @property
    def paths(self) -> list[Path]:
        """Those `members` that are folders."""
        return [member for member in self.members if isinstance(member, Path)]


def require_predictable(systems: Sequence[SystemPaths | GivenSystem | ComparedSystem]) -> None:
    """Check that the packages are installed with which trained models predict."""
    for path in (path for system in systems for path in system.paths):
        if is_run(path):
            require_torch(path)


def open_systems(
    systems: Sequence[ComparedSystem], test_set: LabelledSplit, out: Path
) -> dict[str, list[Predictions]]:
    """Open the predictions of each training seed of each system.

    A system that was given as a training (run) or an export of its network is first predicted into
    ``out/systems``, and its threshold is chosen on validation images.

    Raises InputError if two systems have one name, also by their folders, or a system belongs to
    another data set or to findings that the data set does not label.
    """
    opened: dict[str, list[Predictions]] = {}
    for name, members in _with_own_names(systems, _usual_names(systems, test_set.dataset)):
        count = len(members)
        names = [f"{name}-{number}" for number in range(1, count + 1)] if count > 1 else [name]
        predictions = [
            _open_member(member, test_set, out, member_name)
            for member, member_name in zip(members, names, strict=True)
        ]
        if (key := name or predictions[0].name) in opened:  # of exports, named when they are opened
            raise same_name(key, opened[key][0].folder, predictions[0].folder)
        opened[key] = predictions
    return opened


def with_joint_system(
    opened: Mapping[str, Sequence[Predictions]],
    test_set: LabelledSplit,
    out: Path,
    boxes_by: str,
) -> dict[str, list[Predictions]]:
    """Add the system that joins all opened ones, with its threshold chosen on validation images.

    It is written into ``out/systems``. Of systems with several training seeds, the first seeds are
    joined, the second ones, and so on.

    `boxes_by` is the figure on validation whose highest value chooses how boxes are gated. The
    joint system comes last. Raises InputError if the systems have different numbers of seeds, or
    cannot be joined.
    """
    name, of_seeds = seeds_to_join(opened)
    joint = [
        _joint_predictions(
            members,
            test_set,
            out / SYSTEMS / (f"both-{number}" if len(of_seeds) > 1 else "both"),
            name,
            boxes_by,
        )
        for number, members in enumerate(of_seeds, start=1)
    ]
    return {**{system: list(members) for system, members in opened.items()}, name: joint}


def _joint_predictions(
    members: Sequence[Predictions],
    test_set: LabelledSplit,
    folder: Path,
    name: str,
    boxes_by: str,
) -> Predictions:
    """Join systems, unless the folder holds the same ones, and choose the thresholds."""
    console.say(f"Joining {name}")
    target = test_set.target
    dataset = test_set.dataset
    truths = truths_of_findings(members, dataset, test_set.split, target.any_of)
    joined = join_both(members, truths, dataset.images, boxes_by=boxes_by)
    record = folder / "predictions.json"
    stored = PredictionsInfo.read(record).inference_id if record.is_file() else None
    if stored != joined_id(members, joined.settings):
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier or unfinished report
        joined_predictions(members, joined, name, folder, dataset)
    predictions = Predictions.open(folder)
    decisions = [stored_decision(member, target.name) for member in members]
    policies = dict.fromkeys(policy for each in decisions if each for policy in each.thresholds)
    decision = tune_predictions(
        predictions,
        test_set,
        policies=tuple(policies) or POLICIES,
        options=TuningOptions(boxes_by=boxes_by),
    )
    store_decision(predictions, decision)
    return predictions


def _open_member(
    member: Path | Predictions, test_set: LabelledSplit, out: Path, name: str | None
) -> Predictions:
    """Return predictions in memory as they are, and open those of a folder."""
    if isinstance(member, Predictions):
        return member
    return _open_system(member, test_set, out, name)


def _usual_names(systems: Sequence[ComparedSystem], dataset: DataSet) -> list[str]:
    """Return the name that each system has without a given one, after a look at every system.

    All are looked at before the first is predicted, which may take hours.
    """
    names = []
    for name, members in systems:
        usual = ""
        for path in members:
            if isinstance(path, Predictions):
                usual = path.name
                check_data_set(name or usual, path, dataset)
            elif predicts(path):
                usual, findings = _name_and_findings(path)
                dataset.require_labelled({own: own for own in findings}, path)
            else:
                predictions = Predictions.open(path)
                usual = predictions.name
                check_data_set(name or usual, predictions, dataset)
        names.append(usual)
    return names


def _name_and_findings(path: Path) -> tuple[str, Sequence[str]]:
    """Return the usual name and the findings of a run or an export."""
    if is_export(path):
        return str(path), ExportSpec.open(path).findings  # it is named when it is opened
    from cxr_compare.training.run_folder import RunFolder  # which imports torch

    info = RunFolder.open(path).info
    return info.name, info.findings


def _with_own_names(
    systems: Sequence[ComparedSystem], usual: Sequence[str]
) -> list[ComparedSystem]:
    """Name systems by their folders where several have one name, and say so in a line."""
    names = Counter(system.name or name for system, name in zip(systems, usual, strict=True))
    named = []
    folders = []
    for system, name in zip(systems, usual, strict=True):
        if system.name is None and names[name] > 1 and system.paths:
            folders.append(system_folder(system.paths[0]))
            named.append(system._replace(name=folders[-1]))
        else:
            named.append(system)
    if folders:
        console.say(f"Systems of one name have the names of their folders: {listing(folders)}")
    first: dict[str, ComparedSystem] = {}
    for system, name in zip(named, usual, strict=True):
        other = first.setdefault(system.name or name, system)
        if other is not system:
            raise same_name(system.name or name, other.members[0], system.members[0])
    return named


def _open_system(path: Path, test_set: LabelledSplit, out: Path, name: str | None) -> Predictions:
    """Open predictions; a run or export is predicted (into ``systems``) and tuned first."""
    if not predicts(path):
        return Predictions.open(path)

    console.say(f"Loading {name or path}")
    target = test_set.target
    model = load_model(path)
    folder = out / SYSTEMS / (name or system_folder(path))
    predictions = predict_once(model, path, test_set.dataset, folder, test_set.split, name)
    if stored_decision(predictions, target.name) is None:
        options: dict[str, Any] = {}
        chosen_with = None if is_export(path) else model.inference_id()
        as_run = decision_of_run(path, chosen_with, test_set)
        if as_run is not None:
            # Chosen anew, because other batches change the last digits of scores.
            options = {"policies": tuple(as_run.thresholds), "options": as_run.options}
        decision = tune_predictions(predictions, test_set, **options)
        if as_run is not None and as_run.declared is not None:
            decision = declare(decision, as_run.declared)
        store_decision(predictions, decision)
    return predictions


def predicts(path: Path) -> bool:
    """Return True for the folder of an ended training (run) or an export of its network."""
    return is_run(path) or is_export(path)


def system_folder(path: Path) -> str:
    """Return the name of the folder, within a report, for the predictions of a run or an export.

    Example:
        >>> system_folder(Path("out/chexnet")), system_folder(Path("out/chexnet/exports/onnx-fp32"))
        ('chexnet', 'chexnet-onnx-fp32')
    """
    own = path if path.name not in ("", "..") else path.resolve()
    return f"{own.parent.parent.name}-{own.name}" if own.parent.name == _EXPORTS else own.name


def predict_once(
    model: Predictor,
    path: Path,
    dataset: DataSet,
    folder: Path,
    split: str,
    name: str | None = None,
    **chosen: Any,
) -> Predictions:
    """Open the predictions of a model, or compute them if the folder holds none.

    `path` is the run or export, for messages; `name` None takes that of the run; `chosen` are
    further arguments of `predict_data_set`, such as ``image_ids``. Raises InputError if the folder
    holds predictions of another training.
    """
    if not (folder / "predictions.json").is_file():
        from cxr_compare.serving.predict_folder import predict_data_set

        return predict_data_set(model, dataset, folder, split, console, name=name, **chosen)
    remove_prediction_leftovers(folder)
    predictions = Predictions.open(folder)
    if predictions.info.inference_id != model.inference_id():
        raise InputError(
            f"{folder}: holds predictions of another training than {path}; remove it, or choose "
            "another --out"
        )
    return predictions


def is_run(path: Path) -> bool:
    """Return True for the folder of an ended training, which is predicted before evaluation."""
    return (path / "run.json").is_file() and not is_predictions_folder(path)


def open_predictions(folder: Path) -> Predictions:
    """Open a predictions folder; of a run, the predictions of its validation images."""
    return Predictions.open(validation_folder(folder) if is_run(folder) else folder)


def decision_of_run(run: Path, inference_id: str | None, test_set: LabelledSplit) -> Choices | None:
    """Return the stored decision rule (threshold, calibration) of a run if it fits the data.

    It must have been chosen for `test_set`, and with `inference_id`, the digest of all that the
    model's predictions depend on. None skips this comparison; use it for an export, which holds the
    rule of its run, whose digest differs.
    """
    path = validation_folder(run) / "decisions" / f"{test_set.target.name}.json"
    if not path.is_file():
        return None
    decision = Choices.read(path)
    same = {key: test_set.ids[key] for key in ("content_id", "labels_id", "split_id")}
    same |= {} if inference_id is None else {"inference_id": inference_id}
    return decision if {key: decision.chosen_on.get(key) for key in same} == same else None


def predict_images(
    run: Path, test_set: LabelledSplit, image_ids: list[str], folder: Path
) -> Predictions:
    """Predict chosen images with a training's model, and apply its decision rule to them.

    If the training has a rule (threshold, calibration) that fits the data, its validation images
    are included as well, because the rule was chosen on them.
    """
    model = load_model(run)
    decision = decision_of_run(run, model.inference_id(), test_set)
    predictions = predict_once(
        model,
        run,
        test_set.dataset,
        folder,
        test_set.split,
        image_ids=image_ids,
        made_before=None if decision is None else Predictions.open(run / "validation"),
    )
    if decision is not None:
        store_decision(predictions, decision)
    return predictions
