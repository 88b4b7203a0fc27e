"""Rules of boxes and sizes of studies below their commands."""

from cxr_compare.data_prep.base.boxes import EDGES, box_iou
from cxr_compare.evaluation.boxes.other_programs import nearest, protocol_figures
from cxr_compare.evaluation.sample_size import Assumptions
from cxr_compare.evaluation.statistics.clustered_auroc import auroc_parts, margin_interval

__all__ = [
    "EDGES",
    "Assumptions",
    "auroc_parts",
    "box_iou",
    "margin_interval",
    "nearest",
    "protocol_figures",
]
