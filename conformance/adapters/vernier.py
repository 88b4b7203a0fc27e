"""vernier: its evaluator with pycocotools' interface, on the data class of pycocotools."""

from pycocotools.coco import COCO
from vernier import COCOeval

from conformance.adapters.pycocotools import CHOSEN as CHOSEN
from conformance.adapters.pycocotools import figures

PACKAGE = "vernier"
FIGURES = figures(COCO, COCOeval)
