"""Checked readings of a reader study, and its figures under weights of patients."""

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


_RATED = ("auroc",)


DECIDED = ("balanced_accuracy", "recall", "specificity", "accuracy", "f1")
"""Figures of decisions; all others are of ratings or marks."""


_MARKED = {
    "afroc": "AFROC",
    "froc": "FROC: lesion sensitivity at {:g} false positives per image",
    "lesion_sensitivity": "Lesion sensitivity",
    "false_marks": "False positives per image",
}
"""Titles of figures of marks, beside the weighted AFROC."""


@dataclass(frozen=True)
class ReaderStudy:
    """Checked readings of the same cases, with their truth."""

    truth: pd.DataFrame  # label (bool) and patient by case, of cases that somebody read
    readings: pd.DataFrame  # reader, modality, case and rating, decision (0 or 1) or both
    systems: pd.DataFrame  # the same of stand-alone systems, by name as reader
    notes: tuple[str, ...] = ()

    @property
    def metrics(self) -> dict[str, Metric]:
        """Figures that the readings allow, in reading order; the first is the primary one."""
        named = (*(_RATED if self.has_ratings else ()), *(DECIDED if self.has_decisions else ()))
        return {name: METRICS[name] for name in named}

    def figure(
        self, metric: str, rows: pd.DataFrame, owner: Integers
    ) -> Callable[[Integers], Floats]:
        """Return a function from weights of patients to a figure of one reading or system.

        Args:
            metric: Short name of the figure.
            rows: Readings of one reader with one modality, or of a system.
            owner: Patient of each row as an index from 0, shape ``(rows,)``.
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
        """Modalities in the order of the file."""
        return list(self._readers)

    def readers(self, modality: str) -> list[str]:
        """Return the readers of a modality in the order of the file."""
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
        """True if readings are ratings, so that there is an AUROC."""
        return "rating" in self.readings

    @property
    def has_decisions(self) -> bool:
        """True if readings are called positive or negative."""
        return "decision" in self.readings


@dataclass(frozen=True, kw_only=True)
class MarkedStudy(ReaderStudy):
    """Study with marks. A case's rating is its own, else that of its highest mark."""

    # ``reader``, ``modality``, ``case``, ``rating``, ``counted`` (in the lesion sensitivity and the
    # false marks), and ``lesion`` ("" of a false mark) or edges in px.
    marks: pd.DataFrame
    # ``case``, ``lesion`` (its name) and, maybe, ``weight`` (they sum to 1 a case) and edges in px.
    lesions: pd.DataFrame
    hit: HitRule = HIT_RULES["centre"]  # when a mark with edges hits
    false_marks: float = 0.5  # false positives per image at which FROC gives the sensitivity
    _found: dict[tuple[str, str, bool], tuple[LesionHits, Floats]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def metrics(self) -> dict[str, Metric]:
        """Figures of marks, then those of ratings and decisions."""
        wafroc = METRICS["wafroc"]
        named = {
            name: replace(wafroc, name=name, title=title.format(self.false_marks))
            for name, title in _MARKED.items()
        }
        named["false_marks"] = replace(named["false_marks"], unbounded=True)
        ranked = replace(METRICS["auroc"], title="AUROC of the highest rating")
        return {"wafroc": wafroc, **named, **super().metrics, "auroc": ranked}

    def finds(self, rows: pd.DataFrame, counted: bool = False) -> tuple[LesionHits, Floats]:
        """Return what the marks of one reading found, and the weights of lesions.

        Args:
            rows: Readings of one reader with one modality, or of a system.
            counted: Use only marks that count as called.
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
        # The lesions of these cases, ordered by case; position -1 is no such case.
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
        """Return a function from weights of patients to a figure of one reading or system."""
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
        # How many are counted of how many: lesions that a mark found, or false marks per image.
        part = owner[finds.mark_image[finds.false]]
        whole = owner
        if metric == "lesion_sensitivity":
            whole = owner[finds.lesion_image]
            part = whole[finds.best > -np.inf]
        upper, lower = (np.bincount(patients, minlength=n_patients) for patients in (part, whole))
        return lambda weights: np.asarray((weights @ upper) / (weights @ lower))
