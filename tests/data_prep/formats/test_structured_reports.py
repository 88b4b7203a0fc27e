"""Structured reports of DICOM beside the images that they mark."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from cxr_compare.data_prep.contracts.errors import InputError
from tests.data_prep.formats.answers import reader, states, states_of
from tests.small_dicom import as_file, dicom_image

read_sr = reader("sr")


def code(value: str, meaning: str = "x", scheme: str = "DCM") -> list[Dataset]:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return [item]


def item(kind: str, concept: str, **elements: Any) -> Dataset:
    """An item of a report's content."""
    made = Dataset()
    made.ValueType = kind
    made.ConceptNameCodeSequence = code(concept)
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def region(image: str, kind: str, *numbers: float) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPInstanceUID = image
    source = item("IMAGE", "121324", ReferencedSOPSequence=[reference])
    return item(
        "SCOORD", "111030", GraphicType=kind, GraphicData=[*numbers], ContentSequence=[source]
    )


def group(finding: str, *inside: Dataset) -> Dataset:
    found = item("CODE", "121071", ConceptCodeSequence=code("1", finding, "SCT"))
    return item("CONTAINER", "125007", ContentSequence=[found, *inside])


def write_report(path: Path, *content: Dataset) -> None:
    report = Dataset()
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = uid.ComprehensiveSRStorage
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = f"1.9.{len(path.name)}"
    report.Modality = "SR"
    report.ContentSequence = [*content]
    path.write_bytes(as_file(report))


def sr_folder(root: Path) -> Path:
    """Images 1.2.1 and 1.2.2, and reports of Roe and of a device on the first."""
    for number in (1, 2):
        image = dicom_image(
            np.zeros((100, 200), np.uint8),
            SOPInstanceUID=f"1.2.{number}",
            Modality="CR",
            PatientID=f"P{number}",
        )
        (root / f"{number}.dcm").write_bytes(as_file(image))
    square = region("1.2.1", "POLYLINE", 10, 20, 40, 20, 40, 60, 10, 60, 10, 20)
    inner = item("NUM", "42798000", ContentSequence=[region("1.2.1", "POINT", 5, 5)])
    observer = item("PNAME", "121008", PersonName="Roe^R")
    write_report(
        root / "roe.dcm",
        observer,
        item(
            "CONTAINER",
            "126010",
            ContentSequence=[
                group("Pleural Effusion", square),
                group("Mass", inner),
            ],
        ),
    )
    named = item("TEXT", "111001", TextValue="Program")
    found = group("Mass", named, region("1.2.1", "POLYLINE", 1, 2, 9, 2, 9, 8))
    write_report(root / "a-device.dcm", found)
    return root


def test_regions_of_reports_are_boxes_by_who_drew_them(tmp_path):
    tables = read_sr(sr_folder(tmp_path), reference="any")
    boxes = tables.boxes[tables.boxes["reader"] != "reference"].set_index("reader")
    assert boxes.loc["Roe^R", ["finding", "x1", "y1", "x2", "y2"]].tolist() == [
        "pleural_effusion",
        10,
        20,
        40,
        60,
    ]
    assert boxes.loc["Program", ["finding", "x1", "y1", "x2", "y2"]].tolist() == [
        "mass",
        1,
        2,
        9,
        8,
    ]
    assert states(tables, "Roe^R") == {
        ("1.2.1", "pleural_effusion"): "present",
        ("1.2.1", "mass"): "present",
    }
    assert states_of(tables, "1.2.2") == {}  # of which no report says anything
    notes = " ".join(tables.notes)
    assert "1 region was drawn by a program" in notes
    assert "1 region has no area" in notes


def test_negatives_beside_reports_come_from_a_table(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("file,finding,state\n2.dcm,mass,absent\n")
    (tmp_path / "images").mkdir()
    tables = read_sr(sr_folder(tmp_path / "images"), labels=(table,), reference="any")
    assert states_of(tables, "1.2.2") == {"mass": "absent"}


def test_a_folder_without_a_report_is_one_line(tmp_path):
    sr_folder(tmp_path)
    (tmp_path / "roe.dcm").unlink()
    (tmp_path / "a-device.dcm").write_bytes((tmp_path / "a-device.dcm").read_bytes()[:400])
    with pytest.raises(InputError, match="no structured report in it names a finding"):
        read_sr(tmp_path)
