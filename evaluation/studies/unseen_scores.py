"""Scores of images that a system has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.bootstrap import cluster_index
from cxr_compare.evaluation.studies.transfer_pairs import Pair
from cxr_compare.evaluation.systems.eligibility import check_data_set
from cxr_compare.evaluation.systems.stored_predictions import read_output


@dataclass(frozen=True)
class UnseenScores:
    """Scores of a model (system) on labelled images that it was not trained on.

    Attributes:
        image_ids: Ids of the images, sorted, shape ``(N,)``.
        y_true: True for positive images, shape ``(N,)``.
        scores: Score of each image, shape ``(N,)``.
        patients: Name of the patient of each image, shape ``(N,)``.
        n_seen: Number of images left out because the system saw them, copies of them, or other
            images of their patients in its training.
        n_not_run: Number of images left out because the system has no prediction for them.
        copies: Sentences on images left out because the system was trained on equal or nearly equal
            copies of them under other ids.

    Example:
        >>> labels, patients = np.array([True, False]), np.array(["p", "q"])
        >>> scores = UnseenScores(pd.Index(["a", "b"]), labels, np.array([0.9, 0.1]), patients)
        >>> scores.has_both_classes
        True
    """

    image_ids: pd.Index
    y_true: npt.NDArray[np.bool_]
    scores: Floats
    patients: npt.NDArray[np.str_]
    n_seen: int = 0
    n_not_run: int = 0
    copies: tuple[str, ...] = ()

    @property
    def has_both_classes(self) -> bool:
        """True if there is at least one positive and one negative image."""
        return bool(self.y_true.any() and not self.y_true.all())

    @cached_property
    def clusters(self) -> tuple[Integers, int]:
        """Number of each image's patient, from 0, shape ``(N,)``, and the number of patients."""
        return cluster_index(self.patients)


def score_unseen(system: Predictions, pair: Pair, role: str) -> UnseenScores:
    """Score the labelled test or validation images that a model was not trained on.

    The model is called the system. For test images, all patients with images that the system was
    trained or selected on (training and validation images) are left out. For validation images,
    only patients with training images are left out.

    Args:
        system: Predictions of the system on the data set.
        pair: The system and the data set, with the labels of its images.
        role: ``test`` for test images, ``val`` for validation images.

    Returns:
        Labels, scores and patients of the remaining images, with the numbers of images that were
        left out.

    Raises:
        InputError: The predictions are of another data set, or lack an image.
    """
    test_set = pair.test_set
    decision = pair.decision
    check_data_set(system.name, system, test_set.dataset)
    role_ids = test_set.image_ids(role)
    lacking = role_ids[~role_ids.isin(system.images["image_id"])]
    if len(lacking):
        raise InputError(
            f"{system.folder}: lacks {counted(len(lacking), 'image')} of split "
            f"'{test_set.split}', first '{lacking[0]}'; remove it, and the same command predicts "
            "them"
        )
    labels = test_set.labels.reindex(role_ids).dropna()
    ran = labels.index.intersection(system.images_run).sort_values()
    seen = test_set.seen_by(system, ran, ["train", "val"] if role == "test" else ["train"])
    ids = ran.difference(seen.all_ids)
    reduction = None if decision is None else decision.reduction
    scores = read_output(system, test_set.target, ids).scores(reduction)
    return UnseenScores(
        ids,
        labels.reindex(ids).to_numpy() == 1,
        scores.to_numpy(np.float64),
        test_set.patients(ids),
        len(ran) - len(ids),
        len(labels) - len(ran),
        tuple(seen.describe_copies(system.name)),
    )
