"""From a comparison to one image: its truth, every system's prediction of it, and its drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.boxes.pointing import points_in_boxes
from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.decisions.decided_output import (
    NO_BOXES,
    DecidedOutput,
    decide,
    levels_at,
    map_levels,
)
from cxr_compare.evaluation.overlays.draw import draw_overlay
from cxr_compare.evaluation.overlays.shapes import ImagePrediction, ImageTruth, system_colour
from cxr_compare.evaluation.systems.labelled_split import LabelledSplit
from cxr_compare.evaluation.systems.stored_predictions import (
    checked_decision,
    read_output,
    read_system,
)

_VOI = {
    "full_range": "full range",
    "percentiles": "range of the pixels",
    "lut": "grey table of the file",
}


@dataclass(frozen=True)
class CaseSource:
    """Truth and predictions of any image, one image at a time, and the drawing of both."""

    test_set: LabelledSplit
    systems: tuple[DecidedOutput, ...]

    def draw(
        self,
        image_id: str,
        pixels: npt.NDArray[np.uint8] | None = None,
        *,
        panel: int = 480,
        faint: bool = False,
    ) -> npt.NDArray[np.uint8]:
        """Draw the plain image, the truth and each system side by side, see `draw_overlay`.

        `pixels` are those of the image in its original size, where they were read already.
        """
        return draw_overlay(
            self.test_set.dataset.read_original(image_id) if pixels is None else pixels,
            self.truth(image_id),
            self.predictions(image_id),
            finding=self.test_set.target.display_name,
            title=image_id,
            facts=self.facts(image_id),
            panel=panel,
            faint=faint,
        )

    def truth(self, image_id: str) -> ImageTruth:
        """What is known of an image."""
        test_set = self.test_set
        boxes = None
        if image_id in test_set.boxes_trusted:
            on_image = test_set.true_boxes["image_id"] == image_id
            boxes = test_set.true_boxes.loc[on_image, EDGES].to_numpy(dtype=np.float64)
        kind = self._images.get("x_class", pd.Series(dtype=object)).get(image_id, "")
        return ImageTruth(
            float(test_set.labels.get(image_id, math.nan)),
            boxes,
            kind if isinstance(kind, str) else "",
            self._boxes_of_readers(image_id),
        )

    def predictions(self, image_id: str) -> list[ImagePrediction]:
        """Every system's view of an image, in the order of the panels."""
        mapped = " or ".join(system.name for system in self.systems if system.maps is not None)
        found = [
            system.prediction(image_id, system_colour(position))
            for position, system in enumerate(self.systems)
        ]
        cell = max((max(one.grid.cell) for one in found if one.grid is not None), default=0.0)
        return [
            replace(one, cell=cell, cell_of=mapped if system.maps is None else "")
            for system, one in zip(self.systems, found, strict=True)
        ]

    def facts(self, image_id: str) -> str:
        """View, sex, age, window and inversion, as far as the data set knows them."""
        row: Any = self._images.loc[image_id] if image_id in self._images.index else {}
        words = [str(row[name]) for name in ("view", "sex") if not pd.isna(row.get(name))]
        if not pd.isna(row.get("age_years")):
            words.append(f"{row['age_years']:.0f} years")
        if image_id in self._decoded.index:
            decoded = self._decoded.loc[image_id].items()
            words.append(_display_words({str(key): value for key, value in decoded}))
        return ", ".join(words)

    @cached_property
    def _images(self) -> pd.DataFrame:
        return self.test_set.images.drop_duplicates("image_id").set_index("image_id")

    @cached_property
    def _decoded(self) -> pd.DataFrame:
        """How each image was decoded; empty for a set without pixels."""
        return self.test_set.dataset.optional_table("decode").set_index("image_id")

    @cached_property
    def _readers(self) -> pd.DataFrame:
        """What readers beside the reference said of the target, image by image."""
        names = ["image_id", "reader", *EDGES]
        tables = []
        for name in ("findings", "boxes"):
            table = self.test_set.dataset.optional_table(name)
            single = table["reader"] != REFERENCE_READER
            tables.append(table[single & table["finding"].isin(self.test_set.target.any_of)])
        read, boxes = tables
        keys = ["image_id", "reader"]
        return read[keys].drop_duplicates().merge(boxes[names], on=keys, how="outer")[names]

    def _boxes_of_readers(self, image_id: str) -> dict[str, npt.NDArray[np.float64]]:
        """The boxes of each reader who read this image; a reader who saw nothing has none."""
        drawn = self._readers[self._readers["image_id"] == image_id]
        return {
            str(reader): rows.dropna(subset=EDGES)[EDGES].to_numpy(dtype=np.float64)
            for reader, rows in drawn.groupby("reader")
        }


