"""rocauc-comparison: DeLong's test."""

from rocauc_comparison.delong import delong_roc_test, delong_roc_variance

from conformance.adapters import of_arrays
from conformance.cases import Case

PACKAGE = "rocauc-comparison"


def p_value(case: Case) -> float:
    """Return the two-sided p-value."""
    return float(delong_roc_test(case.labels, case.scores, case.others).p_value)


def auroc(case: Case) -> float:
    """Return the AUROC of a system."""
    return float(delong_roc_variance(case.labels, case.scores)[0])


FIGURES = {"auroc_difference_p": p_value, "auroc": auroc}
FIGURES = of_arrays(FIGURES)
