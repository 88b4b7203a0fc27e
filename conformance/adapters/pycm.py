"""PyCM: figures of a confusion matrix of decisions, the area under its ROC curve, Brier score."""

from functools import partial

from pycm import ConfusionMatrix, ROCCurve

from conformance.adapters import of_arrays
from conformance.cases import Case

PACKAGE = "pycm"
CHOSEN = "a threshold of 0.5 beside the Brier score"


def figure(name: str, case: Case) -> float | None:
    """Return a figure of the positive class; its text "None" is undefined."""
    called = (case.scores >= case.threshold).astype(int).astype(str)
    matrix = ConfusionMatrix(case.labels.astype(str), called, classes=["0", "1"])
    value = getattr(matrix, name)["1"]
    return None if value == "None" else float(value)


def auroc(case: Case) -> float | None:
    """Return the area under the ROC curve of scores."""
    probabilities = [[1 - score, score] for score in case.scores.tolist()]
    value = ROCCurve(case.labels.tolist(), probabilities, classes=[0, 1]).area()[1]
    return None if value == "None" else float(value)


def brier(case: Case) -> float:
    """Return the Brier score."""
    scores = case.scores.tolist()
    matrix = ConfusionMatrix(
        case.labels.tolist(), scores, threshold=lambda score: int(score >= 0.5)
    )
    return float(matrix.brier_score(pos_class=1))


NAMES = {"recall": "TPR", "specificity": "TNR", "precision": "PPV", "npv": "NPV", "f1": "F1"}
NAMES |= {"accuracy": "ACC", "mcc": "MCC"}
FIGURES = {"auroc": auroc, "brier": brier}
FIGURES |= {ours: partial(figure, theirs) for ours, theirs in NAMES.items()}
FIGURES = of_arrays(FIGURES)
