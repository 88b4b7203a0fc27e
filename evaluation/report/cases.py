"""Truth and predictions of single images of a comparison, and their drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.boxes.pointing import points_in_boxes
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.decided_output import (
    NO_BOXES,
    DecidedOutput,
    decide,
    levels_at,
    map_levels,
)
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.overlays.image_prediction import ImagePrediction, ImageTruth
from cxr_compare.evaluation.overlays.shapes import system_colour
from cxr_compare.evaluation.overlays.sheet import Drawing, draw_case
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.pixels import Pixels, pixels_of_data_set
from cxr_compare.evaluation.sources.read_predictions import (
    read_output,
    read_system,
)
from cxr_compare.evaluation.sources.stored_predictions import read_decision
from cxr_compare.evaluation.thresholds import POLICIES, check_policy


@dataclass(frozen=True)
class CaseSource:
    """Reader of the labels, boxes and predictions of one test image at a time, which draws them.

    The systems are in the order in which they are drawn.
    """

    labelled: LabelledImages
    pixels: Pixels
    systems: tuple[DecidedOutput, ...]

    def draw(
        self,
        image_id: str,
        pixels: npt.NDArray[np.uint8] | None = None,
        *,
        panel: int | None = None,
    ) -> Drawing:
        """Draw the plain image, the true lesions and the prediction of each system.

        `pixels` are the grey values of the original image, uint8, shape ``(height, width)``; None
        reads them from the data set (InputError if its file cannot be read). `panel` is the length
        of the longer side of each panel in px; None takes what the image has and a sheet of 2,000
        px holds.
        """
        return draw_case(
            self.pixels.read(image_id) if pixels is None else pixels,
            self.truth(image_id),
            self.predictions(image_id),
            finding=self.labelled.shown_name,
            title=image_id,
            facts=self.facts(image_id),
            panel=panel,
        )

    def truth(self, image_id: str) -> ImageTruth:
        """Return the label and the true boxes of an image, and boxes of single radiologists.

        The boxes are None unless every lesion of the image has one, and if no image has any.
        """
        labelled = self.labelled
        boxes = None
        if len(labelled.true_boxes) and image_id in labelled.boxes_trusted:
            rows = self._rows_of_true_boxes.get(image_id, [])
            boxes = labelled.true_boxes[EDGES].iloc[rows].to_numpy(dtype=np.float64)
        kind = self._images.get("x_class", pd.Series(dtype=object)).get(image_id, "")
        return ImageTruth(
            float(labelled.label.get(image_id, math.nan)),
            boxes,
            kind if isinstance(kind, str) else "",
            self._boxes_of_readers(image_id),
        )

    def predictions(self, image_id: str) -> list[ImagePrediction]:
        """Return the prediction of every system for an image, in the order of drawing."""
        return [
            system.prediction(image_id, system_colour(position))
            for position, system in enumerate(self.systems)
        ]

    def facts(self, image_id: str) -> str:
        """Return view, sex and age of an image, and how its grey values were changed, as text.

        Parts that are unknown are left out.
        """
        row: Any = self._images.loc[image_id] if image_id in self._images.index else {}
        view, sex, age = (_value(row.get(name)) for name in ("view", "sex", "age_years"))
        parts = [str(text) for text in (view, sex) if text is not None]
        if age is not None:
            parts.append(f"{age:.0f} years")
        if image_id in self.pixels.decoded.index:
            decoded = self.pixels.decoded.loc[image_id]
            if decoded.get("voi") != "full_range" or decoded.get("inverted"):
                parts.append(display_text({str(key): value for key, value in decoded.items()}))
        return ", ".join(parts)

    @cached_property
    def _images(self) -> pd.DataFrame:
        return self.labelled.images.drop_duplicates("image_id").set_index("image_id")

    @cached_property
    def _rows_of_true_boxes(self) -> Mapping[str, list[int]]:
        return _rows_of_images(self.labelled.true_boxes)

    @cached_property
    def _rows_of_readers(self) -> Mapping[str, list[int]]:
        return _rows_of_images(self.pixels.readings)

    def _boxes_of_readers(self, image_id: str) -> dict[str, npt.NDArray[np.float64]]:
        """Return the boxes of each reader who read this image; an array may be empty."""
        if image_id not in self._rows_of_readers:
            return {}
        drawn = self.pixels.readings.iloc[self._rows_of_readers[image_id]]
        return {
            str(reader): rows.dropna(subset=EDGES)[EDGES].to_numpy(dtype=np.float64)
            for reader, rows in drawn.groupby("reader")
        }


def _rows_of_images(table: pd.DataFrame) -> Mapping[str, list[int]]:
    """Return the positions of each image's rows, since searching the table each time is slow."""
    rows: dict[Any, Any] = table.groupby("image_id").indices
    return rows


