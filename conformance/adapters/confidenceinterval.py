"""confidenceinterval: figures with intervals, of which the AUROC's is DeLong's."""

import confidenceinterval as ci

from conformance.adapters import of_arrays
from conformance.cases import Case

PACKAGE = "confidenceinterval"
CHOSEN = "`average='binary'` for F1"


def decided(metric, **options):
    """Return a figure of decisions: a score of at least the threshold is called."""
    return lambda case: float(
        metric(case.labels, (case.scores >= case.threshold).astype(int), **options)[0]
    )


def auroc(case: Case) -> tuple[float, tuple[float, float]]:
    """Return the AUROC with its interval."""
    return ci.roc_auc_score(case.labels, case.scores)


FIGURES = {
    "auroc": lambda case: float(auroc(case)[0]),
    "auroc_low": lambda case: float(auroc(case)[1][0]),
    "auroc_high": lambda case: float(auroc(case)[1][1]),
    "accuracy": decided(ci.accuracy_score),
    "recall": decided(ci.tpr_score),
    "specificity": decided(ci.tnr_score),
    "precision": decided(ci.ppv_score),
    "npv": decided(ci.npv_score),
    "f1": decided(ci.f1_score, average="binary"),
}
FIGURES = of_arrays(FIGURES)
