"""Ground truth as tables in memory: the labels, roles, patients and lesions of images.

Every evaluation takes a `GroundTruth`, so the same functions serve a prepared data set, result
files of other software, and arrays in a notebook.
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
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.evaluation.metrics.metric import VERSUS_NORMAL, MetricKey
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.statistics.bootstrap import cluster_index


def no_boxes() -> pd.DataFrame:
    """Return an empty table of true boxes.

    Returns:
        Table of 0 rows with the columns ``image_id, x1, y1, x2, y2``. The four edges are float64,
        in px of the original image.

    Example:
        >>> no_boxes().shape
        (0, 5)
    """
    return pd.DataFrame({"image_id": [], **{edge: np.zeros(0) for edge in EDGES}})


@dataclass(frozen=True)
class GroundTruth:
    """Labels, roles (validation, test and so on), patients and true boxes of images.

    The labels are of one finding, such as "opacity", which an image may show (positive) or not
    (negative).

    Attributes:
        images: Table with one row for each image: ``image_id`` and ``patient_id``; where known also
            ``patient_id_source`` (``assumed_image`` if the patient is unknown and the image counts
            as its own patient), ``study_id``, ``x_class`` (kind of image, such as ``normal``), and
            further columns, by which images can be grouped.
        labels: 1.0 (positive), 0.0 (negative) or NaN (unknown), by image id.
        roles: ``val``, ``test`` or another role, by image id. Decisions are chosen on the ``val``
            images, and figures are computed on the ``test`` images.
        finding: Name of the finding, as decisions and reports store it.
        display_name: Name of the finding as reports show it, such as "lung opacity".
        findings: Findings that make an image positive if any of them is present; by default the
            finding itself.
        true_boxes: True lesions on the images of `boxes_trusted`: ``image_id``, ``x1``, ``y1``,
            ``x2``, ``y2`` in px of the original image.
        boxes_trusted: Ids of the images on which all lesions are boxed, or which are known to have
            none. Localisation is evaluated on these images only.
        uncertain: Ids of the images that readers called uncertain. Their label is unknown for this
            reason.
        facts: Table of facts from metadata and image borders of the test images, indexed by image
            id. They show how well the label can be predicted without the lungs; see
            `evaluation.groups.shortcuts`. May be empty.
        synthetic: Ids of the images that were drawn by the command ``cxr synth`` and are no
            radiographs.
        ids: Ids that tell whether thresholds that were stored before belong to this ground truth:
            ``content_id`` (of the images), ``labels_id`` (of the labels), ``split`` and
            ``split_id`` (name and id of the division into training, validation and test images).
            Empty if there are none.
        data_name: Name of the data set; empty if there is none.
        title: Name of the images as the report's methods show it; empty if they have none.
        split_rule: Method and options by which images got their roles, as
            `data_prep.store.dataset_info.SplitOrigin`; None if they are not recorded.
        source: Folder or file that the ground truth was read from, for error messages.
        notes: Sentences on how it was read: what was recognised, cut, left out or assumed.

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
    title: str = ""
    split_rule: Any = None
    source: str = "truth"
    notes: tuple[str, ...] = ()

    @property
    def split(self) -> str:
        """Name of the split, the division into training, validation and test images."""
        return str(self.ids.get("split", "default"))

    def image_ids(self, role: str) -> pd.Index:
        """Return the ids of the images with a role, such as the test images.

        Args:
            role: ``val``, ``test`` or another role.

        Returns:
            The ids, sorted; empty if no image has this role.

        Example:
            >>> images = pd.DataFrame({"image_id": ["b", "a"], "patient_id": ["p", "q"]})
            >>> labels = pd.Series([1.0, 0.0], index=images["image_id"])
            >>> truth = GroundTruth(images, labels, pd.Series("test", index=images["image_id"]))
            >>> truth.image_ids("test").tolist()
            ['a', 'b']
        """
        chosen = self.roles.index[(self.roles == role).to_numpy()]
        return pd.Index(chosen.sort_values(), name="image_id")

    def shared_patients(self) -> pd.DataFrame:
        """Return the patients of test images who also have images in another role.

        Returns:
            Columns ``role`` (``val`` or ``train``) and ``patient_id``, one row for each pair;
            empty if each patient of a test image has this role alone, as must be.
        """
        patients = self.images.set_index("image_id")["patient_id"]
        pairs = pd.DataFrame({"role": self.roles, "patient_id": patients.reindex(self.roles.index)})
        pairs = pairs.drop_duplicates()
        tested = pairs.loc[pairs["role"] == "test", "patient_id"]
        others = pairs[pairs["role"].isin(("val", "train"))]
        return others[is_member(others["patient_id"], tested)]

    def labels_of(self, role: str) -> pd.Series:
        """Return the labels of the images with a role, such as the test images.

        Args:
            role: ``val``, ``test`` or another role.

        Returns:
            1.0 (positive), 0.0 (negative) or NaN (unknown) by image id, in the order of
            `image_ids`.

        Example:
            >>> images = pd.DataFrame({"image_id": ["a", "b"], "patient_id": ["p", "q"]})
            >>> labels = pd.Series([1.0, 0.0], index=images["image_id"])
            >>> roles = pd.Series(["val", "test"], index=images["image_id"])
            >>> GroundTruth(images, labels, roles).labels_of("val").to_dict()
            {'a': 1.0}
        """
        return self.labels.reindex(self.image_ids(role))

    def knows_patients(self, image_ids: pd.Index) -> bool:
        """Return True if the patient of at least one of the images is known.

        An image of unknown patient counts as its own patient.

        Args:
            image_ids: Ids of the images, shape ``(N,)``.

        Returns:
            False if the patients of all the images in `image_ids` are unknown, else True.

        Example:
            >>> images = pd.DataFrame({"image_id": ["a"], "patient_id": ["a"],
            ...     "patient_id_source": ["assumed_image"]})
            >>> labels = pd.Series([1.0], index=["a"])
            >>> truth = GroundTruth(images, labels, pd.Series("test", index=["a"]))
            >>> truth.knows_patients(pd.Index(["a"]))
            False
        """
        if "patient_id_source" not in self.images:
            return True
        sources = self.images.set_index("image_id")["patient_id_source"].reindex(image_ids)
        return not bool((sources == "assumed_image").all())

    @cached_property
    def _patient_of_image(self) -> pd.Series:
        return self.images.set_index("image_id")["patient_id"]

    def patients(self, image_ids: pd.Index) -> npt.NDArray[np.str_]:
        """Return the patient of each image.

        Args:
            image_ids: Ids of the images, shape ``(N,)``.

        Returns:
            Patient ids, shape ``(N,)``, in the order of `image_ids`.

        Example:
            >>> images = pd.DataFrame({"image_id": ["a", "b"], "patient_id": ["p", "q"]})
            >>> labels = pd.Series([1.0, 0.0], index=images["image_id"])
            >>> truth = GroundTruth(images, labels, pd.Series("test", index=images["image_id"]))
            >>> truth.patients(pd.Index(["b", "a"])).tolist()
            ['q', 'p']
        """
        return self._patient_of_image.reindex(image_ids).to_numpy(dtype=str)


