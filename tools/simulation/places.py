"""Systems whose boxes never depend on the image, beside a detector: they may never "localise".

Lesions lie in two lungs, as in `draw.draw_boxes`, or are the true boxes of the RSNA Pneumonia
Detection Challenge. Constant boxes have the image scores of the first detector, times a weight.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit

from tools.simulation.draw import (
    EDGES,
    LIKENESSES,
    LUNGS,
    BoxedImages,
    Floats,
    Integers,
    Law,
    Sample,
    detect,
    draw_boxes,
)

RSNA_FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "reference_csv"
"""Folder of the public tables of RSNA."""
_NO_BOX = 0.01  # image score of a constant box where the detector has no box
_CALLED = 0.5  # image score above which an image is called


class Places(NamedTuple):
    """Constant boxes, ``(K, 4)`` in px with a weight each, and how images are drawn by role.

    With `called_only` the boxes lie only on images whose score is above 0.5.
    """

    images: Callable[[np.random.Generator], dict[str, BoxedImages]]
    corners: Floats
    weights: tuple[float, ...]
    called_only: bool = False

    def boxes(self, scores: pd.Series) -> pd.DataFrame:
        """Return the constant boxes on images with these scores; NaN where there is no box."""
        scores = scores[scores > _CALLED] if self.called_only else scores.fillna(_NO_BOX)
        table = pd.DataFrame(np.tile(self.corners, (len(scores), 1)), columns=EDGES)
        table["image_id"] = np.repeat(scores.index.to_numpy(), len(self.corners))
        return table.assign(score=np.outer(scores, self.weights).ravel())


def drawn_images(rng: np.random.Generator, **laws: Law) -> dict[str, BoxedImages]:
    """Draw images of each role by its law."""
    return {role: draw_boxes(rng, law, law.patients) for role, law in laws.items()}


def rsna_images(rng: np.random.Generator, **patients: int) -> dict[str, BoxedImages]:
    """Draw patients of RSNA without replacement for each role: their images and true boxes.

    Places that look like a lesion are the lesions of other images.
    """
    owner, boxed, corners = _rsna()
    ends = np.cumsum([*patients.values()])
    order = rng.permutation(owner.max() + 1)[: ends[-1]]
    of_roles = np.split(order, ends[:-1])
    return {
        role: _of_patients(rng, np.flatnonzero(np.isin(owner, drawn)), owner, boxed, corners)
        for role, drawn in zip(patients, of_roles, strict=True)
    }


def _of_patients(
    rng: np.random.Generator, images: Integers, owner: Integers, boxed: Integers, corners: Floats
) -> BoxedImages:
    """Draw the boxes of detectors on some images; `boxed` has the image of each true box."""
    patients = np.unique(owner[images], return_inverse=True)[1]
    of_patient = rng.standard_normal(patients.max() + 1)[patients]
    noise = np.sqrt(0.4) * of_patient + np.sqrt(0.6) * rng.standard_normal((2, len(images)))
    sample = Sample(np.isin(images, boxed), expit(noise), patients)
    own = np.flatnonzero(np.isin(boxed, images))
    lesion = np.searchsorted(images, boxed[own])
    like = np.repeat(np.arange(len(images)), rng.poisson(LIKENESSES, len(images)))
    seen = corners[np.concatenate([own, rng.integers(0, len(corners), len(like))])]
    place = np.concatenate([lesion, like])
    centre, side = (seen[:, :2] + seen[:, 2:]) / 2, seen[:, 2:] - seen[:, :2]
    return detect(rng, sample, place, np.arange(len(place)) < len(lesion), centre, side)


@cache
def _rsna() -> tuple[Integers, Integers, Floats]:
    """Read the patient of each image, and the image and the corners of each true box."""
    if not RSNA_FOLDER.is_dir():
        sys.exit(f"no folder {RSNA_FOLDER}: this design draws from RSNA's public tables there")
    labels = pd.read_csv(RSNA_FOLDER / "stage_2_train_labels.csv")
    names = pd.read_csv(RSNA_FOLDER / "rsna_to_nih.csv").set_index("patientId")["nih_image"]
    image, ids = pd.factorize(labels["patientId"], sort=True)
    owner = pd.factorize(names[ids].str[:8], sort=True)[0]
    has_box = labels["x"].notna().to_numpy()
    corner = labels.loc[has_box, ["x", "y"]].to_numpy(np.float64)
    sides = labels.loc[has_box, ["width", "height"]].to_numpy(np.float64)
    return owner, image[has_box], np.hstack([corner, corner + sides])


def _in_lungs(half: tuple[float, float], *offsets: tuple[float, float]) -> Floats:
    """Return a box for each offset from the middle of a lung, both lungs in turn."""
    centre = np.concatenate([LUNGS + offset for offset in offsets])
    return np.hstack([centre - half, centre + half])


_BOTH = (1.0, 0.9)
_LUNG = _in_lungs((100, 150), (0, 0))
_RSNA = np.array([[213.0, 374.0, 425.0, 656.0], [599.0, 356.0, 823.0, 674.0]])
_TWELVE = [(x, y) for y in (0, -90, 90) for x in (-45, 45)]
_TEST = Law(patients=150, in_lungs=True)
_SMALL = replace(_TEST, lesion_side=90.0)
_MANY = replace(_SMALL, patients=1000)
_FEW = replace(_TEST, patients=10, images="25-37", same_places=True)
_JUST_ENOUGH = replace(_TEST, patients=38, images="6-9", same_places=True)


def _validated(test: Law, patients: int = 300) -> Callable[..., dict[str, BoxedImages]]:
    return partial(drawn_images, val=replace(test, patients=patients), test=test)


PLACES = {
    # 300 validation and 150 test patients with an image each. Lesions have a median side of 190 px.
    "places": Places(_validated(_TEST), _LUNG, _BOTH),
    "places-called": Places(_validated(_TEST), _LUNG, _BOTH, called_only=True),
    "places-four": Places(
        _validated(_TEST), _in_lungs((90, 120), (0, 0), (0, 120)), (1.0, 0.8, 0.5, 0.4)
    ),
    # Boxes that are larger and smaller than the lesions.
    "places-1.5": Places(_validated(_TEST), _in_lungs((142, 142), (0, 0)), _BOTH),
    "places-0.65": Places(_validated(_TEST), _in_lungs((62, 62), (0, 0)), _BOTH),
    # Small lesions, 90 px.
    "places-twelve": Places(
        _validated(_SMALL), _in_lungs((50, 50), *_TWELVE), tuple(0.9 ** np.arange(12))
    ),
    "places-small": Places(_validated(_SMALL), _in_lungs((45, 45), (0, 0)), _BOTH),
    # Many test images show that the learned point is somewhat worse than the best one.
    "places-1000": Places(
        partial(drawn_images, val=replace(_SMALL, patients=300), test=_MANY),
        _in_lungs((45, 45), (0, 0)),
        _BOTH,
    ),
    # Lesions of a validation patient stay where they are: too few patients, and just enough.
    "places-few": Places(
        partial(drawn_images, val=_FEW, test=replace(_TEST, patients=80)), _LUNG, _BOTH
    ),
    "places-just-enough": Places(partial(drawn_images, val=_JUST_ENOUGH, test=_TEST), _LUNG, _BOTH),
    # Patients of RSNA; the boxes are the median ones of its right and left lungs.
    "places-rsna": Places(partial(rsna_images, val=600, test=300), _RSNA, _BOTH),
    "places-rsna-called": Places(
        partial(rsna_images, val=600, test=300), _RSNA, _BOTH, called_only=True
    ),
}
"""Constant boxes and images by the name of the design."""
