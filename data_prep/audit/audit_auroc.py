"""How well one fact, or several, predict a label: cross-validated by patient, with an interval.

A fact is kept as one code an image and a small table of what each code says, so that a million
images are counted once and the fitting is done on the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.special import expit, logit, ndtri

FOLDS = 5
_RARE_IMAGES = 20
_LEVELS = 256
_RIDGE = 1.0
_STEPS = 25
_SPREAD = 3**0.5  # ranks from -1 to 1 times this have a standard deviation of 1
_FIT_ROWS = 30_000
_Z95 = float(ndtri(0.975))


@dataclass(frozen=True)
class Fact:
    """One fact about each image.

    Attributes:
        name: What it is, for a person.
        codes: Which row of the table says it, int, shape ``(N,)``.
        table: Predictors, float64, shape ``(levels, columns)``.
        known: Whether the fact is known, bool, shape ``(N,)``.
    """

    name: str
    codes: np.ndarray
    table: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, name: str, values: pd.Series) -> Fact | None:
        """Make a fact of numbers or of categories; None if it says the same of all.

        Of numbers, a logistic model bends at the terciles; categories with fewer than 20 images
        are one; a missing value is a category of its own.

        Example:
            >>> Fact.of("view", pd.Series(["AP"] * 20 + ["PA"] * 20)).table.tolist()
            [[1.0, 0.0], [0.0, 1.0]]
            >>> Fact.of("view", pd.Series(["AP"] * 40)) is None
            True
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
class Auroc:
    """An area under the ROC curve.

    Attributes:
        value: 0 to 1.
        low: Lower end of the 95 % interval; None where the classes are wholly apart.
        high: Upper end.
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Truth:
    """The labels of a target, and what belongs together.

    Attributes:
        positive: bool, shape ``(N,)``.
        fold: 0 to ``FOLDS - 1``, the same for all images of a patient, shape ``(N,)``.
        patient: Codes from 0, shape ``(N,)``.
    """

    positive: np.ndarray
    fold: np.ndarray
    patient: np.ndarray

    def of(self, rows: np.ndarray) -> Truth:
        """The labels of some of the images."""
        return Truth(self.positive[rows], self.fold[rows], self.patient[rows])

    @cached_property
    def rows(self) -> list[np.ndarray]:
        """The images of each fold that has any."""
        found = [np.flatnonzero(self.fold == fold) for fold in range(FOLDS)]
        return [rows for rows in found if len(rows)]

    @cached_property
    def n_patients(self) -> int:
        """How many patients there are."""
        return int((np.bincount(self.patient) > 0).sum())


def patient_folds(patients: pd.Series, seed: int = 0) -> np.ndarray:
    """Deal patients to folds by a hash of their id: the same in whatever company they come.

    Example:
        >>> folds = patient_folds(pd.Series(["p", "q", "p"]))
        >>> bool(folds[0] == folds[2])
        True
    """
    key = f"{seed:016d}"
    return (pd.util.hash_array(patients.to_numpy(), hash_key=key) % FOLDS).astype(np.int8)


def auroc_of_fact(fact: Fact, truth: Truth) -> Auroc | None:
    """AUROC of a label guessed from one fact, by a model of the other folds' patients.

    Args:
        fact: Its codes are those of the truth's images.
        truth: The labels.

    Returns:
        None where no fold has both classes. An idle fact gives about 0.5.
    """
    levels = len(fact.table)
    cells = truth.fold.astype(np.int64) * levels + fact.codes
    n = np.bincount(cells, minlength=FOLDS * levels).reshape(FOLDS, levels)
    hits = np.bincount(cells[truth.positive], minlength=FOLDS * levels).reshape(FOLDS, levels)
    ranks = np.empty((FOLDS, levels), dtype=np.int64)
    for fold in range(FOLDS):
        weights = _fit(fact.table, n.sum(axis=0) - n[fold], hits.sum(axis=0) - hits[fold])
        ranks[fold] = np.unique(fact.table @ weights[1:], return_inverse=True)[1]
    return clustered_auroc(ranks[truth.fold, fact.codes], truth)


def auroc_of_facts(facts: Sequence[Fact], truth: Truth, seed: int = 0) -> Auroc | None:
    """As `auroc_of_fact`, of several facts in one logistic model.

    Args:
        facts: Their codes are those of the truth's images.
        truth: The labels.
        seed: Of the sample of 30,000 images that each fold's model is fitted to.
    """
    scores = np.zeros(len(truth.positive))
    rng = np.random.default_rng(seed)
    for fold in range(FOLDS):
        inside = truth.fold == fold
        rows = np.flatnonzero(~inside)
        if len(rows) > _FIT_ROWS:
            rows = np.sort(rng.choice(rows, _FIT_ROWS, replace=False))
        design = np.hstack([fact.table[fact.codes[rows]] for fact in facts])
        weights = _fit(design, np.ones(len(rows)), truth.positive[rows])[1:]
        parts = np.split(weights, np.cumsum([fact.table.shape[1] for fact in facts])[:-1])
        for fact, part in zip(facts, parts, strict=True):
            scores[inside] += (fact.table @ part)[fact.codes[inside]]
    return clustered_auroc(np.unique(scores.round(9), return_inverse=True)[1], truth)


def clustered_auroc(ranks: np.ndarray, truth: Truth) -> Auroc | None:
    """AUROC over pairs of images in one fold, with an interval for images grouped in patients.

    The variance is that of the structural components of DeLong, summed by patient (Obuchowski
    1997); the interval is taken on the logit. Pairs across folds are not compared, since their
    scores come from different models.

    Args:
        ranks: int, shape ``(N,)``: the order of the scores; equal scores, equal ranks.
        truth: The labels.

    Returns:
        None where no fold has both classes.

    Example:
        >>> truth = Truth(np.array([True, False, True, False]), np.zeros(4, int), np.arange(4))
        >>> clustered_auroc(np.array([3, 2, 1, 0]), truth).value
        0.75
    """
    wins, pairs = 0.0, 0.0
    gain, share = np.zeros(len(ranks)), np.zeros(len(ranks))
    for rows in truth.rows:
        rank, positive = ranks[rows], truth.positive[rows]
        levels = int(rank.max()) + 1
        above = np.bincount(rank[positive], minlength=levels)
        below = np.bincount(rank[~positive], minlength=levels)
        beaten = np.cumsum(below) - below / 2
        beating = above.sum() - np.cumsum(above) + above / 2
        gain[rows] = np.where(positive, beaten[rank], beating[rank])
        share[rows] = np.where(positive, below.sum(), above.sum())
        wins += float((above * beaten).sum())
        pairs += float(above.sum()) * float(below.sum())
    if not pairs:
        return None
    value = wins / pairs
    by_patient = np.bincount(truth.patient, weights=(gain - value * share) / pairs)
    n_patients = max(truth.n_patients, 2)
    error = float(np.sqrt((by_patient**2).sum() * n_patients / (n_patients - 1)))
    if not 0 < value < 1 or error == 0:
        return Auroc(value, None, None)
    reach = _Z95 * error / (value * (1 - value))
    return Auroc(value, float(expit(logit(value) - reach)), float(expit(logit(value) + reach)))


def _categorical(values: pd.Series, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes, names = pd.factorize(values)
    codes = np.where(known, codes, len(names))
    counts = np.bincount(codes, minlength=len(names) + 1)
    # Rare categories would each predict their own few images by chance.
    rare = counts < _RARE_IMAGES
    rare[-1] &= counts[-1] == 0
    target = np.where(rare, len(counts), np.arange(len(counts)))
    used, codes = np.unique(target[codes], return_inverse=True)
    return codes, np.eye(len(used))


def _numeric(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    some = values[known]
    edges = np.unique(some)
    if len(edges) > _LEVELS:
        edges = np.unique(np.quantile(some, np.arange(1, _LEVELS) / _LEVELS))
    codes = np.where(known, np.searchsorted(edges, np.nan_to_num(values), side="right"), 0)
    levels = len(edges) + 1
    codes = np.where(known, codes, levels)
    counts = np.bincount(codes[known], minlength=levels)
    # Ranks, not values: one picture of another size would else press all others together.
    rank = _SPREAD * ((np.cumsum(counts) - counts / 2) / known.sum() * 2 - 1)
    rank = np.append(rank, 0.0)
    bends = (-_SPREAD / 3, _SPREAD / 3)
    columns = [rank, *(np.maximum(rank - bend, 0) for bend in bends)]
    table = np.stack([*columns, np.zeros(levels + 1)], axis=1)
    table[levels] = 0
    table[levels, -1] = 1  # what is missing gets a weight of its own
    used, codes = np.unique(codes, return_inverse=True)
    return codes, table[used]


def _fit(design: np.ndarray, n: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Logistic regression by Newton's method, with a ridge that settles what the data do not.

    Args:
        design: Predictors, shape ``(R, C)``.
        n: Images of each row, shape ``(R,)``.
        hits: How many of them are positive.

    Returns:
        Constant and weights, shape ``(C + 1,)``.
    """
    total, positive = float(n.sum()), float(hits.sum())
    design = np.hstack([np.ones((len(design), 1)), design])
    ridge = np.full(design.shape[1], _RIDGE)
    ridge[0] = 1e-6
    weights = np.zeros(design.shape[1])
    weights[0] = logit((positive + 0.5) / (total + 1))
    for _ in range(_STEPS):
        chance = expit(design @ weights)
        slope = design.T @ (hits - n * chance) - ridge * weights
        curve = (design * (n * chance * (1 - chance))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(curve, slope)
        weights = weights + step
        if np.abs(step).max() < 1e-8:
            break
    return weights
