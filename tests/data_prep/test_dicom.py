"""DICOM and other image files: each case is a file, and the greys and facts that it means."""

import csv
import hashlib
import itertools
import os
import resource
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing

from tests.adapters import images
from tests.cases import load
from tests.dicom_files import file_content
from tests.oracles import dicom_display

KEPT = Path(__file__).parents[1] / "kept" / "dicom_odd.csv"
_MOST_GROWTH = 64 << 10  # KiB that the refusal of a huge file may take


@pytest.mark.parametrize("case", load("inputs/dicom.json"))
def test_a_file_means_what_its_case_says(case, tmp_path):
    path = tmp_path / case["input"].get("name", "a.dcm")
    if "size" in case["input"].get("file", ()):  # so many zeros, which take no room on the disk
        path.touch()
        os.truncate(path, case["input"]["file"]["size"])
    else:
        path.write_bytes(file_content(case["input"]))
    if "frontal" in case or "left_out" in case:
        reason = images.reason_to_leave_out(path)
        assert (reason is None) is case.get("frontal", False), reason
        assert [part for part in case.get("left_out", ()) if part not in reason] == []
        return
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kind, *found = images.read(path)
    if "refused" in case:
        assert kind == "refused"
        assert "\n" not in found[0]
        assert [part for part in case["refused"] if part not in found[0]] == []
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < _MOST_GROWTH
        return
    assert kind == "read", found
    greys, facts, doubted = found
    within = case.get("within", 0)
    if "greys" in case:
        assert greys.shape == np.shape(case["greys"])
        np.testing.assert_allclose(greys.astype(int), case["greys"], atol=within)
    if "size" in case:
        assert list(greys.shape[::-1]) == case["size"]
    for column, row, grey in case.get("points", ()):
        assert abs(int(greys[row, column]) - grey) <= within, (column, row)
    for name, value in case.get("facts", {}).items():
        close = pytest.approx(value, abs=5e-5) if isinstance(value, float) else value
        assert facts[name] == close, name
    if "doubted" in case:
        assert doubted is case["doubted"]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", ["IDENTITY", "INVERSE"])
@pytest.mark.parametrize("signed", [0, 1], ids=["unsigned", "signed"])
def test_every_combination_of_display_steps_is_that_of_a_slow_reference(
    signed, shape, photometric, tmp_path
):
    combinations = itertools.product(
        dicom_display.DEPTHS, dicom_display.MODALITIES, dicom_display.VOIS
    )
    for depth, modality, voi in combinations:
        stored, tags = dicom_display.steps(depth, signed, modality, voi)
        tags |= {"PhotometricInterpretation": photometric, "PresentationLUTShape": shape}
        allocated = 8 if depth == 8 else 16
        content = file_content({"pixels": [stored], "allocated": allocated, "tags": tags})
        (tmp_path / "a.dcm").write_bytes(content)
        _, greys, _, _ = images.read(tmp_path / "a.dcm")
        expected = dicom_display.greys_of(stored, tags)
        difference = np.abs(greys[0] - np.array(expected))
        assert difference.max() <= 0.5 + 1e-6, (depth, modality, voi, greys[0], expected)


def kept_rows():
    """The rows of the kept table; one that is not yet true must fail."""
    with KEPT.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        pytest.param(
            row,
            id=row["file"][:40],
            marks=pytest.mark.xfail(strict=True, reason=row["not_yet"]) if row["not_yet"] else (),
        )
        for row in rows
    ]


@pytest.mark.release
@pytest.mark.parametrize("row", kept_rows())
def test_an_odd_file_of_the_field_is_read_as_it_was_looked_at(row, shared_data):
    kind, *found = images.read(shared_data / "dicom_odd" / row["file"])
    if row["refused"] == "yes":
        assert kind == "refused"
        assert row["file"] in found[0]
        assert "\n" not in found[0]
        return
    greys = found[0].astype(int)
    if row["digest"]:
        shape = f"{greys.shape[0]}x{greys.shape[1]}:".encode()
        digest = hashlib.sha256(shape + found[0].tobytes()).hexdigest()
        assert digest.startswith(row["digest"])
    lossy = row["lossy"] == "yes"  # another build of a lossy decoder may differ by a grey or two
    assert list(greys.shape) == [int(row["height"]), int(row["width"])]
    assert greys.mean() == pytest.approx(float(row["mean"]), abs=0.5 if lossy else 0.005)
    height, width = greys.shape
    places = ((0.25, 0.25), (0.25, 0.75), (0.5, 0.5), (0.75, 0.25), (0.75, 0.75))
    points = [greys[int(height * y), int(width * x)] for y, x in places]
    expected = [int(grey) for grey in row["points"].split()]
    np.testing.assert_allclose(points, expected, atol=3 if lossy else 0)


