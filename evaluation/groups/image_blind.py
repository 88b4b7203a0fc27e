"""Image-blind baseline of each system: constant positions with the system's own image scores.

Lungs are at the same position in nearly every image, so a point and boxes that never depend on the
image find many lesions. A localisation figure says something only beside that of such positions.
The baseline of a system has the best constant point, and as many constant boxes an image as the
system gives (at most four), with the image score of the system as their score. Point and boxes are
learned on validation and training boxes together, never on test boxes, and learned again in
resamples of the patients of these boxes. It is an output like any other, so its figures come from
the same resamples of test patients as those of the system.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.box_choice import BoxCandidate, BoxChoice
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.boxes.overlaps import OverlapRule
from cxr_compare.evaluation.boxes.pointing import points_in_boxes
from cxr_compare.evaluation.evaluated_model import EvaluatedModel, Located, Models, images_of
from cxr_compare.evaluation.figures import image_blind_name
from cxr_compare.evaluation.groups.constant_places import Places, PlaceSearch
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.output import Output, System
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.bootstrap import Resamples, cluster_index

ENOUGH_BOXES = 100
"""Number of boxes below which nothing is claimed: 25 for each of four constant boxes."""
FEW_BOXES = f"the image-blind baseline was learned from fewer than {ENOUGH_BOXES} boxes"
"""Reason why no claim rests on the difference from a baseline."""
RELEARNED = 50
"""Number of resamples on which the positions are learned again, each for an equal share of all."""
_STREAM = 2
"""Random stream of the patients whose boxes teach, independent of those of other resamples."""
_ABSENT = (
    "There is no image-blind baseline, because no validation or training image has a box to learn "
    "constant positions from. So it is not known whether the systems localise lesions better than "
    "positions that do not depend on the image."
)


@dataclass(frozen=True, eq=False)
class ConstantPlaces:
    """Constant point and boxes, which are the same on every image.

    Attributes:
        learned: Point and boxes that were learned on all boxes.
        relearned: Point and boxes that were learned on each resample of the patients.
        n_boxes: Number of boxes that they were learned on, by role: ``val`` and ``train``.
        sizes: Width and height of every image in px by image id. They are 1, and positions are in
            px, if the size of an image is unknown.
    """

    learned: Places
    relearned: tuple[Places, ...]
    n_boxes: Mapping[str, int]
    sizes: pd.DataFrame

    @property
    def no_claim(self) -> str:
        """Reason why no claim may rest on differences from the baseline; empty if one may."""
        return FEW_BOXES if sum(self.n_boxes.values()) < ENOUGH_BOXES else ""

    def points_on(self, places: Places, image_ids: pd.Index) -> pd.DataFrame:
        """Return the constant point on images, ``point_x`` and ``point_y`` in original px."""
        points = self.sizes.reindex(image_ids).to_numpy(np.float64) * places.point
        return pd.DataFrame(points, index=image_ids, columns=["point_x", "point_y"])

    def boxes_on(self, places: Places, scores: pd.Series, k: int) -> pd.DataFrame:
        """Return the best k boxes on each image, in original px, with the score of the image."""
        corners = self.corners_on(places, scores.index, k)
        n_boxes = corners.shape[1]
        table = pd.DataFrame(corners.reshape(-1, 4), columns=EDGES)
        table.insert(0, "image_id", np.repeat(scores.index.to_numpy(), n_boxes))
        return table.assign(score=np.repeat(scores.to_numpy(np.float64), n_boxes))

    def corners_on(self, places: Places, image_ids: pd.Index, k: int) -> Floats:
        """Return the corners of the best k boxes on N images, in original px, ``(N, k, 4)``."""
        sizes = self.sizes.reindex(image_ids).to_numpy(np.float64)
        return np.asarray(np.tile(sizes, 2)[:, None, :] * places.boxes[:k])


def learn_places(truth: LabelledImages, resamples: Resamples) -> ConstantPlaces | None:
    """Learn the constant positions from the boxes of validation and training images together.

    Boxes of test images are not read. None if there is neither a validation nor a training box.
    """
    roles = truth.roles.reindex(truth.true_boxes["image_id"]).to_numpy()
    boxes = truth.true_boxes[np.isin(roles, ("val", "train"))]
    if boxes.empty:
        return None
    n_boxes = {role: int((roles == role).sum()) for role in ("val", "train")}
    sizes = truth.images.set_index("image_id").reindex(columns=["width", "height"])
    sizes = sizes.reindex(truth.roles.index).astype(np.float64)
    if sizes.isna().any(axis=None):
        sizes[:] = 1.0
    of_boxes = sizes.reindex(boxes["image_id"]).to_numpy()
    corners = boxes[EDGES].to_numpy(np.float64) / np.tile(of_boxes, 2)
    patients, n_patients = cluster_index(truth.patients_of(pd.Index(boxes["image_id"])))
    search = PlaceSearch(corners, pd.factorize(boxes["image_id"])[0], patients)
    n_again = min(RELEARNED, resamples.n_replicates)
    drawn = Resamples(n_patients, n_again, resamples.seed, _STREAM)
    (learned,) = search.learn(np.ones((1, n_patients)))
    relearned = search.learn(np.concatenate([*drawn.chunks()])) if n_again else []
    return ConstantPlaces(learned, tuple(relearned), n_boxes, sizes)


def image_blind_models(
    models: Models, systems: Mapping[str, System], truth: LabelledImages, places: ConstantPlaces
) -> dict[str, list[EvaluatedModel]]:
    """Make the image-blind baseline of every system that points at a position.

    There is one for each training seed. `systems` has the output of each model on all images, by
    the model's name.
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
    x, y = places.learned.point
    point = f"at {x:.2f} of the width and {y:.2f} of the height"
    if bool((places.sizes == 1).all(axis=None)):
        point = f"x {x:.0f}, y {y:.0f} px: the sizes of images are unknown"
    names = {"val": "validation box", "train": "training box"}
    learned_on = [
        counted(places.n_boxes[role], name) for role, name in names.items() if places.n_boxes[role]
    ]
    each = ", ".join(f"{name}: {count}" for name, count in counts.items())
    text = (
        f"Image-blind baseline of each system: the best constant point ({point}) and the best "
        f"constant boxes ({each} an image: as many as the system gives, at most four) with its own "
        f"image scores, learned on {' and '.join(learned_on)}. Intervals of differences from it "
        "include that other patients would have taught other positions. A localisation figure says "
        "something only beside it."
    )
    if places.no_claim:
        text += (
            f" Nothing is claimed about differences from it: fewer than {ENOUGH_BOXES} boxes teach "
            "positions that are worse than the best constant ones by an unknown amount."
        )
    return [Note("image_blind", text)]


