"""The steps of `cxr tune`: from validation rows to calibrated scores, each choosing one thing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.contracts.tables import InputError
from data_prep.store.dataset import DataSet, Target
from data_prep.store.predictions import Predictions
from evaluation.boxes.map_boxes import MapBoxRule
from evaluation.decisions.choices import (
    CHOOSE,
    Asked,
    ReducedScores,
    calibrate,
    choose_among,
    choose_box_cut,
    choose_map_boxes,
    choose_reduction,
)
from evaluation.decisions.decision import Decision
from evaluation.decisions.map_search import MapSearchResult, search_map_boxes
from evaluation.decisions.search import SweepResult, sweep
from evaluation.decisions.search_space import Search
from evaluation.decisions.sweep_images import sweep_images
from evaluation.decisions.system_output import Evidence, images_run, patients_of
from evaluation.decisions.units import Unit, gather
from evaluation.statistics.bootstrap import cluster_index
from evaluation.statistics.calibration import Calibration
from evaluation.statistics.calibration_fits import choose_calibration, fit_platt
from evaluation.statistics.cross_validation import patient_folds

Advance = Callable[[int], None] | None


@dataclass(frozen=True)
class ValidationRows:
    """The validation images that a system ran on and whose label is known.

    Attributes:
        labels: Of every validation image, NaN where unknown.
        y_true: Of the images that count, by image id.
        counts: How many images, patients and positives, and how many the system did not run on.
    """

    labels: pd.Series
    y_true: pd.Series
    counts: dict[str, Any]

    @property
    def image_ids(self) -> pd.Index:
        """The images that count, sorted."""
        return self.y_true.index


@dataclass(frozen=True)
class ScoredImages:
    """One score per validation image.

    Attributes:
        evidence: What the system says, with its boxes fused as chosen.
        reduced: The scores, and how boxes became them.
        swept: The search over boxes, where there was one.
        folds: Of patients, where a choice needs them.
    """

    evidence: Evidence
    reduced: ReducedScores
    swept: SweepResult | None = None
    folds: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Places:
    """How boxes are read from maps, and from which score they are called."""

    scale: tuple[float, float] | None
    rule: MapBoxRule | None
    cut: float | None
    tried: list[dict[str, Any]]
    record: dict[str, Any] | None


@dataclass(frozen=True)
class JudgedScores:
    """What thresholds are chosen on: images, studies or patients."""

    y_true: pd.Series
    scores: pd.Series
    spread: pd.Series | None
    folds: npt.NDArray[np.int64] | None


@dataclass(frozen=True)
class Told:
    """What a decision tells of its choices, and of its search."""

    choices: dict[str, Any] = field(default_factory=dict)
    searched: dict[str, Any] = field(default_factory=dict)


def validation_rows(
    predictions: Predictions, dataset: DataSet, target: Target, split: str
) -> ValidationRows:
    """Find the validation images of a split that a decision may be chosen on."""
    labels = dataset.labels(target).reindex(dataset.image_ids("val", split))
    known = labels.dropna()
    ran = known.index.intersection(images_run(predictions)).sort_values()
    y_true = known.reindex(ran)
    counts = {
        "role": "val",
        "n_images": len(ran),
        "n_patients": cluster_index(patients_of(dataset.images, ran))[1],
        "n_positive": int(y_true.sum()),
        "n_not_run": len(known) - len(ran),
    }
    return ValidationRows(labels, y_true, counts)


def validation_scores(
    system: Predictions, decision: Decision, dataset: DataSet, target: Target, split: str
) -> pd.DataFrame:
    """Score the validation images as the test images are scored.

    Args:
        system: Its predictions.
        decision: Its reduction and fusion.
        dataset: Labels and split.
        target: What is judged.
        split: Name of the split.

    Returns:
        ``label`` and ``score`` by image id; empty where it ran on no validation image.
    """
    rows = validation_rows(system, dataset, target, split)
    if not len(rows.image_ids):
        return pd.DataFrame({"label": [], "score": []}, dtype=np.float64)
    evidence = Evidence(system, target, rows.image_ids, decision.boxes, dataset.images)
    return pd.DataFrame({"label": rows.y_true, "score": evidence.scores(decision.reduction)})


def score_images(
    evidence: Evidence,
    rows: ValidationRows,
    dataset: DataSet,
    search: Search | None,
    asked: Asked,
    advance: Advance,
) -> ScoredImages:
    """Choose how boxes become an image score; a search chooses their fusion and scale, too."""
    folds, patients = None, patients_of(dataset.images, rows.image_ids)
    if asked.reductions or asked.calibration == CHOOSE:
        folds = patient_folds(patients, rows.y_true.to_numpy() == 1)
    if search is not None and evidence.gives_boxes:
        found = sweep(sweep_images(evidence, rows.y_true, dataset), search, advance)
        fused = Evidence(
            evidence.predictions, evidence.target, rows.image_ids, found.rule, dataset.images
        )
        reduced = ReducedScores(found.reduction, fused.scores(found.reduction), found.best)
        return ScoredImages(fused, reduced, found, folds)
    if asked.reductions and folds is not None:
        reduced = choose_among(evidence, rows.y_true, asked.reductions, folds)
    else:
        reduced = choose_reduction(evidence, rows.y_true, patients)
    return ScoredImages(evidence, reduced, None, folds)


def read_places(
    scored: ScoredImages,
    rows: ValidationRows,
    dataset: DataSet,
    search: Search | None,
    advance: Advance,
) -> Places:
    """Choose how a classifier's maps become boxes, and the score from which boxes are called."""
    evidence, scores = scored.evidence, scored.reduced.scores
    scale, rule, tried = choose_map_boxes(evidence, scores, dataset)
    read = None
    if search is not None and scored.swept is None:
        read = _search_maps(evidence, rows.y_true, scores, scale, dataset, search, advance)
        rule, tried = read.rule, read.best
    chosen_by = scored.swept or read
    if chosen_by is not None:
        return Places(scale, rule, chosen_by.cut, tried, dict(chosen_by.record))
    cut = choose_box_cut(evidence, evidence.boxes(scores, scale, rule), dataset)
    return Places(scale, rule, cut, tried, None)


