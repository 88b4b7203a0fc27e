"""Label tables beside the files of annotation tools: nothing that one of them states is lost."""

import json
from pathlib import Path

import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.sources.source_tables import ReadOptions, SourceTables
from PIL import Image

from cxr_compare.data_prep.sources.registry import format_beside_tables, read_source
from tests.data_prep.sources.answers import edges, reasons, states, states_of, write_files

BOX = '<box label="{}" xtl="10" ytl="20" xbr="40" ybr="60">{}</box>'
MASS = BOX.format("mass", "")
TABLE = "file,label,patient\na.png,mass,p1\nb.png,normal,p1\nc.png,mass,p2\nd.png,normal,p3\n"


def cvat(**shapes: str) -> str:
    """A file of CVAT with the shapes of each image."""
    images = (
        f'<image name="{name}.png" width="200" height="100">{inside}</image>'
        for name, inside in shapes.items()
    )
    return f"<annotations>{''.join(images)}</annotations>"


def read(
    folder: Path, marks: str, *tables: str, name: str = "a.xml", **options: object
) -> SourceTables:
    """Read a file of marks and tables beside a folder of the images a to d."""
    files = {f"images/{image}.png": "" for image in "abcd"}
    files |= {name: marks} | {f"{number}.csv": text for number, text in enumerate(tables)}
    write_files(folder, files)
    kind = {"a.xml": "cvat", "via.json": "via", "tasks.json": "label-studio"}[name]
    labels = tuple(folder / file for file in files if not file.startswith("images/"))
    return read_source(folder / "images", kind, ReadOptions(labels=labels, **options))


def test_labels_and_patients_come_from_the_table_and_boxes_from_the_marks(tmp_path):
    tables = read(tmp_path, cvat(a=MASS, b="", c=MASS, d=""), TABLE)
    assert states(tables) == {
        ("a", "mass"): "present",
        ("b", "mass"): "absent",
        ("c", "mass"): "present",
        ("d", "mass"): "absent",
    }
    patients = tables.images.set_index("image_id")["patient_id"].str.partition(":")[2]
    assert patients.to_dict() == {"a": "p1", "b": "p1", "c": "p2", "d": "p3"}
    assert edges(tables) == [[10, 20, 40, 60]] * 2
    assert reasons(tables) == {}


@pytest.mark.parametrize("finding", ["mass", "nodule"])
def test_a_box_of_an_image_that_the_table_calls_normal_leaves_it_out(tmp_path, finding):
    tables = read(tmp_path, cvat(a=MASS, b=BOX.format(finding, "")), TABLE)
    assert reasons(tables) == {"b.png": "'no finding' beside a finding"}
    assert states_of(tables, "a")["mass"] == "present"


def test_a_box_of_a_finding_that_the_table_denies_leaves_its_image_out(tmp_path):
    table = "file,mass,nodule\na.png,0,1\nb.png,0,0\nc.png,1,0\n"
    tables = read(tmp_path, cvat(a=MASS, b=""), table)
    assert reasons(tables) == {"a.png": "box of a finding that is labelled absent"}


def test_what_only_one_of_them_knows_is_kept(tmp_path):
    table = "file,label,patient\na.png,mass,p1\nb.png,,p2\nc.png,normal,p3\n"
    tables = read(tmp_path, cvat(a="", b=MASS, d=MASS), table)
    found = {image: states_of(tables, image)["mass"] for image in "abcd"}
    assert found == {"a": "present", "b": "present", "c": "absent", "d": "present"}
    assert set(tables.boxes["image_id"]) == {"b", "d"}
    assert set(tables.box_coverage["image_id"]) == {"b", "c", "d"}  # a has a mass without a box
    unknown = tables.images["patient_id_source"] == "assumed_image"
    assert tables.images.loc[unknown, "image_id"].tolist() == ["d"]


def test_normal_of_the_table_denies_the_findings_of_the_marks(tmp_path):
    table = "file,label\nc.png,normal\nd.png,normal\n"
    tables = read(tmp_path, cvat(a=MASS, b=BOX.format("nodule", "")), table)
    assert states_of(tables, "c") == {"mass": "absent", "nodule": "absent"}
    assert not any("no label" in note for note in tables.notes)


def test_unknown_and_uncertain_labels_of_the_table_are_no_absence(tmp_path):
    table = "file,mass\na.png,uncertain\nb.png,1\nc.png,0\n"
    tables = read(tmp_path, cvat(a="", b=MASS, c=""), table)
    assert states_of(tables, "a") == {"mass": "uncertain"}


def test_a_table_may_hold_patients_alone(tmp_path):
    table = "file,patient,sex\na.png,p1,F\nb.png,p2,M\n"
    tables = read(tmp_path, cvat(a=MASS, b=""), table)
    assert tables.images.set_index("image_id")["sex"].to_dict() == {"a": "F", "b": "M"}
    assert states(tables) == {("a", "mass"): "present", ("b", "mass"): "absent"}


