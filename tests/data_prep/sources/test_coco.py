"""The COCO reader: whose silence means absent, where images are, and what is ruled out."""

import copy
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data_prep.sources.answers import edges, reader, reasons, roles, states, write_files

COCO: dict[str, Any] = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": 100, "height": 80},
        {"id": 2, "file_name": "b.png", "width": 100, "height": 80},
    ],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [10, 20, 30, 40]}],
    "categories": [{"id": 7, "name": "Lung Opacity"}, {"id": 3, "name": "Mass"}],
}


def coco(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(COCO), **changes}


def write_set(folder: Path, files: dict[str, Any], image_files: tuple[str, ...] = ()) -> Path:
    """Write JSON files and empty images: the reader opens none."""
    texts = {n: c if isinstance(c, str) else json.dumps(c) for n, c in files.items()}
    images = image_files or ("images/a.png", "images/b.png")
    return write_files(folder, {**texts, **dict.fromkeys(images, "")})


read = reader("coco")


def test_silence_on_a_labelled_image_is_absence_and_boxes_become_corners(tmp_path):
    tables = read(write_set(tmp_path, {"annotations/instances.json": COCO}))
    assert states(tables) == {
        ("a", "lung_opacity"): "present",
        ("a", "mass"): "absent",
        ("b", "lung_opacity"): "absent",
        ("b", "mass"): "absent",
    }
    assert edges(tables) == [[10, 20, 40, 60]]
    assert len(tables.box_coverage) == 4
    assert set(tables.box_coverage["coverage"]) == {"all"}
    assert tables.images["path"].tolist() == ["images/a.png", "images/b.png"]
    assert tables.images["width"].tolist() == [100, 100]
    assert list(tables.targets) == ["lung_opacity", "mass"]
    (note,) = tables.label_notes("majority")
    assert note.startswith("3 findings are absent because a label file has no box")


def test_a_file_without_annotations_leaves_its_images_unknown_and_unused(tmp_path):
    test = coco(images=[{"id": 1, "file_name": "c.png"}])
    del test["annotations"]
    files = {"annotations/train.json": COCO, "annotations/test.json": test}
    image_files = ("images/a.png", "images/b.png", "images/c.png")
    tables = read(write_set(tmp_path, files, image_files))
    assert "c" not in set(tables.findings["image_id"])
    assert tables.split.to_dict("records") == [{"image_id": "c", "role": "unused"}]
    assert roles(tables) == {"a": "train", "b": "train", "c": "test"}


def test_roboflow_has_a_file_a_folder_and_a_first_category_that_only_groups(tmp_path):
    categories = [
        {"id": 0, "name": "masks", "supercategory": "none"},
        {"id": 7, "name": "Consolidation", "supercategory": "masks"},
    ]
    train = coco(categories=categories)
    valid = coco(categories=categories, images=[{"id": 1, "file_name": "c.png"}])
    files = {"train/_annotations.coco.json": train, "valid/_annotations.coco.json": valid}
    image_files = ("train/a.png", "train/b.png", "valid/c.png")
    tables = read(write_set(tmp_path, files, image_files))
    assert set(tables.findings["finding"]) == {"consolidation"}
    assert tables.official["role"].tolist() == ["train", "train", "val"]


def test_an_image_is_found_from_the_file_in_images_or_by_its_name_alone(tmp_path):
    names = ("C:\\data\\a.png", "/home/me/set/images/b.png", "http://host/c.png", "d.dcm")
    images = [{"id": n, "file_name": name} for n, name in enumerate(names, start=1)]
    image_files = ("annotations/images/a.png", "images/b.png", "far/below/c.PNG", "png/d.png")
    source = write_set(tmp_path, {"annotations/x.json": coco(images=images)}, image_files)
    assert sorted(read(source).images["path"]) == sorted(image_files)


