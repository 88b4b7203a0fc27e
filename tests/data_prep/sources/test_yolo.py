"""The YOLO reader: which label belongs to which image, what the numbers mean, what is refused."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.sources.source_tables import ReadOptions, SourceTables
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import FileMetaDataset

from cxr_compare.data_prep.sources.image_files import image_size
from cxr_compare.data_prep.sources.registry import likely_format, read_source
from tests.data_prep.sources.answers import reasons, roles, states

NAMES = "names: [Mass, Nodule]\n"
BOX = "0 0.5 0.5 0.2 0.4\n"


def write_set(folder: Path, files: dict[str, str | None]) -> Path:
    """Write text files, and images of 100 x 80 px where there is no text."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            Image.new("L", (100, 80)).save(path)
        else:
            path.write_text(text, encoding="utf-8")
    return folder


def read(folder: Path, names: tuple[str, ...] = (), pattern: str | None = None) -> SourceTables:
    return read_source(folder, "yolo", ReadOptions(class_names=names, patient_pattern=pattern))


def edges(tables: SourceTables) -> list[list[float]]:
    return tables.boxes[["x1", "y1", "x2", "y2"]].to_numpy().round(6).tolist()


LAYOUTS = {
    "beside": ("a.png", "a.txt"),
    "labels": ("images/a.png", "labels/a.txt"),
    "role below": ("images/train/a.png", "labels/train/a.txt"),
    "role above": ("train/images/a.png", "train/labels/a.txt"),
    "any name": ("images/a.png", "my boxes/a.txt"),
    "labels flat": ("images/val/a.png", "labels/a.txt"),
    "darknet": ("obj_train_data/a.png", "obj_train_data/a.txt"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_find_their_image_in_every_layout(tmp_path, layout):
    image, label = LAYOUTS[layout]
    tables = read(write_set(tmp_path, {image: None, label: BOX, "data.yaml": NAMES}))
    assert tables.images[["image_id", "path"]].to_numpy().tolist() == [["a", image]]
    assert edges(tables) == [[40, 24, 60, 56]]


def test_an_empty_file_is_absence_and_a_missing_one_is_not_known(tmp_path):
    files = {"images/a.png": None, "images/b.png": None, "images/c.png": None}
    labels = {"labels/a.txt": BOX, "labels/b.txt": "\n", "data.yaml": NAMES}
    tables = read(write_set(tmp_path, {**files, **labels}))
    assert states(tables) == {
        ("a", "mass"): "present",
        ("a", "nodule"): "absent",
        ("b", "mass"): "absent",
        ("b", "nodule"): "absent",
    }
    assert sorted(tables.images["image_id"]) == ["a", "b", "c"]
    assert tables.split.to_dict("records") == [{"image_id": "c", "role": "unused"}]
    assert any("1 image has no label" in note for note in tables.notes)


@pytest.mark.parametrize(
    ("files", "given"),
    [
        ({"data.yaml": NAMES}, ()),
        ({"data.yaml": "names:\n  1: Nodule\n  0: Mass\nnc: 2\n"}, ()),
        ({"classes.txt": "Mass\nNodule\n"}, ()),
        ({"labels/classes.txt": "\ufeffMass\r\nNodule\r\n\r\n"}, ()),
        ({"obj.names": "Mass\nNodule\n", "obj.data": "names = obj.names\n"}, ()),
        ({"data.yaml": "names: [x, y]\n"}, ("Mass", "Nodule")),
    ],
)
def test_class_names_come_from_the_user_or_from_what_lies_there(tmp_path, files, given):
    source = write_set(tmp_path, {"images/a.png": None, "labels/a.txt": BOX, **files})
    assert list(read(source, given).targets) == ["mass", "nodule"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "give --class-names"),
        ({"data.yaml": "names: [Mass, No]\n"}, "False"),
        ({"data.yaml": "names: 3\n"}, "names must be a list"),
        ({"data.yaml": "names: {a: Mass}\n"}, "'a'"),
        ({"data.yaml": "names: []\n"}, "names is empty"),
        ({"data.yaml": NAMES + "kpt_shape: [17, 3]\n"}, "key points"),
        (
            {"data.yaml": "names: !!python/object/apply:os.abort []\n"},
            "not readable as YAML",
        ),
        ({"a.yaml": NAMES, "b.yaml": "names: [x, y]\n"}, "name the classes differently"),
        ({"classes.txt": "Mass\n\nNodule\n"}, "must hold one class name a line"),
    ],
)
def test_class_names_that_are_not_clear_are_one_error(tmp_path, files, message):
    source = write_set(tmp_path, {"images/a.png": None, "labels/a.txt": BOX, **files})
    with pytest.raises(InputError, match=message) as caught:
        read(source)
    assert "\n" not in str(caught.value)


