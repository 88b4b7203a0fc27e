"""PyCM: figures of a confusion matrix of decisions."""

from functools import partial

from pycm import ConfusionMatrix

from conformance.cases import Case

PACKAGE = "pycm"


def figure(name: str, case: Case) -> float | None:
    """Return a figure of the positive class; its text "None" is undefined."""
    called = (case.scores >= case.threshold).astype(int)
    matrix = ConfusionMatrix(case.labels.tolist(), called.tolist(), classes=[0, 1])
    value = getattr(matrix, name)[1]
    return None if value == "None" else float(value)


NAMES = {"recall": "TPR", "specificity": "TNR", "precision": "PPV", "npv": "NPV", "f1": "F1"}
NAMES |= {"accuracy": "ACC", "mcc": "MCC"}
FIGURES = {ours: partial(figure, theirs) for ours, theirs in NAMES.items()}
