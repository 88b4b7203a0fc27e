"""Files of the images of labels in memory."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.evaluation.sources.from_frames import truth_from_values
from cxr_compare.evaluation.sources.image_folder import with_image_files
from tests.small_dicom import write_dicom

PIXELS = np.arange(40 * 30, dtype=np.uint16).reshape(40, 30).astype(np.uint8)  # 30 x 40 px


@pytest.fixture
def labelled() -> DataSet:
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
    found = with_image_files(labelled, folder, told.append)
    assert found.has_pixels
    assert [found.read_original(name).shape for name in "abc"] == [(40, 30)] * 3
    np.testing.assert_array_equal(found.read_original("a"), PIXELS)
    with pytest.raises(InputError):
        found.read_original("d")
    assert len(told) == 1
    assert "1 image of 4" in told[0]
    assert found.ids == labelled.ids  # the question stays the same, only the pictures are new
    assert not labelled.has_pixels


def test_file_of_an_image_may_lie_where_its_id_says(tmp_path):
    for part in ("left", "right"):
        (tmp_path / part).mkdir()
        Image.fromarray(PIXELS).save(tmp_path / part / "x.png")
    labels = pd.DataFrame({"image_id": ["left/x", "right/x"], "label": [1, 0]})
    found = with_image_files(truth_from_values(labels)[0], tmp_path, print)
    assert found.images["path"].tolist() == ["left/x.png", "right/x.png"]
    twice = truth_from_values(pd.DataFrame({"image_id": ["x"], "label": [1]}))[0]
    with pytest.raises(InputError, match=r"image 'x' .*left/x\.png and right/x\.png"):
        with_image_files(twice, tmp_path, print)


@pytest.mark.parametrize("size", [(30, 20), (10, 40)], ids=["too low", "too narrow"])
def test_resized_image_whose_boxes_lie_beyond_it_is_refused(labelled, folder, size):
    Image.fromarray(PIXELS).resize(size).save(folder / "a.png")
    with pytest.raises(InputError, match=r"'a' ends at x=20, y=36, .*a\.png"):
        with_image_files(labelled, folder, print)


def test_image_of_another_size_than_the_labels_state_is_refused(labelled, folder):
    sized = labelled.images.assign(width=300, height=400)
    stated = DataSet(
        labelled.folder,
        labelled.info,
        labelled.targets,
        tables={**labelled.tables, "images": sized},
        splits=labelled.splits,
    )
    with pytest.raises(InputError, match=r"a\.png has 30 x 40 px, .* 300 x 400 px"):
        with_image_files(stated, folder, print)


def test_folder_without_any_of_the_images_is_refused_with_names_of_both(labelled, tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        with_image_files(labelled, tmp_path / "absent", print)
    Image.fromarray(PIXELS).save(tmp_path / "other.png")
    with pytest.raises(InputError, match=r"a, b, c.*other\.png"):
        with_image_files(labelled, tmp_path, print)
