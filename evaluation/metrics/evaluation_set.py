"""What is judged: the images, the same for every system, and the names of the figures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from evaluation.metrics.registry import METRICS

ALL = "all"
VERSUS_NORMAL = "vs_normal"


NoteKind = Literal[
    "left_out", "training", "validation", "not_tuned", "seeds", "unit", "uses", "few_patients"
]
"""Images that are not judged; training data that is unknown; what validation lacks; a system that
was not tuned; several seeds; figures by study or patient; earlier uses of the test images;
few patients, or one with many images."""


class Note(NamedTuple):
    """What a reader of a comparison must know."""

    kind: NoteKind
    text: str

    @property
    def caution(self) -> bool:
        """Whether it may make the answer wrong and stands right below it."""
        return self.kind == "few_patients"

    @property
    def of_decisions(self) -> bool:
        """Whether it says where a decision comes from, which no reader has to mind."""
        return self.kind == "not_tuned"


class MetricKey(NamedTuple):
    """The name of a figure: on which images, at which policy (``""``: none), which metric."""

    subgroup: str
    policy: str
    metric: str


@dataclass(frozen=True)
class EvaluationSet:
    """The images that every system is scored on, and what is true of them.

    Attributes:
        image_ids: Shape ``(N,)``, sorted.
        y_true: Shape ``(N,)``.
        patients: Patient of each image as an index from 0, shape ``(N,)``.
        n_patients: How many patients.
        boxes_trusted: Whether localisation may be judged on an image, shape ``(N,)``.
        truth: True boxes of the target on these images, original px.
        x_class: The kind of each image, where the data set knows it.
        tolerance: Width and height of one map cell of the coarsest system on each image, by which
            a scored point may miss a lesion, original px, shape ``(N, 2)``; `None` without maps.
    """

    image_ids: pd.Index
    y_true: npt.NDArray[np.bool_]
    patients: npt.NDArray[np.int64]
    n_patients: int
    boxes_trusted: npt.NDArray[np.bool_]
    truth: pd.DataFrame
    x_class: pd.Series | None = None
    tolerance: npt.NDArray[np.float64] | None = None

    @cached_property
    def versus_normal(self) -> npt.NDArray[np.bool_] | None:
        """Positive images and those that are normal, shape ``(N,)``; `None` where unknown."""
        if self.x_class is None or not (self.x_class == "normal").any():
            return None
        return self.y_true | (self.x_class == "normal").to_numpy(dtype=bool)

    def population(self, figure: MetricKey) -> npt.NDArray[np.bool_]:
        """The images that a figure is computed on, shape ``(N,)``."""
        if figure.subgroup == VERSUS_NORMAL and self.versus_normal is not None:
            return self.versus_normal
        if figure.metric in METRICS and METRICS[figure.metric].boxed:
            return self.boxes_trusted
        return np.ones(len(self.image_ids), dtype=bool)
