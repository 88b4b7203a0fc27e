"""Trees of DICOM files: what is taken for a chest radiograph, and whose labels a table holds."""

import csv
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.contracts.tables import typed_table
from cxr_compare.data_prep.sources.source_tables import ReadOptions
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from cxr_compare.data_prep.images.radiograph_check import check_dicom_file, why_no_radiograph
from cxr_compare.data_prep.sources import dicom_folder as dicom_tree
from cxr_compare.data_prep.sources.dicom_folder import read_headers
from cxr_compare.data_prep.sources.image_files import files_below
from cxr_compare.data_prep.sources.registry import likely_format, read_source
from tests.data_prep.sources.answers import edges, reader
from tests.small_dicom import as_file, dicom_image

PIXELS = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)


read = reader("dicom")


def write_file(path: Path, *, syntax: str = uid.ExplicitVRLittleEndian, **elements: Any) -> Path:
    """Write a radiograph of 64 x 64 px; an element that is None is left out."""
    known = {
        "SOPInstanceUID": f"1.2.{abs(zlib.crc32(path.name.encode()))}",
        "Modality": "CR",
        "PatientID": "p1",
        "StudyInstanceUID": "1.2.3",
        "ViewPosition": "PA",
        "BodyPartExamined": "CHEST",
        **elements,
    }
    header = dicom_image(PIXELS, bits_stored=12, syntax=syntax, **known)
    for keyword in (name for name, value in known.items() if value is None):
        delattr(header, keyword)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(as_file(header))
    return path


def reason(path: Path) -> str | None:
    return check_dicom_file(path.parent, path.name).reason


def dataset(**elements: Any) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def item(**elements: Any) -> Sequence:
    return Sequence([dataset(**elements)])


NO_PIXELS = {"PixelData": None, "Rows": None, "Columns": None}


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"Modality": "CT"}, "modality is CT"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer"),
        ({"NumberOfFrames": 3}, "3 frames"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour"),
        ({"BodyPartExamined": "ABDOMEN"}, "body part other than the chest"),
        ({"ViewPosition": "LL"}, "lateral"),
        ({"ViewPosition": None, "ViewCodeSequence": item(CodeValue="399173006")}, "lateral"),
        ({"ViewPosition": None, "PatientOrientation": ["A", "F"]}, "lateral"),
        ({"Rows": 63}, "a side of 63 px"),
        ({"Rows": None}, "does not state the size"),
        ({**NO_PIXELS, "Modality": "SR", "ContentSequence": item()}, "a structured report"),
        ({**NO_PIXELS, "Modality": None, "ContentSequence": item()}, "a structured report"),
        ({**NO_PIXELS, "Modality": "PR"}, "a presentation state"),
        ({**NO_PIXELS, "Modality": "ECG", "WaveformSequence": item()}, "a waveform"),
        ({**NO_PIXELS, "EncapsulatedDocument": b"%PDF" * 5000}, "a document"),
        ({**NO_PIXELS, "DirectoryRecordSequence": item()}, "a DICOMDIR"),
        (NO_PIXELS, "holds no image (modality CR)"),
        ({"PixelData": None, "FloatPixelData": b"0" * 16}, "floating-point"),
    ],
)
def test_what_is_no_frontal_chest_radiograph_is_left_out(tmp_path, elements, expected):
    path = write_file(tmp_path / "a.dcm", **elements)
    assert expected in str(reason(path))
    assert why_no_radiograph(path) == (reason(path), True)


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"Modality": None},
        {"Modality": "DOE^JANE"},  # no term of the standard: unknown
        {"BodyPartExamined": None},
        {"BodyPartExamined": "PORT CHEST"},
        {"BodyPartExamined": "UNKNOWN"},
        {"ViewPosition": None},
        {"ViewPosition": "AP"},
        {"ViewPosition": "LLD"},  # lying on the side, seen from the front
        {"ViewPosition": None, "PatientOrientation": ["L", "F"]},
        {"SOPClassUID": uid.CTImageStorage},
        {"SOPClassUID": uid.BasicTextSRStorage},
        {"Rows": 64, "PhotometricInterpretation": "MONOCHROME1"},
    ],
)
def test_what_may_be_one_is_taken(tmp_path, elements):
    path = write_file(tmp_path / "a.dcm", **elements)
    assert reason(path) is None
    assert why_no_radiograph(path) == (None, True)


