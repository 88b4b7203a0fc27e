"""Fuzz of every table reader: one file of a small valid source is damaged; tables or one line."""

import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.sources.source_tables import ReadOptions, SourceTables

from cxr_compare.data_prep.sources.registry import FORMATS, read_source
from tests.data_prep.sources import test_annotation_tools as tools
from tests.data_prep.sources import (
    test_class_folders,
    test_coco,
    test_covid,
    test_dicom_folder,
    test_kermany,
    test_labelme,
    test_nih,
    test_rsna,
    test_three_tables,
    test_via,
    test_vindr,
    test_voc,
    test_yolo,
)
from tests.data_prep.sources.answers import write_files

CASES_PER_FILE = [2, pytest.param(15, marks=pytest.mark.long)]
SHARES = [9, pytest.param(1, marks=pytest.mark.long)]  # of the odd stems, one in as many

NIH_BOXES = ["00000001_000.png,Mass,225.08,547.01,86.7,79.1,,,"]
META = "image_id,dim0,dim1\na,80,100\nb,80,100\n"


def write_rsna(folder: Path) -> None:
    test_rsna.write_source(
        folder,
        ["a,10,20,30,40,1", "a,100,200,5,5,1", "b,,,,,0"],
        classes=["a,Lung Opacity", "b,Normal"],
        mapping=[
            "patientId,nih_image,nih_patient,mse",
            "a,00000001_000.png,00000001,0",
            "b,00000002_000.png,00000002,30.5",
        ],
    )


def write_nih(folder: Path) -> None:
    names = ("00000001_000", "00000002_000")
    rows = [test_nih.row(names[0], "Cardiomegaly|Mass"), test_nih.row(names[1], age="058Y")]
    images = tuple(f"images_00{n}/images/{name}.png" for n, name in enumerate(names, start=1))
    test_nih.write_source(folder, rows, boxes=NIH_BOXES, image_files=images)
    write_files(
        folder, {"train_val_list.txt": f"{names[0]}.png\n", "test_list.txt": f"{names[1]}.png\n"}
    )


def write_vindr_of_kaggle(folder: Path) -> None:
    boxes = ["a,Cardiomegaly,3,R8,10,10,60,60", "a,Cardiomegaly,3,R9,11,10,60,60"]
    readers = ("a,No finding,14,R10,,,,", *(f"b,No finding,14,R{n},,,," for n in (8, 9, 10)))
    test_vindr.write_kaggle(folder, [*boxes, *readers], (100, 80))
    write_files(folder, {"train_meta.csv": META})


def write_covid_collection(folder: Path) -> None:
    rows = [
        "1,0,M,65,Pneumonia/Viral/COVID-19,PA,X-ray,images,a.png,http://example.org/a",
        "2,,F,40,No Finding,AP Supine,X-ray,images,b.png,",
    ]
    test_covid.touch(test_covid.write_collection(folder, rows), "images/a.png", "images/b.png")


def write_covid_hannover(folder: Path) -> None:
    table = f"{test_covid.HANNOVER}\np1,a,M,60,3,DX,AP\np2,b,F,,,CR,PA\n"
    write_files(folder, {"data.csv": table, "png/a.png": "", "png/b.png": ""})


def write_voc(folder: Path) -> None:
    lists = {"ImageSets/Main/train.txt": "a\n", "ImageSets/Main/test.txt": "b\n"}
    write_files(folder, {**test_voc.VOC, **lists})


def write_yolo(folder: Path) -> None:
    test_yolo.write_set(
        folder,
        {
            "data.yaml": "train: images/train\nval: images/val\nnc: 2\n" + test_yolo.NAMES,
            "labels/train/a.txt": test_yolo.BOX + "1 0.1 0.1 0.05 0.05\n",
            "labels/val/b.txt": "",
            "images/train/a.png": None,
            "images/val/b.png": None,
        },
    )


def write_dicom_folder(folder: Path) -> None:
    for name in ("a.dcm", "b.dcm"):
        test_dicom_folder.write_file(folder / name, PatientID=name)
    write_files(folder, {"labels.csv": "file,finding,state\na.dcm,mass,present\nb.dcm,mass,0\n"})


