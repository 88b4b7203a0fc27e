"""hotcoco: pycocotools' interface."""

from hotcoco import COCO, COCOeval

from conformance.adapters.pycocotools import CHOSEN as CHOSEN
from conformance.adapters.pycocotools import figures

PACKAGE = "hotcoco"
FIGURES = figures(COCO, COCOeval)
