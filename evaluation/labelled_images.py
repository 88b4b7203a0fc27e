"""Images with labels, patients, roles and true boxes: what systems are evaluated on.

Every evaluation takes `LabelledImages`, so the same functions serve a prepared data set, result
files of other software, and arrays in a notebook.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.evaluation.metrics.metric import VERSUS_NORMAL, MetricKey
from cxr_compare.evaluation.metrics.registry import METRICS


def no_boxes() -> pd.DataFrame:
    """Return an empty table of true boxes with the columns ``image_id, x1, y1, x2, y2``."""
    return pd.DataFrame({"image_id": [], **{edge: np.zeros(0) for edge in EDGES}})


def _no_ids() -> pd.Index:
    return pd.Index([], dtype=object)


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Labels, roles (validation, test and so on), patients and true boxes of N images.

    Attributes:
        images: Table with one row for each image: ``image_id`` and ``patient_id``; where known also
            ``patient_id_source`` (``assumed_image`` if the patient is unknown and the image counts
            as its own patient), ``study_id``, ``x_class`` (kind of image, such as ``normal``), and
            further columns, by which images can be grouped.
        labels: 1.0 (positive), 0.0 (negative) or NaN (unknown): one row for each image, by image
            id, and one column for each finding that is evaluated.
        roles: ``val``, ``test`` or another role, by image id. Decisions are chosen on the ``val``
            images, and figures are computed on the ``test`` images.
        display_name: Name of the finding as reports show it, such as "lung opacity"; empty takes
            the name of the column.
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
        ids: Ids that tell whether thresholds that were stored before belong to these images:
            ``content_id`` (of the images), ``labels_id`` (of the labels), ``split`` and
            ``split_id`` (name and id of the division into training, validation and test images).
            Empty if there are none.
        data_name: Name of the data set; empty if there is none.
        title: Name of the images as the report's methods show it; empty if they have none.
        split_rule: Method and options by which images got their roles, as
            `data_prep.store.dataset_info.SplitOrigin`; None if they are not recorded.
        source: Folder or file that the labels were read from, for error messages.
        notes: Sentences on how they were read: what was recognised, cut, left out or assumed.
        evaluated: Ids of the test images on which all systems are compared, sorted; `None` before
            they are chosen.
        patient_ids: Names of the patients whose numbers `patients` gives, sorted; `None` takes
            those of the images.

    Example:
        >>> images = pd.DataFrame({"image_id": ["a", "b"], "patient_id": ["p", "q"]})
        >>> labels = pd.DataFrame({"opacity": [1.0, 0.0]}, index=images["image_id"])
        >>> roles = pd.Series("test", index=images["image_id"])
        >>> LabelledImages(images, labels, roles).labels_of("test").to_dict()
        {'a': 1.0, 'b': 0.0}
    """

    images: pd.DataFrame
    labels: pd.DataFrame
    roles: pd.Series
    display_name: str = ""
    findings: tuple[str, ...] = ()
    true_boxes: pd.DataFrame = field(default_factory=no_boxes)
    boxes_trusted: pd.Index = field(default_factory=_no_ids)
    uncertain: pd.Index = field(default_factory=_no_ids)
    facts: pd.DataFrame = field(default_factory=pd.DataFrame)
    synthetic: pd.Index = field(default_factory=_no_ids)
    ids: Mapping[str, Any] = field(default_factory=dict)
    data_name: str = ""
    title: str = ""
    split_rule: Any = None
    source: str = "truth"
    notes: tuple[str, ...] = ()
    evaluated: pd.Index | None = None
    patient_ids: pd.Index | None = None

    @classmethod
    def from_arrays(
        cls,
        image_ids: pd.Index,
        y_true: npt.ArrayLike,
        patients: npt.ArrayLike | None = None,
        *,
        role: str = "test",
        finding: str = "label",
    ) -> LabelledImages:
        """Make labelled images of one role and one finding without boxes.

        The ids are unique, shape ``(N,)``. A label is 1 or True (present), 0 or False (absent) or
        NaN (unknown). Without `patients`, each image counts as a patient of its own.
        """
        ids = pd.Index(image_ids, name="image_id")
        owners = ids if patients is None else np.asarray(patients)
        images = pd.DataFrame({"image_id": ids, "patient_id": owners})
        labels = pd.DataFrame({finding: np.asarray(y_true, dtype=np.float64)}, index=ids)
        return cls(images, labels, pd.Series(role, index=ids))

    @property
    def finding(self) -> str:
        """Name of the finding, as decisions and reports store it."""
        return str(self.labels.columns[0])

    @property
    def shown_name(self) -> str:
        """Name of the finding as reports show it."""
        return self.display_name or self.finding

    @property
    def split(self) -> str:
        """Name of the split, the division into training, validation and test images."""
        return str(self.ids.get("split", "default"))

    @cached_property
    def image_ids(self) -> pd.Index:
        """Ids of the images, shape ``(N,)``."""
        return pd.Index(self.images["image_id"], name="image_id")

    @property
    def label(self) -> pd.Series:
        """Labels of the finding: 1.0, 0.0 or NaN (unknown) by image id."""
        return self.labels.iloc[:, 0]

    def ids_of(self, role: str) -> pd.Index:
        """Return the ids of the images with a role, such as ``test``, sorted; may be empty."""
        chosen = self.roles.index[(self.roles == role).to_numpy()]
        return pd.Index(chosen.sort_values(), name="image_id")

    def labels_of(self, role: str) -> pd.Series:
        """Return the labels of the images with a role, in the order of `ids_of`."""
        return self.label.reindex(self.ids_of(role))

    @cached_property
    def _owners(self) -> pd.Series:
        return self.images.set_index("image_id")["patient_id"]

    def patients_of(self, image_ids: pd.Index) -> npt.NDArray[np.str_]:
        """Return the patient of each of some images, shape ``(N,)``, in their order.

        Example:
            >>> images = LabelledImages.from_arrays(pd.Index(["a", "b"]), [1, 0], ["p", "q"])
            >>> images.patients_of(pd.Index(["b", "a"])).tolist()
            ['q', 'p']
        """
        return self._owners.reindex(image_ids).to_numpy(dtype=str)

    def of_unknown_patient(self, image_ids: pd.Index) -> int:
        """Count the images of unknown patient, each of which counts as a patient of its own."""
        if "patient_id_source" not in self.images:
            return 0
        sources = self.images.set_index("image_id")["patient_id_source"].reindex(image_ids)
        return int((sources == "assumed_image").sum())

    @property
    def n_synthetic(self) -> int:
        """Number of test images on which systems are compared that are no radiographs."""
        return len(self.test.image_ids.intersection(self.synthetic))

    def shared_patients(self) -> pd.DataFrame:
        """Return the patients of test images who also have images in another role.

        The columns are ``role`` (``val`` or ``train``) and ``patient_id``, one row for each pair.
        The table is empty if each patient of a test image has this role alone, as must be.
        """
        pairs = pd.DataFrame(
            {"role": self.roles, "patient_id": self._owners.reindex(self.roles.index)}
        )
        pairs = pairs.drop_duplicates()
        tested = pairs.loc[pairs["role"] == "test", "patient_id"]
        others = pairs[pairs["role"].isin(("val", "train"))]
        return others[is_member(others["patient_id"], tested)]

    def select(self, image_ids: pd.Index) -> LabelledImages:
        """Return some of the images with their labels and boxes, in the order of the ids.

        Example:
            >>> images = LabelledImages.from_arrays(pd.Index(["a", "b"]), [1, 0])
            >>> images.select(pd.Index(["b"])).y_true.tolist()
            [False]
        """
        rows = self.images.drop_duplicates("image_id").set_index("image_id").reindex(image_ids)
        boxes = self.true_boxes
        inside = image_ids.get_indexer(pd.Index(boxes["image_id"])) >= 0
        return replace(
            self,
            images=rows.rename_axis("image_id").reset_index(),
            labels=self.labels.reindex(image_ids),
            roles=self.roles.reindex(image_ids),
            true_boxes=boxes[inside].reset_index(drop=True),
            evaluated=None,
        )

    @cached_property
    def test(self) -> LabelledImages:
        """The test images of known label on which the systems are compared."""
        if self.evaluated is None:
            return self.select(self.labels_of("test").dropna().index)
        return self.select(self.evaluated)

    @cached_property
    def y_true(self) -> npt.NDArray[np.bool_]:
        """True for positive images, shape ``(N,)``."""
        return np.asarray(self.label.reindex(self.image_ids) == 1)

    @cached_property
    def patient_names(self) -> pd.Index:
        """Names of the patients in the order of their numbers."""
        if self.patient_ids is not None:
            return self.patient_ids
        return pd.Index(np.unique(self.patients_of(self.image_ids)))

    @cached_property
    def patients(self) -> npt.NDArray[np.int64]:
        """Patient of each image as a number from 0, in the order of their names, ``(N,)``."""
        owners = pd.Index(self.patients_of(self.image_ids))
        return self.patient_names.get_indexer(owners).astype(np.int64)

    @property
    def n_patients(self) -> int:
        """Number of patients."""
        return len(self.patient_names)

    @cached_property
    def is_boxed(self) -> npt.NDArray[np.bool_]:
        """True for images on which localisation can be evaluated, shape ``(N,)``.

        These are the images on which all lesions are boxed, or which have no lesion.
        """
        return np.asarray(self.boxes_trusted.get_indexer(self.image_ids) >= 0)

    @property
    def boxed_images(self) -> pd.Index:
        """Ids of the images on which localisation can be evaluated."""
        return self.image_ids[self.is_boxed]

    @property
    def is_normal(self) -> npt.NDArray[np.bool_] | None:
        """True for images whose kind is ``normal``, shape ``(N,)``; None if none is known to be."""
        if "x_class" not in self.images:
            return None
        normal = (self.images["x_class"] == "normal").to_numpy(dtype=bool)
        return normal if normal.any() else None

    @cached_property
    def versus_normal(self) -> npt.NDArray[np.bool_] | None:
        """True for positive and for normal images, shape ``(N,)``; None if none is normal.

        Negative images that have another finding are not selected.
        """
        return None if self.is_normal is None else self.y_true | self.is_normal

    def population(self, figure: MetricKey) -> npt.NDArray[np.bool_]:
        """Return True for the images that a figure is computed on, shape ``(N,)``."""
        if figure.subgroup == VERSUS_NORMAL and self.versus_normal is not None:
            return self.versus_normal
        if figure.metric in METRICS and METRICS[figure.metric].boxed:
            return self.is_boxed
        return np.ones(len(self.image_ids), dtype=bool)
