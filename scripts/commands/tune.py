"""`cxr tune`: choose the decision rule of a system on validation images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.prediction_info import MadeOn
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation import choose
from cxr_compare.evaluation.box_choice import BOXES_BY
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.common_images import validation_learned_from
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.read_predictions import store_decision
from cxr_compare.evaluation.sources.stored_predictions import read_system_of_split
from cxr_compare.evaluation.thresholds import DECLARED, POLICIES, check_policy
from cxr_compare.evaluation.tuning_options import TuningOptions
from cxr_compare.scripts import console
from cxr_compare.scripts.next_steps import next_steps
from cxr_compare.scripts.options import DataFolder, own_split
from cxr_compare.scripts.parameters import AnyPath, as_path
from cxr_compare.scripts.runner import command
from cxr_compare.scripts.runtime import choose_device, tune_cpu
from cxr_compare.scripts.systems import is_run
from cxr_compare.serving.backends import require_torch
from cxr_compare.serving.export_spec import validation_folder

if TYPE_CHECKING:
    from pathlib import Path


@command
def tune(
    predictions: AnyPath,
    *,
    data: DataFolder,
    target: str | None = None,
    policy: list[str] | None = None,
    calibration: Literal["none", "temperature", "platt", "isotonic", "choose"] | None = None,
    reduction: list[Literal["max", "top_k", "noisy_or"]] | None = None,
    boxes_by: str = BOXES_BY,
) -> Choices:
    """Choose thresholds, calibration and boxes on validation images.

    The command also chooses how boxes become a score of the image. A detector's box is left out if
    it overlaps a more confident box too much. A classifier's boxes are cut out of its activation
    maps; the level of the cut and the number of boxes of an image are chosen on validation images.

    Args:
        predictions: Predictions folder (of cxr predict, import or ensemble) or run (folder of cxr
            train). With a run, cxr predict and later reports decide by what is chosen here.
        data: Data set that cxr prepare made.
        target: Target (a finding, or a group of findings) to decide on. Needed only if the data set
            has several targets.
        policy: Policy (rule that chooses a threshold): max_f1, youden, sensitivity>=F,
            specificity>=F (the figure is at least F on validation), cost:FN/FP (costs of a miss and
            of a false alarm; add @P for prevalence P) or threshold=T (a threshold that you give).
            By default max_f1, sensitivity>=0.95 and specificity>=0.90.
        calibration: Method that turns a score into a probability, by default platt. choose takes
            the method with the lowest log loss on held-out folds of validation patients.
        reduction: Method that turns the boxes of an image into one score: max (the highest score of
            a box), top_k (the mean of the three highest, where a missing box counts 0) or noisy_or
            (1 minus the product of 1 - score). Of several methods (by default all) the first is
            taken, unless another has a higher AUROC on validation by more than chance.
        boxes_by: Metric of boxes ranked by their score, such as ap50_decided. The allowed overlap
            of boxes, or the cut of maps, is the one with the best value of this metric on
            validation images. If the primary figure of your study is a figure of boxes, name it
            here.

    Returns:
        The decision rule (thresholds, calibration and others), which is also stored with the
        predictions.

    Raises:
        InputError: The options do not fit each other or the system, or there is no validation image
            to choose on.

    Example:
        cxr tune out/retinanet-predictions --data out/data --target opacity --reduction max
    """
    predictions = as_path(predictions)
    data = as_path(data)
    if is_run(predictions) and not _is_predicted(predictions):
        require_torch(predictions)
    policies = tuple(dict.fromkeys(policy or POLICIES))
    for name in policies:
        if check_policy(name).kind == DECLARED:
            raise InputError(
                f"--policy {name}: a declared threshold is not chosen by tune; leave it out, or "
                "state a threshold with threshold=T"
            )
    reductions = tuple(dict.fromkeys(reduction or ()))
    chosen = TuningOptions(calibration, reductions, boxes_by)
    dataset = DataSet.open(data)
    split = own_split(None, [predictions], dataset)
    test_set = LabelledSplit(dataset, dataset.target(target), split)
    system = _open(predictions, test_set)
    read = read_system_of_split(system, test_set, ["val"])
    if not read.has_scores:
        raise InputError(
            f"{predictions}: its boxes have no scores, so there is nothing to tune; cxr compare "
            "takes it as it is"
        )
    decision = choose.tune(read, test_set.truth, policies=policies, options=chosen)
    if not decision.chosen_on["n_images"]:
        raise InputError(
            f"{predictions}: holds no val image of split '{split}' with a known label, so nothing "
            "can be chosen; cxr compare gives threshold-free figures without tuning"
        )
    notes = validation_learned_from(system.name, read, test_set.truth)
    return decision.with_values(
        system=system.name,
        path=store_decision(system, decision),
        notes=tuple(note.text for note in notes),
        next_steps=tuple(next_steps(predictions, data)),
    )


def _open(folder: Path, test_set: LabelledSplit) -> Predictions:
    """Open predictions; of a run those of its validation images, made where absent."""
    if not is_run(folder):
        return Predictions.open(folder)
    if _is_predicted(folder):
        predictions = Predictions.open(validation_folder(folder))
    else:
        from cxr_compare.serving.predict_folder import predict_validation

        tune_cpu()
        predictions = predict_validation(folder, test_set, console, device=choose_device("auto"))
    made_on = predictions.info.data_set
    here = (test_set.ids["content_id"], test_set.split)
    if made_on is None or (made_on.content_id, made_on.split) != here:
        raise InputError(
            f"{folder}: its validation images are of {_split_text(made_on)}; to tune it on others, "
            "predict them first with cxr predict --data"
        )
    return predictions


def _split_text(made_on: MadeOn | None) -> str:
    return "no data set" if made_on is None else f"split '{made_on.split}' of '{made_on.name}'"


def _is_predicted(run: Path) -> bool:
    """Return True if a run has predictions of its validation images."""
    return (validation_folder(run) / "predictions.json").is_file()
