"""A report whose ids are hidden tells no name of an image or patient, and the same figures."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cxr_compare

IDS = [f"SMITH_{number:02d}" for number in range(30)]
POSITIVE = np.arange(30) % 3 == 0


@pytest.fixture
def compare(tmp_path):
    """Compare two systems on small image files whose names are names of people."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in IDS:
        Image.fromarray(rng.integers(0, 255, (64, 64), np.uint8)).save(folder / f"{name}.png")
    patients = [f"JONES_{number // 2}" for number in range(30)]
    truth = pd.DataFrame({"image_id": IDS, "label": POSITIVE * 1.0, "patient_id": patients})
    boxed = np.array(IDS)[POSITIVE]
    boxes = pd.DataFrame({"image_id": boxed, "x1": 5, "y1": 5, "x2": 30, "y2": 30})
    scores = pd.Series(rng.random(30) / 2 + POSITIVE / 3, IDS)
    predicted = boxes.assign(score=rng.random(10), x1=8)

    def run(out, **options):
        return cxr_compare.compare(
            {"A": predicted, "B": scores},
            truth=truth,
            boxes=boxes,
            images=folder,
            policy=["threshold=0.5"],
            replicates=100,
            out=out,
            **options,
        )

    return run


def test_no_file_of_a_report_with_hidden_names_holds_an_id(compare, tmp_path):
    plain, hidden = tmp_path / "plain", tmp_path / "hidden"
    shown, result = compare(plain), compare(hidden, hide_names=True)
    for path in hidden.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"SMITH" not in content
            assert b"JONES" not in content
    page = (hidden / "report.html").read_text()
    assert 'data-id="image-' in page
    assert b"SMITH" in (plain / "report.html").read_bytes()
    pd.testing.assert_frame_equal(result.figures, shown.figures)
    assert result.decisions["patient_id"].nunique() == 15
    assert str(result).endswith("it holds images and no file names.")
    assert str(shown).endswith("it holds images and file names.")


def test_numbers_follow_no_order_of_names_and_images_can_be_drawn(compare):
    result = compare(None, hide_names=True)
    first = result.decisions[result.decisions["system"] == "A"]
    numbers = [int(name.removeprefix("image-")) for name in first["image_id"]]
    assert sorted(numbers) == list(range(1, 31))
    assert numbers != sorted(numbers)
    assert result.overlay("image-1").get_axes()
