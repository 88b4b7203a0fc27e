"""`cxr tune`: choose a system's decision rule on validation images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from data_prep.contracts.errors import InputError
from data_prep.contracts.words import counted
from scripts import console
from scripts.next_steps import show_next
from scripts.options import own_split

if TYPE_CHECKING:
    from data_prep.store.predictions import Predictions
    from evaluation.decisions.decision import Decision
    from evaluation.decisions.test_set import TestSet


def tune(
    predictions: Annotated[
        Path,
        typer.Argument(
            help="Predictions folder, or a run: its validation images are predicted first, and "
            "cxr predict and new reports then decide by what is chosen."
        ),
    ],
    data: Annotated[Path, typer.Option(help="Data set that cxr prepare made.")],
    target: Annotated[
        str | None, typer.Option(help="What is judged; may be left out where there is one.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Choose on this split's val images; by default its own.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="max_f1, youden, sensitivity>=F, specificity>=F, cost:FN/FP (what a miss and a "
            "false alarm cost; cost:FN/FP@P at prevalence P) or threshold=T (declared); may be "
            "given several times. By default max_f1, sensitivity>=0.95 and specificity>=0.90."
        ),
    ] = None,
    calibration: Annotated[
        Literal["none", "temperature", "platt", "isotonic", "choose"] | None,
        typer.Option(
            help="How a score becomes a probability; choose: by the log loss of held-out folds of "
            "validation patients. Platt scaling by default; a search chooses between it and none."
        ),
    ] = None,
    reduction: Annotated[
        list[str] | None,
        typer.Option(
            help="How boxes become an image score: max, top_k or noisy_or; of several "
            "given the best by the mean AUROC over folds of validation patients. By default max, "
            "unless the AUROC of top_k or noisy_or is higher there by more than chance."
        ),
    ] = None,
    refer: Annotated[
        float | None,
        typer.Option(
            help="Refer the most doubtful images to a reader: at most this share of validation."
        ),
    ] = None,
    search: Annotated[
        Literal["default", "boxes"] | None,
        typer.Option(
            help="Try fusions (NMS, weighted box fusion), box scales, reductions and score cuts "
            "on a detector's stored boxes: default, or boxes (fusion and scale only)."
        ),
    ] = None,
    objective: Annotated[
        Literal["auroc", "f1", "ap50", "rsna", "froc"] | None,
        typer.Option(
            help="The figure that the search maximises, as the mean over folds of validation "
            "patients; auroc by default."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Choose how boxes become an image score, and a threshold per policy, on validation only.

    With --search also how boxes are fused and scaled: compare and overlay then judge and show the
    boxes so made. The scale cannot change an image's score, so auroc and f1 leave it at 1. A
    classifier's boxes come from its maps: where they are cut, which parts count, and their score.

    Doubt, for --refer, is the spread of an ensemble's scores where
    there is one, else nearness to the threshold.

    Example: cxr tune out/retinanet-predictions --data out/data --target opacity --search default
    --objective ap50
    """
    if objective is not None and search is None:
        raise InputError("tune: --objective is for a search; add --search default or boxes")
    from data_prep.store.folder_kinds import require_kind

    require_kind(data, "data set")  # before what is heavy: a wrong folder is said at once
    from data_prep.store.dataset import DataSet
    from evaluation.decisions.choices import TuningOptions
    from evaluation.decisions.search import Search
    from evaluation.decisions.test_set import TestSet
    from evaluation.decisions.thresholds import POLICIES, check_policy
    from evaluation.decisions.tuning import tune as choose
    from evaluation.systems.eligibility import learned_validation

    policies = tuple(dict.fromkeys(policy)) if policy else POLICIES
    for each in policies:
        check_policy(each)
    chosen = TuningOptions(calibration, tuple(dict.fromkeys(reduction or ())), refer)
    dataset = DataSet.open(data)
    split = own_split(split, [predictions], dataset)
    test_set = TestSet(dataset, dataset.target(target), split)
    system = _open(predictions, test_set)
    wanted = Search(search, objective or "auroc") if search else None
    options: dict[str, Any] = {"policies": policies, "options": chosen}
    if wanted is None:
        decision = choose(system, test_set, **options)
    else:
        with console.progress("Searching", wanted.n_steps) as advance:
            decision = choose(system, test_set, **options, search=wanted, advance=advance)
    if not decision.chosen_on["n_images"]:
        raise InputError(
            f"{predictions}: holds no val image of split '{split}' with a known label, so nothing "
            "can be chosen; cxr compare gives threshold-free figures without tuning"
        )
    path = system.write_decision(test_set.target.name, decision.to_json())
    _tell(system.name, decision)
    for note in learned_validation(system.name, system, test_set):
        console.say(f"  {note.text}")
    console.say(f"Decision: {path}")
    show_next(predictions, data)
    if as_json:
        console.emit_json(decision.to_json())