def test_a_name_that_fits_two_images_is_decided_by_the_role_or_left_out(tmp_path):
    image = [{"id": 1, "file_name": "a.png"}]
    image_files = ("train2017/a.png", "val2017/a.png")
    files = {"annotations/instances_train2017.json": coco(images=image)}
    tables = read(write_set(tmp_path / "one", files, image_files))
    assert tables.images[["image_id", "path"]].to_numpy().tolist() == [["a", "train2017/a.png"]]
    files = {"annotations/all.json": coco(images=[*image, {"id": 2, "file_name": "b.png"}])}
    tables = read(write_set(tmp_path / "two", files, (*image_files, "b.png")))
    assert reasons(tables) == {
        "annotations/all.json: a.png": "file_name fits train2017/a.png and val2017/a.png"
    }


def test_no_name_leads_out_of_the_folder(tmp_path):
    (tmp_path / "secret.png").touch()
    images = [{"id": 1, "file_name": "../../secret.png"}, {"id": 2, "file_name": "b.png"}]
    source = write_set(tmp_path / "set", {"annotations/x.json": coco(images=images)}, ("b.png",))
    tables = read(source)
    assert tables.images["path"].tolist() == ["b.png"]
    assert reasons(tables) == {"annotations/x.json: ../../secret.png": "no such image"}


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"bbox": [10, 20, 0, 40]}, "zero or negative size"),
        ({"bbox": [10, 20, None, 40]}, "missing or infinite"),
        ({"bbox": [-9, 20, 30, 40]}, "box outside the image"),
        ({"bbox": [10, 20, 30, 40], "category_id": 9}, "category_id 9 is not among"),
        ({"segmentation": {"counts": [7], "size": [1, 1]}}, "neither a polygon nor a mask"),
        ({"segmentation": [[1, 2, 3]]}, "neither a polygon nor a mask"),
    ],
)
def test_an_annotation_that_cannot_be_right_excludes_its_image(tmp_path, annotation, reason):
    right = {"id": 2, "image_id": 2, "category_id": 7, "bbox": [10, 20, 30, 40]}
    annotations = [{"id": 1, "image_id": 1, "category_id": 7, **annotation}, right]
    tables = read(write_set(tmp_path, {"x.json": coco(annotations=annotations)}))
    assert list(reasons(tables)) == ["images/a.png"]
    assert reason in reasons(tables)["images/a.png"]
    assert tables.images["image_id"].tolist() == ["b"]


def test_a_polygon_alone_gets_the_box_around_it(tmp_path):
    polygon = [[10, 20, 40, 25, 30, 60], [5, 30, 6, 30, 6, 31]]
    one = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [], "segmentation": polygon}
    tables = read(write_set(tmp_path, {"x.json": coco(annotations=[one])}))
    assert edges(tables) == [[5, 20, 40, 60]]
    assert any("the box around each" in note for note in tables.notes)


def test_a_crowd_is_present_but_boxed_in_part(tmp_path):
    crowd = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 1, 9, 9], "iscrowd": 1}
    tables = read(write_set(tmp_path, {"x.json": coco(annotations=[crowd])}))
    assert states(tables)[("a", "lung_opacity")] == "present"
    assert tables.boxes.empty
    mine = tables.box_coverage.query("image_id == 'a' and finding == 'lung_opacity'")
    assert mine["coverage"].tolist() == ["some"]


@pytest.mark.parametrize("side", [10**30, -1, 10**400, -1e300])
def test_a_side_that_no_image_has_rules_out_its_image(tmp_path, side):
    wrong = coco()
    wrong["images"][1]["width"] = side
    tables = read(write_set(tmp_path, {"instances.json": wrong}))
    assert list(reasons(tables)) in (["images/b.png"], [])  # a number beyond JSON's states none
    assert (list(reasons(tables)) == []) is (side == 10**400)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_json_is_read_as_windows_editors_write_it(tmp_path, encoding):
    source = write_set(tmp_path, {"instances.json": COCO})
    (source / "instances.json").write_text(json.dumps(COCO), encoding=encoding)
    assert edges(read(source)) == [[10, 20, 40, 60]]


def test_categories_that_lvis_lists_as_absent_are_refused(tmp_path):
    images = [{"id": 1, "file_name": "a.png", "neg_category_ids": [7]}]
    with pytest.raises(InputError, match=r"images\[0\]: lists neg_category_ids"):
        read(write_set(tmp_path, {"x.json": coco(images=images)}))


