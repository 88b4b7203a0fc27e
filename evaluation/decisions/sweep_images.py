"""The validation images of a search, laid out for trying thousands of settings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.store.dataset import DataSet
from evaluation.boxes.box_rule import BoxRule, FusedBoxes, group_boxes, picture_limits
from evaluation.boxes.fusion import scale_boxes
from evaluation.boxes.iou import CORNERS, BoxPairs, TrueBoxes, pair_ranked, rank_boxes, true_boxes
from evaluation.decisions.system_output import Evidence, patients_of, read_rows
from evaluation.statistics.cross_validation import patient_folds
from evaluation.statistics.ranking import Floats, Integers


@dataclass(frozen=True)
class SweepImages:
    """The validation images of a search and a detector's stored boxes on them.

    Attributes:
        image_ids: Sorted, shape ``(N,)``.
        y_true: Shape ``(N,)``.
        folds: Fold of each image; all images of a patient in one, shape ``(N,)``.
        trusted: Whether localisation may be judged on an image, shape ``(N,)``.
        truth: True boxes, original px.
        boxes: ``image_id``, ``finding``, corners, ``score``.
        sizes: ``image_id``, ``width``, ``height`` of the originals, px.
    """

    image_ids: pd.Index
    y_true: npt.NDArray[np.bool_]
    folds: npt.NDArray[np.int64]
    trusted: npt.NDArray[np.bool_]
    truth: pd.DataFrame
    boxes: pd.DataFrame
    sizes: pd.DataFrame

    @cached_property
    def n_folds(self) -> int:
        """How many folds there are."""
        return int(self.folds.max()) + 1

    @cached_property
    def weights(self) -> npt.NDArray[np.int64]:
        """One row a fold, which counts alone, and one in which all count."""
        return np.vstack([np.eye(self.n_folds), np.ones(self.n_folds)]).astype(np.int64)

    @cached_property
    def lesions(self) -> TrueBoxes:
        """The true boxes of the trusted images."""
        return true_boxes(self.truth, self.image_ids[self.trusted])

    @cached_property
    def grouped(self) -> tuple[FusedBoxes, npt.NDArray[np.int64], Floats]:
        """The stored boxes, the image of each group, and the size of each image."""
        groups, images, findings = group_boxes(self.boxes)
        corners = self.boxes[CORNERS].to_numpy(np.float64)
        stored = FusedBoxes(corners, self.boxes["score"].to_numpy(np.float64), groups)
        place = self.image_ids.get_indexer(images)
        return stored, np.repeat(place, len(findings)), picture_limits(self.sizes, self.image_ids)

    def fuse(self, rule: BoxRule) -> tuple[FusedBoxes, Integers]:
        """Boxes fused by a rule, not scaled, and the position of each one's image."""
        stored, image_of_group, _ = self.grouped
        fused = rule.fuse(*stored)
        return fused, image_of_group[fused.groups]

    def pairs(self, fused: FusedBoxes, image: Integers, rule: BoxRule) -> BoxPairs:
        """Boxes scaled and paired with the lesions of the trusted images."""
        corners = fused.corners
        if rule.changes_boxes:
            corners = scale_boxes(corners, rule.scale, self.grouped[2][image])
        judged = np.where(self.trusted, np.cumsum(self.trusted) - 1, -1)[image]
        n_judged = int(self.trusted.sum())
        return pair_ranked(rank_boxes(judged, fused.scores, corners, n_judged), self.lesions)


def sweep_images(evidence: Evidence, y_true: pd.Series, dataset: DataSet) -> SweepImages:
    """Lay out a detector's validation images, in folds of their patients.

    Args:
        evidence: The detector on validation images, its boxes as stored.
        y_true: Their labels, 0 or 1.
        dataset: Truth and sizes.

    Raises:
        InputError: There are too few patients to make folds of.
    """
    target, ids, positive = evidence.target, evidence.image_ids, y_true.to_numpy() == 1
    return SweepImages(
        image_ids=ids,
        y_true=positive,
        folds=patient_folds(patients_of(dataset.images, ids), positive),
        trusted=np.asarray(ids.isin(dataset.boxes_trusted(target))),
        truth=dataset.target_boxes(target),
        boxes=read_rows(evidence.predictions, "boxes", target, ids),
        sizes=dataset.images,
    )