@pytest.mark.parametrize(
    "syntax",
    [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian],
)
def test_every_encoding_of_a_header_is_read(tmp_path, syntax):
    path = write_file(tmp_path / "a", syntax=syntax, PatientAge="045Y")
    found = check_dicom_file(tmp_path, path.name)
    assert (found.reason, found.view, found.age_years) == (None, "PA", 45.0)
    write_file(path, syntax=syntax, Modality="MR")
    assert "MR" in str(reason(path))


def test_a_file_without_preamble_is_read_and_one_of_another_kind_is_named(tmp_path):
    whole = write_file(tmp_path / "whole").read_bytes()
    meta = 132 + 12 + int.from_bytes(whole[140:144], "little")
    (tmp_path / "bare").write_bytes(whole[meta:])
    assert reason(tmp_path / "bare") is None
    for name, content, expected in (
        ("a.dcm", b"", "is empty"),
        ("b.dcm", b"not DICOM at all" * 50, "is not a DICOM file"),
        ("c.dcm", b"\x08\x00" * 300, "is not a DICOM file"),
        ("d.dcm", b"\0" * 128 + b"DICM", "holds no image"),
        ("e.dcm", whole[:400], "no image"),
    ):
        (tmp_path / name).write_bytes(content)
        assert expected in str(reason(tmp_path / name)), name


def test_every_file_is_looked_at_whatever_its_name_and_a_pipe_is_not_waited_for(tmp_path):
    write_file(tmp_path / "deep" / "er" / "IM000001")
    write_file(tmp_path / "b.png")
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "notes.txt").write_text("x")
    os.mkfifo(tmp_path / "pipe.dcm")
    found = {file.path: file.reason for file in read_headers(tmp_path)}
    assert found == {
        "b.png": None,
        "deep/er/IM000001": None,
        "notes.txt": "is not a DICOM file",
        "pipe.dcm": "is not a file",
    }
    assert sorted(files_below(tmp_path)) == list(found)


def test_workers_find_the_same_as_one_process(tmp_path, monkeypatch):
    for number in range(6):
        write_file(tmp_path / f"{number}.dcm", Modality="CT" if number % 2 else "CR")
    alone = list(read_headers(tmp_path))
    monkeypatch.setattr(dicom_tree, "_FEW_FILES", 2)
    monkeypatch.setattr(dicom_tree, "cpu_count", lambda: 2)
    assert list(read_headers(tmp_path)) == alone


def test_a_deflated_header_is_not_inflated_without_end(tmp_path):
    path = write_file(tmp_path / "a", syntax=uid.DeflatedExplicitVRLittleEndian)
    whole = path.read_bytes()
    meta = 132 + 12 + int.from_bytes(whole[140:144], "little")
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = deflater.compress(b"\x08\x00\x08\x00OB\0\0\xf0\xff\xff\x7f" + b"\0" * (1 << 25))
    path.write_bytes(whole[:meta] + bomb + deflater.flush())
    assert reason(path) is not None


def test_a_damaged_file_is_a_reason_and_never_an_exception(tmp_path):
    elements = {"ViewCodeSequence": item(CodeValue="272479007"), "PatientAge": "045Y"}
    whole = write_file(tmp_path / "a", **elements).read_bytes()[:900]
    rng = np.random.default_rng(11)
    reasons = set()
    for case in range(400):
        damaged = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(128, len(damaged), size=1 + case % 8)
        damaged[places] = rng.integers(0, 256, len(places))
        (tmp_path / "b").write_bytes(damaged[: rng.integers(100, 901)].tobytes())
        reasons.add(reason(tmp_path / "b"))
    assert all("\n" not in text for text in reasons if text)
    assert len(reasons) > 5


