"""Analysis of readers, rules of boxes and sizes of studies below their commands."""

from cxr_compare.data_prep.base.boxes import EDGES, box_iou
from cxr_compare.evaluation.statistics.clustered_auroc import auroc_parts, margin_interval
from cxr_compare.studies.box_protocols import nearest, protocol_figures
from cxr_compare.studies.obuchowski_rockette import (
    ReaderEstimate,
    analyse_crossed,
    analyse_nested,
    jackknife_covariance,
)
from cxr_compare.studies.sample_size import Assumptions

__all__ = [
    "EDGES",
    "Assumptions",
    "ReaderEstimate",
    "analyse_crossed",
    "analyse_nested",
    "auroc_parts",
    "box_iou",
    "jackknife_covariance",
    "margin_interval",
    "nearest",
    "protocol_figures",
]