@pytest.mark.release
def test_every_odd_file_is_kept(shared_data):
    present = {path.name for path in (shared_data / "dicom_odd").iterdir()} - {"INVENTORY.csv"}
    assert present == {row.values[0]["file"] for row in kept_rows()}


# Other decoders


LOSSY = {uid.JPEGBaseline8Bit, uid.JPEG2000, uid.JPEGLSNearLossless}
UNREAD_BY_GDCM = {"fo-dicom__GH364.dcm"}


def stored_by_gdcm(path):
    """The first frame as GDCM's own parser and codecs read it; GDCM leaves MONOCHROME1 alone."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    image = reader.GetImage()
    kind = image.GetPixelFormat()
    name = ("i" if kind.GetPixelRepresentation() else "u") + str(kind.GetBitsAllocated() // 8)
    buffer = image.GetBuffer().encode("utf-8", "surrogateescape")
    width, height = image.GetDimensions()[:2]
    values = np.frombuffer(buffer, "<" + name)[: width * height].reshape(height, width)
    unused = kind.GetBitsAllocated() - kind.GetBitsStored()
    return (values << unused) >> unused  # GDCM does not extend the sign of JPEG 2000


def displayed_by_pydicom(stored, header):
    """Greys 0 to 255, not rounded, of pydicom's own functions in the order of PS3.3 C.11."""
    values = apply_modality_lut(stored, header).astype(np.float64)
    if "VOILUTSequence" in header:
        bits = header.VOILUTSequence[0].LUTDescriptor[2]
        shown = apply_voi_lut(stored, header).astype(np.float64) / ((1 << bits) - 1)
    elif "WindowWidth" in header:
        shown = apply_windowing(apply_modality_lut(stored, header), header)
        low, high = output_range(header)
        shown = (shown - low) / (high - low)
    elif header.BitsStored <= 8:
        shown = values / 255
    else:
        low, high = np.percentile(values, [0.1, 99.9], method="inverted_cdf")
        shown = np.clip((values - low) / (high - low), 0, 1)
    return 255 * (1 - shown if header.PhotometricInterpretation == "MONOCHROME1" else shown)


def output_range(header):
    """Return the range of pydicom's window: all that the bit depth holds, after the rescale."""
    least = -(1 << header.BitsStored - 1) if header.PixelRepresentation else 0
    ends = np.array([least, least + (1 << header.BitsStored) - 1], dtype=np.float64)
    ends = ends * float(header.get("RescaleSlope", 1)) + float(header.get("RescaleIntercept", 0))
    return float(ends[0]), float(ends[1])


@pytest.mark.release
def test_odd_grey_files_agree_with_gdcm_and_pydicom(shared_data):
    compared = 0
    for path in sorted((shared_data / "dicom_odd").iterdir()):
        kind, *found = images.read(path)
        header = None if kind == "refused" else pydicom.dcmread(path, force=True)
        if header is None or not header.PhotometricInterpretation.startswith("MONO"):
            continue
        if path.name in UNREAD_BY_GDCM or "TransferSyntaxUID" not in header.get("file_meta", ()):
            continue
        lossy = header.file_meta.TransferSyntaxUID in LOSSY
        expected = displayed_by_pydicom(stored_by_gdcm(path), header)
        difference = np.abs(found[0] - expected)
        assert difference.max() <= (4 if lossy else 0.51), path.name
        assert difference.mean() <= (0.6 if lossy else 0.3), path.name
        compared += 1
    assert compared >= 20
