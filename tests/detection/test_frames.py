"""A batch's boxes are what its images' boxes are one by one, bit for bit."""

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.boxes import Boxes
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.placement import Placement
from cxr_compare.detection.frames import boxes_frames

FINDINGS = ("opacity", "nodule", "mass")
PLACEMENTS = {
    "plain": Placement(0.5, 0.5, 0.0, 0.0),
    "wide": Placement(0.37, 0.371, 0.0, 11.0),
    "high": Placement(1.7, 1.69, 9.0, 0.0),
}
SIZES = pd.DataFrame(
    {"width": [128, 173, 27], "height": pd.array([128, 113, 37], "Int64")}, index=list(PLACEMENTS)
)


def detections(seed: int, count: int, *, finite: bool = True) -> Boxes | None:
    if not finite:
        return None
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-10, 74, (count, 2, 2)).astype(np.float32)  # some lie in the border
    return Boxes(
        np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1),
        rng.uniform(0.001, 1, count).astype(np.float32),
        rng.integers(1, len(FINDINGS) + 1, count),
    )


def frames(detected: dict[str, Boxes | None]) -> tuple[pd.DataFrame, pd.DataFrame]:
    placements = PLACEMENTS.__getitem__
    part = boxes_frames(list(detected), list(detected.values()), FINDINGS, placements, SIZES)
    return part.images, part.tables["boxes"]


@pytest.mark.parametrize("finite", [True, False], ids=["nothing found", "nothing finite"])
def test_a_batch_without_a_box_is_an_empty_table_of_the_same_types(finite):
    detected = {name: detections(0, 0, finite=finite) for name in PLACEMENTS}
    images, boxes = frames(detected)
    assert images["status"].tolist() == ["ok" if finite else "failed"] * 3
    assert len(boxes) == 0
    full = frames({"plain": detections(0, 80)})[1]
    assert boxes.dtypes.to_dict() == full.dtypes.to_dict()


def test_an_image_of_unknown_size_is_named_but_a_failed_one_needs_none():
    sizes = SIZES.assign(width=pd.array([128, None, 27], "Int64"))
    for finite in (True, False):
        detected = [detections(0, 2), detections(1, 2, finite=finite)]
        call = ["plain", "wide"], detected, FINDINGS, PLACEMENTS.__getitem__, sizes
        if not finite:
            assert set(boxes_frames(*call).tables["boxes"]["image_id"]) <= {"plain"}
            continue
        with pytest.raises(InputError, match=r"images: .*image 'wide'"):
            boxes_frames(*call)