def test_ids_are_those_of_the_header_and_a_second_copy_is_left_out(tmp_path):
    write_file(tmp_path / "a", SOPInstanceUID="1.2.1", IssuerOfPatientID="ward")
    write_file(tmp_path / "b", SOPInstanceUID="1.2.1")
    write_file(tmp_path / "c", SOPInstanceUID="1.2.3", PatientID=None, StudyInstanceUID="9.9")
    write_file(tmp_path / "d", SOPInstanceUID=None, PatientID="", StudyInstanceUID=None)
    write_file(tmp_path / "e", SOPInstanceUID="../../etc")
    tables = read(tmp_path)
    rows = tables.images.set_index("path")
    assert rows.loc["a", ["image_id", "patient_id", "study_id"]].tolist() == [
        "1.2.1",
        "dicom:ward/p1",
        "1.2.3",
    ]
    assert rows.loc["c", ["patient_id", "patient_id_source"]].tolist() == [
        "dicom:study-9.9",
        "assumed_image",
    ]
    assert rows.loc["d", "image_id"].startswith("file-")
    assert rows.loc["d", "patient_id"] == "dicom:image-" + rows.loc["d", "image_id"]
    assert rows.loc["e", "image_id"].startswith("file-")  # a name that leads out of a folder
    assert tables.excluded["path"].tolist() == ["b"]
    assert "SOPInstanceUID" in tables.excluded["reason"].item()
    assert any("2 images carry no PatientID" in note for note in tables.notes)


def test_what_the_header_leaves_open_is_counted(tmp_path):
    write_file(tmp_path / "a", ViewPosition=None, BodyPartExamined=None)
    write_file(tmp_path / "b", PatientID="p2")
    (tmp_path / "c.txt").write_text("x")
    notes = " ".join(read(tmp_path).notes)
    assert "2 of 3 files" in notes
    assert "1 x is not a DICOM" in notes
    assert "1 image does not state the view" in notes
    assert "1 image does not state the body part" in notes
    assert "No image has a label" in notes


def test_one_patient_id_for_all_is_warned_of(tmp_path):
    for number in range(20):
        write_file(tmp_path / f"{number}", PatientID="STUDY-7")
    notes = read(tmp_path).notes
    assert any("one PatientID is on 100% of the images" in note for note in notes)
    assert "STUDY-7" not in " ".join(notes)


def test_a_patient_id_that_names_nobody_is_not_one_patient(tmp_path):
    for number in range(4):
        issuer = "ward" if number < 2 else ""
        write_file(tmp_path / f"{number}", PatientID="ANONYMOUS", IssuerOfPatientID=issuer)
    images = read(tmp_path).images
    assert set(images["patient_id_source"]) == {"assumed_image"}


@pytest.mark.parametrize("ids", [("p1", "P1"), ("0001", "1")])
@pytest.mark.parametrize("issuer", [None, "ward"])
def test_two_spellings_of_a_patient_id_are_asked_about_by_file(tmp_path, ids, issuer):
    for name, patient in zip("ab", ids, strict=True):
        write_file(tmp_path / name, PatientID=patient, IssuerOfPatientID=issuer or "")
    with pytest.raises(InputError, match=r"\ba and b\b") as error:
        read(tmp_path)
    assert "P1" not in str(error.value)


