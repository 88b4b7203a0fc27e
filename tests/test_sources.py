"""Statements of readers become labels; formats are known; trees of DICOM and public tables."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from cxr_compare.scripts.commands.prepare import prepare
from tests.adapters import sources
from tests.small_dicom import as_file, dicom_image

DOCS = Path(__file__).parents[1] / "docs"
STATES = {"present": 1, "absent": 0, "uncertain": "?"}
READERS = ("reference", "R1")


def labels_by_hand(rows, normal):
    """State by reader, image and finding; without the images about which a reader says two things.

    An absence that only follows is none where the reader states something.
    """
    said = {}
    for image, finding, state, reader, implied, boxed in rows:
        kind = "boxes" if boxed else "implied" if implied else "labels"
        of_key = said.setdefault((reader, image, finding), {})
        of_key.setdefault(kind, set()).add(state)
    states, left_out = {}, set()
    for (reader, image, finding), kinds in said.items():
        boxed = kinds.get("boxes", set())
        chosen = kinds.get("labels") or boxed or kinds["implied"]
        is_named = bool(boxed) or "present" in chosen
        is_denied = bool(boxed) and "absent" in chosen | boxed
        if len(chosen) > 1 or is_denied or (is_named and (image, reader) in normal):
            left_out.add(image)
        states.setdefault(reader, {}).setdefault(image, {})[finding] = STATES[min(chosen)]
    for image, findings in states.get("R1", {}).items():  # one person is the majority
        of_image = states.setdefault("reference", {}).setdefault(image, {})
        states["reference"][image] = {**findings, **of_image}
    kept = {
        reader: {image: of for image, of in images.items() if image not in left_out}
        for reader, images in states.items()
    }
    return {reader: images for reader, images in kept.items() if images}, left_out


def drawn_statements(random, image):
    """Up to four statements of an image, and the readers who find nothing on it."""
    rows = []
    for _ in range(random.integers(5)):
        finding = random.choice(["mass", "nodule"])
        state = random.choice(list(STATES))
        kind = random.choice(["label", "box", "implied"])
        row = [image, finding, state, random.choice(READERS), kind == "implied", kind == "box"]
        rows.append([str(value) if isinstance(value, str) else bool(value) for value in row])
    return rows, [(image, reader) for reader in READERS if random.random() < 0.1]


@pytest.mark.parametrize("seed", [1, 2])
def test_what_nobody_states_is_unknown_and_what_contradicts_itself_is_left_out(seed):
    random = np.random.default_rng(seed)
    images = [f"i{number}" for number in range(400)]
    drawn = [drawn_statements(random, image) for image in images]
    rows = [row for of_image, _ in drawn for row in of_image]
    normal = {pair for _, of_image in drawn for pair in of_image}
    found = sources.built(images, rows, normal)
    states, left_out = labels_by_hand(rows, normal)
    assert 20 < len(left_out) < 300
    assert found["states"] == states
    assert set(found["images"]) == set(images) - left_out
    assert set(found["left_out"]) == left_out
    boxes = {(row[0], row[1], row[3]) for row in rows if row[5] and row[0] not in left_out}
    of_person = {key for key in boxes if key[2] == "R1"}
    assert {tuple(box[:3]) for box in found["boxes"] if box[2] == "R1"} == of_person
    complete = {tuple(row[:3]) for row in found["boxed"] if row[3] == "all"}
    absent = {
        (image, finding, reader)
        for reader, of_reader in states.items()
        for image, findings in of_reader.items()
        for finding, state in findings.items()
        if state == 0
    }
    assert absent <= complete


def test_help_and_pages_name_every_format():
    known, options = sources.known_formats()
    text = " ".join(prepare.__doc__.partition("format: ")[2].split())
    names = text.partition(": ")[2].partition(".")[0].replace(" or ", ", ").split(",")
    assert {name.strip() for name in names} == set(known)
    page = (DOCS / "formats.md").read_text(encoding="utf-8")
    for name, (title, folder, of_format) in known.items():
        assert f"\n## {name}\n" in page
        assert f"[`{name}`](#{name})" in page
        assert title
        assert folder
        assert set(of_format) <= set(options)


def test_no_format_fits_a_folder_without_files(tmp_path):
    (tmp_path / "images").mkdir()
    assert sources.fitting(tmp_path) == []
    assert sources.fitting(tmp_path / "missing") == []


def write_radiograph(path, **elements):
    known = {"Modality": "CR", "ViewPosition": "PA", "BodyPartExamined": "CHEST", **elements}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(as_file(dicom_image(np.zeros((64, 64), np.uint16), bits_stored=12, **known)))


@pytest.mark.parametrize("format", [None, "coco"])
def test_a_folder_is_walked_through_once(format, tmp_path, monkeypatch):  # noqa: A002
    for name in ("a", "b"):
        write_radiograph(tmp_path / f"{name}.dcm", SOPInstanceUID=f"1.2.{ord(name)}")
    if format:
        images = [{"id": n, "file_name": f"{n}.dcm", "width": 64, "height": 64} for n in "ab"]
        box = {"image_id": "a", "category_id": 1, "bbox": [5, 6, 20, 30]}
        content = {"images": images, "annotations": [box], "categories": [{"id": 1, "name": "m"}]}
        (tmp_path / "labels.json").write_text(json.dumps(content))
    walk, walked = os.walk, []
    monkeypatch.setattr(os, "walk", lambda root, *rest: walked.append(root) or walk(root, *rest))
    kind, _ = sources.read(tmp_path, None, [], {})
    assert (kind, walked) == ("read" if format else "refused", [tmp_path])


def test_no_line_about_a_dicom_tree_quotes_a_cell_which_may_name_a_person(tmp_path):
    for name in ("a", "b"):
        write_radiograph(tmp_path / "tree" / name, SOPInstanceUID=f"1.2.{ord(name)}")
    table = tmp_path / "labels.csv"
    table.write_text("file,label,x_note\na,mass,Miller\nb,normal,Smith\nJones,mass,\n")
    lines = " ".join(sources.shown_lines(tmp_path / "tree", "dicom", [table]))
    assert "x_note" in lines
    assert "1 of 3" in lines  # rows without an image are counted
    for cell in ("Miller", "Smith", "Jones", "normal"):
        assert cell not in lines


def test_every_file_of_a_dicom_tree_is_looked_at_and_a_pipe_is_not_waited_for(tmp_path):
    write_radiograph(tmp_path / "deep" / "er" / "IM000001", SOPInstanceUID="1.2.3")
    write_radiograph(tmp_path / "b.png", SOPInstanceUID="1.2.4")
    (tmp_path / "notes.txt").write_text("x")
    os.mkfifo(tmp_path / "pipe.dcm")
    kind, found = sources.read(tmp_path, "dicom", [], {})
    assert kind == "read"
    assert {facts[0] for facts in found["images"].values()} == {"b.png", "deep/er/IM000001"}
    assert found["left_out"] == ["notes.txt", "pipe.dcm"]


def test_damaged_headers_in_a_dicom_tree_are_left_out_and_never_an_exception(tmp_path):
    write_radiograph(tmp_path / "whole", SOPInstanceUID="1.2.3", PatientAge="045Y")
    whole = (tmp_path / "whole").read_bytes()[:900]
    rng = np.random.default_rng(11)
    for number in range(300):
        damaged = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(128, len(damaged), size=1 + number % 8)
        damaged[places] = rng.integers(0, 256, len(places))
        (tmp_path / f"{number}").write_bytes(damaged[: rng.integers(100, 901)].tobytes())
    kind, found = sources.read(tmp_path, "dicom", [], {})
    assert kind == "read"
    assert len(found["images"]) + len(found["left_out"]) == 301
    assert len(found["left_out"]) > 100


@pytest.mark.release
@pytest.mark.parametrize(
    ("name", "images", "patients", "present", "boxes"),
    [("rsna", 26_684, 11_439, 6_012, 9_555), ("nih", 112_120, 30_805, 81_176, 984)],
)
def test_the_public_tables_have_their_published_numbers(
    name, images, patients, present, boxes, shared_data
):
    kind, found = sources.read(shared_data / "reference_csv", name, [], {})
    assert kind == "read"
    assert len(found["images"]) == images
    assert len({facts[1] for facts in found["images"].values()}) == patients
    states = [s for of in found["states"]["reference"].values() for s in of.values()]
    assert states.count(1) == present
    assert len(found["boxes"]) == boxes
    assert found["left_out"] == []


PUBLIC = {
    "rsna": {
        "stage_2_train_labels.csv": "patientId,x,y,width,height,Target\n"
        "a,100,100,500,500,1\na,600,99,50,50,1\nb,,,,,0\n",
        "stage_2_detailed_class_info.csv": "patientId,class\na,Lung Opacity\nb,Normal\n",
        "rsna_to_nih.csv": "patientId,nih_image,mse\na,00000001_000.png,1\nb,00000002_000.png,2\n",
    },
    "nih": {
        "Data_Entry_2017_v2020.csv": "Image Index,Finding Labels,Follow-up #,Patient ID,"
        "Patient Age,Patient Gender,View Position,OriginalImage[Width,Height],"
        "OriginalImagePixelSpacing[x,y]\n00000001_000.png,Mass|Nodule,3,1,57,M,PA,2682,2749,0.143,"
        "0.143\n00000002_000.png,No Finding,0,2,81,F,AP,2500,2048,0.168,0.168\n",
        "BBox_List_2017.csv": "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        "00000001_000.png,Mass,10,20,30,40,,,\n",
        "train_val_list.txt": "00000001_000.png\n",
        "test_list.txt": "00000002_000.png\n",
    },
    "vindr": {
        "train.csv": "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
        "a,Cardiomegaly,3,R8,700,900,1600,1400\na,No finding,14,R10,,,,\nb,No finding,14,R8,,,,\n",
        "train_meta.csv": "image_id,dim0,dim1\na,2560,2048\nb,2560,2048\n",
    },
}
ODD_CELLS = ("", "-1", "1e999", "nan", "no", "Mass", "a", "b.png", "../a", "ü", '"', "\0", "9" * 40)


@pytest.mark.parametrize("name", PUBLIC)
def test_an_odd_cell_of_a_public_table_gives_a_result_or_one_line(name, tmp_path):
    random = np.random.default_rng(5)
    refused = 0
    for number in range(12):
        folder = tmp_path / str(number)
        folder.mkdir()
        changed = random.choice(list(PUBLIC[name]))
        for file, text in PUBLIC[name].items():
            if file == changed:
                cells = re.split(r"([,\n])", text)
                cells[2 * random.integers(len(cells) // 2)] = random.choice(ODD_CELLS)
                text = "".join(cells)
            (folder / file).write_text(text, encoding="utf-8")
        kind, found = sources.read(folder, name, [], {})
        if kind == "refused":
            refused += 1
            assert "\n" not in found
            continue
        states = found["states"]["reference"]
        assert states.keys() <= found["images"].keys()
        assert not found["images"].keys() & set(found["left_out"])
    assert 0 < refused < 12
