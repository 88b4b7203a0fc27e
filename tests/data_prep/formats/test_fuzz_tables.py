"""Fuzz of every table reader: one file of a small valid source is damaged; tables or one line."""

from __future__ import annotations

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
from openpyxl import Workbook
from PIL import Image

from data_prep.contracts.errors import InputError
from data_prep.formats.registry import FORMATS, read_source
from data_prep.formats.source import ReadOptions, SourceTables

CASES_PER_FILE = [3, pytest.param(15, marks=pytest.mark.long)]
SHARES = [3, pytest.param(1, marks=pytest.mark.long)]  # of the odd stems, one in as many

RSNA = {
    "stage_2_train_labels.csv": "patientId,x,y,width,height,Target\n"
    "a,10,20,30,40,1\na,100,200,5,5,1\nb,,,,,0\n",
    "stage_2_detailed_class_info.csv": "patientId,class\na,Lung Opacity\nb,Normal\n",
    "rsna_to_nih.csv": "patientId,nih_image,nih_patient,mse\na,00000001_000.png,00000001,0\n"
    "b,00000002_000.png,00000002,30.5\n",
    "stage_2_train_images/a.dcm": None,
    "stage_2_train_images/b.dcm": None,
    "stage_2_test_images/t.dcm": None,
}
NIH = {
    "Data_Entry_2017_v2020.csv": "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,"
    "Patient Gender,View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
    "00000001_000.png,Cardiomegaly|Mass,0,1,57,M,PA,2682,2749,0.143,0.143\n"
    "00000002_000.png,No Finding,1,2,058Y,F,AP,2500,2048,0.168,0.168\n",
    "BBox_List_2017.csv": "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
    "00000001_000.png,Mass,225.08,547.01,86.7,79.1,,,\n",
    "train_val_list.txt": "00000001_000.png\n",
    "test_list.txt": "00000002_000.png\n",
    "images_001/images/00000001_000.png": None,
    "images_002/images/00000002_000.png": None,
}
VINDR = {
    "annotations/image_labels_train.csv": "image_id,rad_id,Cardiomegaly,Nodule/Mass,No finding\n"
    "a,R8,1,0,0\na,R9,1,1,0\na,R10,1,0,0\nb,R8,0,0,1\nb,R9,0,0,1\nb,R10,0,1,0\n",
    "annotations/image_labels_test.csv": "image_id,Cardiomegaly,Nodule/Mass,No finding\nt,0,1,0\n",
    "annotations/annotations_train.csv": "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n"
    "a,R8,Cardiomegaly,10,10,110,60\na,R9,Cardiomegaly,12,10,112,60\nb,R8,No finding,,,,\n",
    "annotations/annotations_test.csv": "image_id,class_name,x_min,y_min,x_max,y_max\n"
    "t,Nodule/Mass,1.5,2.25,30,40\n",
    "train/a.dicom": None,
    "train/b.dicom": None,
    "test/t.dicom": None,
}
VINDR_KAGGLE = {
    "train.csv": "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
    "a,Cardiomegaly,3,R8,10,10,60,60\na,Cardiomegaly,3,R9,11,10,60,60\na,No finding,14,R10,,,,\n"
    "b,No finding,14,R8,,,,\nb,No finding,14,R9,,,,\nb,No finding,14,R10,,,,\n",
    "train_meta.csv": "image_id,dim0,dim1\na,80,100\nb,80,100\n",
    "train/a.png": "image",
    "train/b.png": "image",
}
KERMANY = {
    "train/PNEUMONIA/person1_bacteria_1.jpeg": None,
    "train/NORMAL/IM-0115-0001.jpeg": None,
    "test/NORMAL/NORMAL2-IM-0117-0001.jpeg": None,
}
COVID_COLLECTION = {
    "metadata.csv": "patientid,offset,sex,age,finding,view,modality,folder,filename,url\n"
    "1,0,M,65,Pneumonia/Viral/COVID-19,PA,X-ray,images,a.png,http://example.org/a\n"
    "2,,F,40,No Finding,AP Supine,X-ray,images,b.png,\n",
    "images/a.png": None,
    "images/b.png": None,
}
COVID_HANNOVER = {
    "data.csv": "patient_id,image_id,sex,age,admission_offset,modality,projection\n"
    "p1,a,M,60,3,DX,AP\np2,b,F,,,CR,PA\n",
    "png/a.png": None,
    "png/b.png": None,
}
CSV = {
    "images.csv": "image_id,patient_id,view,sex,age_years,height,width\n"
    "a,p1,PA,M,50,80,100\nb,p1,AP,F,,80,100\nc,p2,,,3.5,,\n",
    "labels.csv": "image_id,finding,state\na,mass,present\nb,mass,absent\nc,mass,uncertain\n",
    "boxes.csv": "image_id,x1,y1,x2,y2,finding\na,1,2,30,40,mass\n",
}
COCO = {
    "annotations/instances_train.json": json.dumps(
        {
            "images": [
                {"id": 1, "file_name": "a.png", "width": 100, "height": 80},
                {"id": 2, "file_name": "b.png", "width": 100, "height": 80},
            ],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 7, "bbox": [10, 20, 30, 40], "iscrowd": 0}
            ],
            "categories": [{"id": 7, "name": "Lung Opacity"}, {"id": 3, "name": "Mass"}],
        }
    ),
    "images/a.png": None,
    "images/b.png": None,
}
VOC = {
    "Annotations/a.xml": "<annotation><filename>a.jpg</filename><size><width>100</width>"
    "<height>80</height><depth>3</depth></size><object><name>Mass</name><difficult>0</difficult>"
    "<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>40</xmax><ymax>60</ymax></bndbox></object>"
    "</annotation>",
    "Annotations/b.xml": "<annotation><filename>b.jpg</filename><size><width>100</width>"
    "<height>80</height></size></annotation>",
    "ImageSets/Main/train.txt": "a\n",
    "ImageSets/Main/test.txt": "b\n",
    "JPEGImages/a.jpg": None,
    "JPEGImages/b.jpg": None,
}
YOLO = {
    "data.yaml": "train: images/train\nval: images/val\nnc: 2\nnames: [Mass, Nodule]\n",
    "labels/train/a.txt": "0 0.5 0.5 0.2 0.4\n1 0.1 0.1 0.05 0.05\n",
    "labels/val/b.txt": "",
    "images/train/a.png": "image",
    "images/val/b.png": "image",
}
SOURCES: dict[str, tuple[str, dict[str, str | None]]] = {
    "rsna": ("rsna", RSNA),
    "nih": ("nih", NIH),
    "vindr": ("vindr", VINDR),
    "vindr of Kaggle": ("vindr", VINDR_KAGGLE),
    "kermany": ("kermany", KERMANY),
    "covid collection": ("covid", COVID_COLLECTION),
    "covid Hannover": ("covid", COVID_HANNOVER),
    "covid workbook": ("covid", {}),
    "csv": ("csv", CSV),
    "coco": ("coco", COCO),
    "voc": ("voc", VOC),
    "yolo": ("yolo", YOLO),
    "dicom": ("dicom", {"labels.csv": "file,finding,state\na.dcm,mass,present\nb.dcm,mass,0\n"}),
}
CELLS = (
    "", " ", "0", "-1", "1e400", "nan", "inf", "-0.0", "9" * 400, "0x1F", "1,5", "1;5", "é中",
    "\ufeff", "\u202eabc", "\x00", "\x1b[31m", '"', "'", "a\nb", "../../etc/passwd", "/", ".",
    "None", "null", "true", "{}", "[]", "[[]]", "<a>", "&x;", "&#0;", "%s", "{0}", "1" + "0" * 18,
    "2147483648", "x" * 5000,
)  # fmt: skip
STEMS = (
    b"person99999999999999999999_virus_", b"NORMAL2-IM-0115-(copy)", b"\xff\xfe", "é中".encode(),
    b"new\nline\x1b[31m", b" ", b"..a", b"x" * 200, b"a,b'\"{0}",
)  # fmt: skip