def gather_units(
    scored: ScoredImages, rows: ValidationRows, dataset: DataSet, unit: Unit, asked: Asked
) -> JudgedScores:
    """Turn images into studies or patients, which score as the highest of their images."""
    y_true, scores, folds = rows.y_true, scored.reduced.scores, scored.folds
    spread = scored.evidence.spread() if asked.refer else None
    if unit == "image":
        return JudgedScores(y_true, scores, spread, folds)
    units = gather(dataset.images, rows.labels, rows.image_ids, unit)

    def highest(values: pd.Series) -> pd.Series:
        return pd.Series(units.highest(values), units.names)

    return JudgedScores(
        highest(y_true),
        highest(scores),
        None if spread is None else highest(spread),
        None if folds is None else units.first(folds),
    )


def calibrate_scores(
    judged: JudgedScores, scored: ScoredImages, asked: Asked, unit: Unit
) -> tuple[Calibration | None, Told]:
    """Choose how scores become probabilities: as asked, by a search's folds, else by Platt."""
    reduction = scored.reduced.record
    choices = {} if reduction is None else {"reduction": reduction}
    truth, scores = judged.y_true, judged.scores
    if asked.calibration is not None:
        calibration, losses = calibrate(asked.calibration, truth, scores, judged.folds)
        choices |= {} if losses is None else {"calibration": losses}
        return calibration, Told(choices)
    if scored.swept is not None and unit == "image":
        calibration, record = choose_calibration(truth, scores, scored.swept.folds)
        return calibration, Told(choices, {"calibration": record})
    return fit_platt(truth, scores), Told(choices)


def _search_maps(
    evidence: Evidence,
    y_true: pd.Series,
    scores: pd.Series,
    scale: tuple[float, float] | None,
    dataset: DataSet,
    search: Search,
    advance: Advance,
) -> MapSearchResult:
    if evidence.maps is None or scale is None:
        system = evidence.predictions
        raise InputError(
            f"{system.folder}: {system.name} gives neither boxes nor maps, so there is nothing to "
            "search; tune it without --search"
        )
    images = sweep_images(evidence, y_true, dataset)
    return search_map_boxes(images, evidence.maps, scores, scale, search, advance)
