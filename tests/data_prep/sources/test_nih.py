"""The NIH reader: labels, official boxes and lists, who the patients are, what is left out."""

import gzip
from pathlib import Path

import pandas as pd
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.sources.descriptions import public_sets
from PIL import Image

from tests.data_prep.sources.answers import edges, reader, reasons, roles, states_of, write_files

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
A = "00000001_000"
B = "00000002_000"


read = reader("nih")
FINDINGS = public_sets()["nih"].findings


def row(name: str, labels: str = "No Finding", *, patient: str = "", age: str = "57") -> str:
    return f"{name}.png,{labels},3,{patient or int(name[:8])},{age},M,PA,2682,2749,0.143,0.143"


def write_source(
    folder: Path,
    rows: list[str],
    *,
    boxes: list[str] | None = None,
    image_files: tuple[str, ...] = (),
    table: str = "Data_Entry_2017_v2020.csv",
) -> Path:
    """Write an NIH folder whose images are empty files: the reader opens none."""
    files = {table: "\n".join([HEADER, *rows, ""]), **dict.fromkeys(image_files, "")}
    if boxes is not None:
        files["BBox_List_2017.csv"] = "\n".join([BOX_HEADER, *boxes, ""])
    return write_files(folder, files)


def test_listed_findings_are_present_and_all_others_absent(tmp_path):
    rows = [row(A, "Cardiomegaly|Pleural_Thickening|Cardiomegaly"), row(B)]
    tables = read(write_source(tmp_path, rows))
    assert set(states_of(tables, A)) == set(states_of(tables, B)) == set(FINDINGS)
    assert {f for f, s in states_of(tables, A).items() if s == "present"} == {
        "cardiomegaly",
        "pleural_thickening",
    }
    assert set(states_of(tables, B).values()) == {"absent"}
    assert set(tables.findings["origin"]) == {"report_nlp"}
    assert list(tables.targets) == [*sorted(FINDINGS), "any_finding"]
    assert len(tables.targets) == 15
    assert tables.targets["any_finding"].any_of == tuple(FINDINGS)  # outputs of a model, in order


def test_an_empty_label_is_unknown_and_not_negative(tmp_path):
    tables = read(write_source(tmp_path, [row(A, ""), row(B)]))
    assert states_of(tables, A) == {}
    assert A in set(tables.images["image_id"])
    assert any("1 image has no label" in note for note in tables.notes)


@pytest.mark.parametrize(
    ("rows", "boxes", "message"),
    [
        ([row(A), row(B, "Mass|COVID-19")], None, "line 3: .*COVID-19' is none"),
        ([row(A, age="old")], None, "line 2: Patient Age='old'"),
        ([row(A)], [f"{A}.png,Granuloma,1,2,3,4"], "line 2: Finding Label='Granuloma'"),
    ],
    ids=["label", "age", "boxed finding"],
)
def test_a_cell_that_is_none_of_the_known_names_its_line(tmp_path, rows, boxes, message):
    with pytest.raises(InputError, match=message):
        read(write_source(tmp_path, rows, boxes=boxes))


@pytest.mark.parametrize(
    ("text", "years"), [("058Y", 58), ("057", 57), ("411", 411), ("006M", 0.5), ("", None)]
)
def test_ages_of_both_tables_are_read_and_impossible_ones_kept(tmp_path, text, years):
    tables = read(write_source(tmp_path, [row(A, age=text)]))
    age = tables.images["age_years"].iloc[0]
    assert pd.isna(age) if years is None else age == pytest.approx(years)


def test_the_patient_is_in_the_name(tmp_path):
    rows = [row(A), row("00000001_001"), row(B, patient="7"), row("x", patient="1")]
    people = read(write_source(tmp_path, rows)).images.set_index("image_id")
    assert people["patient_id"].to_dict() == {
        A: "nih:00000001",
        "00000001_001": "nih:00000001",
        B: "nih:00000002",
        "x": "nih:image-x",
    }
    assert people.loc["x", "patient_id_source"] == "assumed_image"


def test_person_view_and_true_size_come_from_the_table(tmp_path):
    image = read(write_source(tmp_path, [row(A)])).images.iloc[0]
    assert image[["view", "sex", "age_years", "x_follow_up"]].tolist() == ["PA", "M", 57, 3]
    assert image["field_width_mm"] == pytest.approx(2682 * 0.143)
    assert image["field_height_mm"] == pytest.approx(2749 * 0.143)


def test_a_trailing_comma_in_the_2017_header_shifts_nothing(tmp_path):
    path = tmp_path / "Data_Entry_2017.csv"
    path.write_text(f"{HEADER},\n{row(A, 'Mass')},\n")
    tables = read(tmp_path)
    assert states_of(tables, A)["mass"] == "present"
    assert tables.images["field_height_mm"].iloc[0] == pytest.approx(2749 * 0.143)


def test_the_corrected_table_is_preferred_and_gz_is_read(tmp_path):
    write_source(tmp_path, [row(A, age="411Y")], table="Data_Entry_2017.csv")
    newer = tmp_path / "Data_Entry_2017_v2020.csv.gz"
    newer.write_bytes(gzip.compress(f"{HEADER}\n{row(A, age='41')}\n".encode()))
    assert read(tmp_path).images["age_years"].tolist() == [41]


