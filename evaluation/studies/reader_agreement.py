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
    """Labels and boxes of each reader of a data set, for one target.

    Attributes:
        ratings: 1 (positive), 0 (negative) or NaN (not stated), one row for each image and one
            column for each reader.
        boxes: Boxes of each reader, by name of the reader, original px.

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
            dataset: Data set with the findings of its readers.
            target: Target that the labels and boxes are for.

        Returns:
            Labels and boxes by reader.
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
        """Krippendorff's alpha of nominal ratings (2011, section C); None if all ratings agree."""
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
            A dictionary for each pair: ``readers`` (names), ``images`` (number), ``boxes`` (number
            of each reader), ``positive`` (images that both call positive), ``mean_iou`` (of boxes
            that outline the same lesion), ``kappa`` (Cohen's; None if all labels are equal) and
            ``matched`` (share of the boxes that outline a lesion of both).

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
        """Return the boxes of some readers, grouped by lesion.

        Args:
            readers: Names of the readers.

        Returns:
            The boxes with ``image_id``, ``reader`` and corners in original px. The column
            ``lesion`` numbers the lesions that the boxes outline, and ``drawn_by`` is the number of
            readers who outlined this lesion.

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
