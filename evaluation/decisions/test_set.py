"""What systems are judged on, a data set with a target and a split, and what one says of it.

Images may be grouped by study or patient: the score of a unit is the highest of its images. A unit
is positive where any of its images is, negative where all are. One that has an image of unknown
label and no positive one is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.tables import positions
from cxr_compare.data_prep.duplicates.near_duplicates import SeenImages, patient_groups
from cxr_compare.data_prep.store.dataset import DataSet, Target
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.boxes.map_boxes import MapBoxRule, map_points
from cxr_compare.evaluation.boxes.matching import deciding_points
from cxr_compare.evaluation.metrics.metric import VERSUS_NORMAL, MetricKey
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.statistics.ranking import Floats, Integers

Unit = Literal["image", "study", "patient"]
_NORMAL = "normal"
_Value = TypeVar("_Value", bound=np.generic)


def _patients_of(images: pd.DataFrame, image_ids: pd.Index) -> np.ndarray:
    """Patient of each image, shape ``(N,)``, in the order of `image_ids`."""
    return patient_groups(images).reindex(image_ids).to_numpy(dtype=str)


@dataclass(frozen=True)
class TestSet:
    """A data set, what is judged in it, and the split whose ``test`` images judge.

    The ``val`` images of the same split choose thresholds and all else of a decision.
    """

    __test__ = False  # a name that pytest would collect

    dataset: DataSet  # images, labels, boxes and splits
    target: Target  # what is judged
    split: str = "default"  # name of the split

    @property
    def ids(self) -> dict[str, Any]:
        """What a decision or a figure is bound to: content, labels and split."""
        ids = self.dataset.ids
        return {
            "content_id": ids["content_id"],
            "labels_id": ids["labels_id"],
            "split": self.split,
            "split_id": ids["split_ids"].get(self.split),
        }

    @property
    def images(self) -> pd.DataFrame:
        """The images table of the data set, all splits."""
        return self.dataset.images

    @cached_property
    def labels(self) -> pd.Series:
        """1.0, 0.0 or NaN (unknown) by id of every image of the data set."""
        return self.dataset.labels(self.target)

    @cached_property
    def boxes_trusted(self) -> pd.Index:
        """Images of the data set on which localisation may be judged."""
        return self.dataset.boxes_trusted(self.target)

    @cached_property
    def true_boxes(self) -> pd.DataFrame:
        """True boxes of the target on `boxes_trusted`, original px."""
        return self.dataset.target_boxes(self.target)

    def image_ids(self, role: str) -> pd.Index:
        """Sorted ids of the split's images of a role, ``val`` or ``test``."""
        return self.dataset.image_ids(role, self.split)

    def labels_of(self, role: str) -> pd.Series:
        """Labels of a role's images, NaN where unknown, by image id."""
        return self.labels.reindex(self.image_ids(role))

    def patients(self, image_ids: pd.Index) -> np.ndarray:
        """Patient of each image, shape ``(N,)``."""
        return _patients_of(self.images, image_ids)

    def seen_by(
        self, system: Predictions, image_ids: pd.Index, roles: Sequence[str] = ("train", "val")
    ) -> SeenImages:
        """Which images a system was fitted or selected on; none where that is not recorded."""
        images, seen = self.dataset.identities(image_ids), system.seen
        of_roles = images[:0] if seen is None else seen[seen["role"].isin(roles)]
        return SeenImages.among(images, of_roles)


@dataclass(frozen=True)
class EvaluationSet:
    """The images that every system is scored on, and what is true of them."""

    image_ids: pd.Index  # shape ``(N,)``, sorted
    y_true: npt.NDArray[np.bool_]  # shape ``(N,)``
    patients: npt.NDArray[np.int64]  # patient of each image as an index from 0, shape ``(N,)``
    n_patients: int  # how many patients
    # Whether localisation may be judged on an image, shape ``(N,)``.
    boxes_trusted: npt.NDArray[np.bool_]
    truth: pd.DataFrame  # true boxes of the target on these images, original px
    x_class: pd.Series | None = None  # the kind of each image, where the data set knows it
    # Width and height of one map cell of the coarsest system on each image, by which a scored point
    # may miss a lesion, original px, shape ``(N, 2)``; `None` without maps.
    tolerance: npt.NDArray[np.float64] | None = None

    @cached_property
    def versus_normal(self) -> npt.NDArray[np.bool_] | None:
        """Positive images and those that are normal, shape ``(N,)``; `None` where unknown."""
        if self.x_class is None or not (self.x_class == "normal").any():
            return None
        return self.y_true | (self.x_class == "normal").to_numpy(dtype=bool)

    def population(self, figure: MetricKey) -> npt.NDArray[np.bool_]:
        """The images that a figure is computed on, shape ``(N,)``."""
        if figure.subgroup == VERSUS_NORMAL and self.versus_normal is not None:
            return self.versus_normal
        if figure.metric in METRICS and METRICS[figure.metric].boxed:
            return self.boxes_trusted
        return np.ones(len(self.image_ids), dtype=bool)


