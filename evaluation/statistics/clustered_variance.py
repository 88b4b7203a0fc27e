"""Effective number of patients, leverage and degrees of freedom of a mean over images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.statistics.arrays import Floats


def effective_patients(images: npt.ArrayLike) -> float:
    """Compute how many patients with one image each would give as much information as the patients.

    It is ``(sum n)^2 / sum n^2`` of their numbers of images, from 0 (no image) to the number of
    patients.

    Source:
        Kish 1965, the effective sample size of unequal weights.

    Examples:
        >>> effective_patients([1, 1, 1, 1]), round(effective_patients([7, 1, 1, 1]), 2)
        (4.0, 1.92)
    """
    n = np.asarray(images, dtype=np.float64)
    return float(n.sum() ** 2 / (n**2).sum()) if n.any() else 0.0


def class_inflation(of_class: Floats, images: Floats) -> float:
    """Compute how much the variance of a share of few patients' images is underestimated.

    If few patients have images of a class, such as positive ones, and patients have unequal numbers
    of images, these few are mostly patients with few images. Their images then look more evenly
    spread over patients than in another sample, in which one of them has many. The effective number
    of patients of the class is therefore compared with the one that is expected if the class does
    not depend on the number of images; the result is their ratio, at least 1.

    What is expected depends on how alike the images of a patient are: for an image of the class,
    the share of its patient's images that are of the class. It is learned with one more patient,
    who has the root mean square of the numbers of images, all of the class. A sample that says
    little about it thus takes it for nearly 1, the widest interval. Both arguments count images of
    each patient, shape ``(patients,)``.

    Examples:
        >>> round(class_inflation(np.array([1.0, 1, 2, 0]), np.array([1.0, 1, 2, 8])), 2)
        1.73
        >>> round(class_inflation(np.array([1.0, 1, 1, 1]), np.array([1.0, 1, 2, 8])), 2)
        2.16
    """
    has_images = images > 0
    # A patient without images has no share of them.
    inside, sizes = of_class[has_images], images[has_images]
    if not inside.any():
        return 1.0
    share = float((inside / sizes).mean())
    # With the further patient, a sample that says little of how alike images of a patient are takes
    # them for equal, which gives the widest interval.
    added = (sizes**2).mean()
    alike = float(((inside**2).sum() + added) / ((inside * sizes).sum() + added))
    expected = share * effective_patients(sizes) / alike
    # A class that happens to be spread evenly over patients makes no figure surer.
    return max(effective_patients(inside) / expected, 1.0)


def without_leverage(added: Floats, images: Floats) -> Floats:
    """Correct patients' contributions to a mean over images, shape ``(patients,)``, for leverage.

    A patient with a large share of the images pulls the mean towards its images, so the deviation
    of this patient from the mean is too small by the factor 1 minus that share. The sum of the
    squared results is the jackknife variance of the mean. `added` is, for each patient, the sum
    over the patient's images of (value - mean), divided by the number of all images.

    Source:
        Mancl and DeRouen 2001; MacKinnon and White 1985 (HC3).

    Examples:
        >>> without_leverage(np.array([0.1, -0.1]), np.array([2.0, 2.0])).round(3).tolist()
        [0.141, -0.141]
    """
    count = np.count_nonzero(images)
    return np.asarray(added / (1 - images / images.sum()) * np.sqrt((count - 1) / count))


def satterthwaite_freedom(contributions: Floats) -> float:
    """Compute the degrees of freedom of a variance V that is a sum of squares, ``V = sum q^2``.

    They are ``2 V^2 / Var(V)``. The variance of V is taken as ``sum q^4``, which gives rather too
    few than too many degrees of freedom. The terms q, such as the contributions of patients, are
    not all 0.

    Source:
        Satterthwaite 1946.

    Examples:
        >>> satterthwaite_freedom(np.array([1.0, -1.0, 1.0]))
        6.0
    """
    squares = contributions**2
    with np.errstate(invalid="ignore"):
        return float(2 * squares.sum() ** 2 / (squares**2).sum())
