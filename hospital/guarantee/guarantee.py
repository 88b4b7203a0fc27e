"""`cxr guarantee`: declare a threshold whose figure holds for new patients, or plan for one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import numpy as np

from cxr_compare import Choices, DataSet, InputError
from cxr_compare.evaluation.choices import Declared
from cxr_compare.evaluation.choose import checked_decision, declare, validation_scores
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.read_predictions import store_decision, stored_decision
from cxr_compare.evaluation.sources.stored_predictions import read_system_of_split
from cxr_compare.hospital.guarantee.guarantee_plan import LEAST_PATIENTS, GuaranteePlan
from cxr_compare.hospital.guarantee.guaranteed_threshold import GuaranteeImages
from cxr_compare.hospital.guarantee.guarantees import Guarantee, read_guarantee
from cxr_compare.hospital.guarantee.localisation import locate_predictions
from cxr_compare.scripts.command_frame import (
    AnyPath,
    Argument,
    DataFolder,
    Images,
    as_path,
    command,
    open_predictions,
    own_split,
    read_numbers,
    read_paths,
)

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from cxr_compare.evaluation.labelled_images import LabelledImages
    from cxr_compare.evaluation.output import System

_USUAL_SHARE = 0.9
"""Share of the error that is used with the usual rule for image scores, the most confident box."""


@command
def guarantee(
    *words: Annotated[AnyPath, Argument(read=read_paths, metavar="[RUN] GUARANTEE")],
    data: DataFolder | None = None,
    target: str | None = None,
    plan: bool = False,
    expect: Annotated[tuple[float, ...], Argument(read=read_numbers, metavar="F[,F]")] = (),
    images: Images = (),
    within: float | None = None,
    power: Annotated[float | None, Argument(minimum=0.05, maximum=0.999)] = None,
    prevalence: float | None = None,
    out: AnyPath | None = None,
) -> Choices | GuaranteePlan:
    """Declare a threshold whose figure holds for new patients.

    It holds with a stated confidence. The threshold is chosen on the validation patients of a run
    or of predictions for which cxr tune has chosen a decision, and is stored with that decision.
    cxr predict, serve and export then decide by it unless another --policy is given, and cxr
    compare shows its figures under the policy declared. The next cxr tune removes it. At least 100
    patients must count for each figure. With --plan the command computes how many validation
    patients are needed; it then takes no run.

    Args:
        words: Run (folder of cxr train) or predictions folder, followed by the guarantee:
            sensitivity>=F@C, such as sensitivity>=0.90@0.90 (at least 0.90 with 90 % confidence),
            specificity>=F@C, localised_sensitivity>=F@C, ppv>=F,prevalence=P@C or
            false_positives_per_image<=F@C, or two of them joined by & before the @C.
        data: Data set that cxr prepare made.
        target: Target (a finding, or a group of findings) to decide on. Needed only if the data set
            has several targets.
        plan: Compute the number of validation patients that the guarantee needs.
        expect: True value that is expected of the guaranteed figure at the threshold, with --plan.
            Give two values for a guarantee of two figures, and the PPV and the sensitivity for a
            guarantee of PPV.
        images: Assumed number of images of a patient, with --plan. 1,2,4 makes one plan for each
            number; rsna or nih takes the unequal numbers of that data set. By default it is 1.
        within: Assumed correlation of the scores of two images of a patient, with --plan, by
            default 0.5.
        power: Probability that a threshold with the guarantee is found, with --plan. By default it
            is 0.8.
        prevalence: Assumed share of validation patients with the disease, with --plan for a
            guarantee of PPV.
        out: Folder for the figure and plan.json, with --plan. It must be new or hold a plan.

    Returns:
        The decision with the declared threshold; with --plan the numbers of patients.

    Raises:
        InputError: The guarantee cannot be read, too few patients count for it, no threshold was
            shown to fulfil it, or the options do not fit each other. Nothing is declared then.

    Example:
        cxr guarantee out/chexnet "sensitivity>=0.90@0.90" --data out/data

        cxr guarantee "sensitivity>=0.90@0.90" --plan --expect 0.95 --images 1,rsna --within 0.4
    """
    given = read_paths(words)
    for_run = {"data": data, "target": target}
    for_plan = {
        "expect": expect,
        "images": images,
        "within": within,
        "power": power,
        "prevalence": prevalence,
        "out": out,
    }
    if not plan:
        _refuse(for_plan, "--plan")
        if len(given) != 2 or data is None:
            raise InputError(
                "guarantee: give a run or predictions, the guarantee, and the data set as --data"
            )
        return _declare(as_path(given[0]), given[1], as_path(data), target)
    _refuse(for_run, "a run, and has no meaning with --plan")
    if len(given) != 1 or not expect:
        raise InputError(
            "guarantee --plan: give the guarantee alone, and with --expect the true figure that it "
            "is to have"
        )
    planned = GuaranteePlan.from_text(
        given[0], expect, images, correlation=within, power=power, positive=prevalence
    )
    if out is None:
        return planned
    from cxr_compare.hospital.guarantee.plan_figures import write_plan

    return replace(planned, figures=write_plan(planned, as_path(out)))


def _refuse(options: Mapping[str, object], purpose: str) -> None:
    """Refuse the first option that was given and is for something else."""
    for option, value in options.items():
        if value not in (None, ()):
            raise InputError(f"guarantee --{option}: is for {purpose}; leave it out")


def _declare(folder: Path, text: str, data: Path, target: str | None) -> Choices:
    """Choose the threshold of a guarantee, and store it with the decision of the predictions."""
    guaranteed = read_guarantee(text)
    dataset = DataSet.open(data)
    split = own_split(None, [folder], dataset)
    test_set = LabelledSplit(dataset, dataset.target(target), split)
    predictions = open_predictions(folder)
    if stored_decision(predictions, test_set.target.name) is None:
        raise InputError(f"{folder}: has no decision on {test_set.target.name}; run cxr tune first")
    system = read_system_of_split(predictions, test_set, ["val"])
    decision = checked_decision(predictions.name, system, test_set.truth, ())
    declared = guaranteed_threshold(guaranteed, text, system, decision, test_set.truth)
    decision = declare(decision, declared)
    path = store_decision(predictions, decision)
    return decision.with_values(system=predictions.name, path=path)


def guaranteed_threshold(
    guaranteed: Guarantee, text: str, system: System, decision: Choices, truth: LabelledImages
) -> Declared:
    """Choose a threshold that fulfils a guarantee, on the validation images of a system.

    Refused are a system that learned from validation patients, fewer than 100 patients for a
    figure, and a guarantee that no threshold was shown to fulfil.
    """
    scored = validation_scores(system, decision, truth)
    if n_learned := len(scored.index.intersection(system.facts.fitted_on)):
        raise InputError(
            f"guarantee {text!r}: {system.name} learned from patients of {n_learned} validation "
            "images, so these cannot guarantee anything; choose other validation patients"
        )
    images = _validation_images(scored, system, decision, truth)
    if reason := images.why_undefined(guaranteed):
        raise InputError(f"guarantee {text!r}: {system.name} has none: {reason}")
    patients = [images.count(part.figure).n_patients for part in guaranteed.parts]
    for part, n_patients in zip(guaranteed.parts, patients, strict=True):
        if n_patients < LEAST_PATIENTS:
            raise InputError(
                f"guarantee {text!r}: {n_patients} validation patients count for the {part.title}, "
                f"and a guarantee needs at least {LEAST_PATIENTS}; use more validation patients"
            )
    threshold, why_none = images.choose(guaranteed)
    if threshold is None:
        raise InputError(f"guarantee {text!r}: {system.name} has no such threshold: {why_none}")
    return Declared(text, threshold, guaranteed.sentence(patients))


def _validation_images(
    scored: pd.DataFrame, system: System, decision: Choices, truth: LabelledImages
) -> GuaranteeImages:
    """Return labels, scores, patients and located predictions of a system's validation images."""
    scores = scored["score"].to_numpy(np.float64)
    output = system.output_on(scored.index)
    return GuaranteeImages(
        scored["label"].to_numpy() == 1,
        scores,
        truth.patients_of(scored.index).astype(str),
        locate_predictions(
            output, scores, truth, None if decision.box_choice is None else decision.box_rule
        ),
        _error_share(decision),
    )


def _error_share(decision: Choices) -> float:
    """Return the share of the error (1 minus the confidence) that the choice may use.

    The same images chose the rule that reduces the boxes of an image to its score, so the errors of
    all rules that were tried must add up to the error of the guarantee. The usual rule, which is
    tried first, has 0.9 of it; the other rules share the rest.
    """
    tried = decision.tried
    if len(tried) < 2 or decision.reduction is None:
        return 1.0
    usual = (tried[0]["rule"], tried[0]["min_score"])
    if (decision.reduction.rule, decision.reduction.min_score) == usual:
        return _USUAL_SHARE
    return (1 - _USUAL_SHARE) / (len(tried) - 1)
