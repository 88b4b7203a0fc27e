"""Metrics as functions of arrays: what `cxr_compare.metrics` offers.

Example:
    >>> from cxr_compare import metrics
    >>> metrics.auroc([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8])
    0.875
"""

from cxr_compare.evaluation.boxes.box_metrics import average_precision as box_average_precision
from cxr_compare.evaluation.boxes.box_metrics import froc
from cxr_compare.evaluation.boxes.matching import match_boxes
from cxr_compare.evaluation.boxes.protocols import explain as explain_figure
from cxr_compare.evaluation.metrics.image_metrics import (
    auroc,
    classification_metrics,
    confusion_counts,
    net_benefit,
)
from cxr_compare.evaluation.metrics.image_metrics import (
    image_average_precision as average_precision,
)
from cxr_compare.evaluation.statistics.bootstrap import Resamples, cluster_bootstrap
from cxr_compare.evaluation.statistics.clustered_tests import auroc_difference, mcnemar_test

__all__ = [
    "Resamples",
    "auroc",
    "auroc_difference",
    "average_precision",
    "box_average_precision",
    "classification_metrics",
    "cluster_bootstrap",
    "confusion_counts",
    "explain_figure",
    "froc",
    "match_boxes",
    "mcnemar_test",
    "net_benefit",
]
