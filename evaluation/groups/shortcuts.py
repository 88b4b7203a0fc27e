"""Shortcuts: predictions of the label from metadata and image borders alone, as a baseline.

A fact is something that is known about an image apart from the lungs, such as the view or the grey
levels at its border. If a fact predicts the label, a system may have learned the fact instead of
the disease.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy  # its parts load when they are first used

from cxr_compare.data_prep.contracts.ids import positions, renumber_codes
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.clustered_auroc import (
    AurocParts,
    auroc_over_seeds,
    auroc_parts,
    auroc_parts_of_levels,
)
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.folds import MOST_FOLDS, patient_folds
from cxr_compare.evaluation.statistics.logistic_regression import fit_logistic

SHORTCUT = "shortcut"
"""Topic in the failure table of the AUROC of facts, and name under which it has its rows."""
BEYOND_SHORTCUT = "beyond shortcut"
"""Topic in the failure table of a system's AUROC minus that of the strongest fact."""

_RARE_IMAGES = 20
_MIN_IMAGES = 20
_LEVELS = 256
_RIDGE = 1.0
_INTERCEPT_RIDGE = 1e-6
_SPREAD = 3**0.5  # factor that gives ranks from -1 to 1 a standard deviation of 1
_FIT_ROWS = 30_000
_PERSON = {"view": "view", "sex": "sex", "age_years": "age"}
_FILE = {
    "pixels": "image size",
    "aspect": "aspect ratio",
    "source": "source",
    "transfer_syntax": "transfer syntax",
    "photometric": "photometric interpretation",
    "bits": "bits",
    "spacing_col_mm": "pixel spacing",
}
# Facts about the whole image, which disease changes too. They are shown, but they count neither as
# metadata nor as borders.
_WHOLE_IMAGE = {
    "mean_grey": "mean brightness",
    "file_bytes": "file size",
}
_BORDER = "outer tenth of the image"
BORDER_GREY = "border_grey_"
"""Start of the names of columns that hold grey levels at the border of the image."""
_NUMBERS = {"age_years", "pixels", "aspect", "spacing_col_mm", "file_bytes", "mean_grey"}


@dataclass(frozen=True)
class Fact:
    """One fact about each image, such as its view, in the form that a logistic model needs.

    A fact becomes one or more numbers (predictors) for each image. Images with the same value of
    the fact share them.

    Attributes:
        name: Name of the fact as it is shown to people.
        codes: Row of `table` with the predictors of each image, int, shape ``(N,)``.
        table: Predictors for each distinct value of the fact, float64, shape
            ``(values, predictors)``.
        known: True for the images for which the fact is known, shape ``(N,)``.
    """

    name: str
    codes: np.ndarray
    table: np.ndarray
    known: np.ndarray

    @classmethod
    def from_values(cls, name: str, values: pd.Series) -> Fact | None:
        """Make a fact of a value for each image: floats for numbers, other types for categories.

        For numbers, the logistic model is a line in the ranks that bends at both terciles. For
        categories, each one has a weight; categories with fewer than 20 images are merged into one.
        Missing values are a category of their own. None if the fact is known for fewer than 20
        images, or the same for all images.
        """
        known = values.notna().to_numpy(dtype=bool)
        if known.sum() < _RARE_IMAGES:
            return None
        if pd.api.types.is_float_dtype(values):
            codes, table = _numeric(values.to_numpy(dtype="float64", na_value=np.nan), known)
        else:
            codes, table = _categorical(values, known)
        return cls(name, codes, table, known) if len(table) > 1 else None


@dataclass(frozen=True)
class TargetLabels:
    """Labels of one finding, with the cross-validation fold and the patient of each image.

    Attributes:
        positive: True for positive images, shape ``(N,)``.
        fold: Cross-validation fold of each image, from 0 to at most 4, the same for all images of a
            patient, shape ``(N,)``.
        patient: Patient of each image as a whole number from 0, shape ``(N,)``.
    """

    positive: np.ndarray
    fold: np.ndarray
    patient: np.ndarray

    @property
    def n_patients(self) -> int:
        """Number of patients: the largest number of a patient, plus 1."""
        return int(self.patient.max()) + 1

    def select(self, rows: np.ndarray) -> TargetLabels:
        """Select the labels of the images at these positions, in their order."""
        return TargetLabels(self.positive[rows], self.fold[rows], self.patient[rows])

    def auroc(self, scores: np.ndarray, folds: Integers | None) -> AurocParts | None:
        """Compute the AUROC of scores, comparing only images of the same fold.

        Without folds, all pairs of images are compared. None if no fold has both classes.
        """
        return auroc_parts(self.positive, scores, self.patient, self.n_patients, folds=folds)


