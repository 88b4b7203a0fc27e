"""Choose one of many settings by folds of patients, and say how much of the gain is luck."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.contracts.errors import InputError
from evaluation.statistics.ranking import Floats

MOST_FOLDS = 5
_SAME = 1e-9
_LEADERS = 10
_HASH_KEY = "0" * 16


@dataclass(frozen=True)
class Chosen:
    """The chosen setting and its figures."""

    best: int  # its position
    folds: float | None  # its mean over folds
    validation: float | None  # its figure on all validation images at once
    # the same two of the best setting that leaves boxes as they are; `None` without one
    plain: tuple[float | None, float | None] | None
    # mean over folds of what the other folds would have chosen: the figure to believe
    held_out: float | None
    # position, mean over folds and figure on all images of the best settings
    leaders: list[tuple[int, float | None, float | None]]

    def record(self) -> dict[str, Any]:
        """The figures for ``decisions/<target>.json``."""
        plain = None
        if self.plain is not None:
            plain = {"folds": self.plain[0], "validation": self.plain[1]}
        return {
            "chosen": {"folds": self.folds, "validation": self.validation},
            "boxes_as_stored": plain,
            "held_out": self.held_out,
        }


def choose(figures: Floats, plain: npt.NDArray[np.bool_] | None = None) -> Chosen:
    """Choose the setting with the highest mean over folds; among equals the earlier.

    `figures` are of each setting, the simpler first, on each fold, then on all images; `plain` are
    the settings that leave boxes as they are.

    Source:
        The held-out figure is that of nested cross-validation, Varma and Simon 2006.
    """
    by_fold, every = figures[:, :-1], figures[:, -1]
    means = _means(by_fold)
    best = _first_best(means)
    of_plain = None
    if plain is not None and plain.any():
        position = int(np.flatnonzero(plain)[_first_best(means[plain])])
        of_plain = (_real(means[position]), _real(every[position]))
    n_folds = by_fold.shape[1]
    unseen = [
        by_fold[_first_best(_means(np.delete(by_fold, fold, axis=1))), fold]
        for fold in range(n_folds)
    ]
    # Rounded: the last bit must not decide the order in which equals are listed.
    order = np.argsort(-np.round(means, 9), kind="stable")[:_LEADERS]
    return Chosen(
        best=best,
        folds=_real(means[best]),
        validation=_real(every[best]),
        plain=of_plain,
        held_out=_real(_means(np.array([unseen]))[0]),
        leaders=[(int(place), _real(means[place]), _real(every[place])) for place in order],
    )


def _means(figures: Floats) -> Floats:
    """Mean over the folds where a figure is defined; -inf where it is nowhere."""
    known = ~np.isnan(figures)
    total = np.where(known, figures, 0.0).sum(axis=1)
    counted = known.sum(axis=1)
    return np.where(counted > 0, total / np.maximum(counted, 1), -np.inf)


def _first_best(means: Floats) -> int:
    return int(np.flatnonzero(means >= means.max() - _SAME)[0])


def _real(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def patient_folds(
    patients: npt.NDArray[np.str_], y_true: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.int64]:
    """Assign patients to folds: all images of a patient are in one.

    With labels, patients with a positive image and the others are each assigned in turn, in the
    order of a digest of their name: the folds are balanced, and the same on every machine and in
    any order of rows. Without, the fold is a hash of the name: the same whoever else is there.

    With labels there are as many folds as both kinds have patients, at most 5; without always 5.
    """
    if y_true is None:
        hashes = pd.util.hash_array(np.asarray(patients, dtype=object), hash_key=_HASH_KEY)
        return (hashes % MOST_FOLDS).astype(np.int64)
    names, owner = np.unique(patients, return_inverse=True)
    positive = np.bincount(owner, weights=y_true) > 0
    n_folds = min(MOST_FOLDS, int(positive.sum()), int((~positive).sum()))
    if n_folds < 2:
        raise InputError(
            f"validation has {int(positive.sum())} patients with and {int((~positive).sum())} "
            "without a positive image; a search needs two of each: tune without --search"
        )
    digests = np.array([hashlib.sha256(str(name).encode()).hexdigest() for name in names])
    fold = np.zeros(len(names), dtype=np.int64)
    for kind in (positive, ~positive):
        members = np.flatnonzero(kind)
        fold[members[np.argsort(digests[members])]] = np.arange(len(members)) % n_folds
    return fold[owner]
