"""Rules of boxes and sizes of studies below their commands, and what they are compared with."""

from cxr_compare.data_prep.contracts.boxes import EDGES, box_iou
from cxr_compare.evaluation.statistics.clustered_auroc import auroc_parts
from cxr_compare.studies.box_protocols import nearest, protocol_figures
from cxr_compare.studies.sample_size import Assumptions

__all__ = ["EDGES", "Assumptions", "auroc_parts", "box_iou", "nearest", "protocol_figures"]
