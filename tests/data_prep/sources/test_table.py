"""Tables of labels beside a folder of images: what is recognised, what is asked, what it means."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.tables import typed_table
from cxr_compare.data_prep.sources.source_tables import ReadOptions, SourceTables
from PIL import Image

from cxr_compare.data_prep.sources.registry import read_source
from cxr_compare.scripts.commands.prepare import prepare
from tests.data_prep.sources.answers import edges, reasons, states, states_of, write_files

FILES = tuple(f"{name}.png" for name in "abcd")


def folder_of(root: Path, tables: dict[str, str], files=FILES) -> Path:
    """Tables, and a folder ``images`` with black images of 200 x 100 px."""
    write_files(root, tables)
    for name in files:
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((100, 200), np.uint8)).save(root / "images" / name)
    return root


def read(root: Path, *tables: str, show=lambda line: None, **options) -> SourceTables:
    paths = tuple(root / name for name in tables or ("labels.csv",))
    return read_source(root / "images", "table", ReadOptions(labels=paths, **options), show)


def read_table(root: Path, table: str, show=lambda line: None, **options) -> SourceTables:
    return read(folder_of(root, {"labels.csv": table}), show=show, **options)


def test_a_class_a_row_makes_every_other_class_absent(tmp_path):
    table = "file,label\na.png,Mass\nb.png,normal\nc.png,Nodule|Mass\nd.png,unknown\n"
    tables = read_table(tmp_path, table)
    assert states_of(tables, "a") == {"mass": "present", "nodule": "absent"}
    assert states_of(tables, "b") == {"mass": "absent", "nodule": "absent"}
    assert states_of(tables, "c") == {"mass": "present", "nodule": "present"}
    assert states_of(tables, "d") == {}
    assert tables.boxes.empty


def test_boxes_without_a_label_are_of_the_one_finding_of_the_labels(tmp_path):
    boxes = "file,x1,y1,x2,y2\na.png,20,10,60,40\n"
    labels = "file,opacity\na.png,1\nb.png,0\n"
    folder_of(tmp_path, {"labels.csv": labels, "boxes.csv": boxes})
    tables = read(tmp_path, "labels.csv", "boxes.csv")
    assert tables.boxes["finding"].tolist() == ["opacity"]
    assert states_of(tables, "b") == {"opacity": "absent"}
    two = "file,opacity,mass\na.png,1,0\nb.png,0,0\n"
    write_files(tmp_path, {"two.csv": two})
    with pytest.raises(InputError, match="not one finding"):
        read(tmp_path, "two.csv", "boxes.csv")


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("image,class,xmin,ymin,xmax,ymax", "20,10,60,40"),
        ("Image Name,Class,x,y,width,height", "20,10,40,30"),
        ("img,class,x_center,y_center,w,h", "40,25,40,30"),
        ("filename,class,cx,cy,w,h", "0.2,0.25,0.2,0.3"),
        ("filename,class,left,top,right,bottom", "0.1,0.1,0.3,0.4"),
        ("filename,class,x0,y0,x1,y1", "20,10,60,40"),
    ],
)
def test_every_form_of_a_box_becomes_corners_in_pixels(tmp_path, header, cells):
    tables = read_table(tmp_path, f"{header}\na.png,mass,{cells}\nb.png,,,,,\n")
    np.testing.assert_allclose(edges(tables), [[20, 10, 60, 40]])
    assert states(tables) == {("a", "mass"): "present", ("b", "mass"): "absent"}
    assert set(tables.box_coverage["image_id"]) == {"a", "b"}


def test_shares_from_a_corner_are_taken_once_the_user_says_so(tmp_path):
    table = "file,label,x,y,w,h\na.png,mass,0.1,0.1,0.2,0.3\n"
    tables = read_table(tmp_path, table, columns=("xmin=x", "ymin=y"))
    np.testing.assert_allclose(edges(tables), [[20, 10, 60, 40]])


def test_width_and_height_beside_corners_are_the_images(tmp_path):
    table = "filename,width,height,label,xmin,ymin,xmax,ymax\na.png,200,100,mass,1,2,30,40\n"
    tables = read_table(tmp_path, table)
    assert tables.images[["width", "height"]].to_numpy().tolist() == [[200, 100]]


def test_facts_of_an_image_are_brought_to_one_form(tmp_path):
    table = (
        "Path,Label,Patient ID,Sex,Age,View Position,split\n"
        "a.png,mass,7,Male,058Y,AP Supine,train\nb.png,normal,8,f,9,lateral,validate\n"
        "c.png,normal,8,F,9,pa,test\n"
    )
    tables = read_table(tmp_path, table, columns=("unused=split",))
    first = tables.images.set_index("image_id").loc["a"]
    assert first[["patient_id", "sex", "view", "age_years"]].tolist() == [
        "images:7",
        "M",
        "AP",
        58.0,
    ]
    assert reasons(tables) == {"b.png": "lateral view"}
    assert set(read_table(tmp_path, table.replace("8,F", "9,F")).split["role"]) == {"train", "test"}


def test_findings_in_columns_are_unknown_where_the_cell_is_empty(tmp_path):
    table = "id,Pneumonia,Edema,No Finding,ward\na.png,1,-1,,3\nb.png,,,1,4\nc.png,0,,,5\n"
    tables = read_table(tmp_path, table)
    assert states_of(tables, "a") == {"pneumonia": "present", "edema": "uncertain"}
    assert states_of(tables, "b") == {"pneumonia": "absent", "edema": "absent"}
    assert states_of(tables, "c") == {"pneumonia": "absent"}


def test_what_was_recognised_is_shown_with_three_rows_and_what_is_not_used(tmp_path):
    lines: list[str] = []
    table = "file,Dx,label,seen_again\na.png,,mass,2020-01-01\nb.png,,normal,\nc.png,,mass,\n"
    read_table(tmp_path, table, show=lines.append)
    assert lines[0].startswith("labels.csv: 3 rows; ")
    assert lines[2].split() == ["file", "file", "a.png", "b.png", "c.png"]
    assert lines[3].split() == ["label", "label", "mass", "normal", "mass"]
    assert lines[5].split() == ["unused", "seen_again", "2020-01-01"]
    assert "--columns ROLE=COLUMN" in lines[-1]


@pytest.mark.parametrize(
    "text",
    [
        "names = 5",
        "table = [1, 2]",
        "[[table]]\nname = 'x'\ncolumns = ['a']\nroles = {}\nvalues = {sex = 3}",
        "names = " + "[" * 100_000,
    ],
)
def test_a_file_of_columns_of_wrong_types_or_depth_is_one_line(tmp_path, text):
    mapping = tmp_path / "ours.toml"
    mapping.write_text(text)
    with pytest.raises(InputError, match=r"ours\.toml") as caught:
        read_table(tmp_path, "file,label\na.png,mass\n", columns=(str(mapping),))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 3_000


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_of_columns_is_read_as_windows_editors_write_it(tmp_path, encoding):
    mapping = tmp_path / "ours.toml"
    mapping.write_text("[names]\nlabel = ['befund']\n", encoding=encoding)
    tables = read_table(tmp_path, "file,befund\na.png,mass\n", columns=(str(mapping),))
    assert states(tables) == {("a", "mass"): "present"}


def test_columns_that_the_user_names_stand_in_place_of_the_guess(tmp_path):
    table = "file,label,Finding,l,t,r,b\na.png,17,mass,1,2,30,40\nb.png,18,nodule,1,2,30,40\n"
    columns = ("label=Finding", "xmin=l", "ymin=t", "xmax=r", "ymax=b", "x_batch=label")
    tables = read_table(tmp_path, table, columns=columns)
    assert tables.boxes["finding"].tolist() == ["mass", "nodule"]
    assert tables.images["x_batch"].tolist() == ["17", "18"]


def test_a_coded_label_is_a_finding_by_its_columns_name_or_the_users(tmp_path):
    table = "file,target\na.png,1\nb.png,0\n"
    assert set(states(read_table(tmp_path, table))) == {("a", "target"), ("b", "target")}
    named = read_table(tmp_path, table, columns=("finding:tb=target",))
    assert states(named) == {("a", "tb"): "present", ("b", "tb"): "absent"}
    numbered = table.replace("target", "class")
    classes = read_table(tmp_path, numbered, class_names=("normal", "tb"))
    assert states(classes) == {("a", "tb"): "present", ("b", "tb"): "absent"}


WIDTHS = "file,label,xmin,ymin,xmax,ymax\n" + "".join(
    f"a.png,mass,9{n},60,2{n},30\n" for n in range(4)
)
READERS = "file,label,rad\na.png,mass,R1\na.png,mass,R2\nb.png,mass,R1\nb.png,normal,R2\n"


@pytest.mark.parametrize(("rule", "disputed"), [("majority", "uncertain"), ("any", "present")])
def test_readers_are_kept_and_make_one_reference(tmp_path, rule, disputed):
    tables = read_table(tmp_path, READERS, columns=("reader=rad",), reference=rule)
    assert states(tables)["b", "mass"] == disputed
    assert states(tables, "R2") == {("a", "mass"): "present", ("b", "mass"): "absent"}
    assert tables.excluded.empty


def test_a_table_or_a_column_a_reader_says_the_same(tmp_path):
    by_row = read_table(tmp_path, READERS, columns=("reader=rad",))
    wide = "file,label,label2\na.png,mass,mass\nb.png,mass,normal\n"
    by_column = read_table(tmp_path, wide, columns=("label=label+label2",))
    folder_of(
        tmp_path,
        {
            "smith.csv": "file,label\na.png,mass\nb.png,mass\n",
            "jones.csv": "file,label\na.png,mass\nb.png,normal\n",
        },
    )
    by_table = read(tmp_path, "smith.csv", "jones.csv", columns=("reader=TABLE",))
    assert states(by_row) == states(by_column) == states(by_table)
    assert states(by_row, "R2") == states(by_column, "label2") == states(by_table, "jones")


def test_tables_that_differ_are_asked_for_readers(tmp_path):
    folder_of(
        tmp_path,
        {
            "smith.csv": "file,label\na.png,mass\nb.png,mass\n",
            "jones.csv": "file,label\na.png,mass\nb.png,normal\n",
        },
    )
    with pytest.raises(InputError, match=r"1 image.*--columns reader=TABLE"):
        read(tmp_path, "smith.csv", "jones.csv")


def test_labels_of_studies_go_to_their_images(tmp_path):
    folder_of(
        tmp_path,
        {
            "labels.csv": "study_id,Edema\ns1,1\ns2,0\n",
            "images.csv": "dicom_id,study_id,subject_id\na,s1,7\nb,s1,7\nc,s2,8\n",
        },
    )
    tables = read(tmp_path, "labels.csv", "images.csv")
    assert states(tables) == {
        ("a", "edema"): "present",
        ("b", "edema"): "present",
        ("c", "edema"): "absent",
    }
    assert tables.images["patient_id"].tolist() == ["images:7", "images:7", "images:8"]


def test_rows_of_images_that_are_not_there_never_fall_to_others_of_the_same_name(tmp_path):
    names = [f"set/p{n}/view1.png" for n in (1, 2)]
    table = f"Path,label\n{names[0]},normal\n{names[1]},mass\n"
    folder_of(tmp_path, {"labels.csv": table}, files=["p2/view1.png"])
    tables = read(tmp_path)
    assert reasons(tables) == {names[0]: "no such image"}
    assert tables.images[["image_id", "path"]].to_numpy().tolist() == [["view1", "p2/view1.png"]]


def test_a_file_in_another_folder_is_another_image_but_for_folders_of_another_machine(tmp_path):
    table = "Path,label\np1/0.png,mass\np2/1.png,normal\n/home/me/2.png,mass\np3/3.png,mass\n"
    table += "p4/3.png,mass\n"
    files = ["p2/0.png", "p2/1.png", "xrays/2.png", "3.png"]
    folder_of(tmp_path, {"labels.csv": table}, files=files)
    tables = read(tmp_path)
    assert reasons(tables).keys() == {"p1/0.png", "p3/3.png", "p4/3.png"}
    assert tables.images["path"].tolist() == ["p2/1.png", "xrays/2.png"]


def test_a_mapping_of_the_users_works_as_those_that_come_with_the_program(tmp_path):
    mapping = tmp_path / "ours.toml"
    mapping.write_text(
        '[[table]]\nname = "Ward 7"\ncolumns = ["bild"]\norigin = "report_nlp"\n'
        '[table.roles]\nfile = "bild"\n"finding:tb" = "befund"\nx_ward = "st"\n'
    )
    table = "bild,befund,st\na.png,1,7\nb.png,0,8\n"
    lines: list[str] = []
    tables = read_table(tmp_path, table, columns=(str(mapping),), show=lines.append)
    assert states(tables) == {("a", "tb"): "present", ("b", "tb"): "absent"}
    assert set(tables.findings["origin"]) == {"report_nlp"}
    assert "a table of Ward 7" in lines[0]


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ("file:label\na.png:mass\n", {}, "labels.csv"),
        ("label\nmass\n", {}, "--columns file=COLUMN"),
        (
            "file,TB,age\na.png,1,4\n",
            {"columns": ("finding=",)},
            "--columns label=COLUMN",
        ),
        ("file,label\nz.png,mass\n", {}, "'z.png'"),
        ("file,label\n,mass\n", {}, "line 2: "),
        ("file,label\na.png,3\n", {}, "--class-names"),
        ("file,label\na.png,mass\n", {"columns": ("lable=label",)}, "'label'"),
        ("file,label\na.png,mass\n", {"columns": ("label",)}, "say label=COLUMN"),
        ("file,label\na.png,mass\n", {"columns": ("no.toml",)}, r"no\.toml: cannot be read"),
        ("file,x,y,w,h\na.png,1,2,3,4\n", {}, "--class-names"),
        ("file,label,x,y,w,h\na.png,mass,.1,.2,.3,.4\n", {}, "corner"),
        ("file,label,xmin,ymin\na.png,mass,1,2\n", {}, "xmax"),
        (WIDTHS, {}, r"4 boxes of 4.*--columns box_form=xywh"),
        ("file,label,sex\na.png,mass,F\na.png,nodule,M\n", {}, "sex"),
        ("file,label,reader\na.png,mass,\n", {}, "reader"),
        ("file,label\na.png,normal\n", {}, r"labels\.csv: "),
        ("file,label\na.png,mass\nb.png,no contrast\n", {}, "'no contrast'"),
    ],
)
def test_what_is_not_clear_is_one_line_that_says_what_to_do(tmp_path, table, options, message):
    with pytest.raises(InputError, match=message) as caught:
        read_table(tmp_path, table, **options)
    assert "\n" not in str(caught.value)


def test_labels_are_listed_with_their_numbers(tmp_path):
    lines: list[str] = []
    table = "file,label\na.png,opacity\nb.png,opacity\nc.png,opacitiy\nd.png,normal\n"
    read_table(tmp_path, table, show=lines.append)
    assert "  labels: opacity (2), opacitiy (1), normal (1)" in lines


def test_a_box_on_a_normal_row_is_passed_over_with_a_warning(tmp_path):
    rows = "file,label,xmin,ymin,xmax,ymax\na.png,mass,1,2,3,4\nb.png,normal,1,2,3,4\n"
    tables = read_table(tmp_path, rows)
    assert tables.boxes["image_id"].tolist() == ["a"]
    assert any("WARNING: 1 box on rows" in note and "b" in note for note in tables.notes)


@pytest.mark.parametrize("word", ["No", "unauffa\u0308llig", "o. B.", "kein Befund"])
def test_a_class_that_says_that_nothing_is_there_is_no_finding_and_is_shown(tmp_path, word):
    lines: list[str] = []
    table = f"file,label\na.png,mass\nb.png,{word}\nc.png,{word}\n"
    tables = read_table(tmp_path, table, show=lines.append)
    assert states(tables) == {
        ("a", "mass"): "present",
        ("b", "mass"): "absent",
        ("c", "mass"): "absent",
    }
    assert f"  {word}: taken for no finding (2 rows)" in lines


@pytest.mark.parametrize("word", ["no mass", "non-mass", "kein Mass"])
def test_a_class_that_denies_another_says_that_alone_is_absent(tmp_path, word):
    lines: list[str] = []
    table = f"file,label\na.png,mass\nb.png,{word}\nc.png,nodule\nd.png,{word}|nodule\n"
    tables = read_table(tmp_path, table, show=lines.append)
    assert set(tables.findings["finding"]) == {"mass", "nodule"}
    assert states_of(tables, "a") == {"mass": "present", "nodule": "absent"}
    assert states_of(tables, "b") == {"mass": "absent"}  # of nodules it says nothing
    assert states_of(tables, "d") == {"mass": "absent", "nodule": "present"}
    assert f"  {word}: taken for mass is absent (2 rows)" in lines


def test_a_row_unknown_beside_others_leaves_open_what_they_do_not_name(tmp_path):
    table = "file,label\na.png,mass\na.png,unknown\nb.png,nodule\n"
    tables = read_table(tmp_path, table)
    assert states_of(tables, "a") == {"mass": "present"}
    assert states_of(tables, "b") == {"mass": "absent", "nodule": "present"}


def test_an_image_that_is_not_healthy_is_not_called_normal(tmp_path):
    table = "file,healthy,mass\na.png,0,1\nb.png,1,0\n"
    tables = read_table(tmp_path, table, columns=("finding=healthy+mass",))
    assert states(tables) == {("a", "mass"): "present", ("b", "mass"): "absent"}


@pytest.mark.parametrize("label", ["possible mass", "mass (probable)", "Suspected mass"])
def test_a_label_of_a_possible_finding_is_uncertain_and_shown(tmp_path, label):
    lines: list[str] = []
    table = f"file,label\na.png,mass\nb.png,{label}\nc.png,normal\n"
    tables = read_table(tmp_path, table, show=lines.append)
    assert states_of(tables, "b") == {"mass": "uncertain"}
    assert f"  {label}: taken for mass is uncertain (1 row)" in lines


@pytest.mark.parametrize("label", ["uncertain", "Indeterminate", "possible"])
def test_a_word_of_doubt_alone_is_no_finding_and_denies_none(tmp_path, label):
    tables = read_table(tmp_path, f"file,label\na.png,mass\nb.png,{label}\nc.png,normal\n")
    assert set(states(tables)) == {("a", "mass"), ("c", "mass")}


def test_the_nature_of_a_finding_is_part_of_its_name(tmp_path):
    tables = read_table(tmp_path, "file,label\na.png,indeterminate nodule\nb.png,normal\n")
    assert states_of(tables, "a") == {"indeterminate_nodule": "present"}


@pytest.mark.parametrize("view", ["LAT", "Left lateral", "lateral view"])
def test_words_for_a_lateral_view_leave_the_image_out(tmp_path, view):
    table = f"file,label,view\na.png,mass,PA\nb.png,normal,{view}\n"
    assert reasons(read_table(tmp_path, table)) == {"b.png": "lateral view"}


def test_words_for_unknown_are_shown_and_name_no_finding(tmp_path):
    lines: list[str] = []
    table = "file,label\na.png,mass\nb.png,keine Angabe\nc.png,#N/A\nd.png,normal\n"
    tables = read_table(tmp_path, table, show=lines.append)
    assert set(states(tables)) == {("a", "mass"), ("d", "mass")}
    assert "  keine Angabe: taken for unknown (1 row)" in lines


def test_a_finding_beside_no_finding_is_left_out(tmp_path):
    tables = read_table(tmp_path, "file,label\na.png,mass|normal\nb.png,normal\n")
    assert reasons(tables) == {"a.png": "'no finding' beside a finding"}


def test_a_spreadsheet_says_what_its_csv_says_and_the_guess_is_shown(tmp_path):
    table = pd.DataFrame(
        {
            "file": FILES,
            "label": ["mass", "normal", None, "unknown"],
            "xmin": [20.5, None, None, None],
            "ymin": [10, None, None, None],
            "xmax": [60, None, None, None],
            "ymax": [40, None, None, None],
            "patient": [7, 7, 8, 9],
        }
    )
    folder_of(tmp_path, {"labels.csv": table.to_csv(index=False)})
    with pd.ExcelWriter(tmp_path / "Labels.XLSX", engine="openpyxl") as book:
        table.to_excel(book, sheet_name="Befunde", index=False)
        table.assign(label="nodule").to_excel(book, sheet_name="Entwurf", index=False)
    lines: list[str] = []
    own = read(tmp_path, "labels.csv")
    sheet = read(tmp_path, "Labels.XLSX", sheet="Befunde", show=lines.append)
    for name in ("images", "findings", "boxes", "box_coverage"):
        pd.testing.assert_frame_equal(getattr(own, name), getattr(sheet, name))
    assert lines[0] == "Labels.XLSX: sheet 'Befunde' is read, not 'Entwurf'"
    assert lines[3].split() == ["file", "file", "a.png", "b.png", "c.png"]
    with pytest.raises(InputError, match="--sheet NAME"):
        read(tmp_path, "Labels.XLSX")
    with pytest.raises(InputError, match="none of the tables is a spreadsheet"):
        read(tmp_path, "labels.csv", sheet="Befunde")


def test_prepare_takes_a_table_of_any_kind_before_the_images(tmp_path):
    table = pd.DataFrame({"file": FILES, "label": ["mass", "normal", "mass", "normal"]})
    folder_of(tmp_path, {})
    images = tmp_path / "images"
    table.to_excel(tmp_path / "LABELS.XLSX", index=False, engine="openpyxl")
    table.to_csv(tmp_path / "labels.tsv", index=False, sep="\t")
    table.to_csv(tmp_path / "labels.txt", index=False, sep="\t", encoding="utf-16")
    for name in ("LABELS.XLSX", "labels.tsv", "labels.txt"):
        dataset = prepare(tmp_path / name, images, tmp_path / f"set-{name}", workers=0)
        assert dataset.summary.n_images == 4
    (tmp_path / "old.xls").write_bytes(b"")
    with pytest.raises(InputError, match=r"old\.xls: .*\.xlsx"):
        prepare(tmp_path / "old.xls", images, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_tables_of_nih_say_what_the_format_nih_says(shared_data):
    nih = shared_data / "nih"
    own = read_source(nih, "nih", ReadOptions())
    paths = (nih / "Data_Entry_2017_v2020.csv", nih / "BBox_List_2017.csv")
    tables = read_source(nih / "images", "table", ReadOptions(labels=paths))
    expected = states(own)
    assert all(expected[key] == state for key, state in states(tables).items())
    assert len(tables.findings) > 200
    key = ["image_id", "finding", "x1", "y1", "x2", "y2"]
    boxes = [
        typed_table(frame.sort_values(key)[key], "boxes") for frame in (own.boxes, tables.boxes)
    ]
    pd.testing.assert_frame_equal(*boxes)
    assert tables.findings["origin"].value_counts().idxmax() == "report_nlp"


def test_labels_of_rsna_say_what_the_format_rsna_says(shared_data, tmp_path):
    rsna = shared_data / "rsna"
    own = read_source(rsna, "rsna", ReadOptions())
    paths = (rsna / "stage_2_train_labels.csv",)
    tables = read_source(rsna / "stage_2_train_images", "table", ReadOptions(labels=paths))
    assert states(tables) == states(own)
    key = ["image_id", "x1", "y1", "x2", "y2"]
    boxes = [
        typed_table(frame.sort_values(key)[key], "boxes") for frame in (own.boxes, tables.boxes)
    ]
    pd.testing.assert_frame_equal(*boxes)
    covered = [set(f.box_coverage["image_id"]) for f in (own, tables)]
    assert covered[0] == covered[1]


def test_no_finding_says_nothing_of_support_devices_and_laterals_go_whatever_columns_are_there(
    tmp_path,
):
    table = (
        "Path,Frontal/Lateral,AP/PA,No Finding,Lung Opacity,Support Devices\n"
        "a.png,Frontal,PA,1,,1\nb.png,Frontal,AP,1,,\nc.png,Frontal,,,1,0\nd.png,Lateral,,,1,\n"
    )
    tables = read_table(tmp_path, table)
    assert states_of(tables, "a") == {"lung_opacity": "absent", "support_devices": "present"}
    assert states_of(tables, "b") == {"lung_opacity": "absent"}
    assert reasons(tables) == {"d.png": "lateral view"}
    views = tables.images.set_index("image_id")["view"].fillna("")
    assert views.to_dict() == {"a": "PA", "b": "AP", "c": ""}
    bare = table.replace("Frontal/Lateral,", "").replace("Frontal,", "").replace("Lateral,", "")
    states_bare = states_of(read_table(tmp_path, bare), "a")
    assert states_bare == {"lung_opacity": "absent", "support_devices": "present"}


def test_images_that_count_as_negative_are_counted_by_finding_and_file(tmp_path):
    rows = "file,label\na.png,mass\nb.png,normal\nc.png,nodule\nd.png,mass\n"
    tables = read_table(tmp_path, rows)
    (note,) = tables.label_notes("majority")
    absent = tables.findings[tables.findings["state"] == "absent"]
    assert absent["finding"].value_counts().to_dict() == {"nodule": 3, "mass": 2}
    assert note.startswith("5 labels count as absent")
    assert "labels.csv" in note
    # What the note says to do has the effect that it says.
    corrected = read_table(tmp_path / "again", f"{rows}a.png,unknown\n")
    (note,) = corrected.label_notes("majority")
    assert note.startswith("4 labels count as absent")


def test_images_are_counted_as_negative_after_spellings_were_joined(tmp_path):
    rows = "file,label\na.png,mass\nb.png,normal\nc.png,masss\nd.png,mass\n"
    tables = read_table(tmp_path, rows)
    assert tables.label_notes("any")[0].startswith("5 labels count as absent")
    (note,) = tables.with_targets({"mass": ["mass", "masss"]}).label_notes("any")
    assert note.startswith("1 label")


@pytest.mark.parametrize(
    "rows",
    [
        "file,label,room\na.png,1,x\nb.png,0,y\nc.png,1,z\n",
        "file,lung opacity,patient\na.png,1,p\nb.png,0,q\nc.png,1,r\n",
        "file,label,xmin,ymin,xmax,ymax,width,height\na.png,mass,1,2,3,4,200,100\nb.png,,,,,,200,100\n",
    ],
    ids=["states in a column called label", "states of a finding", "boxes"],
)
def test_the_roles_that_are_shown_can_be_given_as_columns(tmp_path, rows):
    shown: list[str] = []
    tables = read_table(tmp_path / "one", rows, show=shown.append)
    first = next(n for n, line in enumerate(shown) if line.split()[:2] == ["role", "column"])
    heading = shown[first]
    role_width = heading.index("column")
    column_width = heading.index("first rows")
    lines = [line for line in shown[first + 1 : -1] if not line.startswith("  labels: ")]
    given = [
        f"{line[:role_width].strip()}={line[role_width:column_width].strip()}" for line in lines
    ]
    again = read_table(tmp_path / "two", rows, columns=tuple(given))
    pd.testing.assert_frame_equal(again.findings, tables.findings)
    pd.testing.assert_frame_equal(again.boxes, tables.boxes)


def test_images_that_are_left_out_do_not_count_as_negative(tmp_path):
    rows = "file,label\na.png,mass\nb.png,normal\nb.png,nodule\nc.png,nodule\n"
    tables = read_table(tmp_path, rows)
    assert list(reasons(tables)) == ["b.png"]
    assert tables.label_notes("any")[0].startswith("2 labels count as absent")


def test_spellings_that_a_target_joins_are_no_targets_of_their_own(tmp_path):
    tables = read_table(tmp_path, "file,label\na.png,mass\nb.png,masss\nc.png,edema\n")
    joined = {"mass": ["mass", "masss"]}
    assert list(tables.with_targets(joined).targets) == ["edema", "mass"]
    asked_for = {**joined, "masss": ["masss"]}
    assert set(tables.with_targets(asked_for).targets) == {"edema", "mass", "masss"}
    group = {"any": ["mass", "edema"]}  # another name: a group, whose members stay
    assert set(tables.with_targets(group).targets) == {"edema", "mass", "masss", "any"}


def test_labels_and_boxes_of_a_joined_spelling_are_those_of_the_one_finding(tmp_path):
    rows = (
        "file,label,x1,y1,x2,y2\na.png,mass,1,1,5,5\nb.png,masss,2,2,6,6\nc.png,edema,,,,\n"
        "d.png,normal,,,,\n"
    )
    joined = read_table(tmp_path, rows).with_targets({"mass": ["mass", "masss"]})

    assert joined.targets["mass"].any_of == ("mass",)
    assert set(joined.findings["finding"]) == {"mass", "edema"}
    mass = joined.findings[joined.findings["finding"] == "mass"]
    present = mass.groupby("image_id")["state"].agg(list).to_dict()
    assert present == {"a": ["present"], "b": ["present"], "c": ["absent"], "d": ["absent"]}
    assert dict(zip(joined.boxes["image_id"], joined.boxes["finding"], strict=True)) == {
        "a": "mass",
        "b": "mass",
    }
    assert not joined.box_coverage.duplicated(["image_id", "finding", "reader"]).any()


@pytest.mark.parametrize(
    "header",
    [
        "Film,Befund,Patient,Geschlecht,Alter",
        "Fichier,Résultat,Patient,Sexe,Âge",
        "Archivo,Hallazgo,Paciente,Sexo,Edad",
        "Bestand,Bevinding,Patiënt,Geslacht,Leeftijd",
    ],
)
def test_columns_are_recognised_in_other_languages(tmp_path, header):
    tables = read_table(tmp_path, f"{header}\na.png,Mass,p1,M,60\nb.png,normal,p2,F,50\n")
    assert states(tables) == {("a", "mass"): "present", ("b", "mass"): "absent"}
    columns = ["patient_id", "sex", "age_years"]
    assert tables.images[columns].to_numpy().tolist() == [
        ["images:p1", "M", 60],
        ["images:p2", "F", 50],
    ]


@pytest.mark.parametrize(
    ("letters", "expected"),
    [("vm", [None, None]), ("hm", ["M", None]), ("hf", ["M", "F"]), ("mw", ["M", "F"])],
)
def test_a_letter_that_is_a_man_in_one_language_and_a_woman_in_another_is_unknown(
    tmp_path, letters, expected
):
    rows = f"a.png,Mass,{letters[0]}\nb.png,normal,{letters[1].upper()}\n"
    tables = read_table(tmp_path, f"file,label,sex\n{rows}")
    assert (
        tables.images["sex"].astype(object).where(tables.images["sex"].notna(), None).tolist()
        == expected
    )
    assert any("unknown" in note for note in tables.notes) == (None in expected)


def test_all_missing_columns_are_named_at_once_with_those_that_are_there(tmp_path):
    with pytest.raises(InputError) as refused:
        read_table(tmp_path, "Bezeichnung,Ergebnis\na.png,Mass\nb.png,normal\n")
    for text in ("--columns label=COLUMN", "--columns file=COLUMN", "Bezeichnung, Ergebnis"):
        assert text in str(refused.value)


def test_columns_of_states_are_no_advice_to_make_targets_of_all(tmp_path):
    with pytest.raises(InputError) as refused:
        read_table(tmp_path, "file,region_count,region_id\na.png,1,0\nb.png,0,0\n")
    assert "region_count+region_id" not in str(refused.value)


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("bbox", "[10, 20, 30, 40]"),
        ("Bounding Box", "10 20 30 40"),
        ("PredictionString", "opacity 0.9 10 20 30 40"),
        ("coords", "((10, 20, 30, 40), (1, 2, 3, 4))"),
    ],
)
def test_a_box_as_text_is_asked_about_and_costs_no_image_its_box(tmp_path, column, cell):
    table = f'file,label,{column}\nb.png,normal,\na.png,mass,"{cell}"\n'
    with pytest.raises(InputError, match=f"line 3: .*{column}"):
        read_table(tmp_path, table)
    assert read_table(tmp_path, table, columns=(f"unused={column}",)).boxes.empty


def test_text_with_other_numbers_is_no_box(tmp_path):
    table = 'file,label,PixelSpacing,note,box\na.png,mass,"[0.14, 0.14]","see [1], 2 of 4",2\n'
    assert states(read_table(tmp_path, table)) == {("a", "mass"): "present"}


@pytest.mark.parametrize(
    "table",
    [
        "a.png,opacity,133,113\nb.png,normal,0,0\n",
        "a.png,opacity\nb.png,normal\n",
        "a,1,20,20\nb,0,30,30\n",
        "a,7,20\nb,0,30\n",
    ],
)
def test_a_table_without_a_head_is_named_as_such(tmp_path, table):
    with pytest.raises(InputError, match="first row is no head"):
        read_table(tmp_path, table)