@dataclass(frozen=True)
class LabelledImages:
    """Images that every system of a comparison is evaluated on, with their ground truth.

    A system is a detector, a classifier or a reader.

    Attributes:
        image_ids: Ids of the images, sorted, shape ``(N,)``.
        y_true: True for positive images, shape ``(N,)``.
        patients: Patient of each image as an index from 0, shape ``(N,)``.
        n_patients: Number of patients.
        boxes_trusted: True for images on which all lesions are boxed, or which have none, so that
            localisation can be evaluated on them, shape ``(N,)``.
        truth: True boxes of the finding on these images: ``image_id``, ``x1``, ``y1``, ``x2``,
            ``y2`` in original px.
        x_class: Kind of each image, such as ``normal``, shape ``(N,)``; `None` if unknown.

    Example:
        >>> images = LabelledImages(
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

    image_ids: pd.Index
    y_true: npt.NDArray[np.bool_]
    patients: npt.NDArray[np.int64]
    n_patients: int
    boxes_trusted: npt.NDArray[np.bool_]
    truth: pd.DataFrame
    x_class: pd.Series | None = None

    @property
    def boxed_images(self) -> pd.Index:
        """Ids of the images on which localisation can be evaluated.

        These are the images on which all lesions are boxed, or which have no lesion.
        """
        return self.image_ids[self.boxes_trusted]

    @cached_property
    def versus_normal(self) -> npt.NDArray[np.bool_] | None:
        """Flags that select the positive and the normal images.

        Negative images that have another finding are not selected. The flags are bool, shape
        ``(N,)``. The value is None if no image is known to be normal.
        """
        if self.x_class is None or not (self.x_class == "normal").any():
            return None
        return self.y_true | (self.x_class == "normal").to_numpy(dtype=bool)

    def population(self, figure: MetricKey) -> npt.NDArray[np.bool_]:
        """Select the images that a figure is computed on, such as those of a subgroup.

        Args:
            figure: Key of the figure: name of its group of images, such as ``all``; rule for its
                threshold, such as ``max_f1``, or empty; and short name of its metric, such as
                ``auroc``.

        Returns:
            True for the images that the figure uses, shape ``(N,)``.

        Example:
            >>> labels = np.array([True, False])
            >>> images = LabelledImages(pd.Index(["a", "b"]), labels, np.array([0, 1]),
            ...     2, np.array([True, False]), no_boxes())
            >>> images.population(MetricKey("all", "", "auroc")).tolist()
            [True, True]
        """
        if figure.subgroup == VERSUS_NORMAL and self.versus_normal is not None:
            return self.versus_normal
        if figure.metric in METRICS and METRICS[figure.metric].boxed:
            return self.boxes_trusted
        return np.ones(len(self.image_ids), dtype=bool)


def describe_images(truth: GroundTruth, image_ids: pd.Index, labels: pd.Series) -> LabelledImages:
    """Collect the ground truth of the images under evaluation.

    Args:
        truth: Labels, roles, patients and true boxes of all images, of which the images under
            evaluation are a part.
        image_ids: Ids of the images under evaluation, sorted, shape ``(N,)``.
        labels: Label of each image in `image_ids`: 1.0 (positive) or 0.0 (negative), by image id.

    Returns:
        Labels, patients and boxes of the images, in the order of `image_ids`.

    Example:
        >>> images = pd.DataFrame({"image_id": ["a", "b"], "patient_id": ["p", "p"]})
        >>> labels = pd.Series([1.0, 0.0], index=images["image_id"])
        >>> truth = GroundTruth(images, labels, pd.Series("test", index=images["image_id"]))
        >>> describe_images(truth, pd.Index(["a", "b"]), labels).n_patients
        1
    """
    patients, n_patients = cluster_index(truth.patients(image_ids))
    boxes = truth.true_boxes
    table = truth.images.set_index("image_id").reindex(image_ids)
    return LabelledImages(
        image_ids=image_ids,
        y_true=labels.reindex(image_ids).to_numpy() == 1,
        patients=patients,
        n_patients=n_patients,
        boxes_trusted=truth.boxes_trusted.get_indexer(image_ids) >= 0,
        truth=boxes[image_ids.get_indexer(pd.Index(boxes["image_id"])) >= 0].reset_index(drop=True),
        x_class=table.get("x_class"),
    )
