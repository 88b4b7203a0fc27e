"""`cxr ensemble`: join several systems into one, which is tuned and compared like any other."""

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
    """Join several systems into one, by box fusion or mean probability.

    Boxes of detectors are fused, and probabilities of classifiers are averaged. Every member has
    the same weight. The new predictions folder names its members, adds up their computing cost, and
    lists every patient that any member has learned from. An image that one member failed to predict
    counts as failed.

    Args:
        predictions: Predictions folders (of cxr predict or import) to join, such as those of folds,
            seeds or different models. All are of detectors, or all of classifiers.
        data: Data set that cxr prepare made.
        out: Predictions folder to make.
        name: Name of the system in the report. By default it is made of the names of the members.

    Returns:
        The joined predictions.

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
