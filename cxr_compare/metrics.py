"""Metrics as functions of arrays and tables, and single figures with their intervals.

Examples:
    >>> from cxr_compare import metrics
    >>> metrics.auroc([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8])
    0.875
"""

from cxr_compare.evaluation import box_metrics as _boxes
from cxr_compare.evaluation import image_metrics as _images
from cxr_compare.evaluation.box_metrics import froc, rsna_score
from cxr_compare.evaluation.estimate import estimate
from cxr_compare.evaluation.image_metrics import confusion_counts
from cxr_compare.evaluation.metrics import with_reason as _with_reason
from cxr_compare.evaluation.statistics import clustered_auroc as _aurocs
from cxr_compare.evaluation.statistics.bootstrap import Resamples, cluster_bootstrap

auroc = _with_reason("auroc")(_images.auroc)
auroc_difference = _with_reason("auroc")(_aurocs.auroc_difference)
average_precision = _with_reason("average_precision")(_images.average_precision)
box_average_precision = _with_reason("ap50")(_boxes.box_average_precision)
classification_metrics = _with_reason("accuracy")(_images.classification_metrics)

__all__ = [
    "Resamples",
    "auroc",
    "auroc_difference",
    "average_precision",
    "box_average_precision",
    "classification_metrics",
    "cluster_bootstrap",
    "confusion_counts",
    "estimate",
    "froc",
    "rsna_score",
]
