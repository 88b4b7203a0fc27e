"""The audit's look at the outer tenth of each image: a label that shows there is a shortcut."""

import cv2
import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.audit.shortcut_checks import check_shortcuts
from cxr_compare.data_prep.images.border_greys import N_PIECES, border_greys, read_border_greys
from cxr_compare.evaluation.systems.shortcuts import measure_shortcuts

N = 400


def measured(
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


def test_pieces_go_along_the_top_the_bottom_and_the_sides():
    image = np.zeros((40, 80), np.uint8)
    image[:4, :20], image[-4:, 60:], image[4:12, :8], image[28:36, 72:] = 10, 20, 30, 40
    greys = read_border_greys(pd.Series([border_greys(image)]))[0]
    assert np.flatnonzero(greys).tolist() == [0, 7, 8, 15]
    assert greys[[0, 7, 8, 15]].tolist() == [10, 20, 30, 40]


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 2), (7, 400), (10_000, 12)])
def test_any_shape_has_all_its_pieces(shape):
    assert border_greys(np.full(shape, 9, np.uint8)) == "09" * N_PIECES


def test_a_mark_at_the_edge_gives_the_label_away_and_an_opacity_does_not():
    rng = np.random.default_rng(0)
    ill = np.arange(N) % 2 == 0
    marked = [noise(rng) for _ in range(N)]
    opaque = [image.copy() for image in marked]
    for number in np.flatnonzero(ill):
        marked[number][1:4, 24:30] = 255
        opaque[number][15:25, 10:20] = 255
    of_marks, of_opacities = measured(marked, ill), measured(opaque, ill)
    for fact in ("outer tenth of the image", "all metadata and borders"):
        assert of_marks[fact] > 0.95
        assert abs(of_opacities[fact] - 0.5) < 0.1
    assert of_opacities["mean brightness"] > 0.95  # of the whole image: shown, but not beside


def test_what_was_not_measured_tells_nothing():
    rng = np.random.default_rng(0)
    ill = np.arange(N) % 2 == 0
    seen = np.where(ill, np.arange(N) % 5 == 0, np.arange(N) % 5 != 0)  # rarely of the ill
    found = measured([noise(rng) for _ in range(N)], ill, seen)
    assert abs(found["outer tenth of the image"] - 0.5) < 0.15
    assert "all metadata and borders" not in found  # the view alone is left


def test_strong_border_is_reported_with_advice():
    row = {"target": "mass", "fact": "outer tenth of the image", "kind": "border", "auroc": 0.83,
           "ci_low": 0.8, "ci_high": 0.85, "n_images": N, "n_positive": 200,
           "n_known": N}  # fmt: skip
    problem = check_shortcuts([row])[0]
    assert (problem.check, problem.severity) == ("shortcut_border", "info")
    assert problem.message.startswith("outer tenth of the image alone predicts 'mass'")
    assert "images from elsewhere" in problem.advice


def test_greys_of_another_length_are_refused():
    with pytest.raises(ValueError, match="32 hexadecimal digits"):
        read_border_greys(pd.Series(["ff"]))


def test_sets_from_before_are_audited_without_it():
    ids = [f"i{number}" for number in range(N)]
    images = pd.DataFrame({"image_id": ids, "patient_id": ids, "view": ["AP", "PA"] * (N // 2)})
    labels = pd.DataFrame({"mass": [1.0, 0.0] * (N // 2)}, index=pd.Index(ids, name="image_id"))
    found = measure_shortcuts(images, pd.DataFrame({"image_id": ids}), labels)
    assert [row["fact"] for row in found] == ["view"]


def test_kermany_s_children_are_known_by_the_edges_of_their_images(shared_data):
    files = sorted((shared_data / "kermany_224/chest_xray/train").rglob("*.jpeg"))[::3]
    arrays = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files]
    ill = np.array([file.parent.name == "PNEUMONIA" for file in files])
    assert measured(arrays, ill)["outer tenth of the image"] > 0.75
