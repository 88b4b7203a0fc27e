"""Ground truth as tables in memory: the labels, roles, patients and lesions of images.

Everything that evaluates takes it, so the same functions serve a prepared data set, result files
of other software, and arrays in a notebook.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.evaluation.metrics.metric import VERSUS_NORMAL, MetricKey
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.statistics.bootstrap import cluster_index


def no_boxes() -> pd.DataFrame:
    """Return a table of true boxes without a row.

    Returns:
        Columns ``image_id, x1, y1, x2, y2``; the edges are float64, original px.

    Example:
        >>> no_boxes().shape
        (0, 5)
    """
    return pd.DataFrame({"image_id": [], **{edge: np.zeros(0) for edge in EDGES}})


@dataclass(frozen=True)
class GroundTruth:
    """Ground truth of images for one finding: labels, roles, patients and lesions.

    Attributes:
        images: A row for each image: ``image_id``, ``patient_id``; where known
            ``patient_id_source`` (``assumed_image`` where no patient is known), ``study_id``,
            ``x_class``, and further columns, by which images can be grouped.
        labels: 1.0 (positive), 0.0 (negative) or NaN (unknown) by image id.
        roles: ``val``, ``test`` or another role by image id; decisions are chosen on the ``val``
            images, and figures are of the ``test`` images.
        finding: Name of the finding, as decisions and reports store it.
        display_name: Name of the finding for people.
        findings: The findings of which any makes an image positive; by default the finding itself.
        true_boxes: ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` of the true lesions on the images
            of `boxes_trusted`, px of the original image.
        boxes_trusted: Images on which all lesions are boxed, and those known to have none: only on
            these can localisation be evaluated.
        uncertain: Images that readers called uncertain, which is why their label is unknown.
        facts: Facts from metadata and image borders of the test images, by image id, for the guess
            without the lungs; see `evaluation.compare.shortcuts`. May be empty.
        synthetic: Images that `cxr synth` drew.
        ids: Ids that a decision is bound to: ``content_id``, ``labels_id``, ``split``,
            ``split_id``.
        data_name: Name of the data set; empty where there is none.
        source: Folder or file that it was read from, for error messages.

    Example:
        >>> images = pd.DataFrame({"image_id": ["a", "b"], "patient_id": ["p", "q"]})
        >>> labels = pd.Series([1.0, 0.0], index=images["image_id"])
        >>> truth = GroundTruth(images, labels, pd.Series("test", index=images["image_id"]))
        >>> truth.labels_of("test").to_dict()
        {'a': 1.0, 'b': 0.0}
    """

    images: pd.DataFrame
    labels: pd.Series
    roles: pd.Series
    finding: str = "label"
    display_name: str = "label"
    findings: tuple[str, ...] = ()
    true_boxes: pd.DataFrame = field(default_factory=no_boxes)
    boxes_trusted: pd.Index = field(default_factory=lambda: pd.Index([], dtype=object))
    uncertain: pd.Index = field(default_factory=lambda: pd.Index([], dtype=object))
    facts: pd.DataFrame = field(default_factory=pd.DataFrame)
    synthetic: pd.Index = field(default_factory=lambda: pd.Index([], dtype=object))
    ids: Mapping[str, Any] = field(default_factory=dict)
    data_name: str = ""
    source: str = "truth"

    @property
    def split(self) -> str:
        """Name of the split that gave the images their roles."""
        return str(self.ids.get("split", "default"))

    def image_ids(self, role: str) -> pd.Index:
        """Return the sorted ids of the images of a role, ``val`` or ``test``."""
        chosen = self.roles.index[(self.roles == role).to_numpy()]
        return pd.Index(chosen.sort_values(), name="image_id")

    def labels_of(self, role: str) -> pd.Series:
        """Return the labels of a role's images by image id, NaN where unknown."""
        return self.labels.reindex(self.image_ids(role))

    def knows_patients(self, image_ids: pd.Index) -> bool:
        """Return False if no patient of the images is known, so that each counts by itself."""
        if "patient_id_source" not in self.images:
            return True
        sources = self.images.set_index("image_id")["patient_id_source"].reindex(image_ids)
        return not bool((sources == "assumed_image").all())

    @cached_property
    def _patient_of_image(self) -> pd.Series:
        return self.images.set_index("image_id")["patient_id"]

    def patients(self, image_ids: pd.Index) -> npt.NDArray[np.str_]:
        """Return the patient of each image, shape ``(N,)``, in the order of `image_ids`."""
        return self._patient_of_image.reindex(image_ids).to_numpy(dtype=str)


@dataclass(frozen=True)
class EvaluationSet:
    """Images that every system is scored on, with their ground truth.

    Example:
        >>> images = EvaluationSet(
        ...     image_ids=pd.Index(["a", "b"]),
        ...     y_true=np.array([True, False]),
        ...     patients=np.array([0, 0]),
        ...     n_patients=1,
        ...     boxes_trusted=np.array([False, False]),
        ...     truth=no_boxes(),
        ... )
        >>> images.versus_normal is None
        True
    """

    image_ids: pd.Index  # shape ``(N,)``, sorted
    y_true: npt.NDArray[np.bool_]  # shape ``(N,)``
    patients: npt.NDArray[np.int64]  # patient of each image as an index from 0, shape ``(N,)``
    n_patients: int  # number of patients
    # True if localisation can be evaluated on an image, shape ``(N,)``.
    boxes_trusted: npt.NDArray[np.bool_]
    truth: pd.DataFrame  # true boxes of the target on these images, original px
    x_class: pd.Series | None = None  # the kind of each image, where the data set knows it
    # Width and height of one map cell of the coarsest system on each image, by which a scored point
    # may miss a lesion, original px, shape ``(N, 2)``; `None` without maps.
    tolerance: npt.NDArray[np.float64] | None = None

    @property
    def boxed_images(self) -> pd.Index:
        """Ids of the images on which localisation can be evaluated, in order."""
        return self.image_ids[self.boxes_trusted]

    @cached_property
    def versus_normal(self) -> npt.NDArray[np.bool_] | None:
        """True for positive and for normal images, shape ``(N,)``; `None` where unknown."""
        if self.x_class is None or not (self.x_class == "normal").any():
            return None
        return self.y_true | (self.x_class == "normal").to_numpy(dtype=bool)

    def population(self, figure: MetricKey) -> npt.NDArray[np.bool_]:
        """Return True for the images that a figure is computed on, shape ``(N,)``."""
        if figure.subgroup == VERSUS_NORMAL and self.versus_normal is not None:
            return self.versus_normal
        if figure.metric in METRICS and METRICS[figure.metric].boxed:
            return self.boxes_trusted
        return np.ones(len(self.image_ids), dtype=bool)


def describe_images(truth: GroundTruth, image_ids: pd.Index, labels: pd.Series) -> EvaluationSet:
    """Collect the ground truth of the images under evaluation.

    Args:
        truth: Ground truth of all images.
        image_ids: Images under evaluation, sorted, shape ``(N,)``.
        labels: Label of each of these images, by id.

    Returns:
        Labels, patients and boxes of the images, in the order of `image_ids`.
    """
    patients, n_patients = cluster_index(truth.patients(image_ids))
    boxes = truth.true_boxes
    table = truth.images.set_index("image_id").reindex(image_ids)
    return EvaluationSet(
        image_ids=image_ids,
        y_true=labels.reindex(image_ids).to_numpy() == 1,
        patients=patients,
        n_patients=n_patients,
        boxes_trusted=truth.boxes_trusted.get_indexer(image_ids) >= 0,
        truth=boxes[image_ids.get_indexer(pd.Index(boxes["image_id"])) >= 0].reset_index(drop=True),
        x_class=table.get("x_class"),
    )
