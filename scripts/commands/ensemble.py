"""`cxr ensemble`: several systems as one, to be tuned and compared like any other."""

from __future__ import annotations

from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.systems.ensemble import join_systems
from cxr_compare.scripts import console
from cxr_compare.scripts.options import DataFolder
from cxr_compare.scripts.parameters import AnyPath, as_path
from cxr_compare.scripts.runner import command


@command
def ensemble(
    predictions: list[AnyPath],
    *,
    data: DataFolder,
    out: AnyPath,
    name: str | None = None,
) -> Predictions:
    """Join detectors by box fusion, classifiers by mean probability.

    Every member weighs the same. The predictions folder names its members, sums their cost and
    remembers every patient that any of them has seen. An image that failed in one member failed.

    Args:
        predictions: Predictions folders of folds, seeds or different models.
        out: Folder to make.
        name: Name of the system in the report; by default the members'.

    Returns:
        The predictions folder.

    Raises:
        InputError: The members do not fit each other or the options.

    Example:
        cxr ensemble out/fold0-predictions out/fold1-predictions --data out/data
        --out out/ensemble-predictions --name "RetinaNet x 2"
    """
    data = as_path(data)
    out = as_path(out)
    dataset = DataSet.open(data)
    members = [Predictions.open(as_path(folder)) for folder in predictions]
    for note in join_systems(members, dataset, out, name):
        console.say(note)
    return Predictions.open(out)