@dataclass(frozen=True)
class Units:
    """Which images make which units."""

    names: pd.Index  # of the units that are judged, sorted, shape `(U,)`
    # unit of each image, -1 for an image of a unit that is left out, shape `(N,)`
    of_image: npt.NDArray[np.int64]
    n_left_out: int = 0  # units left out for an unknown label

    def highest(self, values: npt.ArrayLike) -> Floats:
        """The highest value of each unit's images, shape ``(U,)``.

        Example:
            >>> Units(pd.Index(["a", "b"]), np.array([1, 0, 0])).highest([0.5, 0.1, 0.3]).tolist()
            [0.3, 0.5]
        """
        used = self.of_image >= 0
        highest = np.full(len(self.names), -np.inf)
        np.maximum.at(highest, self.of_image[used], np.asarray(values, dtype=np.float64)[used])
        return highest

    def first(self, values: npt.NDArray[_Value]) -> npt.NDArray[_Value]:
        """The value of each unit's first image, shape ``(U,)``."""
        used = np.flatnonzero(self.of_image >= 0)
        place = np.unique(self.of_image[used], return_index=True)[1]
        return values[used[place]]


def _unit_names(images: pd.DataFrame, image_ids: pd.Index, unit: Unit) -> npt.NDArray[np.str_]:
    """The study or patient of each image."""
    if unit == "image":
        return image_ids.to_numpy(dtype=str)
    patients = _patients_of(images, image_ids)
    if unit == "patient":
        return patients
    if "study_id" not in images:
        raise InputError("--unit study: the data set names no studies; use --unit patient or image")
    studies = images.set_index("image_id")["study_id"].reindex(image_ids)
    if studies.isna().any():
        raise InputError(
            f"--unit study: image '{studies.index[studies.isna()][0]}' has no study_id; use --unit "
            "patient or image"
        )
    return np.char.add(np.char.add(patients, " / "), studies.to_numpy(dtype=str))


def group_images(images: pd.DataFrame, labels: pd.Series, image_ids: pd.Index, unit: Unit) -> Units:
    """Group images into units."""
    names = _unit_names(images, image_ids, unit)
    unknown = pd.Index(labels.index[labels.isna().to_numpy()])
    doubtful = set(_unit_names(images, unknown, unit)) if len(unknown) else set()
    doubtful -= set(names[labels.reindex(image_ids).to_numpy() == 1])
    kept = ~np.isin(names, sorted(doubtful))
    chosen, place = np.unique(names[kept], return_inverse=True)
    of_image = np.full(len(names), -1, dtype=np.int64)
    of_image[kept] = place
    left_out = len(np.unique(names[~kept]))
    return Units(pd.Index(chosen, name="image_id"), of_image, left_out)


def judged_units(
    judged: EvaluationSet, images: pd.DataFrame, labels: pd.Series, unit: Unit
) -> tuple[Units, EvaluationSet]:
    """Which images make which units, and these in the place of images; without places."""
    units = group_images(images, labels, judged.image_ids, unit)
    count = len(units.names)
    kinds = None
    if judged.x_class is not None:
        other = units.highest(judged.x_class.to_numpy() != _NORMAL)
        kinds = pd.Series(np.where(other > 0, "not_normal", _NORMAL))
    whole = replace(
        judged,
        image_ids=units.names,
        y_true=units.highest(judged.y_true) > 0,
        patients=units.first(judged.patients),
        boxes_trusted=np.zeros(count, dtype=bool),
        truth=judged.truth.iloc[:0],
        x_class=kinds,
    )
    return units, whole


_Rule = Literal["max", "noisy_or", "top_k"]
_TOP_K = 3


