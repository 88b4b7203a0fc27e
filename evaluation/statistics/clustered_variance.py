"""Variance of a mean over images that come in patients: effective number, leverage, freedom."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.statistics.arrays import Floats


def effective_patients(images: npt.ArrayLike) -> float:
    """How many patients with one image each would say as much: ``(sum n)^2 / sum n^2``.

    Source:
        Kish 1965, the effective sample size of unequal weights.
    """
    n = np.asarray(images, dtype=np.float64)
    return float(n.sum() ** 2 / (n**2).sum()) if n.any() else 0.0


def without_leverage(added: Floats, images: Floats) -> Floats:
    """What patients add to a mean over images, as the variance of that mean needs it.

    A patient with a large share of the images pulls the mean towards itself, so its deviation
    from the mean is too small by 1 minus that share. The sum of squares is the jackknife's
    variance of the mean.

    Source:
        Mancl and DeRouen 2001; MacKinnon and White 1985 (HC3).
    """
    count = np.count_nonzero(images)
    return np.asarray(added / (1 - images / images.sum()) * np.sqrt((count - 1) / count))


def satterthwaite_freedom(contributions: Floats) -> float:
    """Satterthwaite's degrees of freedom of a sum of squares, from its terms.

    ``2 V^2 / Var(V)`` with ``V = sum q^2`` and, on the safe side, ``Var(V) = sum q^4``.

    Source:
        Satterthwaite 1946.
    """
    squares = contributions**2
    return float(2 * squares.sum() ** 2 / (squares**2).sum())