def _open(folder: Path, test_set: TestSet) -> Predictions:
    """Open predictions; of a run those of its validation images, made where absent."""
    from data_prep.store.predictions import Predictions
    from scripts.systems import is_run

    if not is_run(folder):
        return Predictions.open(folder)
    from scripts.machines.runtime import choose_device, tune_cpu
    from scripts.predict import predict_validation

    tune_cpu()
    predictions = predict_validation(folder, test_set, device=choose_device("auto"))
    made_on = predictions.info["data_set"]
    if (made_on["content_id"], made_on["split"]) != (test_set.ids["content_id"], test_set.split):
        raise InputError(
            f"{folder}: its validation images are of split '{made_on['split']}' of "
            f"'{made_on['name']}'; to tune it on others, predict them first with cxr predict --data"
        )
    return predictions


def _tell(name: str, decision: Decision) -> None:
    chosen_on = decision.chosen_on
    console.say(
        f"{name}, {decision.target}: chosen on "
        f"{counted(chosen_on['n_images'], 'validation image')} of "
        f"{counted(chosen_on['n_patients'], 'patient')}, {chosen_on['n_positive']} positive"
    )
    if decision.reduction:
        floor = f", boxes from score {decision.reduction.min_score:g}"
        shown = floor if decision.reduction.min_score else ""
        console.say(f"  image score: {decision.reduction.rule}{shown}")
    if record := decision.choices.get("reduction"):
        console.say(
            f"    of {counted(record['settings_tried'], 'setting')}, "
            f"{counted(record['folds'], 'fold')} of patients: "
            f"AUROC {_shown(record['mean_over_folds'])}, held out from its own choice "
            f"{_shown(record['held_out'])}"
        )
    if decision.options.calibration:
        _tell_calibration(decision)
    if decision.search:
        _tell_search(decision, decision.search)
    for policy, choice in decision.thresholds.items():
        if choice.threshold is None:
            console.say(f"  {policy}: no threshold ({choice.reason})")
            continue
        figures = decision.validation[policy]
        shown = ", ".join(
            f"{metric} {value:.3f}"
            for metric in ("recall", "specificity", "precision", "f1")
            if (value := figures[metric]) is not None
        )
        console.say(f"  {policy}: score >= {choice.threshold:.6g} ({shown})")
        if policy in decision.referral:
            referral = decision.referral[policy]
            cut = referral.reason if referral.cut is None else f"from {referral.cut:.4g} on"
            console.say(f"    refer by {referral.by}, {cut}")


def _tell_calibration(decision: Decision) -> None:
    """The calibration, and the log losses by which it was chosen."""
    facts = decision.calibration.to_json() if decision.calibration else {"method": "none possible"}
    losses = decision.choices.get("calibration", {})
    shown = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
    method = "the score as it is" if facts["method"] == "none" else facts["method"]
    console.say(f"  probability: {method}" + (f" (held-out log loss: {shown})" if shown else ""))


def _tell_search(decision: Decision, search: dict[str, Any]) -> None:
    """What the search chose, and how much of its gain may be luck."""
    console.say(f"  boxes: {decision.boxes.words}")
    if decision.box_cut is not None:
        console.say(f"  boxes are called from score {decision.box_cut:g} (for the RSNA score)")
    figures = {"chosen": search["chosen"], "boxes as stored": search["boxes_as_stored"]}
    console.say(
        f"  {search['objective']}, {counted(search['settings_tried'], 'setting')}, "
        f"{counted(search['folds'], 'fold')} of patients:"
    )
    for name, pair in figures.items():
        console.say(
            f"    {name}: mean over folds {_shown(pair['folds'])}, on all validation images at "
            f"once {_shown(pair['validation'])}"
        )
    console.say(f"    held out from its own choice: {_shown(search['held_out'])}")
    if not search["chosen"]["folds"]:
        console.say("    no setting finds anything here: the first was taken, not the best")


def _shown(figure: float | None) -> str:
    return "undefined" if figure is None else f"{figure:.3f}"