@dataclass(frozen=True)
class Reduction:
    """How the boxes of an image become its score.

    ``max`` takes the most confident box; ``noisy_or`` takes ``1 - prod(1 - score)``; ``top_k``
    is the sum of the three most confident scores divided by three, so that missing boxes count 0.
    An image without boxes scores 0.

    Source:
        ``max``: the multiple-instance assumption, Dietterich et al. 1997.
    """

    rule: _Rule = "max"
    # boxes below it do not take part (noisy-or over 300 boxes at 0.01 is 0.95)
    min_score: float = 0.0

    @classmethod
    def from_dict(cls, payload: dict[str, Any] | None) -> Reduction | None:
        """Read it from ``decisions/<target>.json``."""
        if not payload:
            return None
        if payload["rule"] not in get_args(_Rule):
            raise InputError(f"decision: unknown reduction {payload['rule']!r}; run cxr tune again")
        return cls(payload["rule"], payload["min_score"])

    def of_ranked(self, rows: Integers, scores: Floats, n_images: int) -> Floats:
        """One score an image from boxes sorted by image, the most confident first.

        Example:
            >>> Reduction("max").of_ranked(np.array([1, 1]), np.array([0.75, 0.5]), 2).tolist()
            [0.0, 0.75]
        """
        used = scores >= self.min_score
        rows, scores = rows[used], scores[used]
        reduced = np.zeros(n_images)
        if not len(rows):
            return reduced
        starts = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
        if self.rule == "max":
            reduced[rows[starts]] = scores[starts]
        elif self.rule == "noisy_or":
            reduced[rows[starts]] = 1.0 - np.multiply.reduceat(1.0 - scores, starts)
        else:
            rank = np.arange(len(rows)) - np.repeat(starts, np.diff(np.append(starts, len(rows))))
            top = rank < _TOP_K
            reduced = np.bincount(rows[top], scores[top], minlength=n_images) / _TOP_K
        return reduced


CANDIDATES = (
    Reduction("max"),
    Reduction("top_k"),
    *(Reduction("noisy_or", floor) for floor in (0.3, 0.2, 0.1, 0.05, 0.02, 0.01)),
)
"""What validation chooses from, the simpler first: among equals the earlier wins."""


def _reduce_boxes(
    boxes: pd.DataFrame, image_ids: pd.Index, reduction: Reduction | None = None
) -> pd.Series:
    """Reduce lesion boxes to one score per image, by default that of the highest box."""
    rows, scores = _rows_and_scores(boxes, image_ids)
    # By image, the most confident box first: the result cannot depend on the order of rows.
    order = np.lexsort((-scores, rows))
    reduced = (reduction or Reduction()).of_ranked(rows[order], scores[order], len(image_ids))
    return pd.Series(reduced, index=image_ids, name="score")


def _rows_and_scores(boxes: pd.DataFrame, image_ids: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    """Position of each box's image in `image_ids`, and its score, both checked."""
    if not image_ids.is_unique:
        repeated = image_ids[image_ids.duplicated()][0]
        raise InputError(f"image ids must be unique; {repeated!r} repeats")
    rows = positions(boxes["image_id"], image_ids)
    if (rows < 0).any():
        unknown = boxes["image_id"].iloc[int(np.flatnonzero(rows < 0)[0])]
        raise InputError(f"boxes: image {unknown!r} is not among the images under evaluation")
    scores = boxes["score"].to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~((scores >= 0) & (scores <= 1)))
    if wrong.size:
        raise InputError(
            f"boxes: score must be in [0, 1]; row {wrong[0]}, image "
            f"{boxes['image_id'].iloc[int(wrong[0])]!r}: score={scores[wrong[0]]}"
        )
    return rows, scores


