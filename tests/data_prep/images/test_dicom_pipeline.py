"""Each step of PS3.3 C.11 with every other, against the standard's formulas worked out by hand.

Nothing here is computed with our code or pydicom's: plain Python, one pixel at a time.
"""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from cxr_compare.data_prep.images.image import read_image
from tests.small_dicom import lut

WriteDicom = Callable[..., Path]

DEPTHS = (8, 10, 12, 14, 16)
MODALITIES = ("none", "rescale", "lut")
VOIS = ("none", "linear", "linear exact", "lut", "sigmoid")
SLOPE, INTERCEPT = 2.5, -100.0


class Case:
    """One combination: what is written, and what each of its pixels must become."""

    def __init__(self, depth: int, signed: bool, modality: str, voi: str) -> None:
        self.least = -(1 << (depth - 1)) if signed else 0
        self.most = self.least + (1 << depth) - 1
        self.depth, self.signed, self.modality, self.voi = depth, signed, modality, voi
        span = self.most - self.least
        shares = (0, 0.001, 0.2, 0.37, 0.5, 0.501, 0.73, 0.9, 1)
        self.stored = [self.least + round(span * share) for share in shares]
        self.padding = self.least + span // 3  # inside the range, so that it would show
        self.modality_first = self.least + span // 8
        self.modality_entries = [i * i // 256 for i in range(1024)]  # 12 bits
        ends = sorted((self.to_modality(self.stored[0]), self.to_modality(self.stored[-1])))
        self.center, self.width = sum(ends) / 2 + 0.3, (ends[1] - ends[0]) * 0.6
        self.voi_first = max(math.floor(ends[0] + (ends[1] - ends[0]) * 0.3), -32768)
        self.voi_entries = [min(4 * i + i % 3, 1023) for i in range(256)]  # 10 bits

    def elements(self) -> dict[str, Any]:
        found: dict[str, Any] = {"bits_stored": self.depth, "PixelPaddingValue": self.padding}
        if self.modality == "rescale":
            found |= {"RescaleSlope": SLOPE, "RescaleIntercept": INTERCEPT}
        elif self.modality == "lut":
            entries = lut(self.modality_entries, self.modality_first, 12)
            found["ModalityLUTSequence"] = entries
        if self.voi == "lut":
            found["VOILUTSequence"] = lut(self.voi_entries, self.voi_first, 10)
        elif self.voi != "none":
            found |= {"WindowCenter": f"{self.center:.3f}", "WindowWidth": f"{self.width:.3f}"}
            found["VOILUTFunction"] = self.voi.upper().replace(" ", "_")
            self.center, self.width = (float(found[k]) for k in ("WindowCenter", "WindowWidth"))
        return found

    def values(self) -> np.ndarray:
        kinds = {(8, False): "u1", (8, True): "i1", (16, False): "u2", (16, True): "i2"}
        kind = kinds[8 if self.depth == 8 else 16, self.signed]
        return np.array([[*self.stored, self.padding]], dtype=kind)

    def to_modality(self, stored: int) -> float:
        if self.modality == "rescale":
            return stored * SLOPE + INTERCEPT
        if self.modality == "lut":
            last = len(self.modality_entries) - 1
            return self.modality_entries[min(max(stored - self.modality_first, 0), last)]
        return stored

    def to_share(self, x: float) -> float:
        """From black, 0, to white, 1."""
        c, w = self.center, self.width
        if self.voi == "linear":  # the pseudo-code of C.11.2.1.2.1
            if x <= c - 0.5 - (w - 1) / 2:
                return 0.0
            if x > c - 0.5 + (w - 1) / 2:
                return 1.0
            return (x - (c - 0.5)) / (w - 1) + 0.5
        if self.voi == "linear exact":  # C.11.2.1.3.2
            return 0.0 if x <= c - w / 2 else 1.0 if x > c + w / 2 else (x - c) / w + 0.5
        if self.voi == "sigmoid":  # C.11.2.1.3.1
            return 1 / (1 + math.exp(-4 * (x - c) / w))
        if self.voi == "lut":
            index = min(max(round(x) - self.voi_first, 0), len(self.voi_entries) - 1)
            return self.voi_entries[index] / 1023
        if self.depth == 8:  # all that 8 bits can hold
            possible = [self.to_modality(s) for s in range(self.least, self.most + 1)]
            low, high = min(possible), max(possible)
        else:  # percentiles of nine pixels: the least and the largest, without the padding
            low, high = (f(self.to_modality(s) for s in self.stored) for f in (min, max))
        return (x - low) / (high - low)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", ["IDENTITY", "INVERSE"])
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_every_combination_of_steps_gives_the_pixel_of_the_standard(
    write_dicom, tmp_path, signed, shape, photometric
):
    turned = photometric == "MONOCHROME1" or shape == "INVERSE"
    for depth, modality, voi in itertools.product(DEPTHS, MODALITIES, VOIS):
        case = Case(depth, signed, modality, voi)
        elements = case.elements() | {"PhotometricInterpretation": photometric}
        elements["PresentationLUTShape"] = shape
        path = write_dicom(tmp_path / "a.dcm", case.values(), **elements)

        image = read_image(path)

        shares = [case.to_share(case.to_modality(stored)) for stored in case.stored]
        expected = [255 * (1 - share if turned else share) for share in shares]
        greys = image.pixels[0].tolist()
        where = f"{depth} bits, {modality}, {voi}: {greys} for {expected}"
        assert greys[-1] == 0, f"padding is not black at {where}"
        assert max(abs(g - e) for g, e in zip(greys, expected, strict=False)) <= 0.5 + 1e-6, where
        assert image.record["inverted"] is turned
        assert image.record["modality_transform"] == modality


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_tables_are_read_in_every_encoding_of_the_header(write_dicom, tmp_path, syntax):
    for signed in (False, True):
        case = Case(12, signed, "lut", "lut")
        path = write_dicom(tmp_path / "a.dcm", case.values(), syntax=syntax, **case.elements())
        expected = [255 * case.to_share(case.to_modality(stored)) for stored in case.stored]
        np.testing.assert_allclose(read_image(path).pixels[0, :-1], expected, atol=0.5 + 1e-6)


def packed(entries: list[int], first: int, bits: int, kind: str) -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first % 65536, bits])
    item.add_new("LUTData", "OW", np.array(entries, kind).tobytes())
    return [item]


