"""`cxr ensemble`: several systems as one, to be tuned and compared like any other."""

from __future__ import annotations

from typing import Annotated

from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.systems.ensemble import join_systems
from cxr_compare.scripts import console
from cxr_compare.scripts.options import DataFolder, read_numbers
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path
from cxr_compare.scripts.runner import command


@command
def ensemble(
    predictions: list[AnyPath],
    *,
    data: DataFolder,
    out: AnyPath,
    name: str | None = None,
    weights: Annotated[tuple[float, ...], Argument(read=read_numbers, metavar="N[,N...]")] = (),
) -> Predictions:
    """Join detectors by box fusion, classifiers by mean probability.

    The predictions folder names its members, sums their cost and remembers every patient that any
    of them has seen. An image that failed in one member failed.

    Args:
        predictions: Predictions folders of folds, seeds or different models.
        out: Folder to make.
        name: Name of the system in the report; by default the members'.
        weights: A weight for each member, with commas. By default all weigh the same.

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
    for note in join_systems(members, dataset, out, name, weights=list(weights) or None):
        console.say(note)
    return Predictions.open(out)
