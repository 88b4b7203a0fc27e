"""The study behind the page of `cxr curve`: judged runs, what was annotated, and fitted curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from configs.settings import ClassifierConfig, DetectorConfig
from data_prep.contracts.folders import provenance
from data_prep.contracts.words import counted
from data_prep.store.dataset import DataSet, Target
from data_prep.store.predictions import Predictions
from evaluation.compare.share_figures import JudgedRun, ShareFigures, judge_shares
from evaluation.compare.test_set_log import log_use
from evaluation.decisions.test_set import TestSet
from evaluation.decisions.thresholds import POLICIES
from evaluation.metrics.words import policy_words
from evaluation.statistics.auroc_variance import ClusteredEstimate
from evaluation.statistics.bootstrap import Interval
from evaluation.statistics.learning_curve import LearningCurve, fit_learning_curves
from evaluation.studies.curve_results import (
    CURVE_METRICS,
    Arm,
    CurveStudy,
    Difference,
    Figure,
    Kind,
    SizePoint,
    Times,
)
from scripts import console
from scripts.training_runs.curve_runs import ARMS, CurvePlan, CurveRun

_PAIRS: tuple[tuple[Kind, Kind], ...] = (
    ("detector", "classifier"),
    ("mixed", "classifier"),
    ("mixed", "detector"),
)


def build_study(
    plan: CurvePlan,
    dataset: DataSet,
    target: Target,
    predictions: Mapping[CurveRun, Predictions],
    times: Times,
    *,
    replicates: int,
) -> CurveStudy:
    """Judge all runs on the test images, and fit the curves.

    Args:
        plan: What was trained.
        dataset: Labels, boxes and splits.
        target: What is judged.
        predictions: Of each run.
        times: Of annotation, that the page begins with.
        replicates: Bootstrap resamples of patients.
    """
    systems = _systems(plan, predictions)
    for split in plan.splits:
        used = {name: [r.predictions for r in runs if r.split == split]
                for name, runs in systems.items()}  # fmt: skip
        log_use(TestSet(dataset, target, split), used)
    with console.progress("Judging", len(predictions)) as advance:
        judged = judge_shares(
            systems, dataset, target, CURVE_METRICS, replicates=replicates, advance=advance
        )
    counts = _counts(plan, dataset, target)
    points = _points(plan, counts, judged)
    made = provenance()
    return CurveStudy(
        data_set=dataset.name,
        target=target.display_name,
        folds=plan.splits,
        n_seeds=len(plan.seeds),
        arms=[_arm(plan, arm) for arm in ARMS if plan.runs(arm)],
        points=points,
        differences=_differences(plan, judged),
        fits=_fits(plan, judged, points),
        absent=_absent(plan, judged),
        times=times,
        commands=[made["command"]],
        notes=_notes(plan, counts[max(counts)], judged),
        provenance=made | {"data_set": dataset.ids | {"name": dataset.name}},
    )


def _name(arm: str, share: float, seed: int) -> str:
    return f"{arm}, {share:g}, seed {seed}"


def _seeds(plan: CurvePlan, arm: str, share: float) -> list[str]:
    return [_name(arm, share, seed) for seed in plan.seeds]


def _systems(
    plan: CurvePlan, predictions: Mapping[CurveRun, Predictions]
) -> dict[str, list[JudgedRun]]:
    systems: dict[str, list[JudgedRun]] = {}
    for run, each in predictions.items():
        of_share = systems.setdefault(_name(run.arm, run.share, run.seed), [])
        of_share.append(JudgedRun(run.split, run.part, each))
    return systems


def _shares(plan: CurvePlan, arm: str) -> list[float]:
    return [share for share in plan.shares if arm != "mixed" or share < max(plan.shares)]


def _defined(judged: ShareFigures, metric: str, names: Sequence[str]) -> bool:
    found = judged.figures[metric]
    return not any(np.isnan(found.values[judged.systems.index(name)]) for name in names)


def _points(
    plan: CurvePlan, counts: Mapping[float, _Counts], judged: ShareFigures
) -> list[SizePoint]:
    points = []
    for arm in (arm for arm in ARMS if plan.runs(arm)):
        for share in _shares(plan, arm):
            names = _seeds(plan, arm, share)
            figures = {
                metric: Figure(
                    _interval(judged.estimate(metric, names)),
                    tuple(
                        float(judged.figures[metric].values[judged.systems.index(name)])
                        for name in names
                    ),
                )
                for metric in CURVE_METRICS
                if _defined(judged, metric, names)
            }
            points.append(_size_point(arm, share, counts, figures))
    return points


class _Counts(NamedTuple):
    """What was annotated at a share, means over splits and seeds."""

    labelled: float
    positive: float
    boxed: float  # wholly, or known to have no lesion
    boxed_positive: float
    boxes: float


def _counts(plan: CurvePlan, dataset: DataSet, target: Target) -> dict[float, _Counts]:
    """By share, what the images that train or validate have."""
    labels = dataset.labels(target).dropna() == 1
    trusted = labels[labels.index.isin(dataset.boxes_trusted(target))]
    boxes = dataset.target_boxes(target)["image_id"]
    found: dict[float, list[_Counts]] = {}
    for (_, share, _), part in plan.parts.items():
        split = dataset.split(part)
        ids = split.loc[split["role"].isin(["train", "val"]), "image_id"]
        labelled, boxed = (each[each.index.isin(ids)] for each in (labels, trusted))
        n_boxes = int(boxes.isin(boxed.index).sum())
        counts = len(labelled), int(labelled.sum()), len(boxed), int(boxed.sum()), n_boxes
        found.setdefault(share, []).append(_Counts(*counts))
    return {share: _Counts(*np.mean(each, axis=0).tolist()) for share, each in found.items()}


def _size_point(
    arm: Kind, share: float, counts: Mapping[float, _Counts], figures: Mapping[str, Figure]
) -> SizePoint:
    """A size of an arm: what it learns from.

    A classifier takes labels; a detector images that are wholly boxed, or without a lesion; the
    mixed arm all labels, and the boxes of its share.
    """
    own, whole = counts[share], counts[max(counts)]
    if arm == "classifier":
        return SizePoint(arm, share, own.labelled, 0.0, 0.0, own.positive, figures)
    if arm == "detector":
        images, positive = own.boxed, own.boxed_positive
    else:
        images, positive = whole.labelled, whole.positive
    return SizePoint(arm, share, images, own.boxes, own.boxed, positive, figures)


def _interval(estimate: ClusteredEstimate) -> Interval:
    low, high = estimate.interval or (np.nan, np.nan)
    return Interval(estimate.value, low, high, estimate.note)


def _differences(plan: CurvePlan, judged: ShareFigures) -> list[Difference]:
    found = []
    for first, second in _PAIRS:
        if not (plan.runs(first) and plan.runs(second)):
            continue
        for metric in CURVE_METRICS:
            for share in _shares(plan, first):
                other = max(plan.shares) if Difference.with_all_labels(first, second) else share
                groups = _seeds(plan, first, share), _seeds(plan, second, other)
                if all(_defined(judged, metric, names) for names in groups):
                    gap = judged.estimate(metric, *groups)
                    found.append(
                        Difference(metric, share, first, second, _interval(gap), gap.p_value)
                    )
    return found


def _fits(
    plan: CurvePlan, judged: ShareFigures, points: Sequence[SizePoint]
) -> dict[str, dict[Kind, LearningCurve]]:
    """Curves of detector and classifier; all images of the mixed arm are annotated at each size."""
    arms: tuple[Kind, ...] = ("detector", "classifier")
    fits: dict[str, dict[Kind, LearningCurve]] = {}
    for metric in CURVE_METRICS:
        figures = judged.figures[metric]
        held = [arm for arm in arms if _any(figures.reasons, judged.systems, arm)]
        if not held:
            continue
        rows = [
            [[judged.systems.index(name) for name in _seeds(plan, arm, s)] for s in plan.shares]
            for arm in held
        ]
        order = np.concatenate([np.ravel(each) for each in rows])
        amounts = [[p.n_images for p in points if p.kind == arm] for arm in held]
        curves = fit_learning_curves(
            amounts,
            [figures.values[np.array(each)] for each in rows],
            figures.covariance[np.ix_(order, order)],
            judged.freedom,
        )
        fits[metric] = dict(zip(held, curves, strict=True))
    return fits


def _any(reasons: Mapping[str, str], systems: Sequence[str], arm: str) -> bool:
    """Whether any system of an arm has the figure."""
    return any(name.startswith(f"{arm},") and name not in reasons for name in systems)


def _absent(plan: CurvePlan, judged: ShareFigures) -> dict[tuple[str, Kind], str]:
    """Why an arm has no figure at any size."""
    return {
        (metric, arm): next(r for name, r in found.reasons.items() if name.startswith(f"{arm},"))
        for metric, found in judged.figures.items()
        for arm in ARMS
        if plan.runs(arm) and not _any(found.reasons, judged.systems, arm)
    }


def _arm(plan: CurvePlan, kind: Kind) -> Arm:
    config: DetectorConfig | ClassifierConfig = (
        plan.classifier if kind == "classifier" else plan.detector
    )
    model = config.model.model_dump()
    network = model.get("backbone") or model["architecture"]
    name = config.name if kind != "mixed" else f"{config.name} from {plan.classifier.name}"
    settings = (
        f"{network}, {config.data.image_size} px, weights {model['weights']}, "
        f"{counted(config.training.epochs, 'epoch')} of the whole, batches of "
        f"{config.training.batch_size}, learning rate {config.training.learning_rate:g}"
    )
    note = ""
    if kind == "mixed":
        note = "Starts from the classifier of all labels; boxes on a share of the images."
    return Arm(kind, name, settings, note)


def _notes(plan: CurvePlan, whole: _Counts, judged: ShareFigures) -> list[str]:
    """What to know of how it was made."""
    stops = any(each.training.patience for each in (plan.detector, plan.classifier))
    length = "Every share learned for " + ("at most " if stops else "") + f"as many {plan.equal}"
    length += ": a small one for fewer steps." if plan.equal == "epochs" else "."
    length += " Trainings may stop early." if stops else ""
    notes = [
        f"Judged on {counted(judged.n_images, 'test image')} of "
        f"{counted(judged.n_patients, 'patient')}, the same for all. {length}",
        "Annotated images are those that train and those that validate: thresholds and the share "
        "of each are chosen on the latter.",
        f"Figures at a threshold are at that of each run's own validation images "
        f"({policy_words(POLICIES[0])}).",
        "Shares of a seed lie within one another and are the same for all arms; intervals take "
        "trainings as independent. If those of a seed vary together, intervals of differences "
        "between arms are rather too wide, those of a curve and of a crossing rather too narrow.",
        "All seeds draw from the same patients, the largest share from all of them: how other "
        "patients to learn from would change a figure is in the intervals in part only.",
        *judged.notes,
    ]
    if whole.boxed < whole.labelled:
        notes.append(
            f"Of {whole.labelled:,.0f} labelled images {whole.boxed:,.0f} are wholly boxed or "
            "without a lesion; the detector learns from these alone, the classifier from all."
        )
    if len(plan.splits) > 1:
        notes.append(
            f"Figures are means over {len(plan.splits)} folds. Their training images overlap, "
            "which intervals do not know."
        )
    return notes