@pytest.mark.parametrize("kind", ["u1", "<u2"], ids=["8 bits an entry", "16 bits an entry"])
def test_table_kept_as_bytes(write_dicom, tmp_path, kind):
    values = np.array([[0, 1, 2, 3, 9]], np.uint8)
    tables = packed([255, 9, 100, 0], 0, 8, kind)
    path = write_dicom(tmp_path / "a.dcm", values, VOILUTSequence=tables)
    np.testing.assert_array_equal(read_image(path).pixels, [[255, 9, 100, 0, 0]])


def test_signed_numbers_under_an_unsigned_vr(write_dicom, tmp_path):
    values = np.array([[-3, -2, -1, 0, 5, -2000]], np.int16)
    tables = packed([0, 100, 200, 255], -3, 8, "u1")
    path = write_dicom(tmp_path / "a.dcm", values, VOILUTSequence=tables)
    data = pydicom.dcmread(path)
    data.add_new("PixelPaddingValue", "US", 65536 - 2000)
    data.save_as(path)
    np.testing.assert_array_equal(read_image(path).pixels, [[0, 100, 200, 255, 255, 0]])


def test_dark_image_is_not_brightened_by_a_table_it_does_not_use_up(write_dicom, tmp_path):
    values = np.array([[0, 10, 20]], np.uint8)
    table = lut(list(range(256)), 0, 8)
    path = write_dicom(tmp_path / "a.dcm", values, VOILUTSequence=table)
    np.testing.assert_array_equal(read_image(path).pixels, values)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_presentation_table_is_applied_to_the_whole_range_after_the_window(
    write_dicom, tmp_path, photometric
):
    # 12 bits in, table of 5 entries and 10 bits: 0, 1/4, 1/2, 3/4 and 1 of the window.
    values = np.array([[0, 1023, 2047, 3071, 4095]], np.uint16)
    path = write_dicom(
        tmp_path / "a.dcm", values, bits_stored=12, WindowCenter=2048, WindowWidth=4096,
        PresentationLUTSequence=lut([0, 511, 512, 767, 1023], 0, 10),
        PhotometricInterpretation=photometric,
    )  # fmt: skip
    expected = np.array([0, 127, 128, 191, 255])  # 511 / 1023 * 255 = 127.4 and so on
    image = read_image(path)
    shown = 255 - expected if photometric == "MONOCHROME1" else expected
    np.testing.assert_array_equal(image.pixels[0], shown)
    assert image.record["warnings"] == "presentation LUT applied"


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowCenter": [], "WindowWidth": 10},
        {"WindowCenter": 10},
    ],
    ids=["empty", "no values", "no width"],
)
def test_half_a_window_counts_as_none(write_dicom, tmp_path, elements):
    values = np.arange(256, dtype=np.uint8)[None]
    np.testing.assert_array_equal(
        read_image(write_dicom(tmp_path / "a.dcm", values, **elements)).pixels, values
    )


@pytest.mark.parametrize("missing", ["LUTDescriptor", "LUTData"])
def test_table_without_its_parts_is_refused(write_dicom, tmp_path, missing):
    table = lut([0, 255], 0, 8)
    del table[0][missing]
    path = write_dicom(tmp_path / "a.dcm", np.zeros((2, 2), np.uint8), VOILUTSequence=table)
    with pytest.raises(ValueError, match="lookup table lacks"):
        read_image(path)
