"""Labels of a data set, and several sets as one: nobody is lost, or called negative unasked."""

import os
from unittest import mock

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare import InputError
from tests.adapters.sets import data_page_only_if, prepare_tables
from tests.data_prep.test_prepare import assert_same_set, prepare, roles_of, write_image

# Two images a line: what a set says of an image, and what `lesion` (mass or nodule) is.
STATES = {
    "both-present": ({"mass": 1, "nodule": 1}, 1),
    "one-present": ({"mass": 0, "nodule": 1}, 1),
    "present-beside-uncertain": ({"mass": "uncertain", "nodule": 1}, 1),
    "both-absent": ({"mass": 0, "nodule": 0}, 0),
    "one-absent-one-unknown": ({"mass": 0}, None),
    "one-absent-one-uncertain": ({"mass": 0, "nodule": "uncertain"}, None),
    "nothing-known": ({}, None),
}


def table_set(folder, states, boxes="", name=None, **columns):
    """A data set without images, of the states of each image."""
    source = folder / "source"
    source.mkdir(parents=True)
    images = pd.DataFrame({"image_id": list(states), "patient_id": list(states)} | columns)
    images.to_csv(source / "images.csv", index=False)
    rows = [(i, f, s) for i, of_image in states.items() for f, s in of_image.items()]
    pd.DataFrame(rows, columns=["image_id", "finding", "state"]).to_csv(
        source / "labels.csv", index=False
    )
    if boxes:
        (source / "boxes.csv").write_text(f"image_id,finding,x1,y1,x2,y2\n{boxes}")
    prepare_tables(source, folder / "set", name=name or folder.name)
    return folder / "set"


def join(*sets, out, page=False, **options):
    with data_page_only_if(page):
        return cxr_compare.prepare(*sets, out=out, **options)


def label_of(data, target):
    labels = data.labels(data.target(target))
    return {name: None if label != label else int(label) for name, label in labels.items()}


@pytest.fixture(scope="module")
def lesions(tmp_path_factory):
    states = {name: of_image for name, (of_image, _) in STATES.items()}
    boxes = "both-present,mass,1,1,9,9\none-present,nodule,1,1,9,9\n"
    return table_set(tmp_path_factory.mktemp("joined") / "lesions", states, boxes)


@pytest.fixture(scope="module")
def opacities(tmp_path_factory):
    states = {"white": {"opacity": 1}, "clear": {"opacity": 0}, "bare": {"opacity": 1}}
    boxes = "white,opacity,1,1,9,9\nwhite,opacity,20,1,29,9\n"
    return table_set(tmp_path_factory.mktemp("joined") / "opacities", states, boxes)


def test_a_target_is_positive_if_any_finding_is_and_negative_only_if_all_are_not(tmp_path, lesions):
    source = lesions.parent / "source"
    data = prepare_tables(source, tmp_path / "set", target={"lesion": ["mass", "nodule"]})
    assert label_of(data, "lesion") == {name: label for name, (_, label) in STATES.items()}
    # Boxes are trusted only where every lesion of the target has one.
    target = data.target("lesion")
    assert sorted(data.boxes_trusted(target)) == ["both-absent", "one-present"]
    assert data.target_boxes(target)["image_id"].tolist() == ["one-present"]


def test_unknown_target_split_and_image_are_named(lesions):
    data = cxr_compare.DataSet.open(lesions)
    with pytest.raises(InputError, match="'tumour'"):
        data.target("tumour")
    with pytest.raises(InputError, match="mass, nodule"):
        data.target()
    with pytest.raises(InputError, match="'five'"):
        data.split("five")
    with pytest.raises(InputError, match="'both-absent'"):
        data.read_original("both-absent")
    assert not data.has_pixels


def test_a_target_of_findings_that_sets_label_apart_follows_each_set(tmp_path, lesions, opacities):
    """A set that does not ask about a finding cannot answer on it: its own findings decide."""
    wanted = {"lesion": ["mass", "nodule", "opacity"]}
    both = join(lesions, opacities, out=tmp_path / "both", target=wanted)
    expected = {name: label for name, (_, label) in STATES.items()}
    expected |= {"white": 1, "clear": 0, "bare": 1}
    assert label_of(both, "lesion") == expected
    # Where both are present the nodule has no box; where one is absent it needs none.
    trusted = both.boxes_trusted(both.target("lesion"))
    assert sorted(trusted) == ["both-absent", "clear", "one-present", "white"]
    boxes = both.target_boxes(both.target("lesion"))["image_id"]
    assert sorted(boxes) == ["one-present", "white", "white"]


def test_what_was_read_of_each_set_is_kept_with_its_name(tmp_path, lesions, opacities):
    read = join(lesions, opacities, out=tmp_path / "both").reading
    formats = read[read["role"] == "format"]
    assert formats["set"].tolist() == ["lesions", "opacities"]
    parts = [cxr_compare.DataSet.open(folder).reading for folder in (lesions, opacities)]
    rows = pd.concat(parts, ignore_index=True).drop(columns="set")
    pd.testing.assert_frame_equal(read.drop(columns="set"), rows)


