"""Read predictions folders for looking at single images, tuned or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from data_prep.contracts.tables import InputError
from evaluation.boxes.box_rule import AS_STORED
from evaluation.boxes.localisation import localised
from evaluation.boxes.maps import map_scale
from evaluation.compare.compare import checked_decision
from evaluation.decisions.system_output import Evidence, images_run
from evaluation.report.cases import CaseReader, SystemOutput, single_readers

if TYPE_CHECKING:
    from data_prep.store.dataset import DataSet, Target
    from data_prep.store.predictions import Predictions
    from evaluation.decisions.tuning import Decision


def read_systems(
    systems: Mapping[str, Predictions],
    dataset: DataSet,
    target: Target,
    image_ids: Sequence[str],
    *,
    policy: str,
    split: str = "default",
) -> CaseReader:
    """Prepare chosen images for looking at, at one policy's thresholds.

    A system that is not tuned stays undecided: its boxes are drawn in full from score 0.5.

    Args:
        systems: Predictions by display name, in the order of the panels.
        dataset: Truth and split.
        target: What is shown.
        image_ids: The images.
        policy: Threshold policy.
        split: The split that the systems were tuned on.

    Raises:
        InputError: A stored decision is not what validation gives, lacks the policy, or no
            system ran on an image.
    """
    wanted = pd.Index(image_ids, name="image_id")
    images = dataset.images.set_index("image_id")
    truth_boxes, labels = dataset.target_boxes(target), dataset.labels(target)
    outputs = []
    for name, system in systems.items():
        ids = wanted[wanted.isin(images_run(system))]
        if not len(ids):
            raise InputError(f"{system.folder}: {name} ran on none of the images asked for")
        decision = None
        if system.decision(target.name) is not None:
            decision, _ = checked_decision(name, system, dataset, target, split, ())
            _check_policy(system, decision, policy)
        boxes = AS_STORED if decision is None else decision.boxes
        evidence = Evidence(system, target, ids, boxes, dataset.images)
        output = _output(name, evidence, decision, policy)
        _locate(output, labels, truth_boxes, dataset.boxes_trusted(target))
        outputs.append(output)
    kinds = images["x_class"] if "x_class" in images else pd.Series(dtype=object)
    boxed = dataset.boxes_trusted(target)
    readers = single_readers(dataset, target)
    return CaseReader(labels, truth_boxes, boxed, kinds, tuple(outputs), readers)


def _check_policy(system: Predictions, decision: Decision, policy: str) -> None:
    if policy not in decision.thresholds:
        known = ", ".join(decision.thresholds)
        raise InputError(
            f"{system.folder}: not tuned for the policy '{policy}'; it has {known}: choose one of "
            "them or run cxr tune again"
        )


def _output(name: str, evidence: Evidence, decision: Decision | None, policy: str) -> SystemOutput:
    """Score, decide and point on the images of the evidence."""
    scores = evidence.scores(None if decision is None else decision.reduction)
    table = pd.DataFrame({"score": scores})
    threshold = None if decision is None else decision.thresholds[policy].threshold
    table["decision"] = None if threshold is None else scores >= threshold
    points = evidence.points()
    if points is not None:
        table[["point_x", "point_y"]] = points.to_numpy(dtype=np.float64)
    maps = None if evidence.gives_boxes else evidence.maps
    scale = None if decision is None else decision.map_scale
    if scale is None and maps is not None:
        # Untuned: one scale for all the maps of the folder, not one per image.
        everything = Evidence(
            evidence.predictions, evidence.target, images_run(evidence.predictions)
        ).maps
        scale = map_scale(maps if everything is None else everything)
    rule = None if decision is None else decision.map_boxes
    boxes = evidence.boxes(scores, scale, rule)
    empty = pd.DataFrame(columns=["image_id", "x1", "y1", "x2", "y2", "score"])
    return SystemOutput(name, table, empty if boxes is None else boxes, maps, scale, threshold)


def _locate(
    output: SystemOutput, labels: pd.Series, truth_boxes: pd.DataFrame, boxed: pd.Index
) -> None:
    """Add whether each positive image's deciding point lies on a lesion, where that is known."""
    table = output.decisions
    if "point_x" not in table:
        return
    known = table.index.isin(boxed) & (labels.reindex(table.index) == 1).to_numpy()
    found = pd.Series(localised(table, truth_boxes), index=table.index, dtype="boolean")
    table["localised"] = found.where(known)