def write(folder: Path, name: str, write_dicom: Callable[..., Path]) -> ReadOptions:
    """Write a source; returns the options that its reader needs."""
    for path, text in SOURCES[name][1].items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if text == "image":
            Image.new("L", (100, 80)).save(target)
        else:
            target.write_text(text or "", encoding="utf-8")
    if name == "covid workbook":
        for kind in ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"):
            (folder / kind / "images").mkdir(parents=True)
            (folder / kind / "images" / f"{kind}-1.png").touch()
            book = Workbook()
            book.active.append(("FILE NAME", "FORMAT", "SIZE", "URL"))
            book.active.append((f"{kind}-1", "PNG", "256*256", "https://example.org"))
            book.save(folder / f"{kind}.metadata.xlsx")
    if name != "dicom":
        return ReadOptions()
    for number, stem in enumerate("ab"):
        write_dicom(
            folder / f"{stem}.dcm", np.full((64, 64), number, np.uint8), PatientID=f"p{number}",
            Modality="DX", ViewPosition="PA", BodyPartExamined="CHEST", StudyInstanceUID="1.2",
            SOPInstanceUID=f"1.2.{number}",
        )  # fmt: skip
    return ReadOptions(labels=folder / "labels.csv")


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


def judge(folder: Path, name: str, options: ReadOptions) -> str:
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
def test_oddly_named_files_give_tables_or_one_line(write_dicom, tmp_path, name, share):
    folder = tmp_path / "source"
    folder.mkdir()
    options = write(folder, name, write_dicom)
    outcomes: Counter[Any] = Counter()
    one_a_kind = {path.suffix: path for path in folder.rglob("*") if path.is_file()}
    for place, path in enumerate(one_a_kind.values(), list(SOURCES).index(name)):
        for stem in STEMS[place % share :: share]:
            odd = path.with_name(os.fsdecode(stem) + path.suffix)
            path.rename(odd)
            try:
                outcomes[judge(folder, name, options)] += 1
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
def test_damaged_sources_give_tables_or_one_line(write_dicom, tmp_path, name, cases):
    folder = tmp_path / "source"
    folder.mkdir()
    options = write(folder, name, write_dicom)
    assert judge(folder, name, options) == "read"
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    outcomes: Counter[Any] = Counter()
    for path in files:
        whole = path.read_bytes()
        for number in range(cases):
            seed = zlib.crc32(f"{name}/{path.relative_to(folder)}".encode())
            path.write_bytes(mutate(whole, np.random.default_rng([seed, number])))
            try:
                outcomes[judge(folder, name, options)] += 1
            except Exception as error:
                where = f"case {number} of {path.relative_to(folder)}"
                raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
        path.write_bytes(whole)
    assert outcomes["refused"] or not files  # a set of folders has no table to damage