def test_a_box_counts_once_in_a_set_with_a_target_of_its_finding(tmp_path, opacities):
    states = {
        "one": {"mass": 1, "nodule": 1},  # of which the nodule has no box
        "two": {"mass": 1, "nodule": 0},
        "both": {"mass": 1, "nodule": 1},  # boxed at one place
        "none": {"mass": 0, "nodule": 0},
    }
    boxes = "one,mass,1,1,9,9\ntwo,mass,1,1,9,9\ntwo,mass,20,1,29,9\n"
    boxes += "both,mass,1,1,9,9\nboth,nodule,1,1,9,9\n"
    first = table_set(tmp_path / "first", states, boxes)
    wanted = {"lesion": ["mass", "nodule", "opacity"]}
    joined = join(first, opacities, out=tmp_path / "joined", target=wanted)
    counts = [cxr_compare.DataSet.open(each).n_boxes for each in (first, opacities, joined.folder)]
    assert counts == [5, 2, 7]
    assert cxr_compare.check(joined).checked["box"] == 7
    assert joined.boxes["finding"].value_counts().to_dict() == {
        "mass": 4,
        "nodule": 1,
        "opacity": 2,
        "lesion": 7,
    }
    lesion = joined.target("lesion")
    assert sorted(joined.boxes_trusted(lesion)) == ["both", "clear", "none", "two", "white"]
    of_image = joined.target_boxes(lesion)["image_id"].value_counts().to_dict()
    assert of_image == {"two": 2, "both": 2, "white": 2}
    assert sorted(joined.boxes_trusted(joined.target("mass"))) == ["both", "none", "one", "two"]
    # A set that has lesions of its own adds them, whichever is joined first.
    third = table_set(tmp_path / "third", {"v": {"lesion": 1}}, "v,lesion,1,1,9,9\n")
    for number, sets in enumerate(((joined.folder, third), (third, joined.folder))):
        assert join(*sets, out=tmp_path / f"more-{number}").n_boxes == 8


def test_a_finding_that_a_set_does_not_label_is_unknown_there(tmp_path, lesions, opacities):
    both = join(lesions, opacities, out=tmp_path / "both")
    unknown = both.labels(both.target("opacity")).isna()
    assert set(both.images["x_set"][unknown.to_numpy()]) == {"lesions"}
    assert any("'opacity'" in note and "opacities" in note for note in both.info.notes)


def test_spellings_that_a_target_joins_are_one_finding(tmp_path, opacities):
    other = table_set(tmp_path / "other", {"a": {"opacitiy": 1}, "b": {"opacitiy": 0}})
    wanted = {"opacity": ["opacity", "opacitiy"]}
    both = join(opacities, other, out=tmp_path / "both", target=wanted, page=True)
    assert list(both.targets) == ["opacity"]
    expected = {"white": 1, "clear": 0, "bare": 1, "a": 1, "b": 0}
    assert label_of(both, "opacity") == expected
    said = "opacity, opacitiy = opacity"
    assert any(said in line for line in cxr_compare.show(both.folder).to_dict()["read"])
    assert said in (both.folder / "data.html").read_text()


def test_a_target_of_two_meanings_or_of_no_finding_is_refused(tmp_path, lesions, opacities):
    out = tmp_path / "both"
    for wanted in ({"any": ["tumour"]}, {"mass": ["nodule", "opacity"]}):
        with pytest.raises(InputError, match="target"):
            join(lesions, opacities, out=out, target=wanted)
    assert not out.exists()


def test_a_column_that_one_set_lacks_or_writes_as_text_is_joined(tmp_path, opacities):
    """One set counts wards, the other names them."""
    ids = ["a", "b"]
    sets = [
        prepare_ward(tmp_path / name, [f"{name}{each}" for each in ids], wards)
        for name, wards in (("one", [1, 2]), ("two", ["north", "south"]))
    ]
    both = join(*sets, opacities, out=tmp_path / "both")
    known = both.images.dropna(subset="x_ward").set_index("image_id")["x_ward"].astype(str)
    assert known.to_dict() == {"onea": "1", "oneb": "2", "twoa": "north", "twob": "south"}


def prepare_ward(folder, ids, wards):
    (folder / "images").mkdir(parents=True)
    for number, name in enumerate(ids):
        write_image(folder / "images" / f"{name}.png", [number, len(folder.name)])
    table = pd.DataFrame({"image_id": ids, "mass": [1, 0], "patient_id": ids, "x_ward": wards})
    table.to_csv(folder / "labels.csv", index=False)
    prepare(folder, folder / "set", columns={"x_ward": "x_ward"}, name=folder.name)
    return folder / "set"


def image_set(folder, seed, patients, name=None, **options):
    """A data set of eight images i0 to i7."""
    (folder / "images").mkdir(parents=True)
    ids = [f"i{number}" for number in range(8)]
    for number, each in enumerate(ids):
        write_image(folder / "images" / f"{each}.png", 100 * seed + number)
    columns = {"split": options.pop("split")} if "split" in options else {}
    table = {"image_id": ids, "patient_id": patients, "mass": [1, 0] * 4, **columns}
    pd.DataFrame(table).to_csv(folder / "labels.csv", index=False)
    prepare(folder, folder / "set", name=name or folder.name, **options)
    return folder / "set"


