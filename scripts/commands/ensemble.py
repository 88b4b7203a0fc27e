"""`cxr ensemble`: join several systems into one, which is tuned and compared like any other."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.sources.ensemble import (
    join,
    join_systems,
    joined_predictions,
    shared_findings,
)
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.read_predictions import store_decision
from cxr_compare.evaluation.sources.stored_predictions import tune_predictions
from cxr_compare.scripts import console
from cxr_compare.scripts.compare_inputs import Table
from cxr_compare.scripts.from_data_set import open_values
from cxr_compare.scripts.from_truth import GivenTruth, open_given_systems, open_truth
from cxr_compare.scripts.given_systems import ComparedSystems, GivenSystem, read_compared
from cxr_compare.scripts.options import DataFolder, own_split
from cxr_compare.scripts.parameters import AnyPath, as_path
from cxr_compare.scripts.runner import command
from cxr_compare.scripts.runtime import load_model
from cxr_compare.scripts.systems import predict_once, predicts, require_predictable


@command
def ensemble(
    predictions: ComparedSystems,
    *,
    data: DataFolder | None = None,
    truth: Table = None,
    boxes: Table = None,
    patients: Table = None,
    out: AnyPath | None = None,
    name: str | None = None,
) -> Predictions:
    """Join several systems into one: detectors, classifiers or both.

    Boxes of detectors are fused, and probabilities of classifiers are averaged, each with the same
    weight. A detector and a classifier together become a joint system: its image score is a
    logistic regression on the scores of both, fitted on validation images, and it gates the boxes
    of the detector; the maps of the classifier are kept. The new predictions folder names its
    members, adds up their computing cost, and lists every patient that any member has learned from.
    An image that one member failed to predict counts as failed.

    Args:
        predictions: Systems to join, such as those of folds, seeds or different models: predictions
            folders (of cxr predict or import), or runs (folders of cxr train), each as PATH or
            NAME=PATH. Runs are predicted first; a joint system of runs keeps a copy of them, so
            that cxr predict, serve and export take it as one run. From Python you can also give
            scores or boxes by name, as arrays, Series or frames.
        data: Data set that cxr prepare made.
        truth: Labels in place of --data, as in cxr compare, with a role (val, test) for each image.
            The systems are then result files or, from Python, values.
        boxes: True boxes for --truth, as in cxr compare. They choose how the boxes of a joint
            system are scored; without them the boxes are rescaled.
        patients: Patients for --truth, as in cxr compare. Weights of validation images are then
            fitted without any image of the same patient.
        out: Predictions folder to make. From Python you can leave it out: the joined predictions
            are then in memory.
        name: Name of the system in the report. By default it is made of the names of the members.

    Returns:
        The joined predictions.

    Raises:
        InputError: The members do not fit each other or the options.

    Example:
        cxr ensemble out/fold0-predictions out/fold1-predictions --data out/data
        --out out/ensemble-predictions --name "RetinaNet x 2"

        cxr ensemble out/retinanet out/chexnet --data out/data --out out/both
    """
    given = read_compared(predictions)
    data = as_path(data)
    out = as_path(out)
    if (data is None) == (truth is None):
        raise InputError("ensemble: give --data SET, or --truth with labels in its place")
    if out is None and console.printed_as() is not None:
        raise InputError("ensemble: give the folder to make with --out")
    if data is None:
        joined = _joined_on_truth(open_truth(truth, boxes, patients), given, out, name)
    else:
        joined = _joined_on_data(data, given, out, name)
    for note in joined.info.notes:
        console.say(note)
    return joined


def _joined_on_data(
    data: Path, given: Sequence[GivenSystem], out: Path | None, name: str | None
) -> Predictions:
    """Join systems on a data set; runs of them predict first."""
    require_predictable(given)
    dataset = DataSet.open(data)
    split = own_split(None, [path for system in given for path in system.paths], dataset)
    with tempfile.TemporaryDirectory(prefix="cxr-") as folder:
        members = [
            _predicted(member, system.name, dataset, split, Path(folder) / f"{number}-{seed}")
            for number, system in enumerate(given)
            for seed, member in enumerate(open_values(system, dataset, split).members)
        ]
        joined = join_systems(members, dataset, out, name, split)
    paths = [path for system in given for path in system.paths]
    if out is not None and joined.kind == "both" and len(paths) == len(members):
        _keep_runs(joined, paths, members, LabelledSplit(dataset, dataset.target(), split))
    return joined


def _joined_on_truth(
    truth: GivenTruth, given: Sequence[GivenSystem], out: Path | None, name: str | None
) -> Predictions:
    """Join systems that are given in files or in memory, with the truth beside them."""
    (labelled,) = truth.truths.values()
    opened = open_given_systems(given, truth)
    members = [one.predictions(labelled) for of_system in opened.values() for one in of_system]
    joined = join(
        members,
        lambda: {finding: truth.of_finding(finding) for finding in shared_findings(members)},
        truth.known.images,
    )
    return joined_predictions(members, joined, name, out)


def _opened(member: Path | Predictions) -> Predictions:
    return member if isinstance(member, Predictions) else Predictions.open(member)


def _predicted(
    member: Path | Predictions, name: str | None, dataset: DataSet, split: str, folder: Path
) -> Predictions:
    """Return stored predictions, or predict with a run or an export."""
    if isinstance(member, Predictions) or not predicts(member):
        return _opened(member)
    console.say(f"Loading {name or member}")
    return predict_once(load_model(member), member, dataset, folder, split, name)


def _keep_runs(
    joined: Predictions, paths: Sequence[Path], members: Sequence[Predictions], split: LabelledSplit
) -> None:
    """Copy the members into the folder, and choose the threshold, so that it predicts images."""
    if not all(map(predicts, paths)):
        return
    from cxr_compare.serving.joint_model import copy_members

    copy_members(paths, [member.name for member in members], joined.folder)
    decision = tune_predictions(joined, split)
    store_decision(joined, decision)
