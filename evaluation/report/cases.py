"""Truth and answers of single test images, and their drawing."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.evaluation.drawn import DrawnSystem
from cxr_compare.evaluation.overlays.colours import SystemMark, marks_of
from cxr_compare.evaluation.overlays.draw import draw_panel
from cxr_compare.evaluation.overlays.image_prediction import (
    NO_BOXES,
    ImagePrediction,
    ImageTruth,
)
from cxr_compare.evaluation.overlays.sheet import (
    SIDE,
    Panel,
    draw_sheet,
    legend,
    marks_on,
    panels_of,
)
from cxr_compare.evaluation.report.case_selection import ImageKind, Outcomes, image_kinds
from cxr_compare.evaluation.truth import Truth

Pixels = Callable[[str], npt.NDArray[np.uint8]]
"""Function from an image id to its grey pixels in the size of the original."""
_FACTS = ("view", "sex", "age_years")


@dataclass(frozen=True)
class CaseSource:
    """Reader of truth, pixels and answers of one test image at a time, which draws them.

    `readings` has the boxes of single readers: ``image_id``, ``reader`` and edges in px of the
    original, without edges in the row of a reader who drew none. `marks` has the colour and the
    symbol of each system by name.
    """

    truth: Truth
    pixels: Pixels
    systems: tuple[DrawnSystem, ...]
    readings: pd.DataFrame | None = None
    marks: Mapping[str, SystemMark] = field(default_factory=dict)

    def in_order(self, systems: Sequence[str], shown: Sequence[str] = ()) -> CaseSource:
        """Return the source with its systems marked as in a report, and in the order of its page.

        `systems` are all names of the report, of which some may not be drawn, and `shown` the same
        in the order of the page, if it is another one.
        """
        order = list(shown or systems)
        drawn = sorted(self.systems, key=lambda system: order.index(system.name))
        return replace(self, systems=tuple(drawn), marks=marks_of(list(systems)))

    def legend(self, marks: Collection[str]) -> str:
        """Return the legend of marks on panels."""
        return legend(marks, lesions=len(self.truth.boxes) > 0)

    def sheet(self, panels: Sequence[Panel]) -> Image.Image:
        """Draw panels as one picture, over the legend of the marks on them."""
        return draw_sheet(panels, self.legend(marks_on(panels)))

    def panels(
        self,
        image_id: str,
        *,
        side: int = SIDE,
        title: str | None = None,
        systems: Collection[str] | None = None,
    ) -> list[Panel]:
        """Draw the plain image, the true lesions and the answer of each system, or of `systems`.

        InputError if the file of the image cannot be read.
        """
        return panels_of(
            self.pixels(image_id),
            self._predictions(image_id, systems),
            title=image_id if title is None else title,
            finding=self.truth.finding_title,
            truth=self._truth(image_id),
            facts=self._facts(image_id),
            side=side,
        )

    def draw(self, image_id: str, *, side: int = SIDE) -> Image.Image:
        """Draw the panels of an image as one picture."""
        return self.sheet(self.panels(image_id, side=side))

    def require_answers(self, image_ids: Sequence[str]) -> None:
        """Refuse an image that no system ran on."""
        for image_id in image_ids:
            if not any(image_id in system.decisions.index for system in self.systems):
                raise InputError(f"overlay: no system ran on image '{image_id}'; predict it first")

    def kinds(self) -> list[ImageKind]:
        """Return the test images by what came of them, the worst of each kind first."""
        labels = self.truth.images["label"].loc[self.truth.of("test").ids]
        answers = pd.concat(
            {system.name: system.decisions for system in self.systems}, names=["system", "image_id"]
        )
        decisions = answers.join(labels, on="image_id", how="inner").reset_index()
        names = [system.name for system in self.systems]
        return image_kinds(Outcomes.of(decisions, names, "decision"))

    def together(self, image_id: str, side: int, systems: Collection[str]) -> Panel:
        """Draw the answers of systems over one another, with the outcome of each in words."""
        truth, answers = self._truth(image_id), self._predictions(image_id, systems)
        drawn = draw_panel(self.pixels(image_id), side, truth, *answers)
        lines = tuple(" ".join(each.outcome(truth)) for each in answers)
        return Panel("", None, lines, *drawn)

    def _predictions(self, image_id: str, systems: Collection[str] | None) -> list[ImagePrediction]:
        by_name = {system.name: system for system in self.systems}
        names = by_name if systems is None else systems
        return [
            by_name[name].prediction(image_id, self.marks[name])
            for name in names
            if name in by_name
        ]

    def _row(self, image_id: str) -> dict[Any, Any]:
        images = self.truth.images
        return images.loc[image_id].to_dict() if image_id in images.index else {}

    def _truth(self, image_id: str) -> ImageTruth:
        """Return label and true boxes; these are None unless every lesion of the image has one."""
        boxes = None
        if len(self.truth.boxes) and image_id in self.truth.boxed:
            rows = self._boxes_of.get(image_id)
            boxes = NO_BOXES
            if rows is not None:
                boxes = self.truth.boxes[EDGES].iloc[rows].to_numpy(np.float64)
        row = self._row(image_id)
        kind = row.get("x_class", "")
        label = float(row.get("label", math.nan))
        kind = kind if isinstance(kind, str) else ""
        return ImageTruth(label, boxes, kind, self._boxes_of_readers(image_id))

    def _boxes_of_readers(self, image_id: str) -> dict[str, npt.NDArray[np.float64]]:
        """Return the boxes of each reader who read an image; an array may be empty."""
        rows = self._readings_of.get(image_id)
        if self.readings is None or rows is None:
            return {}
        drawn = self.readings.iloc[rows]
        return {
            str(reader): of_reader.dropna(subset=EDGES)[EDGES].to_numpy(np.float64)
            for reader, of_reader in drawn.groupby("reader")
        }

    def _facts(self, image_id: str) -> str:
        """Return view, sex and age of an image, as far as they are known."""
        row = self._row(image_id)
        known = [row.get(name) for name in _FACTS]
        known = [value for value in known if value is not None and not pd.isna(value)]
        return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in known)

    @cached_property
    def _boxes_of(self) -> dict[Any, Any]:
        return self.truth.boxes.groupby("image_id").indices

    @cached_property
    def _readings_of(self) -> dict[Any, Any]:
        return {} if self.readings is None else self.readings.groupby("image_id").indices