def test_a_folder_without_a_radiograph_says_what_is_there(tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        read(tmp_path / "gone")
    with pytest.raises(InputError, match=str(tmp_path)):
        read(tmp_path)
    for number in range(3):
        write_file(tmp_path / f"{number}", Modality="CT")
    (tmp_path / "x").write_text("x")
    message = "no chest radiograph among 4 files; 3 x no radiograph: its modality is CT, 1 x is not"
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def labelled(folder: Path, table: str) -> Any:
    """Read three images (patients p1, p1, p2) with a label table."""
    for name, patient in (("s1/a.dcm", "p1"), ("s2/b", "p1"), ("s2/c.x.dcm", "p2")):
        elements = {"StudyInstanceUID": f"7.{name[1]}", "AccessionNumber": f"A{name[1]}"}
        names = {"SOPInstanceUID": f"1.2.{ord(name[3])}", "PatientID": patient}
        write_file(folder / "tree" / name, **names, **elements)
    (folder / "labels.csv").write_text(table)
    return read(folder / "tree", labels=(folder / "labels.csv",))


def test_no_line_quotes_a_cell_of_a_label_table_which_may_name_a_patient(tmp_path):
    labelled(tmp_path, "patient_id,mass\np1,1\n")
    (tmp_path / "labels.csv").write_text(
        "patient_id,label,x_note\np1,mass,Miller\np2,normal,Smith\n"
    )
    options = ReadOptions(labels=(tmp_path / "labels.csv",))
    shown: list[str] = []
    tables = read_source(tmp_path / "tree", "dicom", options, shown.append)
    assert "x_note" in "".join(shown)
    for cell in ("p1", "Miller", "normal"):
        assert cell not in "".join([*shown, *tables.notes, *tables.read_as])


def states(tables: Any) -> dict[tuple[str, str], str]:
    names = tables.images.set_index("image_id")["path"]
    keys = zip(tables.findings["image_id"].map(names), tables.findings["finding"], strict=True)
    return dict(zip(keys, tables.findings["state"], strict=True))


A = "s1/a.dcm"
B = "s2/b"
C = "s2/c.x.dcm"


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("path,finding,state\ns1/a.dcm,mass,1\n./s2/b,mass,0\n", {A: "present", B: "absent"}),
        ("path,mass\ns1\\a,yes\ns2/c.x,-1\n", {A: "present", C: "uncertain"}),
        ("FileName,Mass\na.dcm,1\nb,0\nc.x,\n", {A: "present", B: "absent"}),
        ("image_id,mass\n1.2.97,1\nb,0\n", {A: "present", B: "absent"}),
        ("SOPInstanceUID,mass\n1.2.99,1.0\n", {C: "present"}),
        ("study_instance_uid,mass\n7.2,positive\n", {B: "present", C: "present"}),
        ("AccessionNumber,mass\nA1,1\n", {A: "present"}),
        ("patientId,mass,x_site\np1,0,7\n", {A: "absent", B: "absent"}),
        ("patient_id,study_instance_uid,mass\np2,7.1,1\n", {A: "present"}),  # the finer key
    ],
)
def test_a_row_finds_its_images_by_any_of_their_names(tmp_path, table, expected):
    tables = labelled(tmp_path, table)
    assert states(tables) == {(path, "mass"): state for path, state in expected.items()}
    assert len(tables.images) == 3
    assert tables.targets == {"mass": Target(name="mass", any_of=("mass",), display_name="Mass")}


def test_keys_that_name_no_image_are_counted(tmp_path):
    tables = labelled(tmp_path, "patient_id,mass,x_note\np1,1,\np9,0,\n")
    notes = " ".join(tables.notes)
    assert "1 of 2 rows" in notes
    assert "1 image has no label" in notes
    assert "p9" not in notes


def test_boxes_come_with_the_long_form(tmp_path):
    table = (
        "file,finding,state,x1,y1,x2,y2\n"
        "a,Pleural Effusion,1,1,2,30,40\n"
        "a,Pleural Effusion,1,5,5,6.5,7\n"
        "b,Pleural Effusion,0,,,,\n"
        "c.x,nodule,,1,1,2,2\n"  # a box says enough
    )
    tables = labelled(tmp_path, table)
    assert states(tables) == {
        (A, "pleural_effusion"): "present",
        (B, "pleural_effusion"): "absent",
        (C, "nodule"): "present",
    }
    assert edges(tables) == [[1, 2, 30, 40], [5, 5, 6.5, 7], [1, 1, 2, 2]]
    assert len(tables.box_coverage) == 3