def auroc_of_fact(fact: Fact, truth: TargetLabels) -> AurocParts | None:
    """Compute the AUROC with which one fact about the images predicts their labels.

    A logistic model predicts the labels of each cross-validation fold; it is fitted on the other
    folds. Pairs of images in the same fold count; None if no fold has both classes.
    """
    levels = len(fact.table)
    cells = truth.fold.astype(np.int64) * levels + fact.codes
    n, hits = (
        np.bincount(chosen, minlength=MOST_FOLDS * levels).reshape(MOST_FOLDS, levels)
        for chosen in (cells, cells[truth.positive])
    )
    weights = _fit(fact.table, n.sum(axis=0) - n, hits.sum(axis=0) - hits)
    return auroc_parts_of_levels(
        truth.positive,
        fact.codes,
        weights @ fact.table.T,
        truth.patient,
        truth.n_patients,
        folds=truth.fold,
    )


def auroc_of_facts(facts: Sequence[Fact], truth: TargetLabels) -> AurocParts | None:
    """Compute the AUROC with which several facts about the images together predict the labels.

    A logistic model predicts the labels of each cross-validation fold; it is fitted on the other
    folds, on a random sample of at most 30,000 images. Pairs of images in the same fold count; None
    if no fold has both classes.
    """
    scores = np.zeros(len(truth.positive))
    rng = np.random.default_rng(0)
    for fold in range(MOST_FOLDS):
        inside = truth.fold == fold
        scored = np.flatnonzero(inside)
        rows = np.flatnonzero(~inside)
        if len(rows) > _FIT_ROWS:
            rows = np.sort(rng.choice(rows, _FIT_ROWS, replace=False))
        design = np.hstack([fact.table[fact.codes[rows]] for fact in facts])
        weights = _fit(design, np.ones((1, len(rows))), truth.positive[rows][None])[0]
        parts = np.split(weights, np.cumsum([fact.table.shape[1] for fact in facts])[:-1])
        logits = np.zeros(len(scored))
        for fact, part in zip(facts, parts, strict=True):
            logits += (fact.table @ part)[fact.codes[scored]]
        scores[scored] = logits
    return truth.auroc(scores.round(9), truth.fold)


