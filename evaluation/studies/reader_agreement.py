"""Agreement of the readers of a data set on its labels and boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.formats.reference import same_lesions
from cxr_compare.data_prep.store.dataset import DataSet, Target
from cxr_compare.evaluation.boxes.matching import pair_boxes


@dataclass(frozen=True)
class ReaderAgreement:
    """Labels and boxes of each human reader of a data set, for one disease finding.

    Attributes:
        ratings: Label of each image (row, indexed by the image's id) by each reader (column): 1
            (positive), 0 (negative) or NaN (not stated).
        boxes: Boxes around lesions by each reader, by name of the reader: tables with the columns
            ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` in px of the original image.

    Example:
        >>> ratings = pd.DataFrame({"R1": [1, 0], "R2": [1, 1]}, index=["a", "b"])
        >>> ReaderAgreement(ratings).alpha
        0.0
    """

    ratings: pd.DataFrame
    boxes: dict[str, pd.DataFrame] = field(default_factory=dict)

    @classmethod
    def from_dataset(cls, dataset: DataSet, target: Target) -> ReaderAgreement:
        """Read the labels and boxes of each reader of a data set.

        Args:
            dataset: Data set that stores the findings of each of its readers.
            target: Disease finding, such as lung opacity, for which labels and boxes are read.

        Returns:
            Labels and boxes of each reader.
        """
        by_reader = {reader: dataset.with_labels_of(reader) for reader in dataset.readers}
        ratings = pd.DataFrame(
            {reader: labelled.labels(target) for reader, labelled in by_reader.items()}
        )
        return cls(
            ratings,
            {reader: labelled.target_boxes(target) for reader, labelled in by_reader.items()},
        )

    @property
    def alpha(self) -> float | None:
        """Krippendorff's alpha, the agreement of all readers' labels (2011, section C).

        It is 1 for perfect agreement, and 0 for agreement as by chance. None if all labels are
        equal.
        """
        values = np.unique(self.ratings.stack())
        counts = pd.DataFrame({value: (self.ratings == value).sum(axis=1) for value in values})
        counts = counts[counts.sum(axis=1) > 1]
        per_image = counts.sum(axis=1)
        per_value = counts.sum()
        n_ratings = per_image.sum()
        unlike = n_ratings**2 - (per_value**2).sum()  # pairs of unequal ratings, of any images
        within = ((per_image**2 - (counts**2).sum(axis=1)) / (per_image - 1)).sum()
        return float(1 - (n_ratings - 1) * within / unlike) if unlike else None

    def pairs(self) -> Iterator[dict[str, Any]]:
        """Compare each two readers on the images that both have labelled.

        Yields:
            A dictionary for each pair: ``readers`` (both names), ``images`` (number of images that
            both have labelled), ``boxes`` (number of boxes of each reader on these images),
            ``positive`` (number of images that both call positive), ``mean_iou`` (of boxes of both
            readers that outline the same lesion), ``kappa`` (Cohen's; None if all labels are equal)
            and ``matched`` (share of the boxes that outline a lesion which both readers have
            outlined).

        Source:
            Cohen 1960 (kappa).

        Example:
            >>> ratings = pd.DataFrame({"R1": [1.0, 0.0], "R2": [1.0, 1.0]}, index=["a", "b"])
            >>> boxes = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [4.0],
            ...     "y2": [2.0]})
            >>> (pair,) = ReaderAgreement(ratings, {"R1": boxes, "R2": boxes}).pairs()
            >>> pair["images"], pair["positive"], float(pair["mean_iou"])
            (2, 1, 1.0)
        """
        for one, other in combinations(map(str, self.ratings), 2):
            both = self.ratings[[one, other]].dropna()
            varies = both.stack().nunique() > 1  # without two different labels, kappa is 0 / 0
            drawn = self.lesions([one, other])
            drawn = drawn[drawn["image_id"].isin(both.index)].sort_values(["lesion", "reader"])
            met = drawn[drawn["drawn_by"] == 2].assign(score=1.0, image_id=drawn["lesion"])
            pairs = pair_boxes(met[::2], met[1::2], pd.Index(met["lesion"].unique()))
            yield {
                "readers": (one, other),
                "images": len(both),
                "boxes": tuple(int((drawn["reader"] == name).sum()) for name in (one, other)),
                "positive": int((both == 1).all(axis=1).sum()),
                "mean_iou": pd.Series(pairs.iou).mean(),
                "kappa": cohen_kappa_score(both[one], both[other]) if varies else None,
                "matched": len(met) / max(len(drawn), 1),
            }

    def lesions(self, readers: Sequence[str]) -> pd.DataFrame:
        """Return the boxes of some readers, grouped by the lesion that they outline.

        Args:
            readers: Names of the readers.

        Returns:
            One row for each box, with ``image_id``, ``reader`` and edges ``x1``, ``y1``, ``x2``,
            ``y2`` in px of the original image. The column ``lesion`` is the number of the lesion
            that the box outlines, and ``drawn_by`` is the number of readers who outlined this
            lesion.

        Example:
            >>> ratings = pd.DataFrame({"R1": [1.0], "R2": [1.0]}, index=["a"])
            >>> boxes = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [4.0],
            ...     "y2": [2.0]})
            >>> agreement = ReaderAgreement(ratings, {"R1": boxes, "R2": boxes})
            >>> agreement.lesions(["R1", "R2"])["drawn_by"].tolist()
            [2, 2]
        """
        parts = [self.boxes[reader].assign(reader=reader, finding="") for reader in readers]
        none = pd.DataFrame(columns=["image_id", "finding", "reader", *EDGES])
        boxes = pd.concat(parts, ignore_index=True) if parts else none
        boxes["lesion"] = same_lesions(boxes)
        return boxes.assign(drawn_by=boxes.groupby("lesion")["reader"].transform("size"))