def test_labels_that_contradict_each_other_leave_the_image_out(tmp_path):
    table = (
        "path,finding,state,x1,y1,x2,y2\ns2/b,mass,1,9,9,9,12\ns1/a,mass,0,,,,\ns1/a,mass,1,,,,\n"
    )
    with_good = table + "s2/c.x,mass,1,1,1,5,5\n"
    tables = labelled(tmp_path, with_good)
    assert dict(zip(tables.excluded["path"], tables.excluded["reason"].str[:10], strict=True)) == {
        A: "two states",
        B: "box of zer",
    }
    assert tables.images["path"].tolist() == [C]
    with pytest.raises(InputError, match="no image can be used"):
        labelled(tmp_path, "path,mass\n" + "".join(f"{p},1\n{p},0\n" for p in (A, B, C)))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,mass\na,1\n", "--columns file=COLUMN"),
        ("path\ns1/a.dcm\n", "image"),
        ("path,mass\ns1/a,SMITH\n", "line 2: .*'mass'"),
        ("path,mass,x1\ns1/a,1,3\n", "xmin"),
        ("path,finding,state,reader\ns1/a,mass,1,\n", "line 2: reader"),
        ("path,finding,state\ns1/a,,1\n", "line 2: "),
        ("path,finding,state\ns1/a,mass,\n", "labels.csv: "),
        ("path,mass\n,1\n", "line 2: "),
        ("path,mass\nSMITH/a,1\n", "none of its 1 path"),
    ],
)
def test_an_unfit_label_table_is_refused_without_quoting_it(tmp_path, table, message):
    with pytest.raises(InputError, match=message) as caught:
        labelled(tmp_path, table)
    assert "SMITH" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_label_table_in_the_tree_is_no_file_of_it(tmp_path):
    write_file(tmp_path / "a.dcm")
    (tmp_path / "labels.csv").write_text("file,mass\na,1\n")
    options = ReadOptions(labels=(tmp_path / "labels.csv",))
    assert read_source(tmp_path, "dicom", options).excluded.empty


def test_a_tree_is_known_by_content(tmp_path):
    write_file(tmp_path / "deep" / "er" / "IM000001")
    assert likely_format(tmp_path) == "dicom"
    (tmp_path / "deep" / "er" / "IM000001").write_text("no longer")
    assert likely_format(tmp_path) is None


def test_the_odd_files_are_sorted_as_their_images_say(shared_data):
    tables = read(shared_data / "dicom_odd")
    # Five chests, and what states neither modality nor body part: teeth and three test patterns.
    assert sorted(path.split("__")[1] for path in tables.images["path"]) == [
        "1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm",
        "1.3.6.1.4.1.11129.5.5.110503645592756492463169821050252582267888.dcm",
        "CR-ModalitySequenceLUT.dcm",
        "RG1_J2KI.dcm",
        "gdcm-CR-MONO1-10-chest.dcm",
        "image_dfl.dcm",
        "mlut_18.dcm",
        "vlut_04.dcm",
    ]
    assert len(tables.excluded) == 48
    legs = tables.excluded["path"].str.contains("RG3")
    assert set(tables.excluded.loc[legs, "reason"]) == {
        "its header states a body part other than the chest"
    }


def test_rsna_as_a_tree_has_the_labels_of_the_rsna_reader(shared_data, tmp_path):
    source = shared_data / "rsna"
    with (source / "stage_2_train_labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    some = {row["patientId"] for row in rows[:40]}
    rows = [row for row in rows if row["patientId"] in some]
    tree = tmp_path / "tree"
    tree.mkdir()
    lines = ["patientId,finding,state,x1,y1,x2,y2"]
    for name in some:
        shutil.copyfile(source / "stage_2_train_images" / f"{name}.dcm", tree / name)
    for row in rows:
        box = ",,,"
        if row["x"]:
            x, y, width, height = (float(row[c]) for c in ("x", "y", "width", "height"))
            box = f"{x},{y},{x + width},{y + height}"
        lines.append(f"{row['patientId']},Lung Opacity,{row['Target']},{box}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    found = read(tree, labels=(tmp_path / "labels.csv",))
    known = read_source(source, "rsna", ReadOptions())
    assert set(found.findings["origin"]) == {"unknown"}  # the table does not name who labelled
    names = found.images.set_index("image_id")["path"]
    for table in ("findings", "boxes", "box_coverage"):
        key = ["image_id", *(["x1", "y1"] if table == "boxes" else [])]
        ours = getattr(found, table).assign(image_id=lambda f: f["image_id"].map(names))
        theirs = getattr(known, table)
        theirs = theirs[theirs["image_id"].isin(set(names))]
        if table == "findings":
            ours = ours.assign(origin=theirs["origin"].iloc[0])
        pd.testing.assert_frame_equal(
            typed_table(ours[theirs.columns].sort_values(key), table),
            typed_table(theirs.sort_values(key), table),
        )
    assert set(found.images["view"]) == {"PA", "AP"}
