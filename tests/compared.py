"""A comparison of stored predictions, without the command and its report."""

from cxr_compare.evaluation.compare import compare_systems
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.stored_predictions import read_eligible


def compare_predictions(systems, split: LabelledSplit, *, images="all", **options) -> Comparison:
    return compare_systems(read_eligible(systems, split, images), **options)