def _baseline(
    model: EvaluatedModel, system: System, truth: LabelledImages, places: ConstantPlaces
) -> EvaluatedModel:
    """Return the baseline of one model, with as many boxes an image as the system gives."""
    k = min(_boxes_given(model), len(places.learned.boxes))
    choice = None
    if model.choices.box_choice is not None:
        choice = _choice_of_cut(model, system, truth, places, k)
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
    ids = model.images.image_ids
    scores = pd.Series(model.scores, ids)
    finding = model.output.findings[0] if model.output.findings else ""
    image_scores = scores.rename("score").rename_axis("image_id").reset_index()

    output = Output(
        "both",
        ids,
        finding_scores=image_scores,
        finding_boxes=places.boxes_on(places.learned, scores, k).assign(finding=finding),
        findings=model.output.findings,
        source=model.output.source,
        constant_points=places.points_on(places.learned, ids),
        has_scores=model.output.has_scores,
    )
    name = image_blind_name(model.name)
    baseline = EvaluatedModel(name, model.images, output, choices, model.facts)
    relearned = tuple(partial(_located_at, baseline, places, at, k) for at in places.relearned)
    return replace(baseline, relearned=relearned)


def _located_at(baseline: EvaluatedModel, places: ConstantPlaces, at: Places, k: int) -> Located:
    """Return the point and the k boxes of a baseline where they were learned again."""
    images = baseline.images
    pairs = baseline.pairs
    assert pairs is not None  # noqa: S101 - a baseline has boxes
    corners = places.corners_on(at, images.image_ids, k)
    if len(at.boxes) < k:  # few boxes taught it, and the first ones find them all
        pairs = pairs.subset(pairs.boxes.row % k < len(at.boxes))
        missing = np.zeros((len(corners), k - len(at.boxes), 4))
        corners = np.concatenate([corners, missing], axis=1)
    points = places.points_on(at, images.image_ids)
    localised = points_in_boxes(points, images.true_boxes)
    return Located(pairs.moved(corners.reshape(-1, 4)), localised)


def _boxes_given(model: EvaluatedModel) -> int:
    """Return the mean number of boxes of a system's rule on an image, rounded, at least one.

    It is that of the validation images that chose the rule; without them that of the test images.
    """
    pairs = model.pairs
    if model.choices.box_choice is not None:
        choice = model.choices.box_choice
        pairs = choice.candidates[choice.index].pairs
    if pairs is None or not len(pairs.truth.per_image):
        return 1
    return max(1, round(len(pairs.boxes.image) / len(pairs.truth.per_image)))


def _choice_of_cut(
    model: EvaluatedModel, system: System, truth: LabelledImages, places: ConstantPlaces, k: int
) -> BoxChoice:
    """Return the choice of the score cut of k constant boxes on validation images."""
    known = truth.labels_of("val").dropna().index
    ids = known.intersection(system.images_run).intersection(truth.boxes_trusted).sort_values()
    scores = system.output_on(ids).scores(model.choices.reduction)
    boxes = places.boxes_on(places.learned, scores, k)
    candidate = BoxCandidate(OverlapRule(None), pair_boxes(boxes, truth.true_boxes, ids))
    return BoxChoice([candidate], truth.patients_of(ids), model.choices.options.boxes_by)