_DISPLAY_RULES = {
    "full_range": "full range",
    "percentiles": "range of the pixels",
    "lut": "grey table of the file",
}
"""Rules for the display window in words."""


def display_text(decoded: Mapping[str, Any]) -> str:
    """Describe how the stored values of an image file became the grey values that are shown.

    `decoded` is what was recorded when the image was read: ``voi`` (rule for the display window),
    ``window_center``, ``window_width`` and ``inverted`` (True if black and white were exchanged).
    Keys may be missing.

    Example:
        >>> display_text({"window_center": 40, "window_width": 400, "inverted": True})
        'window 40/400 of the file, inverted'
    """
    rule, centre, width = (
        _value(decoded.get(name)) for name in ("voi", "window_center", "window_width")
    )
    if centre is not None and width is not None:
        text = f"window {centre:g}/{width:g} of the file"
    elif rule is None:
        text = "grey as stored"
    else:
        text = _DISPLAY_RULES.get(rule, str(rule).replace("_", " "))
    return f"{text}, {'inverted' if decoded.get('inverted') else 'not inverted'}"


def _value(value: Any) -> Any:
    """Return a value of a table, or None where the value is missing."""
    return None if pd.isna(value) else value


def read_cases(
    comparison: Comparison, labelled: LabelledImages, pixels: Pixels, policy: str
) -> CaseSource:
    """Prepare the test images of a comparison for drawing, with the decisions by one rule."""
    outputs = tuple(_compared_output(comparison, name, policy) for name in comparison.names)
    return CaseSource(labelled, pixels, outputs)


def _compared_output(comparison: Comparison, name: str, policy: str) -> DecidedOutput:
    decisions = comparison.decisions
    rows = decisions[decisions["system"] == name].drop_duplicates("image_id")
    rows = rows.assign(decision=rows.get(f"decision_{policy}")).set_index("image_id")
    result = comparison.systems[name]
    calibrated = "probability" in rows and bool(rows["probability"].notna().any())
    # Contours are at scores where there are no calibrated probabilities.
    levels = levels_at(result.maps, rows["probability" if calibrated else "score"])
    boxes = NO_BOXES if result.boxes is None else result.boxes
    threshold = result.thresholds.get(policy)
    return DecidedOutput(
        name,
        rows,
        boxes,
        result.maps,
        levels,
        calibrated,
        threshold,
        has_own_boxes=result.boxes is not None and result.map_scale is None,
    )


def read_cases_of_images(
    systems: Mapping[str, Predictions],
    test_set: LabelledSplit,
    image_ids: Sequence[str],
    *,
    policy: str | None,
) -> CaseSource:
    """Prepare chosen images for drawing, from stored predictions, with the decisions by one rule.

    The threshold is chosen on the validation images, unless it was before or is given. A system
    that ran on none of them has no decision without a given one; its boxes with a score of at least
    0.5 are drawn in its colour.
    The policy None takes the declared threshold of a system, or else that of ``max_f1``. An
    InputError is raised if a system ran on none of the images, has no threshold by this rule, or
    its stored thresholds were chosen on other images, labels or predictions.
    """
    requested = pd.Index(image_ids, name="image_id")
    used = policy or POLICIES[0]
    check_policy(used)
    outputs = []
    for name, system in systems.items():
        ids = requested[requested.isin(system.images_run)]
        if not len(ids):
            raise InputError(f"{system.folder}: {name} ran on none of the images asked for")
        decision = read_decision(name, system, test_set, (used,))
        deciding = decision.policy(policy, system.folder)
        evidence = read_output(system, test_set.target, ids)
        levels = None
        if not evidence.reduces_boxes:
            levels = map_levels(read_system(system, test_set.target), decision)
        outputs.append(decide(name, evidence, decision, deciding, levels=levels))
    for output in outputs:
        _locate(output, test_set)
    pixels = pixels_of_data_set(test_set.dataset, test_set.target.any_of)
    return CaseSource(test_set.truth, pixels, tuple(outputs))


def _locate(output: DecidedOutput, test_set: LabelledSplit) -> None:
    """Record whether the scored point of each positive image lies on a lesion.

    Only images with trusted boxes get a value.
    """
    table = output.decisions
    if "point_x" not in table:
        return
    positive = (test_set.truth.label.reindex(table.index) == 1).to_numpy()
    is_located = table.index.isin(test_set.truth.boxes_trusted) & positive
    hit = points_in_boxes(table, test_set.truth.true_boxes)
    table["localised"] = pd.Series(hit, table.index, dtype="boolean").where(is_located)