@pytest.fixture(scope="module")
def wards(tmp_path_factory):
    """Two sets of one name and equal ids; the patients hosp:0 and hosp:1 are in both."""
    folder = tmp_path_factory.mktemp("wards")
    people = [f"hosp:{number // 2}" for number in range(8)]
    others = [*people[:4], "4", "5", "6", "7"]
    sets = [
        image_set(folder / where, seed, patients, name="ward")
        for seed, (where, patients) in enumerate((("one", people), ("deep/two", others)))
    ]
    return folder, sets


@pytest.fixture(scope="module")
def both_wards(wards):
    """Both in one set, with squares."""
    folder, sets = wards
    return join(*sets, out=folder / "both", size=[32])


def test_ids_patients_and_pixels_of_two_sets_are_all_there(wards, both_wards):
    _, sets = wards
    both = both_wards
    assert len(both.images) == 16
    assert set(both.images["x_set"]) == {"ward", "ward-2"}
    assert sorted(both.images["image_id"])[:2] == ["ward-2/i0", "ward-2/i1"]
    assert both.images["patient_id"].nunique() == 4 + 4
    roles = roles_of(both).groupby(both.images.set_index("image_id")["patient_id"]).nunique()
    assert roles.max() == 1
    for number, each in enumerate(sets):
        name = f"{'ward-2' if number else 'ward'}/i3"
        own = cxr_compare.DataSet.open(each).read_original("i3")
        assert np.array_equal(both.read_original(name), own)
    assert both.store(32).image("ward/i3").shape == (32, 32)


def test_equal_images_of_two_sets_stay_in_one_role(tmp_path):
    sets = [image_set(tmp_path / name, 7, [f"{name}{n}" for n in range(8)]) for name in "ab"]
    with pytest.raises(InputError, match=str(sets[0])):
        join(sets[0], sets[0], out=tmp_path / "both")
    roles = roles_of(join(*sets, out=tmp_path / "both", val=0.3, test=0.3))
    assert all(roles[f"a/i{number}"] == roles[f"b/i{number}"] for number in range(8))


def test_unused_images_of_a_set_stay_unused(tmp_path, lesions):
    given = ["train", "train", "train", "val", "test", "test", "unused", "unused"]
    one = image_set(tmp_path / "one", 1, [f"a{n}" for n in range(8)], split=given)
    both = join(one, lesions, out=tmp_path / "both")
    assert both.image_ids("unused").tolist() == ["i6", "i7"]
    assert not both.has_pixels


def test_a_join_goes_on_and_a_second_call_changes_nothing(tmp_path, wards, both_wards):
    _, sets = wards
    real, names = os.replace, []

    def stop_at_five(*arguments, **options):
        names.append(arguments)
        if len(names) == 5:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    with mock.patch.object(os, "replace", stop_at_five), pytest.raises(KeyboardInterrupt):
        join(*sets, out=tmp_path / "both", size=[32])
    with pytest.raises(InputError, match=str(tmp_path / "both")):
        cxr_compare.DataSet.open(tmp_path / "both")
    join(*sets, out=tmp_path / "both", size=[32])
    assert_same_set(tmp_path / "both", both_wards.folder)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "both").rglob("*")}
    join(*sets, out=tmp_path / "both", size=[32])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "both").rglob("*")} == before
    with pytest.raises(InputError, match=str(tmp_path / "both")):
        join(*sets, out=tmp_path / "both", val=0.3)


@pytest.mark.release
def test_sets_of_two_keys_or_of_a_key_and_none_are_not_joined(tmp_path):
    people = [str(number) for number in range(8)]
    one, two, three = (
        image_set(tmp_path / name, seed, people, id_key=key and tmp_path / key)
        for seed, (name, key) in enumerate((("one", "key"), ("two", "key"), ("three", "other")))
    )
    plain = table_set(tmp_path / "plain", {"x": {"mass": 1}, "y": {"mass": 0}})
    for other in (three, plain):
        with pytest.raises(InputError, match=str(other)):
            join(one, other, out=tmp_path / "both")
    both = join(one, two, out=tmp_path / "both")
    assert both.images["path"].str.fullmatch(r"hidden/[0-9a-f]{24}").all()
    assert both.images["patient_id"].nunique() == 8


def test_listed_images_are_left_out_by_the_ids_of_the_joined_set(tmp_path, wards):
    _, sets = wards
    listed = tmp_path / "exclude.csv"
    listed.write_text("image_id,reason\nward-2/i5,a copy\n")
    both = join(*sets, out=tmp_path / "both", exclude=listed)
    assert len(both.images) == len(both.decode) == 15
    assert both.table("excluded")["path"].tolist() == ["deep/two/images/i5.png"]
    with pytest.raises(InputError, match=str(tmp_path / "both")):
        join(*sets, out=tmp_path / "both")
