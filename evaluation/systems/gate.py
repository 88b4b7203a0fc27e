"""A classifier's probability as a gate on a detector's boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from data_prep.contracts.tables import InputError
from data_prep.store.dataset import DataSet, Target
from data_prep.store.predictions import Predictions
from evaluation.boxes.average_precision import WeightedAveragePrecision, match_boxes
from evaluation.boxes.box_rule import LEAST_SCORE
from evaluation.decisions.reduction import reduce_boxes
from evaluation.decisions.system_output import patients_of, read_rows
from evaluation.decisions.thresholds import threshold_candidates
from evaluation.statistics.cross_validation import choose, patient_folds
from evaluation.statistics.ranking import Floats, RankedScores
from evaluation.systems.ensemble import (
    Joined,
    findings_of,
    join_images,
    names_of,
    of_images_that_ran,
)

GateRule = Literal["multiply", "threshold"]
MOST_CANDIDATES = 200
_KEYS = ["image_id", "finding"]


@dataclass(frozen=True)
class GateChoice:
    """Where validation puts the gate.

    Attributes:
        threshold: Boxes stay where the classifier's score is at least this; 0 lets all stay.
        record: What it was chosen on, and the figures with and without it.
    """

    threshold: float
    record: dict[str, Any]


def sort_members(members: list[Predictions]) -> tuple[Predictions, Predictions]:
    """The detector and the classifier of a gate, in whichever order they were given.

    Raises:
        InputError: There are not one of each, or the classifier lacks a finding of the detector.
    """
    detectors = [member for member in members if member.kind == "boxes"]
    classifiers = [member for member in members if member.kind != "boxes"]
    if (len(detectors), len(classifiers)) != (1, 1):
        raise InputError(
            f"--gate: needs one detector and one classifier, got {len(detectors)} and "
            f"{len(classifiers)}; join several of a kind first, without --gate"
        )
    lacking = findings_of(detectors[0]) - findings_of(classifiers[0])
    if lacking:
        raise InputError(
            f"{classifiers[0].folder}: gives no score for {', '.join(sorted(lacking))}, which "
            f"{detectors[0].folder} boxes"
        )
    return detectors[0], classifiers[0]


def gate_boxes(
    detector: Predictions,
    classifier: Predictions,
    *,
    rule: GateRule,
    threshold: float | None = None,
) -> Joined:
    """Weigh or drop a detector's boxes by the classifier's score of their image and finding.

    Args:
        detector: Its stored boxes are gated.
        classifier: Gives the scores.
        rule: ``multiply`` multiplies the scores of boxes, ``threshold`` drops the boxes of images
            below the threshold.
        threshold: For ``threshold``; see `choose_gate`.

    Raises:
        InputError: The classifier has no score for a box's image and finding.
    """
    members = (detector, classifier)
    images = join_images(members)
    boxes = detector.boxes
    boxes = boxes[of_images_that_ran(boxes, images)]
    gate = _gate_of(boxes, classifier)
    if rule == "multiply":
        boxes = boxes.assign(score=boxes["score"] * gate)
        kept = (boxes["score"] >= LEAST_SCORE).to_numpy()
        words = "scores multiplied"
    else:
        kept = gate >= (threshold or 0.0)
        words = f"boxes kept where its score is at least {threshold or 0.0:.4g}"
    return Joined(
        "boxes",
        images,
        {"boxes": boxes[kept].reset_index(drop=True)},
        made_of=f"{names_of(members)} as a gate: {words}",
        settings={"method": f"gate_{rule}", "threshold": threshold},
    )


def _gate_of(boxes: pd.DataFrame, classifier: Predictions) -> Floats:
    """The classifier's score for each box's image and finding, shape ``(N,)``."""
    scores = classifier.scores.set_index(_KEYS)["score"]
    gate = scores.reindex(pd.MultiIndex.from_frame(boxes[_KEYS])).to_numpy(np.float64)
    if np.isnan(gate).any():
        first = boxes.iloc[int(np.flatnonzero(np.isnan(gate))[0])]
        raise InputError(
            f"{classifier.folder}: has no score of {first['finding']} for image "
            f"'{first['image_id']}'; predict it again"
        )
    return gate


def choose_gate(
    detector: Predictions, classifier: Predictions, dataset: DataSet, target: Target, split: str
) -> GateChoice:
    """Choose the gate's threshold on the validation images of a split.

    The one with the highest AP50 (without lesions: image AUROC of the most confident box), as the
    mean over folds of patients; among equals the lowest. No gate at all is a candidate.

    Args:
        detector: Its boxes are gated.
        classifier: Gives the scores.
        dataset: Labels and split.
        target: What is judged.
        split: Name of the split whose ``val`` images are used.

    Raises:
        InputError: There are too few validation images of known label.
    """
    ran = join_images((detector, classifier))
    labels = dataset.labels(target).reindex(dataset.image_ids("val", split)).dropna()
    labels = labels[labels.index.isin(ran.loc[ran["status"] == "ok", "image_id"])].sort_index()
    ids, y_true = pd.Index(labels.index), labels.to_numpy() == 1
    folds = patient_folds(patients_of(dataset.images, ids), y_true)
    boxes = read_rows(detector, "boxes", target, ids)
    gate = _gate_of(boxes, classifier)
    scores = read_rows(classifier, "scores", target, ids)["score"]
    candidates = np.append(0.0, _thinned(threshold_candidates(scores)))
    trusted = np.asarray(ids.isin(dataset.boxes_trusted(target)))
    truth = dataset.target_boxes(target)
    has_lesions = bool(truth["image_id"].isin(ids[trusted]).any())
    n_folds = int(folds.max()) + 1
    weights = np.vstack([np.eye(n_folds), np.ones(n_folds)]).astype(np.int64)
    figures = []
    for candidate in candidates:
        kept = boxes[gate >= candidate]
        if has_lesions:
            matches = match_boxes(kept, truth, ids[trusted], [0.5])
            precision = WeightedAveragePrecision(matches, folds[trusted], n_folds)
            figures.append(precision(weights)[:, 0])
        else:
            highest = reduce_boxes(kept, ids)
            figures.append(RankedScores(y_true, highest, folds).auroc(weights))
    chosen = choose(np.stack(figures), candidates == 0)
    record = {
        "threshold": float(candidates[chosen.best]),
        "objective": "ap50" if has_lesions else "auroc",
        "candidates": len(candidates),
        "folds": n_folds,
        **chosen.record(),
        "chosen_on": {
            "target": target.name,
            "content_id": dataset.ids["content_id"],
            "labels_id": dataset.ids["labels_id"],
            "split": split,
            "split_id": dataset.ids.get("split_ids", {}).get(split),
            "role": "val",
            "n_images": len(ids),
            "n_positive": int(y_true.sum()),
        },
    }
    return GateChoice(float(candidates[chosen.best]), record)


def _thinned(candidates: Floats) -> Floats:
    """At most `MOST_CANDIDATES` of them, evenly by rank."""
    if len(candidates) <= MOST_CANDIDATES:
        return candidates
    place = np.linspace(0, len(candidates) - 1, MOST_CANDIDATES).round().astype(int)
    return candidates[place]
