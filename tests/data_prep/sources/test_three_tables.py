"""Format `table` with images, labels and boxes in a table each."""

from pathlib import Path
from typing import Any

import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.sources.source_tables import ReadOptions, SourceTables

from cxr_compare.data_prep.sources.registry import read_source
from tests.data_prep.sources.answers import states

IMAGES = "image_id,patient_id\na,p1\nb,p1\nc,p2\n"
LABELS = "image_id,finding,state\na,mass,present\nb,mass,absent\nc,mass,uncertain\n"


def read(folder: Path, **options: Any) -> SourceTables:
    tables = [folder / f"{name}.csv" for name in ("images", "labels", "boxes")]
    labels = tuple(path for path in tables if path.exists())
    return read_source(folder, "table", ReadOptions(labels=labels, **options))


def write_set(folder: Path, images: str = IMAGES, labels: str = LABELS, boxes: str = "") -> Path:
    """Write the tables, and an empty file for each image that they may name."""
    folder.mkdir(exist_ok=True)
    for name in ("a", "b", "c", "0012"):
        (folder / f"{name}.png").touch()
    (folder / "images.csv").write_text(images, encoding="utf-8")
    (folder / "labels.csv").write_text(labels, encoding="utf-8")
    if boxes:
        (folder / "boxes.csv").write_text(boxes, encoding="utf-8")
    return folder


def test_three_tables_have_patients_labels_and_a_target(tmp_path):
    tables = read(write_set(tmp_path / "ward"))
    assert tables.images["path"].tolist() == ["a.png", "b.png", "c.png"]
    assert tables.images["patient_id"].tolist() == ["ward:p1", "ward:p1", "ward:p2"]
    assert tables.findings["state"].tolist() == ["present", "absent", "uncertain"]
    assert tables.targets == {"mass": Target(name="mass", any_of=("mass",), display_name="Mass")}
    assert tables.box_coverage.empty


def test_labels_that_name_no_reader_have_an_unknown_source(tmp_path):
    assert set(read(write_set(tmp_path)).findings["origin"]) == {"unknown"}


def test_a_name_space_that_is_given_stays(tmp_path):
    images = "image_id,patient_id\na,nih:00019124\n"
    tables = read(write_set(tmp_path, images, "image_id,finding,state\na,mass,1\n"))
    assert tables.images["patient_id"].tolist() == ["nih:00019124"]


def test_leading_zeros_and_byte_order_marks_survive(tmp_path):
    images = "\ufeffimage_id,patient_id\n0012,007\n"
    tables = read(write_set(tmp_path / "s", images, "image_id,finding,state\n0012,mass,0\n"))
    assert tables.images[["image_id", "patient_id"]].iloc[0].tolist() == ["0012", "s:007"]


def test_missing_patients_are_assumed_with_a_warning(tmp_path):
    images = "image_id\na\nb\nc\n"
    tables = read(write_set(tmp_path, images))
    assert set(tables.images["patient_id_source"]) == {"assumed_image"}
    assert tables.images["patient_id"].is_unique
    assert any(note.startswith("WARNING") for note in tables.notes)


def test_boxes_cover_the_images_they_stand_on_and_the_negatives(tmp_path):
    labels = LABELS + "c,nodule,present\n"
    boxes = "image_id,x1,y1,x2,y2,finding\na,1,2,3,4,mass\n"
    tables = read(write_set(tmp_path, labels=labels, boxes=boxes))
    covered = set(zip(tables.box_coverage["image_id"], tables.box_coverage["finding"], strict=True))
    assert covered == {("a", "mass"), ("b", "mass")}  # nobody boxed nodules


def test_a_box_without_a_label_is_a_present_finding(tmp_path):
    boxes = "image_id,x1,y1,x2,y2,finding\nc,1,2,3,4,nodule\n"
    findings = read(write_set(tmp_path, boxes=boxes)).findings
    row = findings[findings["finding"] == "nodule"].iloc[0]
    assert (row["image_id"], row["state"]) == ("c", "present")


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ("a,-9,5,7,9,mass", "outside the image"),
        ("b,1,5,7,9,mass", "labelled absent"),
        ("z,1,5,7,9,mass", "no such image"),
    ],
)
def test_a_wrong_box_excludes_its_image(tmp_path, box, reason):
    boxes = f"image_id,x1,y1,x2,y2,finding\n{box}\na,1,1,5,5,mass\n"
    tables = read(write_set(tmp_path, boxes=boxes))
    assert [Path(path).stem for path in tables.excluded["path"]] == [box[0]]
    assert reason in tables.excluded["reason"].iloc[0]
    assert box[0] not in set(tables.images["image_id"])
    assert box[0] not in set(tables.findings["image_id"])