def test_two_tables_and_a_file_of_via(tmp_path):
    shape = {"name": "rect", "x": 10, "y": 20, "width": 30, "height": 40}
    region = {"shape_attributes": shape, "region_attributes": {"label": "mass"}}
    entries = {
        name: {"filename": f"{name}.png", "regions": regions, "file_attributes": {}}
        for name, regions in {"a": [region], "b": [], "c": [region]}.items()
    }
    patients = "file,patient\na.png,p1\nb.png,p1\nc.png,p2\n"
    labels = "file,label\na.png,mass\nb.png,normal\nd.png,effusion\n"
    tables = read(tmp_path, json.dumps(entries), labels, patients, name="via.json")
    found = {image: states_of(tables, image).get("mass") for image in "abcd"}
    assert found == {"a": "present", "b": "absent", "c": "present", "d": "absent"}
    assert tables.images["patient_id"].nunique() == 3  # d has no known patient
    assert len(tables.boxes) == 2


def test_label_studio_beside_a_table(tmp_path):
    value = {"x": 5, "y": 20, "width": 15, "height": 40, "rectanglelabels": ["mass"]}
    result = {
        "type": "rectanglelabels", "value": value, "original_width": 200, "original_height": 100
    }  # fmt: skip
    tasks = [
        {"data": {"image": f"/data/upload/1/{name}.png"}, "annotations": [{"result": results}]}
        for name, results in {"a": [result], "b": [], "c": [result]}.items()
    ]
    table = "file,label,patient\na.png,mass,p1\nb.png,normal,p1\n"
    made = read(tmp_path, json.dumps(tasks), table, name="tasks.json")
    assert {image: states_of(made, image)["mass"] for image in "abc"} == {
        "a": "present",
        "b": "absent",
        "c": "present",
    }
    assert set(made.boxes.loc[made.boxes["reader"] == "reference", "image_id"]) == {"a", "c"}
    denying = read(tmp_path, json.dumps(tasks), "file,label\na.png,normal\n", name="tasks.json")
    assert states_of(denying, "a") == {"mass": "absent"}
    assert any("a table denies" in note and "image a" in note for note in denying.notes)
    assert not any("a table denies" in note for note in made.notes)
    labels = "file,label\na.png,nodule\nb.png,normal\nc.png,mass\n"  # nobody denies a's mass
    other = read(tmp_path, json.dumps(tasks), labels, name="tasks.json")
    assert states_of(other, "a") == {"mass": "present", "nodule": "present"}


VOC_FILE = (
    "<annotation><filename>{0}.png</filename><size><width>200</width><height>100</height></size>"
    "{1}</annotation>"
)
VOC_MASS = (
    "<object><name>mass</name><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>40</xmax>"
    "<ymax>60</ymax></bndbox></object>"
)
SHAPE = {"label": "mass", "shape_type": "rectangle", "points": [[10, 20], [40, 60]]}
IN_FOLDER = {
    "voc": {f"{name}.xml": VOC_FILE.format(name, VOC_MASS * (name == "a")) for name in "ab"},
    "yolo": {"a.txt": "0 0.125 0.4 0.15 0.4", "b.txt": "", "data.yaml": "names: [mass]"},
    "labelme": {
        f"{name}.json": json.dumps({"imagePath": f"{name}.png", "shapes": [SHAPE] * (name == "a")})
        for name in "ab"
    },
    "coco": {
        "train.json": json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
                "categories": [{"id": 1, "name": "mass"}],
                "annotations": [{"image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40]}],
            }
        )
    },
    "cvat": {"a.xml": cvat(a=MASS, b="")},
}


@pytest.mark.parametrize("kind", IN_FOLDER)
def test_label_files_in_the_folder_of_images_are_joined_with_a_table(tmp_path, kind):
    for name in "abcd":
        Image.new("L", (200, 100)).save(tmp_path / f"{name}.png")
    write_files(tmp_path, IN_FOLDER[kind] | {"labels.csv": TABLE})
    assert format_beside_tables(tmp_path) == kind
    tables = read_source(tmp_path, kind, ReadOptions(labels=(tmp_path / "labels.csv",)))
    found = {image: states_of(tables, image)["mass"] for image in "abcd"}
    assert found == {"a": "present", "b": "absent", "c": "present", "d": "absent"}
    assert edges(tables) == [pytest.approx([10, 20, 40, 60])]
    assert tables.images["patient_id"].nunique() == 3
    assert reasons(tables) == {}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,label,x,y,width,height\nb.png,mass,1,2,3,4\n", "write both in one form"),
        ("file,label,patient\na.png,mass,p9\n", "several values for patient_id"),
        (
            "file,label\nz.png,mass\n",
            r"none of the 1 images that the table names, such as 'z\.png'",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, table, message):
    said = '<attribute name="patient">p1</attribute>'
    with pytest.raises(InputError, match=message):
        read(tmp_path, cvat(a=BOX.format("mass", said), b=""), table)


def test_a_role_of_the_marks_is_that_of_the_users_split(tmp_path):
    marks = cvat(a=MASS, b="", c=MASS).replace('"a.png"', '"a.png" subset="Train"')
    marks = marks.replace('"b.png"', '"b.png" subset="Train"').replace(
        '"c.png"', '"c.png" subset="test"'
    )
    roles = read(tmp_path, marks).split.set_index("image_id")["role"]
    assert roles.to_dict() == {"a": "train", "b": "train", "c": "test"}