def test_boxes_of_no_finding_are_no_lesion(tmp_path):
    categories = [*COCO["categories"], {"id": 14, "name": "No finding"}]
    whole = {"id": 2, "image_id": 2, "category_id": 14, "bbox": [0, 0, 1, 1]}
    annotations = [*COCO["annotations"], whole]
    files = {"x.json": coco(categories=categories, annotations=annotations)}
    tables = read(write_set(tmp_path / "one", files))
    assert set(tables.findings["finding"]) == {"lung_opacity", "mass"}
    assert tables.boxes["image_id"].tolist() == ["a"]
    both = [*COCO["annotations"], {**whole, "image_id": 1}]
    files = {"x.json": coco(categories=categories, annotations=both)}
    tables = read(write_set(tmp_path / "two", files))
    assert "no finding" in reasons(tables)["images/a.png"]


def test_files_of_one_image_add_up_and_contradictions_exclude_it(tmp_path):
    mass = coco(categories=[{"id": 1, "name": "nodule"}], annotations=[])
    mass["annotations"] = [{"id": 1, "image_id": 2, "category_id": 1, "bbox": [1, 1, 5, 5]}]
    tables = read(write_set(tmp_path / "add", {"opacity.json": COCO, "nodule.json": mass}))
    assert states(tables)[("b", "nodule")] == "present"
    assert states(tables)[("a", "nodule")] == "absent"
    assert len(tables.findings) == 6
    assert len(read(write_set(tmp_path / "same", {"1.json": COCO, "2.json": COCO})).boxes) == 1
    moved = coco()
    moved["annotations"][0]["bbox"] = [11, 20, 30, 40]
    tables = read(write_set(tmp_path / "differ", {"1.json": COCO, "2.json": moved}))
    assert "boxed differently in 1.json and 2.json" in reasons(tables)["images/a.png"]


def test_an_image_of_two_roles_has_none_in_the_official_split(tmp_path):
    files = {"train.json": COCO, "test.json": coco(images=COCO["images"][:1])}
    image_files = ("images/a.png", "images/b.png", "images/c.png")
    val = coco(images=[{"id": 1, "file_name": "c.png"}])
    tables = read(write_set(tmp_path, {**files, "val.json": val}, image_files))
    assert roles(tables) == {"a": "unused", "b": "train", "c": "val"}


def test_patients_come_from_free_keys_or_from_names(tmp_path):
    images = [
        {**COCO["images"][0], "patient_id": 17, "sex": "female", "age_years": "51", "view": "pa"},
        {"id": 2, "file_name": "00019124_092.png"},
    ]
    image_files = ("images/a.png", "images/00019124_092.png")
    source = write_set(tmp_path / "ward", {"x.json": coco(images=images)}, image_files)
    tables = read(source, patient_pattern=r"(?P<nih>\d{8})_")
    assert tables.images["patient_id"].tolist() == ["ward:17", "nih:00019124"]
    assert tables.images["patient_id_source"].tolist() == ["given", "given"]
    assert tables.images[["view", "sex", "age_years"]].iloc[0].tolist() == ["PA", "F", 51.0]
    tables = read(source)
    assert tables.images["patient_id_source"].tolist() == ["given", "assumed_image"]
    assert any(note.startswith("WARNING: the patient of 1 image") for note in tables.notes)


