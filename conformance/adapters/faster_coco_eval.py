"""faster-coco-eval: pycocotools' interface."""

from faster_coco_eval import COCO, COCOeval_faster

from conformance.adapters.pycocotools import CHOSEN as CHOSEN
from conformance.adapters.pycocotools import figures

PACKAGE = "faster-coco-eval"
FIGURES = figures(COCO, COCOeval_faster)
