"""From a comparison to one image: its truth and every system's prediction of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.schemas import EDGES, REFERENCE_READER
from data_prep.contracts.tables import read_table
from evaluation.boxes.fusion import AS_STORED
from evaluation.boxes.matching import localised
from evaluation.decisions.decided_output import DecidedOutput, decide, levels_at, map_levels
from evaluation.decisions.system_output import SystemOutput
from evaluation.decisions.test_set import TestSet
from evaluation.decisions.tuning import checked_decision
from evaluation.overlays.prediction import ImagePrediction, ImageTruth
from evaluation.overlays.shapes import system_colour

if TYPE_CHECKING:
    from data_prep.store.dataset import DataSet, Target
    from data_prep.store.predictions import Predictions
    from evaluation.compare.comparison import Comparison
    from evaluation.decisions.decision import Decision


@dataclass(frozen=True)
class CaseSource:
    """Truth and predictions of any image, one image at a time."""

    labels: pd.Series
    truth_boxes: pd.DataFrame
    boxed: pd.Index
    kinds: pd.Series
    systems: tuple[DecidedOutput, ...]
    readers: pd.DataFrame = field(default_factory=pd.DataFrame)

    def truth(self, image_id: str) -> ImageTruth:
        """Return what is known of an image."""
        label = float(self.labels.get(image_id, math.nan))
        kind = self.kinds.get(image_id, "")
        boxes = None
        if image_id in self.boxed:
            on_image = self.truth_boxes["image_id"] == image_id
            boxes = self.truth_boxes.loc[on_image, EDGES].to_numpy(dtype=np.float64)
        return ImageTruth(
            label, boxes, kind if isinstance(kind, str) else "", self._drawn(image_id)
        )

    def _drawn(self, image_id: str) -> dict[str, npt.NDArray[np.float64]]:
        """The boxes of each reader who read this image; a reader who saw nothing has none."""
        if self.readers.empty:
            return {}
        drawn = self.readers[self.readers["image_id"] == image_id]
        return {
            str(reader): rows.dropna(subset=EDGES)[EDGES].to_numpy(dtype=np.float64)
            for reader, rows in drawn.groupby("reader")
        }

    def predictions(self, image_id: str) -> list[ImagePrediction]:
        """Return every system's view of an image, in the order of the panels."""
        return [
            system.prediction(image_id, system_colour(position))
            for position, system in enumerate(self.systems)
        ]


def _single_readers(dataset: DataSet, target: Target) -> pd.DataFrame:
    """What readers beside the reference said of a target, image by image."""
    names = ["image_id", "reader", *EDGES]
    folder = getattr(dataset, "folder", None)
    if folder is None:
        return pd.DataFrame(columns=names)
    tables = []
    for name in ("findings", "boxes"):
        table = read_table(folder / f"{name}.parquet", name)
        wanted = (table["reader"] != REFERENCE_READER) & table["finding"].isin(target.any_of)
        tables.append(table[wanted])
    read, boxes = tables
    keys = ["image_id", "reader"]
    read = read[keys].drop_duplicates()
    return read.merge(boxes[names], on=keys, how="outer")[names]


def read_cases(comparison: Comparison, dataset: DataSet, policy: str) -> CaseSource:
    """Prepare a comparison's images for drawing, at one policy's thresholds."""
    target = comparison.target
    images = dataset.images.set_index("image_id")
    kinds = images["x_class"] if "x_class" in images else pd.Series(dtype=object)
    return CaseSource(
        labels=dataset.labels(target),
        truth_boxes=dataset.target_boxes(target),
        boxed=dataset.boxes_trusted(target),
        kinds=kinds,
        systems=tuple(_compared_output(comparison, name, policy) for name in comparison.names),
        readers=_single_readers(dataset, target),
    )


def _compared_output(comparison: Comparison, name: str, policy: str) -> DecidedOutput:
    decisions = comparison.decisions
    rows = decisions[decisions["system"] == name].drop_duplicates("image_id")
    column = f"decision_{policy}"
    rows = rows.assign(decision=rows.get(column))
    rows = rows.set_index("image_id")
    result = comparison.systems[name]
    probabilities, calibrated = _probabilities(rows)
    empty = pd.DataFrame(columns=["image_id", *EDGES, "score"])
    return DecidedOutput(
        name=name,
        decisions=rows,
        boxes=empty if result.boxes is None else result.boxes,
        maps=result.maps,
        levels=levels_at(result.maps, probabilities),
        calibrated=calibrated,
        threshold=result.thresholds.get(policy),
    )


def _probabilities(rows: pd.DataFrame) -> tuple[pd.Series, bool]:
    """The probabilities of the images, or their scores where none are calibrated."""
    calibrated = "probability" in rows and bool(rows["probability"].notna().any())
    return rows["probability" if calibrated else "score"], calibrated


_VOI = {
    "full_range": "full range",
    "percentiles": "range of the pixels",
    "lut": "grey table of the file",
}


