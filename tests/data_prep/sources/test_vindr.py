"""The VinDr reader: who read what, what becomes the reference, and boxes of resized copies."""

from pathlib import Path

import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from PIL import Image

from cxr_compare.data_prep.sources import described
from cxr_compare.data_prep.sources.registry import likely_format
from tests.data_prep.sources.answers import reader, states, write_files

CLASSES = "Cardiomegaly,Nodule/Mass,Pneumonia,{other},No finding"
TRAIN = [
    "a,R8,1,0,0,0,0",
    "a,R9,1,1,1,0,0",
    "a,R10,1,0,1,0,0",
    "b,R8,0,0,0,0,1",
    "b,R9,0,0,0,0,1",
    "b,R10,0,1,0,0,0",
]
TRAIN_BOXES = [
    "a,R8,Cardiomegaly,10,10,110,60",
    "a,R9,Cardiomegaly,12,10,112,60",
    "a,R10,Cardiomegaly,300,300,350,350",  # agrees that it is there, not where
    "a,R9,Nodule/Mass,5,5,9,9",
    "b,R8,No finding,,,,",
    "b,R9,No finding,,,,",
    "b,R10,Nodule/Mass,1,1,4,4",
]
TEST = ["t,0,1,0,1,0", "u,0,0,0,0,1"]
TEST_BOXES = ["t,Nodule/Mass,1.5,2.25,30,40", "u,No finding,,,,"]


read = reader("vindr")


def write_physionet(
    folder: Path,
    *,
    labels: list[str] = TRAIN,
    boxes: list[str] = TRAIN_BOXES,
    suffix: str = ".dicom",
) -> Path:
    """Write the set as on PhysioNet; the images are empty files: no reader decodes them."""
    read_by = ["image_id,rad_id," + CLASSES.format(other="Other diseases"), *labels]
    tables = {
        "image_labels_train": read_by,
        "image_labels_test": ["image_id," + CLASSES.format(other="Other disease"), *TEST],
        "annotations_train": ["image_id,rad_id,class_name,x_min,y_min,x_max,y_max", *boxes],
        "annotations_test": ["image_id,class_name,x_min,y_min,x_max,y_max", *TEST_BOXES],
    }
    texts = {f"annotations/{name}.csv": "\n".join([*rows, ""]) for name, rows in tables.items()}
    names = ("train/a", "train/b", "test/t", "test/u")
    return write_files(folder, {**texts, **{f"{name}{suffix}": "" for name in names}})


def write_kaggle(folder: Path, lines: list[str], size: tuple[int, int] | None = None) -> Path:
    """Write the set as on Kaggle, as DICOM or as PNG copies of a size (width, height)."""
    header = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"
    names = [f"{name}.{'png' if size else 'dicom'}" for name in ("train/a", "train/b", "test/t")]
    table = {"train.csv": "\n".join([header, *lines, ""])}
    write_files(folder, {**table, **dict.fromkeys(names, "")})
    for name in names if size else ():
        Image.new("L", size).save(folder / name)
    return folder


def reference_boxes(tables, image_id: str) -> list[list[float]]:
    chosen = (tables.boxes["reader"] == "reference") & (tables.boxes["image_id"] == image_id)
    return tables.boxes.loc[chosen, ["x1", "y1", "x2", "y2"]].to_numpy().tolist()


def test_every_reader_is_kept_beside_the_reference_by_majority(tmp_path):
    tables = read(write_physionet(tmp_path))
    assert set(tables.findings["reader"]) == {"R8", "R9", "R10", "reference"}
    assert states(tables, "R9") == {
        ("a", "cardiomegaly"): "present",
        ("a", "nodule_mass"): "present",
        ("a", "pneumonia"): "present",
        ("a", "other_diseases"): "absent",
        ("b", "cardiomegaly"): "absent",
        ("b", "nodule_mass"): "absent",
        ("b", "pneumonia"): "absent",
        ("b", "other_diseases"): "absent",
    }
    reference = states(tables, "reference")
    assert [reference["a", f] for f in ("cardiomegaly", "nodule_mass", "pneumonia")] == [
        "present",
        "absent",
        "present",
    ]
    assert reference["b", "nodule_mass"] == "absent"
    assert len(tables.boxes[tables.boxes["reader"] == "R9"]) == 2
    assert reference_boxes(tables, "a") == [[11, 10, 111, 60]]  # the mean of R8 and R9
    assert tables.excluded.empty


