"""A detector of the user's own that differs from ours in its loss alone."""

from torch import Tensor

from cxr_compare.detection.dense import HeadPass
from cxr_compare.detection.detector import Targets
from cxr_compare.detection.retinanet import LesionRetinaNet


class HeavyBoxes(LesionRetinaNet):
    """RetinaNet whose boxes count twice."""

    def losses(self, passed: HeadPass, targets: Targets) -> dict[str, Tensor]:
        losses = super().losses(passed, targets)
        return {**losses, "bbox_regression": 2 * losses["bbox_regression"]}
