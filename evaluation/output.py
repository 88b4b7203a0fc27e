"""Output of a system as tables in memory, for all images and for chosen images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.evaluation.boxes.map_boxes import MapBoxRule, map_peaks
from cxr_compare.evaluation.boxes.overlaps import OverlappingBoxes, OverlapRule
from cxr_compare.evaluation.boxes.pointing import top_box_centres
from cxr_compare.evaluation.reduction import Reduction, reduce_boxes

SCORE_COLUMNS = ["image_id", "finding", "score"]
"""Columns of a table of image scores."""
BOX_COLUMNS = ["image_id", "finding", *EDGES, "score"]
"""Columns of a table of predicted boxes; the corners are in px of the original image."""
MAP_COLUMNS = ["image_id", "finding", "method", "grid_h", "grid_w", *EDGES, "values"]
"""Columns of a table of activation maps; the corners are the frame of the map in original px."""


def _empty(columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({name: [] for name in columns})


@dataclass(frozen=True)
class SystemFacts:
    """Facts about a system apart from its output: how it was trained and how it predicts.

    Attributes:
        seed: Random seed of the training; None if unknown.
        training_id: Id of the training. A training run and the models that were exported from it
            (for use elsewhere) have the same id. None if unknown.
        inference_id: Id of all that affects a prediction: weights, back end (such as PyTorch or
            ONNX) and settings. A training run and its exports have different ids. None if unknown.
        exported: True if the system is a model that was exported from a training run.
        cost: Number of parameters, number of FLOPs and latency, by name. A value is None if it was
            not measured.
        trained_on: Data sets whose images the weights were learned from, as pairs of name and
            content id (a digest of the data set's images). Empty if unknown.
        fitted_on: Ids of those validation images that the system was also trained on: the image,
            another image of its patient or a copy of the image was in its training set. Empty if
            training and validation images are separate.
        score_range: Lowest and highest of all its image scores, also those of images that are not
            evaluated. None takes those at hand.
        record: What is known of the training and the prediction, such as the configuration
            (``recipe``), by name, for the record of a comparison.
        notes: Sentences on how its output was read: what was recognised, cut, left out or assumed.
    """

    seed: int | str | None = None
    training_id: str | None = None
    inference_id: str | None = None
    exported: bool = False
    cost: Mapping[str, Any] = field(default_factory=dict)
    trained_on: tuple[tuple[str, str], ...] = ()
    fitted_on: pd.Index = field(default_factory=lambda: pd.Index([], dtype=object))
    score_range: tuple[float, float] | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def made_here(record: Mapping[str, Any]) -> bool:
    """Return True if this program trained, ran or joined a system, by the record on it."""
    return any(record.get(key) for key in ("recipe", "backend", "members"))


@dataclass(frozen=True)
class System:
    """A trained model, a reader or other software, with its output for one finding.

    Attributes:
        kind: ``boxes`` for a detector, ``scores`` for a classifier or a reader, ``both`` for a
            joint system, whose image scores are not made of its boxes.
        images: Every image that the system was run on: ``image_id``, ``status`` (``ok`` or
            ``failed``).
        scores: Image scores: ``image_id``, ``finding``, ``score`` in [0, 1], or in any range if
            only the ranks count; empty for a detector.
        boxes: Predicted boxes: ``image_id``, ``finding``, ``x1``, ``y1``, ``x2``, ``y2`` in px of
            the original image, ``score`` in [0, 1]; empty for a classifier.
        maps: Activation maps of a classifier, with the columns of `MAP_COLUMNS`; empty if the
            system has none.
        findings: Names of the findings (disease signs) that are evaluated, such as
            ``("opacity",)``: an image is positive if any of them is present.
        decision: Thresholds, calibration and rules stored for the evaluated finding,
            as `evaluation.choices.Choices`; `None` if they were not chosen yet.
        source: Folder or file that the output was read from, for error messages.
        has_scores: False for boxes without scores, which nothing ranks: the system is one operating
            point, as a reader who draws boxes. All its boxes have the score 1.
    """

    name: str
    kind: Literal["boxes", "scores", "both"]
    images: pd.DataFrame
    scores: pd.DataFrame = field(default_factory=lambda: _empty(SCORE_COLUMNS))
    boxes: pd.DataFrame = field(default_factory=lambda: _empty(BOX_COLUMNS))
    maps: pd.DataFrame = field(default_factory=lambda: _empty(MAP_COLUMNS))
    findings: tuple[str, ...] = ()
    decision: Any = None
    facts: SystemFacts = field(default_factory=SystemFacts)
    source: str = ""
    has_scores: bool = True

    @property
    def images_run(self) -> pd.Index:
        """Ids of the images on which the system ran without failing."""
        ran = (self.images["status"] == "ok").to_numpy()
        return pd.Index(self.images.loc[ran, "image_id"], name="image_id")

    @property
    def gives_boxes(self) -> bool:
        """True for a detector and for a joint system, which predict boxes."""
        return self.kind != "scores"

    def of_findings(self, findings: Sequence[str]) -> System:
        """Return the system with its rows of some findings alone, which are then evaluated."""
        return replace(
            self,
            scores=self.scores[is_member(self.scores["finding"], findings)].reset_index(drop=True),
            boxes=self.boxes[is_member(self.boxes["finding"], findings)].reset_index(drop=True),
            findings=tuple(findings),
        )

    def output_on(self, image_ids: pd.Index) -> Output:
        """Return the output of the system on some images, all of which it must have run on.

        The ids are unique, shape ``(N,)``.
        """
        return Output(
            self.kind,
            image_ids,
            finding_scores=_rows(self.scores, image_ids),
            finding_boxes=_rows(self.boxes, image_ids),
            finding_maps=_rows(self.maps, image_ids),
            findings=self.findings,
            source=self.source,
            has_scores=self.has_scores,
        )


def _rows(table: pd.DataFrame, image_ids: pd.Index) -> pd.DataFrame:
    return table[is_member(table["image_id"], image_ids)].reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class Output:
    """Output of one trained model on N images, for the evaluated finding or findings.

    The attributes that `System` has too mean the same, on these images alone.

    Attributes:
        image_ids: Ids of the images, unique, shape ``(N,)``; the model ran on all of them.
        finding_scores: Image scores: ``image_id``, ``finding``, ``score``; empty for a detector.
        finding_boxes: Boxes of a detector: ``image_id``, ``finding``, ``x1``, ``y1``, ``x2``,
            ``y2`` in px of the original image, and ``score``.
        finding_maps: Activation maps of a classifier, with the columns of `MAP_COLUMNS`.
        constant_points: Points of the image-blind baseline, as `points` returns them; `None` for
            all other outputs, whose points are those of their boxes or maps.
    """

    kind: Literal["boxes", "scores", "both"]
    image_ids: pd.Index
    finding_scores: pd.DataFrame = field(default_factory=lambda: _empty(SCORE_COLUMNS))
    finding_boxes: pd.DataFrame = field(default_factory=lambda: _empty(BOX_COLUMNS))
    finding_maps: pd.DataFrame = field(default_factory=lambda: _empty(MAP_COLUMNS))
    findings: tuple[str, ...] = ()
    source: str = ""
    constant_points: pd.DataFrame | None = None
    has_scores: bool = True

    @classmethod
    def from_scores(cls, image_ids: pd.Index, scores: npt.ArrayLike) -> Output:
        """Return the output of a model that gives one score for each image, shape ``(N,)``."""
        table = pd.DataFrame({"image_id": image_ids, "finding": "", "score": np.asarray(scores)})
        return cls("scores", image_ids, table)

    @classmethod
    def from_boxes(cls, image_ids: pd.Index, boxes: pd.DataFrame) -> Output:
        """Return the output of a detector: boxes in px of the original image, with their scores."""
        return cls("boxes", image_ids, finding_boxes=boxes.assign(finding=""))

    @property
    def gives_boxes(self) -> bool:
        """True for a detector and for a joint system, which predict boxes."""
        return self.kind != "scores"

    @property
    def reduces_boxes(self) -> bool:
        """True if the image score is made of the boxes, as it is for a detector alone."""
        return self.kind == "boxes"

    @cached_property
    def predicted_boxes(self) -> pd.DataFrame:
        """Table of a detector's boxes on the chosen images, without the finding of each box.

        The boxes of all evaluated findings are in one table. Columns ``image_id``, ``x1``, ``y1``,
        ``x2``, ``y2`` in px of the original image, and ``score``.
        """
        return self.finding_boxes.drop(columns="finding")

    @cached_property
    def overlapping(self) -> OverlappingBoxes:
        """Boxes of a detector on the chosen images, with the pairs of boxes that overlap.

        From these pairs, rules of non-maximum suppression with different limits select boxes.
        """
        return OverlappingBoxes.from_boxes(self.predicted_boxes)

    @cached_property
    def maps(self) -> pd.DataFrame | None:
        """Activation map of each chosen image that has one, as a table with one row for each image.

        The columns are those of `MAP_COLUMNS`: ``grid_h`` and ``grid_w`` (numbers of rows and
        columns of cells), ``values`` (values of the cells), the edges of the map in px of the
        original image, and others.

        If there are several evaluated findings, the map is that of the finding with the highest
        score on the image. None for a system without maps.
        """
        rows = self.finding_maps
        if rows.empty:
            return None
        rows = rows[rows["method"] == rows["method"].min()]
        keys = ["image_id", "finding"]
        scored = rows.merge(self.finding_scores, on=keys, how="left").fillna({"score": 0.0})
        scored = scored.sort_values(["image_id", "score", "finding"], ascending=[True, False, True])
        return scored.drop_duplicates("image_id").drop(columns="score").reset_index(drop=True)

    def scores(self, reduction: Reduction | None) -> pd.Series:
        """Return one score for each chosen image, shape ``(N,)``, in the order of `image_ids`.

        If there are several evaluated findings, the highest of their scores is returned.
        `reduction` combines the boxes of a detector; `None` takes the most confident box. Scores
        are in [0, 1], or in the range that the system gives. An InputError is raised if an image
        has no score; a detector's image without a box has the score 0.

        Example:
            >>> images = pd.DataFrame({"image_id": ["a"], "status": ["ok"]})
            >>> system = System("A", "boxes", images)  # no box was predicted
            >>> system.output_on(pd.Index(["a"])).scores(None).tolist()
            [0.0]
        """
        if self.reduces_boxes:
            return reduce_boxes(self.predicted_boxes, self.image_ids, reduction)
        highest = self.finding_scores.groupby("image_id")["score"].max()
        combined = highest.reindex(self.image_ids).astype(np.float64)
        if combined.isna().any():
            raise InputError(
                f"{self.source}: {counted(int(combined.isna().sum()), 'image')} ran "
                f"without a score for {' or '.join(self.findings)}, first '"
                f"{combined.index[combined.isna()][0]}'; predict or import that finding"
            )
        return combined

    def points(self) -> pd.DataFrame | None:
        """Return the point at which the system sees the lesion on each image.

        It is the centre of the most confident box, or the peak of the activation map. Of boxes
        without scores, it is the centre of the largest one. The columns are ``point_x`` and
        ``point_y`` in px of the original image, with one row for each image (NaN for an image
        without a box or map). `None` for a system without boxes and maps.
        """
        if self.constant_points is not None:
            return self.constant_points
        if self.gives_boxes:
            boxes = self.predicted_boxes
            if not self.has_scores:
                area = (boxes["x2"] - boxes["x1"]) * (boxes["y2"] - boxes["y1"])
                boxes = boxes.assign(score=area)
            return top_box_centres(boxes, self.image_ids)
        if self.maps is None:
            return None
        return map_peaks(self.maps, self.image_ids)[["point_x", "point_y"]]

    def boxes(
        self,
        scores: pd.Series,
        scale: tuple[float, float] | None,
        rule: OverlapRule | MapBoxRule | None,
    ) -> pd.DataFrame | None:
        """Return the boxes of a detector, or the boxes that are cut out of a classifier's maps.

        `scores` are those of the images, by image id. `scale` has the low and high end of the raw
        values on which all maps are shown, as computed on validation images. For a detector, `rule`
        None keeps all stored boxes. The columns are ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` in
        px of the original image and ``score``. `None` is returned for neither boxes nor maps, and
        for maps without a rule to cut them.
        """
        if self.gives_boxes:
            limit = rule.limit if isinstance(rule, OverlapRule) else None
            return self.predicted_boxes if limit is None else self.overlapping.left(limit)
        if self.maps is None or scale is None or not isinstance(rule, MapBoxRule):
            return None
        return rule.apply(self.maps, scores, scale)
