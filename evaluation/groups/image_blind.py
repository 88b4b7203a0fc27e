"""Image-blind baseline of each system: constant positions with the system's own image scores.

Lungs are at the same position in nearly every image, so a point and boxes that never depend on the
image find many lesions. A localisation figure says something only beside that of such positions.
The baseline of a system has the best constant point, and the best k constant boxes with the image
score of the system as their score. Both are learned on validation or training boxes, never on test
boxes. It is an output like any other, so its figures come from the same resamples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES, box_iou
from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.evaluation.box_choice import BoxCandidate, BoxChoice
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.boxes.overlaps import OverlapRule
from cxr_compare.evaluation.evaluated_model import EvaluatedModel, Models, images_of
from cxr_compare.evaluation.figures import image_blind_name
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.output import Output, System
from cxr_compare.evaluation.statistics.arrays import Floats

ENOUGH_BOXES = 100
"""Number of boxes from which positions are learned well enough: 25 for each of four boxes.

With fewer validation boxes training boxes are taken, and with fewer of both nothing is claimed.
"""
FEW_BOXES = f"the image-blind baseline was learned from fewer than {ENOUGH_BOXES} boxes"
"""Reason why no claim rests on the difference from a baseline: its interval keeps it fixed."""
_MOST = 4
"""Largest number k of constant boxes that is tried."""
_USUAL = 2
"""Number of constant boxes if no validation image with a lesion can choose it: one a lung."""
_ABSENT = (
    "There is no image-blind baseline, because no validation or training image has a box to learn "
    "constant positions from. So it is not known whether the systems localise lesions better than "
    "positions that do not depend on the image."
)
_GRID = 100
"""Number of steps across the image in which the constant point is searched."""
_BOX_GRID = 25
"""Number of centres of constant boxes that are tried across the image, and down the image."""
_SIDES = (0.75, 1.0, 1.25, 1.5)
"""Sides of constant boxes that are tried, in median sides of the lesions."""
_FINDS = 0.3
"""IoU from which a constant box finds a lesion: above the 0.2 of FROC, as new lesions vary."""
_MOST_LESIONS = 1000
"""Number of lesions that the search for boxes takes at most, evenly from all."""


@dataclass(frozen=True, eq=False)
class ConstantPlaces:
    """Constant point and boxes, which are the same on every image.

    Attributes:
        point: Position x and y, as shares of the image's width and height, shape ``(2,)``.
        boxes: Corners xyxy of boxes in the same unit, the best first, shape ``(K, 4)``.
        role: Role of the images whose boxes they were learned from, ``val`` or ``train``.
        n_boxes: Number of these boxes.
        sizes: Width and height of every image in px by image id. They are 1, and positions are in
            px, if the size of an image is unknown.
    """

    point: Floats
    boxes: Floats
    role: str
    n_boxes: int
    sizes: pd.DataFrame

    @property
    def no_claim(self) -> str:
        """Reason why no claim may rest on differences from the baseline; empty if one may."""
        return FEW_BOXES if self.n_boxes < ENOUGH_BOXES else ""

    def points_on(self, image_ids: pd.Index) -> pd.DataFrame:
        """Return the constant point on images, ``point_x`` and ``point_y`` in original px."""
        points = self.sizes.reindex(image_ids).to_numpy(np.float64) * self.point
        return pd.DataFrame(points, index=image_ids, columns=["point_x", "point_y"])

    def boxes_on(self, scores: pd.Series, k: int) -> pd.DataFrame:
        """Return the best k boxes on each image, in original px, with the score of the image."""
        sizes = self.sizes.reindex(scores.index).to_numpy(np.float64)
        corners = np.tile(sizes, 2)[:, None, :] * self.boxes[:k]  # (N, k, 4)
        table = pd.DataFrame(corners.reshape(-1, 4), columns=EDGES)
        table.insert(0, "image_id", np.repeat(scores.index.to_numpy(), k))
        return table.assign(score=np.repeat(scores.to_numpy(np.float64), k))


def learn_places(truth: LabelledImages) -> ConstantPlaces | None:
    """Learn the constant positions from the boxes of validation or training images.

    Training boxes are taken if there are fewer than `ENOUGH_BOXES` validation boxes and more
    training boxes.

    Args:
        truth: Roles and true boxes of all images. Boxes of test images are not read.

    Returns:
        The positions; None if there is neither a validation nor a training box.
    """
    by_role = {
        role: truth.true_boxes[is_member(truth.true_boxes["image_id"], truth.ids_of(role))]
        for role in ("val", "train")
    }
    role = "val"
    if len(by_role["val"]) < min(ENOUGH_BOXES, len(by_role["train"])):
        role = "train"
    boxes = by_role[role]
    if boxes.empty:
        return None
    sizes = truth.images.set_index("image_id").reindex(columns=["width", "height"])
    sizes = sizes.reindex(truth.roles.index).astype(np.float64)
    if sizes.isna().any(axis=None):
        sizes[:] = 1.0
    of_boxes = sizes.reindex(boxes["image_id"]).to_numpy()
    corners = boxes[EDGES].to_numpy(np.float64) / np.tile(of_boxes, 2)
    images = pd.factorize(boxes["image_id"])[0]
    return ConstantPlaces(
        _best_point(corners, images), _best_boxes(corners), role, len(boxes), sizes
    )


def _best_point(corners: Floats, images: np.ndarray) -> Floats:
    """Return the grid point that lies on a lesion of most images, shape ``(2,)``.

    Of several such points, the one that is nearest to their mean is taken.
    """
    low = corners[:, :2].min(axis=0)
    high = corners[:, 2:].max(axis=0)
    axes = np.linspace(low, high, _GRID + 1)  # (101, 2)
    first = np.column_stack([np.searchsorted(axes[:, a], corners[:, a]) for a in (0, 1)])
    after = np.column_stack(
        [np.searchsorted(axes[:, a], corners[:, a + 2], side="right") for a in (0, 1)]
    )
    counts = np.zeros((_GRID + 1, _GRID + 1), dtype=np.int64)  # rows are y
    for image in np.unique(images):
        of_image = np.flatnonzero(images == image)
        on_lesion = np.zeros(counts.shape, dtype=bool)
        for box in np.asarray(of_image).tolist():
            on_lesion[first[box, 1] : after[box, 1], first[box, 0] : after[box, 0]] = True
        counts += on_lesion
    rows, columns = np.nonzero(counts == counts.max())
    tied = np.column_stack([axes[columns, 0], axes[rows, 1]])
    nearest = np.square(tied - tied.mean(axis=0)).sum(axis=1).argmin()
    return np.asarray(tied[nearest])


def _best_boxes(corners: Floats) -> Floats:
    """Return up to `_MOST` boxes, each of which finds the most lesions that no box before it found.

    Candidates have their centres on a grid, and the median sides of the lesions times a factor. Of
    equally good ones, the one with the highest mean IoU is taken.
    """
    lesions = corners[:: math.ceil(len(corners) / _MOST_LESIONS)]
    centres = (lesions[:, :2] + lesions[:, 2:]) / 2
    half = np.median(lesions[:, 2:] - lesions[:, :2], axis=0) / 2
    axes = np.linspace(centres.min(axis=0), centres.max(axis=0), _BOX_GRID)
    middle = np.stack(np.meshgrid(*axes.T), axis=-1).reshape(-1, 2)
    by_side = [np.hstack([middle - half * factor, middle + half * factor]) for factor in _SIDES]
    candidates = np.vstack(by_side)
    iou = np.vstack([box_iou(boxes[:, None], lesions) for boxes in by_side])  # (candidates, L)
    finds = iou >= _FINDS
    open_lesions = np.ones(len(lesions), dtype=bool)
    chosen: list[int] = []
    while not chosen or (len(chosen) < _MOST and (finds & open_lesions).any()):
        gains = (finds & open_lesions).sum(axis=1) + iou[:, open_lesions].mean(axis=1)
        best = int(gains.argmax())
        chosen.append(best)
        open_lesions &= ~finds[best]
    return np.asarray(candidates[chosen])


def image_blind_models(
    models: Models, systems: Mapping[str, System], truth: LabelledImages, places: ConstantPlaces
) -> dict[str, list[EvaluatedModel]]:
    """Make the image-blind baseline of every system that points at a position.

    Args:
        models: Evaluated models of each system by its display name, one for each training seed.
        systems: Output of each model on all images, by the model's name.
        truth: Labels, roles, patients and true boxes of all images.
        places: Constant positions.

    Returns:
        Baselines by display name of their system, one for each training seed.
    """
    return {
        name: [_baseline(model, systems[model.name], truth, places) for model in members]
        for name, members in models.items()
        if all(model.points is not None for model in members)
    }


def image_blind_notes(
    places: ConstantPlaces | None, image_blind: Models, models: Models
) -> list[Note]:
    """Note from which boxes the baselines were learned, or why systems with positions have none."""
    if places is None:
        pointing = any(model.points is not None for of_one in models.values() for model in of_one)
        has_lesions = len(images_of(models).true_boxes) > 0
        return [Note("image_blind", _ABSENT)] if pointing and has_lesions else []
    if not image_blind:
        return []
    counts = {
        name: len(members[0].output.finding_boxes) // len(members[0].images.image_ids)
        for name, members in image_blind.items()
    }
    x, y = places.point
    point = f"at {x:.2f} of the width and {y:.2f} of the height"
    if bool((places.sizes == 1).all(axis=None)):
        point = f"x {x:.0f}, y {y:.0f} px: the sizes of images are unknown"
    boxes = counted(places.n_boxes, "validation box")
    if places.role == "train":
        boxes = (
            f"{counted(places.n_boxes, 'training box')}, because there are fewer than "
            f"{ENOUGH_BOXES} validation boxes"
        )
    each = ", ".join(f"{name}: {count}" for name, count in counts.items())
    text = (
        f"Image-blind baseline of each system: the best constant point ({point}) and the best "
        f"constant boxes ({each} an image) with its own image scores, learned on {boxes}. A "
        "localisation figure says something only beside it."
    )
    if places.no_claim:
        text += (
            f" Nothing is claimed about differences from it: with fewer than {ENOUGH_BOXES} boxes "
            "its positions depend on which boxes these are, which no interval includes."
        )
    values = {"point": places.point.round(3).tolist(), "boxes": counts, "role": places.role}
    return [Note("image_blind", text, values)]


def _baseline(
    model: EvaluatedModel, system: System, truth: LabelledImages, places: ConstantPlaces
) -> EvaluatedModel:
    """Return the baseline of one model; validation images choose the number of its boxes."""
    choice = None
    k = min(_USUAL, len(places.boxes))
    if model.choices.box_choice is not None:
        choice = _choice_of_boxes(model, system, truth, places)
        if choice.n_positive:
            k = choice.index + 1
        choice = replace(choice, candidates=choice.candidates[k - 1 : k])
    ids = model.images.image_ids
    scores = pd.Series(model.scores, ids)
    finding = model.output.findings[0] if model.output.findings else ""
    output = Output(
        "both",
        ids,
        finding_scores=scores.rename("score").rename_axis("image_id").reset_index(),
        finding_boxes=places.boxes_on(scores, k).assign(finding=finding),
        findings=model.output.findings,
        source=model.output.source,
        constant_points=places.points_on(ids),
        has_scores=model.output.has_scores,
    )
    cut = None if choice is None else choice.cut
    choices = model.choices.with_values(
        reduction=None,
        calibration=None,
        map_scale=None,
        map_boxes=None,
        overlap=None,
        box_cut=cut if model.output.has_scores else model.choices.box_cut,
        box_choice=choice,
    )
    return EvaluatedModel(image_blind_name(model.name), model.images, output, choices, model.facts)


def _choice_of_boxes(
    model: EvaluatedModel, system: System, truth: LabelledImages, places: ConstantPlaces
) -> BoxChoice:
    """Return the choice between 1, 2, ... constant boxes, by the figure that chose the system's."""
    known = truth.labels_of("val").dropna().index
    ids = known.intersection(system.images_run).intersection(truth.boxes_trusted).sort_values()
    scores = system.output_on(ids).scores(model.choices.reduction)
    candidates = [
        BoxCandidate(
            OverlapRule(None), pair_boxes(places.boxes_on(scores, k), truth.true_boxes, ids)
        )
        for k in range(1, len(places.boxes) + 1)
    ]
    return BoxChoice(candidates, truth.patients_of(ids), model.choices.options.boxes_by)