def write_table(folder: Path) -> None:
    rows = "file,label,patient,sex,age,rad,x,y,w,h,note\n" + (
        "a.png,Mass,p1,M,50,R1,1,2,30,40,5\na.png,Mass|Nodule,p1,M,50,R2,,,,,6\n"
        "b.png,normal,p2,F,,R1,,,,,\nb.png,Mass,p2,F,,R2,3,4,30,40,7\n"
    )
    write_files(folder, {"labels.csv": rows, "a.png": "", "b.png": ""})


def write_three_tables(folder: Path) -> None:
    columns = "image_id,patient_id,view,sex,age_years,image_height,image_width"
    images = f"{columns}\na,p1,PA,M,50,80,100\nb,p1,AP,F,,80,100\nc,p2,,,3.5,,\n"
    boxes = "image_id,x1,y1,x2,y2,finding\na,1,2,30,40,mass\n"
    test_three_tables.write_set(folder, images, boxes=boxes)


def write_cvat(folder: Path) -> None:
    said = tools.BOX.format(' rotation="30"', '<attribute name="reader">R1</attribute>')
    shapes = "".join(shape for shape, _ in tools.SHAPES.values())
    marks = tools.cvat(said, shapes + '<tag label="m"></tag>', "", '<tag label="unknown"></tag>')
    tools.folder_of(folder, annotations__xml=marks)
    write_files(folder, {"patients.csv": "file,patient_id,age_years\na.png,p1,50\nb.png,p2,\n"})


def write_label_studio(folder: Path) -> None:
    choice = tools.result("choices", choices=["Yes"])
    turned = tools.result(
        "rectanglelabels", x=50, y=50, width=10, height=20, rotation=30, rectanglelabels=["m"]
    )
    polygon = tools.result("polygonlabels", points=[[1, 2], [9, 8.5]], polygonlabels=["m"])
    tasks = [
        tools.task("a", tools.by(7, tools.MARKED, choice), tools.by({"id": 8}), age=50),
        tools.task("b", tools.by(7, turned, polygon), patient_id="p2"),
        tools.task("c"),
    ]
    tools.folder_of(folder, tasks__json=json.dumps(tasks))


# Small valid sources: their format, and who writes them.
def write_labelme(folder: Path) -> None:
    shapes = [test_labelme.shape(test_labelme.RECTANGLE), test_labelme.shape([[5, 5], [9, 9]])]
    content = test_labelme.labelme(*shapes, flags={"mass": True}, image="film.png")
    test_labelme.folder_of(folder, film=content)


def write_via(folder: Path, name: str) -> None:
    text = test_via.as_table if name.endswith(".csv") else test_via.as_project
    test_via.folder_of(folder, *test_via.ENTRIES, name=name, text=text(*test_via.ENTRIES))


SOURCES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "rsna": ("rsna", write_rsna),
    "nih": ("nih", write_nih),
    "vindr": ("vindr", test_vindr.write_physionet),
    "vindr of Kaggle": ("vindr", write_vindr_of_kaggle),
    "kermany": ("kermany", test_kermany.write_source),
    "covid collection": ("covid", write_covid_collection),
    "covid Hannover": ("covid", write_covid_hannover),
    "covid radiography": ("covid", test_covid.write_radiography),
    "roboflow": ("roboflow", test_class_folders.write_parts),
    "folders": ("folders", test_class_folders.write_folders),
    "coco": ("coco", lambda folder: test_coco.write_set(folder, {"x.json": test_coco.COCO})),
    "voc": ("voc", write_voc),
    "yolo": ("yolo", write_yolo),
    "dicom": ("dicom", write_dicom_folder),
    "cvat": ("cvat", write_cvat),
    "label studio": ("label-studio", write_label_studio),
    "labelme": ("labelme", write_labelme),
    "via": ("via", lambda folder: write_via(folder, "via.json")),
    "via table": ("via", lambda folder: write_via(folder, "via.csv")),
    "table": ("table", write_table),
    "three tables": ("table", write_three_tables),
}
LABEL_TABLES = {
    "dicom": ("labels.csv",),
    "table": ("labels.csv",),
    "three tables": ("images.csv", "labels.csv", "boxes.csv"),
}
CELLS = (
    "",
    " ",
    "0",
    "-1",
    "1e400",
    "nan",
    "inf",
    "-0.0",
    "9" * 400,
    "0x1F",
    "1,5",
    "1;5",
    "é中",
    "\ufeff",
    "\u202eabc",
    "\x00",
    "\x1b[31m",
    '"',
    "'",
    "a\nb",
    "../../etc/passwd",
    "/",
    ".",
    "None",
    "null",
    "true",
    "{}",
    "[]",
    "[[]]",
    "<a>",
    "&x;",
    "&#0;",
    "%s",
    "{0}",
    "1" + "0" * 18,
    "2147483648",
    "x" * 5000,
)
STEMS = (
    b"person99999999999999999999_virus_",
    b"NORMAL2-IM-0115-(copy)",
    b"\xff\xfe",
    "é中".encode(),
    b"new\nline\x1b[31m",
    b" ",
    b"..a",
    b"x" * 200,
    b"a,b'\"{0}",
)


