"""`cxr tune`: choose a system's decision rule on validation images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_prep.errors import InputError
from scripts import console

if TYPE_CHECKING:
    from evaluation.decision import Decision


def tune(
    predictions: Annotated[Path, typer.Argument(help="Predictions folder.")],
    data: Annotated[Path, typer.Option(help="Data set that cxr prepare made.")],
    target: Annotated[
        str | None, typer.Option(help="What is judged; may be left out where there is one.")
    ] = None,
    split: Annotated[str, typer.Option(help="Choose on this split's val images.")] = "default",
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="max_f1, youden, sensitivity>=F or specificity>=F; may be given several times. "
            "By default max_f1, sensitivity>=0.95 and specificity>=0.90."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Choose how boxes become an image score, and a threshold per policy, on validation only.

    Example: cxr tune out/retinanet-predictions --data out/data --target opacity
    """
    from data_prep.dataset import DataSet
    from data_prep.predictions import Predictions
    from evaluation.decision import tune as choose
    from evaluation.thresholds import POLICIES, check_policy

    policies = tuple(dict.fromkeys(policy)) if policy else POLICIES
    for each in policies:
        check_policy(each)
    dataset, system = DataSet.open(data), Predictions.open(predictions)
    judged = dataset.target(target)
    decision = choose(system, dataset, judged, split=split, policies=policies)
    if not decision.chosen_on["n_images"]:
        raise InputError(
            f"{predictions}: holds no val image of split '{split}' with a known label, so nothing "
            "can be chosen; cxr compare gives threshold-free figures without tuning"
        )
    path = system.write_decision(judged.name, decision.to_json())
    _tell(system.name, decision)
    console.say(f"Decision: {path}")
    if as_json:
        console.emit_json(decision.to_json())


def _tell(name: str, decision: Decision) -> None:
    chosen_on = decision.chosen_on
    console.say(
        f"{name}, {decision.target}: chosen on {chosen_on['n_images']} validation images of "
        f"{chosen_on['n_patients']} patients, {chosen_on['n_positive']} positive"
    )
    if decision.reduction:
        floor = f", boxes from score {decision.reduction.min_score:g}"
        shown = floor if decision.reduction.min_score else ""
        console.say(f"  image score: {decision.reduction.rule}{shown}")
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