def _display_words(decoded: dict[str, Any]) -> str:
    """Say how stored grey values became the ones on the screen."""
    voi, centre, width = (decoded.get(key) for key in ("voi", "window_center", "window_width"))
    words = "grey as stored" if pd.isna(voi) else _VOI.get(str(voi), str(voi).replace("_", " "))
    if not (pd.isna(centre) or pd.isna(width)):
        words = f"window {centre:g}/{width:g} of the file"
    return f"{words}, {'' if decoded.get('inverted') else 'not '}inverted"


def read_cases(comparison: Comparison, dataset: DataSet, policy: str) -> CaseSource:
    """Prepare a comparison's images for drawing, at one policy's thresholds."""
    outputs = tuple(_compared_output(comparison, name, policy) for name in comparison.names)
    return CaseSource(LabelledSplit(dataset, dataset.target(comparison.finding)), outputs)


def _compared_output(comparison: Comparison, name: str, policy: str) -> DecidedOutput:
    decisions = comparison.decisions
    rows = decisions[decisions["system"] == name].drop_duplicates("image_id")
    rows = rows.assign(decision=rows.get(f"decision_{policy}")).set_index("image_id")
    result = comparison.systems[name]
    calibrated = "probability" in rows and bool(rows["probability"].notna().any())
    # Contours lie at scores where no probabilities are calibrated.
    levels = levels_at(result.maps, rows["probability" if calibrated else "score"])
    boxes = NO_BOXES if result.boxes is None else result.boxes
    threshold = result.thresholds.get(policy)
    return DecidedOutput(name, rows, boxes, result.maps, levels, calibrated, threshold)


def read_systems(
    systems: Mapping[str, Predictions],
    test_set: LabelledSplit,
    image_ids: Sequence[str],
    *,
    policy: str,
) -> CaseSource:
    """Prepare chosen images for drawing, at one policy's thresholds.

    `systems` are by display name, in the order of the panels; `test_set` is of the split that they
    were tuned on. One that is not tuned stays undecided: its boxes are drawn in full from score
    0.5.

    Raises:
        InputError: A stored decision is not what validation gives, lacks the policy, or no
            system ran on an image.
    """
    wanted = pd.Index(image_ids, name="image_id")
    outputs = []
    cells = [pd.DataFrame()]
    for name, system in systems.items():
        ids = wanted[wanted.isin(system.images_run)]
        if not len(ids):
            raise InputError(f"{system.folder}: {name} ran on none of the images asked for")
        decision = None
        if system.decision(test_set.target.name) is not None:
            decision, _ = checked_decision(name, system, test_set, ())
            if policy not in decision.thresholds:
                raise InputError(
                    f"{system.folder}: not tuned for the policy '{policy}'; it has "
                    f"{', '.join(decision.thresholds)}: choose one of them or run cxr tune again"
                )
        evidence = read_output(system, test_set.target, ids)
        levels = None
        if not evidence.gives_boxes:
            levels = map_levels(read_system(system, test_set.target), decision)
        outputs.append(decide(name, evidence, decision, policy, levels=levels))
        of_maps = evidence.cells()
        cells.append(pd.DataFrame(np.zeros((len(ids), 2)) if of_maps is None else of_maps, ids))
    tolerance = pd.concat(cells).groupby(level=0).max().reindex(wanted).fillna(0.0)
    for output in outputs:
        _locate(output, test_set, tolerance)
    return CaseSource(test_set, tuple(outputs))


def _locate(output: DecidedOutput, test_set: LabelledSplit, cells: pd.DataFrame) -> None:
    """Add whether each positive image's scored point lies on a lesion, where that is known.

    With the tolerance of one of the cells, too, as in a comparison.
    """
    table = output.decisions
    if "point_x" not in table:
        return
    positive = (test_set.labels.reindex(table.index) == 1).to_numpy()
    known = table.index.isin(test_set.boxes_trusted) & positive
    tolerance = cells.reindex(table.index).to_numpy(dtype=np.float64)
    for column, slack in (("localised", None), ("localised_tolerant", tolerance)):
        hit = points_in_boxes(table, test_set.true_boxes, slack)
        table[column] = pd.Series(hit, table.index, dtype="boolean").where(known)
