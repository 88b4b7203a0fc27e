"""Files of a folder as the pixels of labels in memory."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.sources.from_frames import truth_from_values
from cxr_compare.evaluation.sources.pixels import pixels_of_folder
from tests.small_dicom import write_dicom

PIXELS = np.arange(40 * 30, dtype=np.uint16).reshape(40, 30).astype(np.uint8)  # 30 x 40 px


@pytest.fixture
def labelled() -> LabelledImages:
    """Four labelled images, of which the first has a true box."""
    labels = pd.DataFrame({"image_id": ["a", "b", "c", "d"], "label": [1, 0, 0, 1]})
    box = pd.DataFrame({"image_id": ["a"], "x1": [2.0], "y1": [3.0], "x2": [20.0], "y2": [36.0]})
    return truth_from_values(labels, boxes=box)[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images a to c as PNG, JPEG and DICOM, one of them in a subfolder."""
    (tmp_path / "more").mkdir()
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    Image.fromarray(PIXELS).save(tmp_path / "more" / "b.jpg")
    write_dicom(tmp_path / "c.dcm", PIXELS)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_png_jpeg_and_dicom_are_found_by_name_and_an_absent_image_is_told(labelled, folder):
    told: list[str] = []
    found = pixels_of_folder(labelled, folder, told.append)
    assert [found.read(name).shape for name in "abc"] == [(40, 30)] * 3
    np.testing.assert_array_equal(found.read("a"), PIXELS)
    with pytest.raises(InputError, match="'d'"):
        found.read("d")
    assert len(told) == 1
    assert "1 image of 4" in told[0]


def test_file_of_an_image_may_lie_where_its_id_says(tmp_path):
    for part, pixels in (("left", PIXELS), ("right", PIXELS[::-1])):
        (tmp_path / part).mkdir()
        Image.fromarray(pixels).save(tmp_path / part / "x.png")
    labels = pd.DataFrame({"image_id": ["left/x", "right/x"], "label": [1, 0]})
    found = pixels_of_folder(truth_from_values(labels)[0], tmp_path, print)
    np.testing.assert_array_equal(found.read("right/x"), PIXELS[::-1])
    twice = truth_from_values(pd.DataFrame({"image_id": ["x"], "label": [1]}))[0]
    with pytest.raises(InputError, match=r"image 'x' .*left/x\.png and right/x\.png"):
        pixels_of_folder(twice, tmp_path, print)


@pytest.mark.parametrize("size", [(30, 20), (10, 40)], ids=["too low", "too narrow"])
def test_resized_image_whose_boxes_lie_beyond_it_is_refused(labelled, folder, size):
    Image.fromarray(PIXELS).resize(size).save(folder / "a.png")
    with pytest.raises(InputError, match=r"'a' ends at x=20, y=36, .*a\.png"):
        pixels_of_folder(labelled, folder, print)


def test_image_of_another_size_than_the_labels_state_is_refused(labelled, folder):
    stated = replace(labelled, images=labelled.images.assign(width=300, height=400))
    with pytest.raises(InputError, match=r"a\.png has 30 x 40 px, .* 300 x 400 px"):
        pixels_of_folder(stated, folder, print)


def test_folder_without_any_of_the_images_is_refused_with_names_of_both(labelled, tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        pixels_of_folder(labelled, tmp_path / "absent", print)
    Image.fromarray(PIXELS).save(tmp_path / "other.png")
    with pytest.raises(InputError, match=r"a, b, c.*other\.png"):
        pixels_of_folder(labelled, tmp_path, print)
