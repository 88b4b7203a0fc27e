"""MLstatkit: DeLong's test."""

from MLstatkit import Delong_test

from conformance.adapters import of_arrays
from conformance.cases import Case

PACKAGE = "mlstatkit"


def delong(case: Case) -> tuple:
    """Return z of second minus first, p, both intervals, both AUROCs, and its information."""
    return Delong_test(case.labels, case.scores, case.others, random_state=0)


def difference(case: Case) -> float:
    """Return the AUROC of the first minus that of the second."""
    *_, first, second, _ = delong(case)
    return first - second


FIGURES = {
    "auroc_difference": difference,
    "auroc_difference_p": lambda case: delong(case)[1],
    "auroc_difference_se": lambda case: delong(case)[6]["var_diff"] ** 0.5,
    "auroc_difference_se_by_image": lambda case: delong(case)[6]["var_diff"] ** 0.5,
}
FIGURES = of_arrays(FIGURES)