def test_the_consensus_of_the_test_images_is_the_reference_as_it_stands(tmp_path):
    for rule in ("majority", "all", "reader:R8"):
        tables = read(write_physionet(tmp_path), reference=rule)
        assert reference_boxes(tables, "t") == [[1.5, 2.25, 30, 40]]
        assert states(tables, "reference")["t", "other_diseases"] == "present"  # column of one s
        rows = tables.findings[tables.findings["image_id"] == "t"]
        assert set(rows["reader"]) == {"reference"}
        assert set(rows["origin"]) == {"consensus"}


@pytest.mark.parametrize(
    ("rule", "cardiomegaly", "nodule", "boxes"),
    [
        ("any", "present", "present", [[5, 5, 9, 9], [11, 10, 111, 60], [300, 300, 350, 350]]),
        ("all", "present", "absent", []),  # no place that all three marked
        ("reader:R9", "present", "present", [[5, 5, 9, 9], [12, 10, 112, 60]]),
    ],
)
def test_the_rule_of_the_reference_is_the_users(tmp_path, rule, cardiomegaly, nodule, boxes):
    tables = read(write_physionet(tmp_path), reference=rule)
    reference = states(tables, "reference")
    assert (reference["a", "cardiomegaly"], reference["a", "nodule_mass"]) == (cardiomegaly, nodule)
    assert sorted(reference_boxes(tables, "a")) == boxes


def test_local_findings_are_covered_for_each_reader_and_global_ones_for_none(tmp_path):
    tables = read(write_physionet(tmp_path), reference="all")
    keys = ["image_id", "finding", "reader"]
    covered = set(tables.box_coverage[keys].itertuples(index=False, name=None))
    assert ("b", "cardiomegaly", "R8") in covered
    assert ("a", "cardiomegaly", "R10") in covered
    assert ("a", "cardiomegaly", "reference") not in covered  # present, but nobody knows where
    assert {finding for _, finding, _ in covered} == {"cardiomegaly", "nodule_mass"}
    assert set(tables.box_coverage["coverage"]) == {"all"}
    assert any("1 of 1 present findings" in note for note in tables.label_notes("majority"))


def test_physionets_split_is_official_and_nobody_is_known_as_a_patient(tmp_path):
    tables = read(write_physionet(tmp_path))
    assert dict(tables.official.to_numpy()) == {
        "a": "train",
        "b": "train",
        "t": "test",
        "u": "test",
    }
    assert tables.split.empty
    assert set(tables.images["patient_id_source"]) == {"assumed_image"}
    assert any(note.startswith("WARNING") and "4 images" in note for note in tables.notes)
    assert "no_finding" not in set(tables.findings["finding"])
    assert tables.targets["any_finding"].any_of == tuple(sorted(set(tables.findings["finding"])))


def test_kaggles_lines_say_who_read_an_image_and_what_he_did_not_mark(tmp_path):
    lines = [
        "a,Cardiomegaly,3,R8,10,10,20,20",
        "a,Cardiomegaly,3,R9,11,10,21,20",
        "a,No finding,14,R10,,,,",
        *(f"b,No finding,14,{reader},,,," for reader in ("R8", "R9", "R10")),
    ]
    tables = read(write_kaggle(tmp_path, lines))
    assert states(tables, "R10") == {
        ("a", "cardiomegaly"): "absent",
        ("b", "cardiomegaly"): "absent",
    }
    assert states(tables, "reference")["a", "cardiomegaly"] == "present"
    assert reference_boxes(tables, "a") == [[10.5, 10, 20.5, 20]]
    assert tables.split.to_dict("records") == [{"image_id": "t", "role": "unused"}]  # no labels
    assert tables.official.empty
    assert likely_format(tmp_path) == "vindr"


def test_boxes_are_scaled_to_copies_whose_original_size_is_known(tmp_path):
    lines = ["a,Cardiomegaly,3,R8,1000,600,2000,1500", "b,No finding,14,R8,,,,"]
    write_kaggle(tmp_path, lines, size=(256, 128))
    (tmp_path / "train_meta.csv").write_text("image_id,dim0,dim1\na,2560,2048\nb,2560,2048\n")
    tables = read(tmp_path)
    assert reference_boxes(tables, "a") == [[125, 30, 250, 75]]  # x / 8, y / 20
    assert any("1 boxed image has" in note for note in tables.notes)