class ImageFacts:
    """Words for any image of a data set.

    Args:
        dataset: Its images table, and its decode table where there is one.
    """

    def __init__(self, dataset: DataSet) -> None:
        self._images = dataset.images.drop_duplicates("image_id").set_index("image_id")
        self._folder = getattr(dataset, "folder", None)

    @cached_property
    def _decoded(self) -> pd.DataFrame:
        """How each image was decoded; empty for a set without pixels."""
        path = None if self._folder is None else self._folder / "decode.parquet"
        if path is None or not path.exists():
            return pd.DataFrame()
        return read_table(path, "decode").set_index("image_id")

    def words(self, image_id: str) -> str:
        """Say view, sex, age, window and inversion, as far as the data set knows them."""
        row: Any = self._images.loc[image_id] if image_id in self._images.index else {}
        words = [str(row[name]) for name in ("view", "sex") if not pd.isna(row.get(name))]
        if not pd.isna(row.get("age_years")):
            words.append(f"{row['age_years']:.0f} years")
        if image_id in self._decoded.index:
            words.append(
                _display_words(
                    {str(key): value for key, value in self._decoded.loc[image_id].items()}
                )
            )
        return ", ".join(words)


def _display_words(decoded: dict[str, Any]) -> str:
    """Say how stored grey values became the ones on the screen.

    Example:
        >>> _display_words({"voi": "window", "window_center": 40.0, "window_width": 400.0,
        ...                "inverted": True})
        'window 40/400 of the file, inverted'
        >>> _display_words({"voi": "full_range", "inverted": False})
        'full range, not inverted'
    """
    voi, centre, width = (decoded.get(key) for key in ("voi", "window_center", "window_width"))
    words = "grey as stored" if pd.isna(voi) else _VOI.get(str(voi), str(voi).replace("_", " "))
    if not (pd.isna(centre) or pd.isna(width)):
        words = f"window {centre:g}/{width:g} of the file"
    return f"{words}, {'' if decoded.get('inverted') else 'not '}inverted"


def read_systems(
    systems: Mapping[str, Predictions],
    test_set: TestSet,
    image_ids: Sequence[str],
    *,
    policy: str,
) -> CaseSource:
    """Prepare chosen images for drawing, at one policy's thresholds.

    A system that is not tuned stays undecided: its boxes are drawn in full from score 0.5.

    Args:
        systems: Predictions by display name, in the order of the panels.
        test_set: What is shown, and the split that the systems were tuned on.
        image_ids: The images.
        policy: Threshold policy.

    Raises:
        InputError: A stored decision is not what validation gives, lacks the policy, or no
            system ran on an image.
    """
    wanted = pd.Index(image_ids, name="image_id")
    images, target = test_set.images.set_index("image_id"), test_set.target
    truth_boxes, labels, boxed = test_set.true_boxes, test_set.labels, test_set.boxes_trusted
    outputs, cells = [], []
    for name, system in systems.items():
        ids = wanted[wanted.isin(system.images_run)]
        if not len(ids):
            raise InputError(f"{system.folder}: {name} ran on none of the images asked for")
        decision = None
        if system.decision(target.name) is not None:
            decision, _ = checked_decision(name, system, test_set, ())
            _check_policy(system, decision, policy)
        boxes = AS_STORED if decision is None else decision.boxes
        evidence = SystemOutput.of(system, test_set, ids, boxes)
        levels = None if evidence.gives_boxes else map_levels(system, target, decision)
        output = decide(name, evidence, decision, policy, levels=levels)
        outputs.append(output)
        of_maps = evidence.cells()
        cells.append(pd.DataFrame(np.zeros((len(ids), 2)) if of_maps is None else of_maps, ids))
    tolerance = pd.concat(cells).groupby(level=0).max().reindex(wanted).fillna(0.0)
    for output in outputs:
        _locate(output, labels, truth_boxes, boxed, tolerance)
    kinds = images["x_class"] if "x_class" in images else pd.Series(dtype=object)
    readers = _single_readers(test_set.dataset, target)
    return CaseSource(labels, truth_boxes, boxed, kinds, tuple(outputs), readers)


def _check_policy(system: Predictions, decision: Decision, policy: str) -> None:
    if policy not in decision.thresholds:
        known = ", ".join(decision.thresholds)
        raise InputError(
            f"{system.folder}: not tuned for the policy '{policy}'; it has {known}: choose one of "
            "them or run cxr tune again"
        )


def _locate(
    output: DecidedOutput,
    labels: pd.Series,
    truth_boxes: pd.DataFrame,
    boxed: pd.Index,
    cells: pd.DataFrame,
) -> None:
    """Add whether each positive image's scored point lies on a lesion, where that is known.

    With the tolerance of one of the cells, too, as in a comparison.
    """
    table = output.decisions
    if "point_x" not in table:
        return
    known = table.index.isin(boxed) & (labels.reindex(table.index) == 1).to_numpy()
    tolerance = cells.reindex(table.index).to_numpy(dtype=np.float64)
    for column, slack in (("localised", None), ("localised_tolerant", tolerance)):
        found = localised(table, truth_boxes, slack)
        table[column] = pd.Series(found, table.index, dtype="boolean").where(known)
