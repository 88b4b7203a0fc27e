"""ultrafast-pycocotools: pycocotools' interface."""

from ultrafast_pycocotools import COCO, COCOeval

from conformance.adapters.pycocotools import CHOSEN as CHOSEN
from conformance.adapters.pycocotools import figures

PACKAGE = "ultrafast-pycocotools"
FIGURES = figures(COCO, COCOeval)