def test_two_states_for_one_finding_exclude_the_image(tmp_path):
    tables = read(write_set(tmp_path, labels=LABELS + "a,mass,absent\n"))
    assert tables.excluded["reason"].tolist() == ["two states for one finding"]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ("patient_id\np\n", LABELS, "no column names the image"),
        ("image_id,sex\na,F\na,M\n", LABELS, "sex"),
        ("image_id,sex\n,F\n", LABELS, "line 2: no image is named"),
        ("image_id,height\na,tall\n", LABELS, "a box needs xmin and xmax"),
        ("image_id,split\na,train\nb,\n", LABELS, "line 3: split=''"),
        ("image_id,split\na,held out\n", LABELS, "line 2: split='held out'"),
        ("image_id\n", LABELS, "has no row"),
        (IMAGES, "image_id,finding,state\na,mass,maybe\n", "line 2: .*'state' holds no state"),
        (
            IMAGES,
            "image_id,finding,state\na,,present\n",
            "line 2: .*the finding is empty",
        ),
        (IMAGES, "", "not readable as CSV"),
    ],
)
def test_a_malformed_table_is_one_line_that_names_the_position(tmp_path, images, labels, message):
    with pytest.raises(InputError, match=message) as caught:
        read(write_set(tmp_path, images, labels))
    assert "\n" not in str(caught.value)


def test_a_patient_in_two_published_roles_is_refused(tmp_path):
    images = "image_id,patient_id,split\na,p1,train\nb,p1,test\nc,p2,test\n"
    with pytest.raises(InputError, match=r"p1'.*train.*test"):
        read(write_set(tmp_path, images))


def test_the_published_split_is_read(tmp_path):
    images = "image_id,patient_id,split\na,p1,Train\nb,p1,train\nc,p2,validation\n"
    assert read(write_set(tmp_path, images)).split["role"].tolist() == ["train", "train", "val"]


def test_repeated_lines_count_once(tmp_path):
    tables = read(write_set(tmp_path, IMAGES + "c,p2\n", LABELS + "\n\na,mass,present\n"))
    assert len(tables.images) == len(tables.findings) == 3


def test_boxes_beside_states_make_no_other_finding_absent(tmp_path):
    """The table of boxes names only a mass on ``a``; whether ``a`` shows a nodule is unknown."""
    labels = "image_id,finding,state\na,mass,1\nb,mass,0\nb,nodule,1\nc,nodule,\n"
    boxes = "image_id,x1,y1,x2,y2,finding\na,1,2,30,40,mass\nb,5,6,30,40,nodule\n"
    tables = read(write_set(tmp_path, labels=labels, boxes=boxes))
    assert states(tables) == {
        ("a", "mass"): "present",
        ("b", "mass"): "absent",
        ("b", "nodule"): "present",
    }
    assert len(tables.boxes) == 2
    assert set(tables.images["image_id"]) == {"a", "b", "c"}


def test_ids_that_are_no_file_names_join_the_tables_as_a_study(tmp_path):
    images = "image_id,path,patient_id\n17,a.png,p1\n18,b.png,p2\n"
    labels = "image_id,finding,state\n17,mass,1\n18,mass,0\n"
    boxes = "image_id,x1,y1,x2,y2,finding\n17,1,2,30,40,mass\n"
    tables = read(write_set(tmp_path, images, labels, boxes), columns=("study=image_id",))
    assert states(tables) == {("a", "mass"): "present", ("b", "mass"): "absent"}
    assert tables.boxes["image_id"].tolist() == ["a"]


TWO_READERS = (
    "image_id,finding,state,reader\n"
    "a,mass,present,Smith\na,mass,present,Jones\nb,mass,absent,Smith\nb,mass,absent,Jones\n"
    "c,mass,present,Smith\nc,mass,absent,Jones\n"
)


@pytest.mark.parametrize(
    ("rule", "disputed"),
    [("majority", "uncertain"), ("any", "present"), ("all", "absent"), ("reader:Jones", "absent")],
)
def test_two_readers_leave_nothing_out_and_the_rule_makes_the_reference(tmp_path, rule, disputed):
    tables = read(write_set(tmp_path, labels=TWO_READERS), reference=rule)
    assert tables.excluded.empty
    assert states(tables) == {
        ("a", "mass"): "present",
        ("b", "mass"): "absent",
        ("c", "mass"): disputed,
    }
    assert states(tables, "Smith")["c", "mass"] == "present"
    assert set(tables.findings["origin"]) == {"reader"} | (
        {"reader"} if ":" in rule else {"consensus"}
    )


def test_boxes_of_two_readers_become_boxes_of_the_reference(tmp_path):
    boxes = (
        "image_id,x1,y1,x2,y2,finding,reader\n"
        "a,10,10,30,30,mass,Smith\na,12,10,32,30,mass,Jones\nc,1,1,9,9,mass,Smith\n"
    )
    tables = read(write_set(tmp_path, labels=TWO_READERS, boxes=boxes))
    own = tables.boxes["reader"] == "reference"
    assert tables.boxes.loc[own, ["x1", "x2"]].to_numpy().tolist() == [[11.0, 31.0]]
    assert (~own).sum() == 3
    assert any(
        note.startswith("2 readers") and "1 of 3 labels" in note
        for note in tables.label_notes("majority")
    )


@pytest.mark.parametrize(
    ("labels", "rule", "message"),
    [
        (TWO_READERS, "reader:Brown", "Jones, Smith"),
        (LABELS, "any", "the labels name no reader"),
        (LABELS, "reader:Smith", "the labels name no reader"),
        (TWO_READERS + "c,mass,absent,\n", "majority", "line 8: reader"),
    ],
)
def test_a_reference_that_cannot_be_made_is_refused(tmp_path, labels, rule, message):
    with pytest.raises(InputError, match=message):
        read(write_set(tmp_path, labels=labels), reference=rule)