def test_polygons_get_the_box_around_them(tmp_path):
    label = "1 0.1 0.1 0.3 0.1 0.2 0.5\n"
    files = {"a.png": None, "a.txt": label, "data.yaml": NAMES}
    tables = read(write_set(tmp_path, files))
    assert edges(tables) == [[10, 8, 30, 40]]
    assert any("the box around each" in note for note in tables.notes)


def test_a_confidence_is_refused_for_these_are_no_labels(tmp_path):
    files = {"a.png": None, "a.txt": "0 0.5 0.5 0.2 0.4 0.93\n", "data.yaml": NAMES}
    with pytest.raises(InputError, match=r"a\.txt: line 1: .*confidence"):
        read(write_set(tmp_path, files))


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("0 0.5 0.5 0.2\n", "line 1: 4 values"),
        (BOX + "0 0.5 0.5 0.2 x\n", "line 2: not all of it are finite numbers"),
        ("0 50 40 20 32\n", "box outside the image"),
        ("2 0.5 0.5 0.2 0.4\n", "class 2 has no name; 2 classes are named"),
        ("0.5 0.5 0.5 0.2 0.4\n", "class 0.5 has no name"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4\n", "8 values"),
    ],
)
def test_a_wrong_line_excludes_the_image_and_names_the_line(tmp_path, label, reason):
    files = {"images/a.png": None, "labels/a.txt": label, "data.yaml": NAMES}
    other = {"images/b.png": None, "labels/b.txt": BOX}
    found = reasons(read(write_set(tmp_path, {**files, **other})))
    assert list(found) == ["images/a.png"]
    assert reason in found["images/a.png"]


def test_a_label_without_an_image_or_with_two_is_left_out(tmp_path):
    files = {
        "data.yaml": NAMES,
        "images/a.png": None,
        "labels/a.txt": BOX,
        "labels/gone.txt": BOX,
        "labels/classes.txt": "Mass\nNodule\n",
        "labels/README.txt": "made by hand\n",
        "old/a.txt": BOX,
        "x/d.png": None,
        "y/d.png": None,
        "labels/d.txt": BOX,
        "images/b.png": None,
        "labels/b.txt": BOX,
    }
    assert reasons(read(write_set(tmp_path, files))) == {
        "labels/gone.txt": "label file: no such image",
        "labels/d.txt": "label file: its name fits 2 images",
        "images/a.png": "label file a.txt: labels/a.txt labels the same image",
    }


def test_equal_names_in_two_folders_are_two_images(tmp_path):
    files = {
        "data.yaml": NAMES,
        "train/images/1.png": None,
        "train/labels/1.txt": BOX,
        "test/images/1.png": None,
        "test/labels/1.txt": "",
    }
    tables = read(write_set(tmp_path, files))
    assert sorted(tables.images["image_id"]) == ["test/images/1", "train/images/1"]
    assert tables.boxes["image_id"].tolist() == ["train/images/1"]


@pytest.mark.parametrize(
    "files",
    [
        {
            "train/images/a.png": None,
            "train/labels/a.txt": BOX,
            "valid/images/b.png": None,
            "valid/labels/b.txt": BOX,
        },
        {
            "images/a.png": None,
            "labels/a.txt": BOX,
            "images/b.png": None,
            "labels/b.txt": BOX,
            "train.txt": "/content/images/a.png\n",
            "val.txt": "./images/b.png\n",
        },
        {
            "images/x/a.png": None,
            "labels/x/a.txt": BOX,
            "images/y/b.png": None,
            "labels/y/b.txt": BOX,
            "data.yaml": NAMES + "train: ../images/x\nval: [images/y]\n",
        },
    ],
    ids=["folders", "lists", "yaml"],
)
def test_published_roles_come_from_folders_lists_or_yaml(tmp_path, files):
    source = write_set(tmp_path, {"data.yaml": NAMES, **files})
    assert roles(read(source)) == {"a": "train", "b": "val"}


def test_one_folder_for_training_and_validation_is_no_split(tmp_path):
    yaml = NAMES + "train: images\nval: images\n"
    files = {"images/a.png": None, "labels/a.txt": BOX, "data.yaml": yaml}
    assert read(write_set(tmp_path, files)).official.empty