def test_boxes_beyond_images_of_unknown_original_are_refused(tmp_path):
    write_kaggle(tmp_path, ["a,Cardiomegaly,3,R8,1000,600,2000,1500"], size=(256, 256))
    with pytest.raises(InputError, match=r"train\.csv.*1 box of 1"):
        read(tmp_path)


def test_boxes_that_were_resized_with_the_images_are_not_scaled_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(described, "_ENOUGH_TO_TELL", 2)
    lines = ["a,Cardiomegaly,3,R8,100,60,200,150", "b,Cardiomegaly,3,R8,10,60,255,150"]
    write_kaggle(tmp_path, lines, size=(256, 256))
    (tmp_path / "train_meta.csv").write_text("image_id,dim0,dim1\na,2560,2048\nb,2560,2048\n")
    assert reference_boxes(read(tmp_path), "a") == [[100, 60, 200, 150]]


@pytest.mark.parametrize(
    ("labels", "boxes", "reason"),
    [
        ([*TRAIN, "a,R8,0,0,0,0,1"], TRAIN_BOXES, "'no finding' beside"),
        ([*TRAIN[1:], "a,R8,1,0,0,0,1"], TRAIN_BOXES, "'no finding' beside"),
        (TRAIN, [*TRAIN_BOXES, "a,R8,Nodule/Mass,1,1,5,5"], "labelled absent"),
        (TRAIN, [*TRAIN_BOXES, "a,R9,Nodule/Mass,-9,1,5,5"], "outside the image"),
        (TRAIN[3:], TRAIN_BOXES, "no row in image_labels_train.csv"),
        ([*TRAIN, "z,R8,0,0,0,0,1"], TRAIN_BOXES, "but no image"),
    ],
)
def test_what_contradicts_itself_is_left_out_with_the_reason(tmp_path, labels, boxes, reason):
    tables = read(write_physionet(tmp_path, labels=labels, boxes=boxes))
    assert len(tables.excluded) == 1
    assert reason in tables.excluded["reason"].item()
    lost = Path(tables.excluded["path"].item()).stem
    for frame in (tables.images, tables.findings, tables.boxes, tables.box_coverage):
        assert lost not in set(frame["image_id"])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("most", "use majority, any, all or reader:NAME"),
        ("reader:", "use majority"),
        ("reader:R11", "R8, R9, R10"),
    ],
)
def test_an_unknown_reference_is_refused(tmp_path, rule, message):
    with pytest.raises(InputError, match=message):
        read(write_physionet(tmp_path), reference=rule)


def test_a_cell_that_is_no_label_is_named(tmp_path):
    labels = [*TRAIN[:-1], "b,R10,0,2,0,0,0"]
    with pytest.raises(InputError, match=r"image_labels_train.csv: line 7: .*'Nodule/Mass'"):
        read(write_physionet(tmp_path, labels=labels))


def test_images_that_the_chosen_reader_did_not_read_are_unknown(tmp_path):
    source = write_physionet(tmp_path, labels=TRAIN[:5], boxes=TRAIN_BOXES[:6])
    tables = read(source, reference="reader:R10")
    assert ("b", "cardiomegaly") not in states(tables, "reference")
    notes = tables.label_notes("reader:R10")
    assert any("1 image was not read by R10" in note for note in notes)


def test_a_part_without_images_or_without_labels_is_noted(tmp_path):
    source = write_physionet(tmp_path)
    for path in (source / "test").iterdir():
        path.unlink()
    tables = read(source)
    assert set(tables.images["image_id"]) == {"a", "b"}
    assert tables.excluded.empty
    assert any(note.startswith("image_labels_test.csv: none") for note in tables.notes)
    assert tables.official.empty


def test_labels_without_annotations_leave_nothing_covered(tmp_path):
    source = write_physionet(tmp_path)
    for path in (source / "annotations").glob("annotations_*.csv"):
        path.unlink()
    tables = read(source)
    assert tables.boxes.empty
    assert tables.box_coverage.empty
    assert states(tables, "reference")["a", "cardiomegaly"] == "present"