def write(folder: Path, name: str) -> ReadOptions:
    """Write a source; returns the options that its reader needs."""
    folder.mkdir(parents=True, exist_ok=True)
    SOURCES[name][1](folder)
    return ReadOptions(labels=tuple(folder / file for file in LABEL_TABLES.get(name, ())))


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Replace a cell, drop or repeat a line, flip bits, cut, or put noise in its place."""
    kind = int(rng.integers(7))
    damaged = bytearray(content)
    if kind <= 2:
        cells = re.split(rb"([,\s\"<>:\[\]{}|]+)", content)
        cells[2 * int(rng.integers((len(cells) + 1) // 2))] = str(rng.choice(CELLS)).encode()
        return b"".join(cells)
    if kind == 3:
        lines = content.splitlines(keepends=True)
        line = lines.pop(int(rng.integers(len(lines))))
        return b"".join([*lines, *[line] * int(rng.choice([0, 2, 3]))])
    if kind == 4:
        return content[: int(rng.integers(len(content)))]
    if kind == 5:
        return rng.bytes(int(rng.integers(0, 400)))
    for place in rng.integers(0, len(content), int(rng.integers(1, 5))):
        damaged[place] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def evaluate(folder: Path, name: str, options: ReadOptions) -> str:
    try:
        tables = read_source(folder, SOURCES[name][0], options)
    except InputError as error:
        message = str(error)
        assert "\n" not in message, message
        assert message.isprintable(), ascii(message)
        assert len(message.replace(str(folder), "")) < 1_600, message
        return "refused"
    assert isinstance(tables, SourceTables)
    assert tables.images["image_id"].is_unique
    assert set(tables.findings["image_id"]) <= set(tables.images["image_id"])
    assert set(tables.boxes["image_id"]) <= set(tables.images["image_id"])
    return "read"


@pytest.mark.slow
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", SOURCES)
def test_oddly_named_files_give_tables_or_one_line(tmp_path, name, share):
    folder = tmp_path / "source"
    options = write(folder, name)
    outcomes: Counter[Any] = Counter()
    one_a_kind = {path.suffix: path for path in folder.rglob("*") if path.is_file()}
    for place, path in enumerate(one_a_kind.values(), list(SOURCES).index(name)):
        for stem in STEMS[place % share :: share]:
            odd = path.with_name(os.fsdecode(stem) + path.suffix)
            path.rename(odd)
            try:
                outcomes[evaluate(folder, name, options)] += 1
            except Exception as error:
                where = f"{path.relative_to(folder)} as {stem!r}"
                raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
            odd.rename(path)
    assert sum(outcomes.values()) >= len(STEMS) // share


def test_every_format_is_fuzzed():
    assert {format_name for format_name, _ in SOURCES.values()} == set(FORMATS)


@pytest.mark.slow
@pytest.mark.parametrize("cases", CASES_PER_FILE)
@pytest.mark.parametrize("name", SOURCES)
def test_damaged_sources_give_tables_or_one_line(tmp_path, name, cases):
    folder = tmp_path / "source"
    options = write(folder, name)
    assert evaluate(folder, name, options) == "read"
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    outcomes: Counter[Any] = Counter()
    for path in files:
        whole = path.read_bytes()
        for number in range(cases):
            seed = zlib.crc32(f"{name}/{path.relative_to(folder)}".encode())
            path.write_bytes(mutate(whole, np.random.default_rng([seed, number])))
            try:
                outcomes[evaluate(folder, name, options)] += 1
            except Exception as error:
                where = f"case {number} of {path.relative_to(folder)}"
                raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
        path.write_bytes(whole)
    assert outcomes["refused"] or not files  # a set of folders has no table to damage