def _categorical(values: pd.Series, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes, names = pd.factorize(values)
    codes = np.where(known, codes, len(names))
    counts = np.bincount(codes, minlength=len(names) + 1)
    # A rare category would predict the labels of its few images by chance.
    rare = counts < _RARE_IMAGES
    rare[-1] &= counts[-1] == 0
    target = np.where(rare, len(counts), np.arange(len(counts)))
    used, codes = renumber_codes(target[codes])
    return codes, np.eye(len(used))


def _numeric(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    some = values[known]
    level_of_known, edges = pd.factorize(some, sort=True)
    level_of_known += 1
    if len(edges) > _LEVELS:
        edges = np.unique(np.quantile(some, np.arange(1, _LEVELS) / _LEVELS))
        level_of_known = np.searchsorted(edges, some, side="right")
    levels = len(edges) + 1
    codes = np.full(len(values), levels)
    codes[known] = level_of_known
    counts = np.bincount(codes[known], minlength=levels)
    # Ranks are used instead of values, because a single extreme value would make all other values
    # nearly equal.
    rank = _SPREAD * ((np.cumsum(counts) - counts / 2) / known.sum() * 2 - 1)
    rank = np.append(rank, 0.0)
    bends = (-_SPREAD / 3, _SPREAD / 3)
    columns = [rank, *(np.maximum(rank - bend, 0) for bend in bends)]
    table = np.stack([*columns, np.zeros(levels + 1)], axis=1)
    table[levels] = 0
    table[levels, -1] = 1  # missing values get a weight of their own
    used, codes = renumber_codes(codes)
    return codes, table[used]


def _fit(design: Floats, n: np.ndarray, hits: np.ndarray) -> Floats:
    """Fit logistic regressions with a ridge penalty, so that every coefficient is determined."""
    design = np.column_stack([np.ones(len(design)), design])
    ridge = np.append(_INTERCEPT_RIDGE, np.full(design.shape[1] - 1, _RIDGE))
    start = np.zeros((len(n), design.shape[1]))
    start[:, 0] = scipy.special.logit((hits.sum(axis=1) + 0.5) / (n.sum(axis=1) + 1))
    mass = n.astype(np.float64)
    fit = fit_logistic(design, mass, hits @ design, start=start, ridge=ridge)
    return fit.coefficients[:, 1:]


def measure_shortcuts(
    images: pd.DataFrame,
    facts: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    systems: Mapping[str, Sequence[Floats]] | None = None,
) -> list[dict[str, Any]]:
    """Measure how well facts about the images, such as view or sex, predict each finding.

    The logistic model of a fact is fitted on four fifths of the patients and evaluated on the
    others, in turn. The AUROC compares only pairs of images of the same fold. Sibling images, which
    are the other images of the same patient, need no model: the prediction is their mean label, or
    the overall mean if the patient has no other image.

    `images` has ``image_id``, ``patient_id`` and columns of facts about the person and the file.
    `facts` has further facts by image id, which replace columns of the same name; those that begin
    with ``border_grey_`` are grey levels at the border of the image. `labels` has one column for
    each finding, by image id: 1.0, 0.0, or NaN for unknown. `systems` has the scores of systems
    that are compared with the facts, ``(images,)`` for each training seed.

    Each finding and fact gives a dictionary, the highest AUROC first, with ``target`` (finding),
    ``fact``, ``kind`` (``person``, ``file``, ``picture`` for the whole image, ``border``,
    ``together`` for all facts of the kinds person, file and border, or ``siblings``), ``auroc``,
    ``ci_low``, ``ci_high``, ``n_images``, ``n_positive`` and ``n_known``, the number of images for
    which the fact is known. Facts that are the same for all images are left out, and so are
    findings with fewer than 20 images of a class. If systems are given, ``beyond`` has, by system,
    its AUROC minus that of the fact on the same pairs of images. It is left out for siblings, and
    for the border if it is known for some images only.

    Example:
        >>> images = pd.DataFrame({"image_id": [str(n) for n in range(400)],
        ...     "patient_id": [str(n) for n in range(400)], "view": ["AP", "PA"] * 200})
        >>> labels = pd.DataFrame({"mass": [1.0, 0.0] * 200}, index=images["image_id"])
        >>> [(row["fact"], row["auroc"]) for row in measure_shortcuts(
        ...     images, pd.DataFrame(), labels)]
        [('view', 1.0)]
    """
    rows_of_images = positions(images["image_id"], facts.index)
    of_images = pd.DataFrame(
        {
            name: column.array.take(rows_of_images, allow_fill=True)
            for name, column in facts.items()
        },
        index=images.index,
    )
    single = _facts(images, of_images)
    border = _border_facts(of_images)
    patient, names = pd.factorize(images["patient_id"])
    fold = patient_folds(np.asarray(names, dtype=object))[patient]
    rows = []
    unlabelled = np.full((1, labels.shape[1]), np.nan)  # at row -1, of an image without a label
    labels_of_rows = np.vstack([labels.to_numpy(np.float64), unlabelled])
    truths = labels_of_rows[positions(images["image_id"], labels.index)]
    for column, target in enumerate(labels.columns):
        truth = truths[:, column]
        known = np.flatnonzero(~np.isnan(truth))
        positive = truth[known] == 1
        if min(positive.sum(), (~positive).sum()) < _MIN_IMAGES:
            continue
        evaluated = TargetLabels(positive, fold[known], patient[known])
        for kind, name, n_known, parts in _evaluate(single, border, known, evaluated):
            if parts is None:
                continue
            auroc = parts.estimate() if kind == "siblings" else _add_fold_variance(parts.estimate())
            row = {
                "target": str(target),
                "fact": name,
                "kind": kind,
                "auroc": auroc.estimate,
                "ci_low": auroc.ci_low if auroc.has_interval else None,
                "ci_high": auroc.ci_high if auroc.has_interval else None,
                "n_images": len(known),
                "n_positive": int(positive.sum()),
                "n_known": n_known,
            }
            # Systems are not compared with siblings, whose AUROC is over all pairs of images, nor
            # with the border if it is known for some images only.
            everywhere = kind != "siblings" and (kind != "border" or n_known == len(known))
            if systems is not None and everywhere:
                row["beyond"] = _beyond(systems, parts, known, evaluated)
            rows.append(row)
    order = {str(target): rank for rank, target in enumerate(labels.columns)}
    return sorted(rows, key=lambda row: (order[row["target"]], -row["auroc"]))


def _add_fold_variance(
    estimate: ClusteredEstimate, guess: ClusteredEstimate | None = None
) -> ClusteredEstimate:
    """Add the variance that comes from fitting a model for each of the five folds.

    Each model is fitted on the images of the other folds, so the folds are not independent. For the
    difference of a system and a fact, the added variance is that of the fact. The number of folds
    is taken as five even if fewer folds have both classes. If only those were counted, noise was
    called a shortcut more often: in 17 instead of 15 % of simulated sets with 3 positive patients.
    With 20 positive patients it was never above 2 %.

    Source:
        Nadeau and Bengio 2003: the variance grows by ``folds x test share / training share``.
    """
    added = (guess or estimate).error
    if not estimate.error or not added:
        return estimate
    of_models = MOST_FOLDS / (MOST_FOLDS - 1) * added**2
    return replace(estimate, error=float(np.sqrt(estimate.error**2 + of_models)))


def _beyond(
    systems: Mapping[str, Sequence[Floats]],
    guess: AurocParts,
    known: np.ndarray,
    truth: TargetLabels,
) -> dict[str, ClusteredEstimate]:
    """Estimate the AUROC of each system, as the mean over its seeds, minus that of a fact."""
    differences = {}
    for name, seeds in systems.items():
        parts = [truth.auroc(np.asarray(scores)[known], truth.fold) for scores in seeds]
        defined = [part for part in parts if part is not None]
        difference = auroc_over_seeds(defined, [guess])
        differences[name] = _add_fold_variance(difference, guess.estimate())
    return differences


def _facts(images: pd.DataFrame, decoded: pd.DataFrame) -> list[tuple[str, Fact]]:
    """Return the kind and the values of each fact that differs between images."""
    table: dict[str, pd.Series] = {str(c): images[c] for c in (*_PERSON, *_FILE) if c in images}
    table |= {str(c): decoded[c] for c in decoded if not str(c).startswith(BORDER_GREY)}
    if {"width", "height"} <= set(images.columns):
        width, height = (images[c].astype("float64") for c in ("width", "height"))
        table |= {"pixels": width * height, "aspect": width / height}
    facts = []
    for kind, names in (("person", _PERSON), ("file", _FILE), ("picture", _WHOLE_IMAGE)):
        for column, name in names.items():
            values = table.get(column)
            if values is None:
                continue
            fact = Fact.from_values(
                name, values.astype("float64") if column in _NUMBERS else values
            )
            if fact is not None:
                facts.append((kind, fact))
    return facts


def _border_facts(decoded: pd.DataFrame) -> list[Fact]:
    """Return the grey levels at the image border as facts, one for each piece of the border."""
    pieces = [name for name in decoded if str(name).startswith(BORDER_GREY)]
    facts = [Fact.from_values(_BORDER, decoded[name].astype("float64")) for name in pieces]
    return [fact for fact in facts if fact is not None]


def _select(fact: Fact, rows: np.ndarray) -> Fact:
    """Return a fact for some of the images."""
    return Fact(fact.name, fact.codes[rows], fact.table, fact.known[rows])


class _EvaluatedFact(NamedTuple):
    """Fact, or several facts together, with the AUROC with which the label is predicted."""

    kind: str
    name: str
    n_known: int  # number of images for which the fact is known
    parts: AurocParts | None


def _evaluate(
    facts: list[tuple[str, Fact]], border: list[Fact], known: np.ndarray, truth: TargetLabels
) -> list[_EvaluatedFact]:
    """Evaluate each fact, facts together, the image border and sibling images."""
    chosen = [(kind, _select(fact, known)) for kind, fact in facts]
    evaluated = [
        _EvaluatedFact(kind, fact.name, int(fact.known.sum()), auroc_of_fact(fact, truth))
        for kind, fact in chosen
    ]
    person = [fact for kind, fact in chosen if kind == "person"]
    combined = [fact for kind, fact in chosen if kind != "picture"]
    n_images = len(known)
    if len(person) > 1:
        name = " + ".join(fact.name for fact in person)
        evaluated.append(_EvaluatedFact("person", name, n_images, auroc_of_facts(person, truth)))
    n_kinds = len(combined)
    measured = np.flatnonzero(border[0].known[known]) if border else np.array([], dtype=int)
    edge = _auroc_of_edge(border, known[measured], truth.select(measured))
    if edge is not None:
        evaluated.append(_EvaluatedFact("border", _BORDER, len(measured), edge))
        if len(measured) == n_images:  # a missing border shows when an image was prepared
            combined += [_select(piece, known) for piece in border]
            n_kinds += 1
    if n_kinds > max(len(person), 1):
        together = auroc_of_facts(combined, truth)
        name = "all metadata and borders"
        evaluated.append(_EvaluatedFact("together", name, n_images, together))
    siblings = _sibling_means(truth)
    if not np.isnan(siblings).all():
        scores = np.where(np.isnan(siblings), truth.positive.mean(), siblings)
        n_siblings = int((~np.isnan(siblings)).sum())
        auroc = truth.auroc(scores.round(9), None)
        evaluated.append(_EvaluatedFact("siblings", "sibling images", n_siblings, auroc))
    return evaluated


def _auroc_of_edge(border: list[Fact], rows: np.ndarray, truth: TargetLabels) -> AurocParts | None:
    """Compute the AUROC of the grey levels at the border, on images for which they are known."""
    if min(truth.positive.sum(), (~truth.positive).sum()) < _MIN_IMAGES:
        return None
    return auroc_of_facts([_select(piece, rows) for piece in border], truth)


def _sibling_means(truth: TargetLabels) -> np.ndarray:
    """Compute the mean label of the other images of the same patient; NaN if there are none."""
    count = np.bincount(truth.patient)[truth.patient] - 1
    total = np.bincount(truth.patient, weights=truth.positive)[truth.patient] - truth.positive
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
