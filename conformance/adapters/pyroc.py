"""pyroc: DeLong's covariance of AUROCs."""

import numpy as np
from pyroc import ROC

from conformance.adapters import of_arrays
from conformance.cases import Case

PACKAGE = "pyroc"


def curves(case: Case) -> ROC:
    """Return both systems."""
    return ROC(case.labels, {"first": case.scores, "second": case.others})


def auroc(case: Case) -> float:
    """Return the AUROC of one system."""
    return float(ROC(case.labels, {"one": case.scores}).auc.item())


def interval(case: Case, end: int) -> float:
    """Return an end of its interval of one system."""
    return float(ROC(case.labels, {"one": case.scores}).ci().ravel()[end])


def of_difference(case: Case, end: int) -> float:
    """Return an end of the interval of the difference."""
    return float(curves(case).compare([1, -1])[1].ravel()[end])


def error(case: Case) -> float:
    """Return the standard error of the difference."""
    contrast = np.array([1, -1])
    return float(contrast @ curves(case).S @ contrast) ** 0.5


FIGURES = {
    "auroc": auroc,
    "auroc_low": lambda case: interval(case, 0),
    "auroc_high": lambda case: interval(case, 1),
    "auroc_difference_se": error,
    "auroc_difference_se_by_image": error,
    "auroc_difference_p": lambda case: float(curves(case).compare([1, -1])[0]),
    "auroc_difference_low": lambda case: of_difference(case, 0),
    "auroc_difference_high": lambda case: of_difference(case, 1),
}
FIGURES = of_arrays(FIGURES)
