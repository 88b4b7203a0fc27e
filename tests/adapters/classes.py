"""Decision among classes that exclude each other, as tests ask for it."""

from cxr_compare.evaluation.classes import (
    FIGURES,
    called_classes,
    class_figures,
    counts_by_patient,
)
from cxr_compare.evaluation.figures import interval_of_counts
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.statistics.clustered_counts import confusion_by_patient

__all__ = ["FIGURES", "called_classes", "counts_by_patient"]


def binary_interval(positive, called, patients, value):
    """Return the interval of balanced accuracy of two classes, as a dictionary."""
    counts = confusion_by_patient(positive, called, patients, patients.max() + 1)
    return interval_of_counts(counts, "balanced_accuracy", value)


def figures_of(systems, y_true, patients, replicates=100):
    """Return the table of figures of scores ``(N, K)`` by the name of their system."""
    n_patients, n_classes = patients.max() + 1, y_true.max() + 1
    counts = {
        name: counts_by_patient(y_true, called_classes(scores), patients, n_patients, n_classes)
        for name, scores in systems.items()
    }
    names = [str(number) for number in range(n_classes)]
    return class_figures(counts, names, Resamples(n_patients, replicates, 0))
