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
    """Readings of the same cases by several readers, checked and joined with the true labels.

    A reading is the rating or the decision of a reader on a case. A modality is a way of reading,
    such as with or without a system's help; a system is a program.

    Attributes:
        truth: Columns ``label`` (True if the disease is present) and ``patient`` of all cases that
            were read; the index is the name of the case.
        readings: Columns ``reader``, ``modality``, ``case``, and ``rating`` (higher for disease),
            ``decision`` (1 for positive, 0 for negative) or both; one row for each reading.
        systems: Results of systems that read the cases alone, in the same columns; ``reader`` is
            the name of the system and ``modality`` is empty. It has no rows without a system.
        notes: Sentences on cases that were not read; may be empty.
    """

    truth: pd.DataFrame
    readings: pd.DataFrame
    systems: pd.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def metrics(self) -> dict[str, Metric]:
        """Metrics that can be computed from these readings, by short name, such as ``auroc``.

        The conclusions of the study are drawn from the first one.
        """
        named = (*(_RATED if self.has_ratings else ()), *(DECIDED if self.has_decisions else ()))
        return {name: METRICS[name] for name in named}

    def figure(
        self, metric: str, rows: pd.DataFrame, owner: Integers
    ) -> Callable[[Integers], Floats]:
        """Return a function that computes a metric of one reader or system with weighted patients.

        The function is called for many sets of weights. A bootstrap, for example, weights each
        patient by the number of times that the patient was drawn.

        `metric` is a key of `metrics`. `rows` are readings of one reader in one modality, or
        results of one system, and `owner` is the patient of each, a number from 0. The function
        takes patient weights, ``(R, patients)``, and returns the metric for each row of weights,
        ``(R,)``.

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
        """Names of the modalities: ways of reading, such as with and without a system's help."""
        return list(self._readers)

    def readers(self, modality: str) -> list[str]:
        """Return the readers who read with a modality, in the order of the readings."""
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
        """True if readers rated the cases, so that an AUROC can be computed."""
        return "rating" in self.readings

    @property
    def has_decisions(self) -> bool:
        """True if readers called each case positive or negative."""
        return "decision" in self.readings


@dataclass(frozen=True, kw_only=True)
class MarkedStudy(ReaderStudy):
    """Reader study in which readers mark suspicious locations of a case and rate each mark.

    The rating of a case is the reader's rating of the whole case if there is one, else the highest
    rating of its marks.

    Attributes:
        marks: Columns ``reader``, ``modality`` (way of reading), ``case``, ``rating`` (higher for
            disease), and ``counted`` (True if the mark is rated high enough to count in the lesion
            sensitivity and in the false positives per image). The location is ``lesion`` (name of
            the lesion that the mark hits, empty for a false positive) or the edges ``x1``, ``y1``,
            ``x2``, ``y2`` in px.
        lesions: True lesions, with the columns ``case``, ``lesion`` (name within the case) and, if
            known, ``weight`` (importance; the weights of a case add up to 1) and the edges ``x1``,
            ``y1``, ``x2``, ``y2`` in px.
        hit: Rule that decides whether a mark with edges hits a lesion, such as: the mark's centre
            lies in the lesion's box.
        false_marks: Number of false positives per image at which the sensitivity is read from the
            FROC curve.

    Example:
        >>> from cxr_compare.studies.readers.readings import join_marks
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
        """Metrics that can be computed, by short name: first those of marks, then those of cases.

        The metrics of cases use ratings and decisions. The conclusions of the study are drawn from
        the first metric.
        """
        wafroc = METRICS["wafroc"]
        named = {
            name: replace(wafroc, name=name, title=title.format(self.false_marks))
            for name, title in _MARKED.items()
        }
        named["false_marks"] = replace(named["false_marks"], unbounded=True)
        ranked = replace(METRICS["auroc"], title="AUROC of the highest rating")
        return {"wafroc": wafroc, **named, **super().metrics, "auroc": ranked}

    def finds(self, rows: pd.DataFrame, counted: bool = False) -> tuple[LesionHits, Floats]:
        """Find which lesions the marks of one reader or system hit.

        `rows` are readings of one reader in one modality, or results of one system; they say whose
        marks are used, and on which cases. `counted` uses only the marks that are rated high enough
        to count. The weights of the lesions are ``(lesions,)``.
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
        """Return a function of patient weights for a metric, as `ReaderStudy.figure` does."""
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
