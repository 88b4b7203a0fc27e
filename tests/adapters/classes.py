"""Decision among classes that exclude each other, as tests ask for it."""

import pandas as pd

from cxr_compare.evaluation.classes import (
    FIGURES,
    called_classes,
    class_figures,
    counts_by_patient,
)
from cxr_compare.evaluation.figures import interval_of_counts
from cxr_compare.evaluation.statistics.clustered_counts import confusion_by_patient

__all__ = ["FIGURES", "called_classes", "counts_by_patient"]


def binary_interval(positive, called, patients, value):
    """Return the interval of balanced accuracy of two classes, as a dictionary."""
    counts = confusion_by_patient(positive, called, patients, patients.max() + 1)
    return interval_of_counts(counts, "balanced_accuracy", value)


def figures_of(systems, y_true, patients, ranking=None):
    """Return the table of figures of scores ``(N, K)`` by the name of their system."""
    names = [str(number) for number in range(y_true.max() + 1)]
    tables = {name: pd.DataFrame(scores, columns=names) for name, scores in systems.items()}
    called = {name: called_classes(scores) for name, scores in systems.items()}
    ranking = list(systems) if ranking is None else ranking
    return class_figures(y_true, tables, called, names, patients, ranking)