def test_unlabelled_images_count_where_labelled_ones_lie_and_nowhere_else(tmp_path):
    files = {
        "data.yaml": NAMES,
        "train/images/a.png": None,
        "train/labels/a.txt": BOX,
        "test/images/b.png": None,
        "runs/detect/confusion.png": None,
    }
    assert sorted(read(write_set(tmp_path, files)).images["image_id"]) == ["a", "b"]


def test_the_size_is_that_of_the_upright_image_whatever_the_file_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (100, 80)).save(tmp_path / "turned.jpg", exif=exif)
    assert image_size(tmp_path / "turned.jpg") == (80, 100)
    header = pydicom.Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.Rows = 30
    header.Columns = 20
    header.save_as(tmp_path / "x.png", enforce_file_format=False)
    assert image_size(tmp_path / "x.png") == (20, 30)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_an_image_that_cannot_be_measured_is_left_out(tmp_path, content):
    files = {"images/a.png": None, "labels/a.txt": BOX, "images/b.png": None, "labels/b.txt": BOX}
    source = write_set(tmp_path, {**files, "data.yaml": NAMES})
    (source / "images/a.png").write_bytes(content)
    found = reasons(read(source))
    assert list(found) == ["images/a.png"]
    assert str(tmp_path) not in found["images/a.png"]


def test_a_huge_image_is_left_out_before_memory_is_taken(tmp_path):
    header = pydicom.Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.Rows = header.Columns = 65535
    header.save_as(tmp_path / "a.dcm", enforce_file_format=False)
    files = {"a.txt": BOX, "b.png": None, "b.txt": BOX, "data.yaml": NAMES}
    found = reasons(read(write_set(tmp_path, files)))
    assert "65535 x 65535 px is larger than the limit" in found["a.dcm"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"images/a.png": None, "labels/b.txt": BOX}, "no label file .* has the name of an image"),
        (
            {"a.json": '{"images": [], "annotations": []}'},
            "not in yolo format; it looks like --format coco",
        ),
    ],
)
def test_a_folder_of_another_kind_is_named(tmp_path, files, message):
    with pytest.raises(InputError, match=message):
        read_source(write_set(tmp_path / "a" / "b", files), "yolo", ReadOptions())
    with pytest.raises(InputError, match="no such folder"):
        read(tmp_path / "nowhere")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.sampled_from("0123456789.-e nai\t/"), max_size=40), max_size=3))
def test_whatever_a_line_says_it_is_a_box_inside_or_an_error(tmp_path_factory, lines):
    files = {"a.png": None, "a.txt": "\n".join(lines), "b.png": None, "b.txt": BOX}
    source = write_set(tmp_path_factory.mktemp("line"), {**files, "data.yaml": NAMES})
    with suppress(InputError):  # nothing else may come out
        x1, y1, x2, y2 = np.array(edges(read(source))).T
        assert ((x1 > -3) & (x1 < x2) & (x2 < 103)).all()
        assert ((y1 > -3) & (y1 < y2) & (y2 < 83)).all()


def test_real_yolo_boxes_are_those_of_the_csv_beside_them(shared_data):
    source = shared_data / "nih_mass_boxes"
    tables = read(source, ("Mass", "Nodule"), r"(?P<nih>\d{8})_")
    truth = pd.read_csv(source / "annotations.csv")
    truth = truth.assign(image_id=truth["image_file"].str[:-4], finding=truth["label"].str.lower())
    names = {"xmin": "x1", "ymin": "y1", "xmax": "x2", "ymax": "y2"}
    key = ["image_id", "finding", *names.values()]
    truth = truth.rename(columns=names).sort_values(key)
    boxes = tables.boxes.sort_values(key)
    assert len(boxes) == len(truth) == 117
    assert boxes[key[:2]].to_numpy().tolist() == truth[key[:2]].to_numpy().tolist()
    np.testing.assert_allclose(boxes[key[2:]], truth[key[2:]], atol=0.001)
    assert tables.excluded.empty
    assert set(tables.images["patient_id_source"]) == {"given"}
    assert tables.images["patient_id"].str.fullmatch(r"nih:\d{8}").all()


def test_a_label_folder_of_any_name_beside_images_is_known_for_yolo(shared_data):
    assert likely_format(shared_data / "nih_mass_boxes") == "yolo"
