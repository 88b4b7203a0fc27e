"""rocauc-comparison: DeLong's test."""

from rocauc_comparison.delong import delong_roc_test, delong_roc_variance

from conformance.cases import Case

PACKAGE = "rocauc-comparison"


def p_value(case: Case) -> float:
    """Return the two-sided p-value."""
    return float(delong_roc_test(case.labels, case.scores, case.others).p_value)


def auroc(case: Case) -> float:
    """Return the AUROC of the first system."""
    return float(delong_roc_variance(case.labels, case.scores)[0])


def of_second(case: Case) -> float:
    """Return the AUROC of the second system."""
    return float(delong_roc_variance(case.labels, case.others)[0])


FIGURES = {"auroc_difference_p": p_value, "auroc": auroc, "auroc_A": auroc, "auroc_B": of_second}
