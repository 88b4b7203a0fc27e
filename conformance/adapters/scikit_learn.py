"""scikit-learn: it gets decisions where a figure has a threshold."""

from sklearn import metrics

from conformance.adapters import of_arrays
from conformance.cases import Case

PACKAGE = "scikit-learn"
CHOSEN = "`pos_label=0` for specificity and NPV"


def ranked(metric):
    """Return a figure of scores."""
    return lambda case: float(metric(case.labels, case.scores))


def decided(metric, **options):
    """Return a figure of decisions: a score of at least the threshold is called."""
    return lambda case: float(metric(case.labels, case.scores >= case.threshold, **options))


def swapped(metric):
    """Return a figure of the negative class: specificity is its recall, NPV its precision."""
    return lambda case: float(metric(case.labels, case.scores >= case.threshold, pos_label=0))


def brier(case: Case) -> float:
    """Return the Brier score."""
    return float(metrics.brier_score_loss(case.labels, case.scores))


FIGURES = {
    "auroc": ranked(metrics.roc_auc_score),
    "macro_auroc": ranked(metrics.roc_auc_score),
    "average_precision": ranked(metrics.average_precision_score),
    "brier": brier,
    "accuracy": decided(metrics.accuracy_score),
    "balanced_accuracy": decided(metrics.balanced_accuracy_score),
    "recall": decided(metrics.recall_score),
    "precision": decided(metrics.precision_score),
    "f1": decided(metrics.f1_score),
    "mcc": decided(metrics.matthews_corrcoef),
    "specificity": swapped(metrics.recall_score),
    "npv": swapped(metrics.precision_score),
}
FIGURES = of_arrays(FIGURES)