@dataclass(frozen=True)
class SystemOutput:
    """A system's output on chosen images, for one target."""

    predictions: Predictions  # the system
    target: Target  # what is judged
    image_ids: pd.Index  # the images, on all of which the system ran; unique, shape ``(N,)``

    @property
    def gives_boxes(self) -> bool:
        """Whether the system is a detector, whose boxes must be reduced to image scores."""
        return self.predictions.kind == "boxes"

    def _rows(self, name: str) -> pd.DataFrame:
        return self.predictions.rows(name, self.target.any_of, self.image_ids)

    @cached_property
    def finding_boxes(self) -> pd.DataFrame:
        """A detector's boxes, each with its ``finding``."""
        return self._rows("boxes")

    @cached_property
    def predicted_boxes(self) -> pd.DataFrame:
        """A detector's boxes: ``image_id``, corners in original px, ``score``."""
        return self.finding_boxes.drop(columns="finding")

    @cached_property
    def _finding_scores(self) -> pd.DataFrame:
        return self._rows("scores")

    @cached_property
    def maps(self) -> pd.DataFrame | None:
        """One activation map per image, of its highest-scoring finding; `None` without maps."""
        rows = self._rows("maps")
        if rows.empty:
            return None
        rows = rows[rows["method"] == rows["method"].min()]
        keys = ["image_id", "finding"]
        scored = rows.merge(self._finding_scores, on=keys, how="left").fillna({"score": 0.0})
        scored = scored.sort_values(["image_id", "score", "finding"], ascending=[True, False, True])
        return scored.drop_duplicates("image_id").drop(columns="score").reset_index(drop=True)

    def scores(self, reduction: Reduction | None) -> pd.Series:
        """One score per image, in the order of `image_ids`; an InputError where one has none."""
        if self.gives_boxes:
            return _reduce_boxes(self.predicted_boxes, self.image_ids, reduction)
        highest = self._finding_scores.groupby("image_id")["score"].max()
        combined = highest.reindex(self.image_ids).astype(np.float64)
        if combined.isna().any():
            raise InputError(
                f"{self.predictions.folder}: {counted(int(combined.isna().sum()), 'image')} ran "
                f"without a score for {' or '.join(self.target.any_of)}, first '"
                f"{combined.index[combined.isna()][0]}'; predict or import that finding"
            )
        return combined

    def points(self) -> pd.DataFrame | None:
        """Where the decision points: top box's centre or map's peak; `None` without either."""
        if self.gives_boxes:
            return deciding_points(self.predicted_boxes, self.image_ids)
        if self.maps is None:
            return None
        return map_points(self.maps, self.image_ids)[["point_x", "point_y"]]

    def cells(self) -> Floats | None:
        """Width and height of each image's map cell, original px, ``(N, 2)``; 0 without a map.

        `None` where no map points.
        """
        if self.gives_boxes or self.maps is None:
            return None
        maps = self.maps.set_index("image_id")
        sizes = pd.DataFrame(
            {
                "width": (maps["x2"] - maps["x1"]) / maps["grid_w"],
                "height": (maps["y2"] - maps["y1"]) / maps["grid_h"],
            }
        )
        return sizes.reindex(self.image_ids).fillna(0.0).to_numpy(dtype=np.float64)

    def boxes(
        self, scores: pd.Series, scale: tuple[float, float] | None, rule: MapBoxRule | None
    ) -> pd.DataFrame | None:
        """The system's boxes: a detector's own, a classifier's cut out of its maps.

        Image `scores`, the scale of maps and the rule that validation chose; `None` where there is
        nothing to make boxes of.
        """
        if self.gives_boxes:
            return self.predicted_boxes
        if self.maps is None or scale is None or rule is None:
            return None
        return rule.apply(self.maps, scores, scale)


Groups = npt.NDArray[np.object_]
"""Name of each image's or lesion's group, "" where it is unknown."""
_DEFAULT = ("sex", "age_band", "source", "view")
_AGE_EDGES, _AGE_NAMES = (18, 40, 60, 80), ("under 18", "18 to 39", "40 to 59", "60 to 79", "80 up")
MOST_GROUPS = 12


def image_groups(images: pd.DataFrame, columns: Sequence[str] = ()) -> dict[str, Groups]:
    """Group images by what the images table knows of them; ``a*b`` groups by two columns at once.

    Example:
        >>> table = pd.DataFrame({"sex": ["F", None, "M"], "age_years": [70.0, 30.0, None]})
        >>> {name: groups.tolist() for name, groups in image_groups(table).items()}
        {'sex': ['F', '', 'M'], 'age_band': ['60 to 79', '18 to 39', '']}
    """
    groups_of: dict[str, Groups] = {}
    for column in dict.fromkeys("age_band" if c == "age_years" else c for c in columns or _DEFAULT):
        source = "age_years" if column == "age_band" else column
        if source not in images and "*" not in column:
            if columns:
                hidden = ("image_id", "path", "file_sha256")
                names = ", ".join(str(name) for name in images if name not in hidden)
                raise InputError(f"subgroup '{column}': the images have no such column; {names}")
            continue
        if "*" in column:
            groups = _intersections(images, column)
        else:
            values = _age_bands(images[source]) if column == "age_band" else images[source]
            groups = values.astype(object).where(values.notna(), "").astype(str).to_numpy(object)
        n_groups = len(set(groups) - {""})
        if n_groups > MOST_GROUPS:
            if columns:
                raise InputError(
                    f"subgroup '{column}': has {n_groups} values; at most {MOST_GROUPS} are shown"
                )
            continue
        if n_groups > 1 or (columns and n_groups):
            groups_of[column] = groups
    return groups_of


def _intersections(images: pd.DataFrame, asked: str) -> Groups:
    """The groups of two columns, joined; "" where either is unknown."""
    both = [of for part in asked.split("*") for of in image_groups(images, [part]).values()]
    if len(both) != 2:
        raise InputError(f"subgroup '{asked}': give two columns whose values are known: sex*view")
    joined = [f"{one}, {other}" if one and other else "" for one, other in zip(*both, strict=True)]
    return np.array(joined, dtype=object)


def _age_bands(years: pd.Series) -> pd.Series:
    numbers = years.to_numpy(np.float64, na_value=np.nan)
    names = np.array(_AGE_NAMES, dtype=object)[np.digitize(np.nan_to_num(numbers), _AGE_EDGES)]
    return pd.Series(np.where(np.isnan(numbers), None, names), index=years.index, dtype=object)
