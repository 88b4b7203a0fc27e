"""torcheval: functions of labels and scores."""

import torch
from torcheval.metrics import functional

from conformance.adapters import of_arrays

PACKAGE = "torcheval"


def ranked(metric):
    """Return a figure of scores."""
    return lambda case: float(metric(torch.tensor(case.scores), torch.tensor(case.labels)))


def decided(metric):
    """Return a figure of a threshold."""
    return lambda case: float(
        metric(torch.tensor(case.scores), torch.tensor(case.labels), threshold=case.threshold)
    )


FIGURES = {
    "auroc": ranked(functional.binary_auroc),
    "average_precision": ranked(functional.binary_auprc),
    "accuracy": decided(functional.binary_accuracy),
    "precision": decided(functional.binary_precision),
    "recall": decided(functional.binary_recall),
    "f1": decided(functional.binary_f1_score),
}
FIGURES = of_arrays(FIGURES)