def test_official_boxes_become_corners_and_what_they_stand_on_alone_counts_as_boxed(tmp_path):
    rows = [row(A, "Infiltration|Mass"), row(B, "Mass")]
    boxes = [f"{A}.png,Infiltrate,10.5,20,30,40", f"{A}.png,Infiltrate,100,200,300,400"]
    tables = read(write_source(tmp_path, rows, boxes=boxes))
    assert set(tables.boxes["finding"]) == {"infiltration"}
    assert edges(tables) == [[10.5, 20, 40.5, 60], [100, 200, 400, 600]]
    covered = tables.box_coverage[["image_id", "finding", "coverage"]].to_numpy().tolist()
    assert covered == [[A, "infiltration", "all"]]


def test_boxed_images_must_have_the_size_that_the_boxes_are_in(tmp_path):
    source = write_source(
        tmp_path, [row(A, "Mass"), row(B, "Mass")], boxes=[f"{A}.png,Mass,100,200,300,400"]
    )
    (source / "images").mkdir()
    for name in (A, B):
        Image.new("L", (512, 512)).save(source / "images" / f"{name}.png")
    tables = read(source)
    assert tables.images["image_id"].tolist() == [B]
    assert "1024" in tables.excluded["reason"].item()


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ("Mass,1,2,0,4", "zero or negative size"),
        ("Mass,-99,2,120,4", "outside the image"),
        ("Mass,1,,3,4", "missing or infinite"),
        ("Nodule,1,2,3,4", "labelled absent"),
    ],
)
def test_a_box_that_cannot_be_right_excludes_its_image(tmp_path, box, reason):
    boxes = [f"{A}.png,{box}", f"{B}.png,Mass,100,200,300,400"]
    source = write_source(tmp_path, [row(A, "Mass"), row(B, "Mass")], boxes=boxes)
    tables = read(source)
    assert tables.images["image_id"].tolist() == [B]
    assert reason in tables.excluded["reason"].iloc[0]
    assert set(tables.boxes["image_id"]) == {B}
    assert set(tables.findings["image_id"]) == {B}


def test_two_versions_of_a_row_exclude_the_image_and_repeats_count_once(tmp_path):
    rows = [row(A, "Mass"), row(A), row(B), row(B)]
    tables = read(write_source(tmp_path, rows))
    assert tables.images["image_id"].tolist() == [B]
    assert tables.excluded["reason"].tolist() == ["two different rows in Data_Entry_2017_v2020.csv"]
    assert any("1 repeated rows" in note for note in tables.notes)


def test_no_finding_beside_a_finding_excludes_the_image(tmp_path):
    tables = read(write_source(tmp_path, [row(A, "No Finding|Mass"), row(B)]))
    assert tables.excluded["reason"].tolist() == ["'no finding' beside a finding"]


def test_images_lie_in_several_folders_and_strays_are_left_out(tmp_path):
    source = write_source(
        tmp_path,
        [row(A), row(B), row("00000003_000")],
        image_files=(
            f"images_001/images/{A}.png",
            f"images_002/images/{B}.png",
            "images_002/images/00000009_000.png",
        ),
    )
    tables = read(source)
    assert tables.images["path"].tolist() == [
        f"images_001/images/{A}.png",
        f"images_002/images/{B}.png",
    ]
    left_out = reasons(tables)
    assert "no row in" in left_out["images_002/images/00000009_000.png"]
    assert "no image" in left_out["00000003_000"]


def test_without_any_image_it_is_a_set_without_pixels(tmp_path):
    tables = read(write_source(tmp_path, [row(A), row(B)]))
    assert tables.images["path"].isna().all()
    assert tables.images["width"].tolist() == [1024, 1024]
    assert tables.excluded.empty


def test_images_of_another_set_are_refused(tmp_path):
    source = write_source(tmp_path, [row(A)], image_files=("images/photo.png",))
    with pytest.raises(InputError, match=r"\b1 image.*Data_Entry"):
        read(source)


def test_official_lists_become_the_official_split(tmp_path):
    source = write_source(tmp_path, [row(A), row(B), row("00000003_000")])
    assert read(source).official.empty
    (source / "train_val_list.txt").write_text(f"{A}.png\n")
    assert any("needs both" in note for note in read(source).notes)
    (source / "test_list.txt").write_text(f"{B}.png\n00000099_000.png\n")
    assert roles(read(source)) == {A: "train", B: "test", "00000003_000": "unused"}


def test_an_image_in_both_official_lists_is_refused(tmp_path):
    source = write_source(tmp_path, [row(A)])
    for name in ("train_val_list.txt", "test_list.txt"):
        (source / name).write_text(f"{A}.png\n")
    with pytest.raises(InputError, match=r"\b1 image\b"):
        read(source)


def test_real_images_with_official_boxes(shared_data):
    tables = read(shared_data / "nih")
    assert (len(tables.images), len(tables.boxes), len(tables.excluded)) == (24, 9, 0)
    assert tables.box_coverage["image_id"].nunique() == 9
    assert tables.images["path"].str.startswith("images/").all()


def test_the_full_public_table_gives_the_published_numbers(shared_data):
    tables = read(shared_data / "reference_csv")
    assert (len(tables.images), tables.images["patient_id"].nunique()) == (112_120, 30_805)
    assert len(tables.findings) == 14 * 112_120
    present = tables.findings.loc[tables.findings["state"] == "present", "finding"].value_counts()
    assert (present["infiltration"], present["pneumonia"], present["hernia"]) == (
        19_894,
        1_431,
        227,
    )
    assert (len(tables.boxes), tables.boxes["image_id"].nunique()) == (984, 880)
    assert tables.images["path"].isna().all()
    assert tables.excluded.empty
