"""Checked readings of a reader study, and functions that compute its figures on resamples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from cxr_compare.evaluation.boxes.afroc import WeightedAfroc
from cxr_compare.evaluation.boxes.froc import WeightedFroc
from cxr_compare.evaluation.boxes.lesion_hits import HIT_RULES, HitRule, LesionHits, find_lesions
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.metrics.image_metrics import rates
from cxr_compare.evaluation.metrics.metric import Metric
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.bootstrap import per_cluster
from cxr_compare.evaluation.statistics.ranking import RankedScores

LESION = ["case", "lesion"]
"""Columns that identify a lesion."""


_RATED = ("auroc",)


DECIDED = ("balanced_accuracy", "recall", "specificity", "accuracy", "f1")
"""Metrics that are computed from decisions; all others are computed from ratings or marks."""


_MARKED = {
    "afroc": "AFROC",
    "froc": "FROC: lesion sensitivity at {:g} false positives per image",
    "lesion_sensitivity": "Lesion sensitivity",
    "false_marks": "False positives per image",
}
"""Titles of the metrics of marks, beside the weighted AFROC."""


@dataclass(frozen=True)
class ReaderStudy:
    """Checked readings of the same cases, with their truth.

    Attributes:
        truth: Columns ``label`` (bool) and ``patient``, by case, for all cases that were read.
        readings: Columns ``reader``, ``modality``, ``case``, and ``rating``, ``decision`` (0 or 1)
            or both.
        systems: Results of stand-alone systems in the same columns; ``reader`` is the name of the
            system and ``modality`` is empty.
        notes: Sentences on cases that were not read.

    Example:
        >>> cases = pd.Index(["a", "b"], name="case")
        >>> truth = pd.DataFrame({"label": [True, False], "patient": cases}, cases)
        >>> readings = pd.DataFrame(
        ...     {"reader": "R1", "modality": "CT", "case": cases, "rating": [4, 1]}
        ... )
        >>> study = ReaderStudy(truth, readings, readings[:0])
        >>> study.modalities, study.readers("CT"), list(study.metrics)
        (['CT'], ['R1'], ['auroc'])
    """

    truth: pd.DataFrame
    readings: pd.DataFrame
    systems: pd.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def metrics(self) -> dict[str, Metric]:
        """Metrics that the readings allow, in reading order; the first is the primary one."""
        named = (*(_RATED if self.has_ratings else ()), *(DECIDED if self.has_decisions else ()))
        return {name: METRICS[name] for name in named}

    def figure(
        self, metric: str, rows: pd.DataFrame, owner: Integers
    ) -> Callable[[Integers], Floats]:
        """Prepare a figure of one reading or system for weights of patients.

        Args:
            metric: Short name of the metric, a key of `metrics`.
            rows: Readings of one reader with one modality, or of a system.
            owner: Patient of each row as an index from 0, shape ``(rows,)``.

        Returns:
            A function of patient weights, shape ``(R, patients)``, that returns the figure of each
            row of weights, shape ``(R,)``.

        Example:
            >>> cases = pd.Index(["a", "b"], name="case")
            >>> truth = pd.DataFrame({"label": [True, False], "patient": cases}, cases)
            >>> readings = pd.DataFrame(
            ...     {"reader": "R1", "modality": "CT", "case": cases, "rating": [4, 1]}
            ... )
            >>> study = ReaderStudy(truth, readings, readings[:0])
            >>> study.figure("auroc", readings, np.array([0, 1]))(np.array([[1, 1]])).tolist()
            [1.0]
        """
        truth = self.truth["label"].loc[rows["case"]].to_numpy(dtype=bool)
        if metric in _RATED:
            return RankedScores(truth, rows["rating"].to_numpy(np.float64), owner).auroc
        called = rows["decision"].to_numpy(np.float64) == 1
        kinds = [truth & called, ~truth & called, ~truth & ~called, truth & ~called]
        counts = per_cluster(np.column_stack(kinds), owner, int(owner.max()) + 1)
        return lambda weights: np.asarray(rates(*(weights @ counts).T)[metric])

    @property
    def modalities(self) -> list[str]:
        """Names of the modalities, in the order of the file."""
        return list(self._readers)

    def readers(self, modality: str) -> list[str]:
        """Return the readers who read with a modality.

        Args:
            modality: Name of the modality.

        Returns:
            Names of the readers, in the order of the file.
        """
        return self._readers[modality]

    @cached_property
    def _readers(self) -> dict[str, list[str]]:
        pairs = self.readings[["modality", "reader"]].drop_duplicates()
        return {
            str(name): list(readers)
            for name, readers in pairs.groupby("modality", sort=False)["reader"]
        }

    @property
    def has_ratings(self) -> bool:
        """True if the readings have ratings, so that there is an AUROC."""
        return "rating" in self.readings

    @property
    def has_decisions(self) -> bool:
        """True if the readings call cases positive or negative."""
        return "decision" in self.readings


@dataclass(frozen=True, kw_only=True)
class MarkedStudy(ReaderStudy):
    """Study with marks, which are ratings of locations in a case.

    The rating of a case is its own rating if it has one, else the rating of its highest mark.

    Attributes:
        marks: Columns ``reader``, ``modality``, ``case``, ``rating``, and ``counted`` (True if the
            mark counts in the lesion sensitivity and in the false positives per image). The
            location is ``lesion`` (name of the lesion that the mark hits, empty for a false
            positive) or four edges in px.
        lesions: Columns ``case``, ``lesion`` (name) and, if known, ``weight`` (the weights of a
            case add up to 1) and four edges in px.
        hit: Rule by which a mark with edges hits a lesion.
        false_marks: Number of false positives per image at which FROC gives the sensitivity.

    Example:
        >>> from cxr_compare.evaluation.studies.readings import join_marks
        >>> cases = pd.Index(list("abcd"), name="case")
        >>> truth = pd.DataFrame({"label": [True, True, False, False], "patient": cases}, cases)
        >>> lesions = pd.DataFrame({"case": ["a", "b"], "lesion": ["1", "1"]})
        >>> marks = pd.DataFrame({"reader": "R1", "modality": "CT", "case": ["a", "c"],
        ...     "rating": [4.0, 2.0], "lesion": ["1", ""]})
        >>> study = join_marks(truth, [marks], {}, lesions, all_read=True)
        >>> found, weights = study.finds(study.readings)
        >>> found.best.tolist(), weights.tolist()
        ([4.0, -inf], [1.0, 1.0])
    """

    marks: pd.DataFrame
    lesions: pd.DataFrame
    hit: HitRule = HIT_RULES["centre"]
    false_marks: float = 0.5
    _found: dict[tuple[str, str, bool], tuple[LesionHits, Floats]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def metrics(self) -> dict[str, Metric]:
        """Metrics of marks, then those of ratings and decisions."""
        wafroc = METRICS["wafroc"]
        named = {
            name: replace(wafroc, name=name, title=title.format(self.false_marks))
            for name, title in _MARKED.items()
        }
        named["false_marks"] = replace(named["false_marks"], unbounded=True)
        ranked = replace(METRICS["auroc"], title="AUROC of the highest rating")
        return {"wafroc": wafroc, **named, **super().metrics, "auroc": ranked}

    def finds(self, rows: pd.DataFrame, counted: bool = False) -> tuple[LesionHits, Floats]:
        """Compare the marks of one reading or system with the lesions.

        Args:
            rows: Readings of one reader with one modality, or of a system.
            counted: True to use only the marks that count as called.

        Returns:
            The lesions with the marks that hit them, and the weights of the lesions, shape
            ``(lesions,)``.
        """
        reader = str(rows["reader"].iloc[0])
        modality = str(rows["modality"].iloc[0])
        key = reader, modality, counted and not self.marks["counted"].all()
        if key not in self._found:
            chosen = (self.marks["reader"] == reader) & (self.marks["modality"] == modality)
            marks = self.marks[chosen & self.marks["counted"] if key[2] else chosen]
            self._found[key] = self._find(marks, pd.Index(rows["case"]))
        return self._found[key]

    def _find(self, marks: pd.DataFrame, cases: pd.Index) -> tuple[LesionHits, Floats]:
        lesions = self.lesions
        positions = cases.get_indexer(pd.Index(lesions["case"]))
        # Lesions of these cases, ordered by case. Position -1 means that it is another case.
        order = np.argsort(positions, kind="stable")[(positions < 0).sum() :]
        lesions = lesions.iloc[order]
        image = positions[order]
        weight = 1 / np.bincount(image)[image]
        if "weight" in lesions:
            weight = lesions["weight"].to_numpy(np.float64)
        if "lesion" not in marks:
            boxes = marks.rename(columns={"case": "image_id", "rating": "score"})
            truth = lesions.rename(columns={"case": "image_id"})
            return find_lesions(pair_boxes(boxes, truth, cases), self.hit), weight
        named = pd.MultiIndex.from_frame(lesions[LESION])
        lesion = named.get_indexer(pd.MultiIndex.from_frame(marks[LESION]))
        rating = marks["rating"].to_numpy(np.float64)
        hits = lesion >= 0
        best = np.full(len(lesions), -np.inf)
        np.maximum.at(best, lesion[hits], rating[hits])
        of_marks = cases.get_indexer(pd.Index(marks["case"]))
        return LesionHits(image, best, of_marks, rating, ~hits, len(cases)), weight

    def figure(
        self, metric: str, rows: pd.DataFrame, owner: Integers
    ) -> Callable[[Integers], Floats]:
        """Prepare a figure of one reading or system for weights of patients.

        Args:
            metric: Short name of the metric, a key of `metrics`.
            rows: Readings of one reader with one modality, or of a system.
            owner: Patient of each row as an index from 0, shape ``(rows,)``.

        Returns:
            A function of patient weights, shape ``(R, patients)``, that returns the figure of each
            row of weights, shape ``(R,)``.
        """
        if metric != "wafroc" and metric not in _MARKED:
            return super().figure(metric, rows, owner)
        finds, weight = self.finds(rows, counted=metric in ("lesion_sensitivity", "false_marks"))
        n_patients = int(owner.max()) + 1
        if metric in ("wafroc", "afroc"):
            return WeightedAfroc(finds, weight if metric == "wafroc" else weight * 0 + 1, owner)
        if metric == "froc":
            froc = WeightedFroc(finds, owner, n_patients)
            rate = (self.false_marks,)
            return lambda weights: froc.figures(weights, rate)[:, 1]
        # Numerator and denominator: hit lesions of all lesions, or false positives of all images.
        part = owner[finds.mark_image[finds.false]]
        whole = owner
        if metric == "lesion_sensitivity":
            whole = owner[finds.lesion_image]
            part = whole[finds.best > -np.inf]
        upper, lower = (np.bincount(patients, minlength=n_patients) for patients in (part, whole))
        return lambda weights: np.asarray((weights @ upper) / (weights @ lower))
