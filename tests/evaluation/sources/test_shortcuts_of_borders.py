"""The outer tenth of each image as a shortcut: a label that shows there."""

import cv2
import numpy as np
import pandas as pd

from cxr_compare.data_prep.images.border_greys import border_greys
from cxr_compare.evaluation.sources.shortcuts import measure_shortcuts

N = 400


def aurocs_by_fact(
    arrays: list[np.ndarray], ill: np.ndarray, seen: np.ndarray | None = None
) -> dict[str, float]:
    """AUROC by fact; of images not seen the greys are missing."""
    seen = np.ones(len(arrays), dtype=bool) if seen is None else seen
    ids = [f"i{number}" for number in range(len(arrays))]
    images = pd.DataFrame({"image_id": ids, "patient_id": ids})
    greys = [
        border_greys(image) if known else None for image, known in zip(arrays, seen, strict=True)
    ]
    means = [float(image.mean()) for image in arrays]
    decode = pd.DataFrame({"image_id": ids, "border_greys": greys, "mean_grey": means})
    images["view"] = ["AP", "PA", "PA"] * (len(arrays) // 3) + ["AP"] * (len(arrays) % 3)
    labels = pd.DataFrame({"mass": ill.astype(float)}, index=pd.Index(ids, name="image_id"))
    return {row["fact"]: row["auroc"] for row in measure_shortcuts(images, decode, labels)}


def noise(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (40, 30)).astype(np.uint8)


def test_a_mark_at_the_edge_gives_the_label_away_and_an_opacity_does_not():
    rng = np.random.default_rng(0)
    ill = np.arange(N) % 2 == 0
    marked = [noise(rng) for _ in range(N)]
    opaque = [image.copy() for image in marked]
    for number in np.flatnonzero(ill):
        marked[number][1:4, 24:30] = 255
        opaque[number][15:25, 10:20] = 255
    of_marks = aurocs_by_fact(marked, ill)
    of_opacities = aurocs_by_fact(opaque, ill)
    for fact in ("outer tenth of the image", "all metadata and borders"):
        assert of_marks[fact] > 0.95
        assert abs(of_opacities[fact] - 0.5) < 0.1
    assert of_opacities["mean brightness"] > 0.95  # of the whole image: shown, but not beside


def test_border_greys_that_were_not_measured_predict_nothing():
    rng = np.random.default_rng(0)
    ill = np.arange(N) % 2 == 0
    seen = np.where(ill, np.arange(N) % 5 == 0, np.arange(N) % 5 != 0)  # rarely of the ill
    aurocs = aurocs_by_fact([noise(rng) for _ in range(N)], ill, seen)
    assert abs(aurocs["outer tenth of the image"] - 0.5) < 0.15
    assert "all metadata and borders" not in aurocs  # the view alone is left


def test_data_sets_without_border_greys_are_measured_without_them():
    ids = [f"i{number}" for number in range(N)]
    images = pd.DataFrame({"image_id": ids, "patient_id": ids, "view": ["AP", "PA"] * (N // 2)})
    labels = pd.DataFrame({"mass": [1.0, 0.0] * (N // 2)}, index=pd.Index(ids, name="image_id"))
    rows = measure_shortcuts(images, pd.DataFrame({"image_id": ids}), labels)
    assert [row["fact"] for row in rows] == ["view"]


def test_image_borders_of_kermany_predict_the_label(shared_data):
    files = sorted((shared_data / "kermany_224/chest_xray/train").rglob("*.jpeg"))[::3]
    arrays = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files]
    ill = np.array([file.parent.name == "PNEUMONIA" for file in files])
    assert aurocs_by_fact(arrays, ill)["outer tenth of the image"] > 0.75