def test_image_ids_that_stand_twice_exclude_both_and_dangling_annotations_are_listed(tmp_path):
    images = [*COCO["images"], {"id": 2, "file_name": "c.png"}]
    annotations = [*COCO["annotations"], {"id": 2, "image_id": 99, "category_id": 7, "bbox": []}]
    image_files = ("images/a.png", "images/b.png", "images/c.png")
    files = {"x.json": coco(images=images, annotations=annotations)}
    found = reasons(read(write_set(tmp_path, files, image_files)))
    assert found == {
        "images/b.png": "image id 2 appears more than once",
        "images/c.png": "image id 2 appears more than once",
        "x.json: image 99": "annotated, but not among the images",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable as JSON"),
        ("[" * 100_000, "nested too deeply|not readable"),
        ('{"a": 1}', "not COCO"),
        (coco(annotations={"1": 2}), "annotations: is no list"),
        (coco(annotations=[{"id": 1, "image_id": 1}]), r"annotations\[0\]: must have image_id"),
        (coco(categories=[{"id": 1}]), r"categories\[0\]: must have an id"),
        (
            coco(annotations=[{**COCO["annotations"][0], "score": 0.9}]),
            r"annotations\[0\]: has a score",
        ),
        (coco(images=[{"id": 1}]), r"images\[0\]: must have an id and a file_name"),
        (coco(categories=[{"id": 7, "name": "***"}]), "has no letter"),
        (coco(images=[]), "no image can be used"),
        (coco(images=[{"id": 1, "file_name": "z.png"}]), "no image can be used; .*no such image"),
    ],
)
def test_a_malformed_file_is_one_line_that_names_the_position(tmp_path, content, message):
    source = write_set(tmp_path, {"x.json": content})
    with pytest.raises(InputError, match=message) as caught:
        read(source)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_other_json_files_are_ignored_and_noted(tmp_path):
    source = write_set(tmp_path, {"x.json": COCO, "README.json": '{"a": 1}'})
    assert any(note.startswith("1 file is JSON but not COCO") for note in read(source).notes)


_LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=3)
_JUNK = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["id", "name", "bbox", "image_id", "category_id", "file_name"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("examples", [15, pytest.param(1000, marks=pytest.mark.long)])
def test_whatever_stands_in_a_file_gives_tables_or_one_clear_error(tmp_path_factory, examples):
    @settings(max_examples=examples, deadline=None)
    @given(st.sampled_from(["images", "annotations", "categories", "info"]), _JUNK)
    def check(key: str, junk: Any) -> None:
        good = COCO.get(key, [])
        for value in (junk, [*good, junk], [{**item, "bbox": junk} for item in good]):
            files = {"x.json": coco(**{key: value})}
            with suppress(InputError):  # nothing else may come out
                assert len(read(write_set(tmp_path_factory.mktemp("junk"), files)).images)

    check()


def of_readers(*names: str, readers: list[str] | None = None) -> dict[str, Any]:
    """A mass on image 1 by each reader; image 2 shows nothing to anyone."""
    boxes = [
        {"id": n, "image_id": 1, "category_id": 3, "bbox": [10 + n, 20, 30, 40], "reader": name}
        for n, name in enumerate(names)
    ]
    images = [{**image, **({"readers": readers} if readers else {})} for image in COCO["images"]]
    return coco(annotations=boxes, images=images)


def test_readers_of_annotations_are_kept_and_their_boxes_are_joined(tmp_path):
    tables = read(write_set(tmp_path, {"x.json": of_readers("R1", "R2")}))
    assert states(tables)["a", "mass"] == states(tables, "R2")["a", "mass"] == "present"
    assert states(tables)["b", "mass"] == states(tables, "R1")["b", "mass"] == "absent"
    own = tables.boxes["reader"] == "reference"
    assert tables.boxes.loc[own, "x1"].tolist() == [10.5]
    assert len(tables.boxes) == 3
    assert set(tables.box_coverage["reader"]) == {"R1", "R2", "reference"}


@pytest.mark.parametrize(("rule", "state"), [("any", "present"), ("all", "absent")])
def test_a_reader_is_silent_only_where_the_image_says_that_he_read_it(tmp_path, rule, state):
    listed = of_readers("R1", readers=["R1", "R2"])
    tables = read(write_set(tmp_path, {"x.json": listed}), reference=rule)
    assert states(tables)["a", "mass"] == state
    assert tables.excluded.empty


def test_readers_who_did_not_all_mark_an_image_are_asked_for(tmp_path):
    unlisted = of_readers("R1", "R2")
    unlisted["annotations"].append({**unlisted["annotations"][0], "id": 9, "image_id": 2})
    with pytest.raises(InputError, match=r'R1.*R2.*"readers"'):
        read(write_set(tmp_path, {"x.json": unlisted}))
