"""Image files of every syntax and format, cut short: none may be read as if it were whole.

``tests/data_prep/images/test_cut_images.py`` runs the attack.
"""

import copy
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.image import read_image
from tests.small_dicom import dicom_image, image_file

SHARES = (10, 25, 50, 75, 90, 99)  # percent
ENDINGS = ("bare", "ended", "zeros", "file")
_GDCM: Any = gdcm  # mypy does not see the names of this compiled package
_EOI = b"\xff\xd9"
_IEND = b"\0\0\0\0IEND\xaeB`\x82"


def jpegs(image: Image.Image) -> dict[str, bytes]:
    """Return JPEG files of 8 bits, in the forms that cameras, archives and web sites write."""
    return {
        "baseline": image_file(image, "JPEG", quality=90),
        "restarts": image_file(image, "JPEG", quality=90, restart_marker_blocks=20),
        "optimised": image_file(image, "JPEG", quality=90, optimize=True),
        "progressive": image_file(image, "JPEG", quality=90, progressive=True),
    }


def with_frame(header: Dataset, syntax: str, frame: bytes) -> Dataset:
    """Return a copy of a DICOM object with another compressed frame, of a transfer syntax (UID)."""
    made = copy.deepcopy(header)
    made.file_meta.TransferSyntaxUID = syntax
    made.PixelData = encapsulate([frame])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    return made


def plain_header(film: np.ndarray, bits: int) -> Dataset:
    """Make an uncompressed radiograph with a number of stored bits."""
    return dicom_image(
        film,
        bits_stored=bits,
        SOPClassUID=uid.DigitalXRayImageStorageForPresentation,
        Modality="DX",
        BodyPartExamined="CHEST",
        ViewPosition="PA",
    )


def lossless_jpeg(header: Dataset, syntax: Any, folder: Path) -> Dataset:
    """Compress a radiograph by GDCM, the only encoder of lossless JPEG here.

    `syntax` is GDCM's transfer syntax.
    """
    header.save_as(folder / "raw.dcm", enforce_file_format=True)
    reader = _GDCM.ImageReader()
    reader.SetFileName(str(folder / "raw.dcm"))
    reader.Read()
    change = _GDCM.ImageChangeTransferSyntax()
    change.SetTransferSyntax(_GDCM.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    change.Change()
    writer = _GDCM.ImageWriter()
    writer.SetFileName(str(folder / "lossless.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.Write()
    return pydicom.dcmread(folder / "lossless.dcm")


def dicoms(eight: np.ndarray, deep: np.ndarray, bits: int, folder: Path) -> dict[str, Dataset]:
    """Make a radiograph in every transfer syntax that can be written here, by name.

    `deep` are its pixels with more bits than 8, namely `bits`.
    """
    header8 = plain_header(eight, 8)
    header16 = plain_header(deep, bits)
    made = {
        f"JPEG {kind}": with_frame(header8, uid.JPEGBaseline8Bit, frame)
        for kind, frame in jpegs(Image.fromarray(eight)).items()
    }
    made["JPEG extended, 8 bit"] = with_frame(
        header8, uid.JPEGExtended12Bit, jpegs(Image.fromarray(eight))["baseline"]
    )
    for name, header in (("8", header8), (str(bits), header16)):
        for process, syntax in (
            ("14", _GDCM.TransferSyntax.JPEGLosslessProcess14),
            ("SV1", _GDCM.TransferSyntax.JPEGLosslessProcess14_1),
        ):
            made[f"JPEG lossless {process}, {name} bit"] = lossless_jpeg(header, syntax, folder)
    for syntax, name in (
        (uid.JPEGLSLossless, "JPEG-LS"),
        (uid.JPEGLSNearLossless, "JPEG-LS near"),
        (uid.RLELossless, "RLE"),
    ):
        made[name] = copy.deepcopy(header16)
        options = {"jls_error": 2} if syntax == uid.JPEGLSNearLossless else {}
        made[name].compress(syntax, deep, generate_instance_uid=False, **options)
    side = max(deep.shape) // 4
    for name, options in (("one tile", {}), ("tiles", {"tile_size": (side, side)})):
        for syntax, lossy in ((uid.JPEG2000Lossless, False), (uid.JPEG2000, True)):
            frame = image_file(
                deep,
                "JPEG2000",
                no_jp2=True,
                irreversible=lossy,
                **options,
                **({"quality_layers": [20, 8]} if lossy else {}),
            )
            made[f"JPEG 2000 {'lossy' if lossy else 'lossless'}, {name}"] = with_frame(
                header16, syntax, frame
            )
    made["uncompressed"] = header16
    made["deflated"] = copy.deepcopy(header16)
    made["deflated"].file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    return made


def plain_files(eight: np.ndarray, deep: np.ndarray) -> dict[str, bytes]:
    """Make the same images as files of other formats, by names that end as such files do."""
    grey = Image.fromarray(eight)
    deeper = Image.fromarray(deep)
    colour = Image.merge("RGB", [grey, grey.transpose(0), grey])
    made = {f"{kind}.jpg": content for kind, content in jpegs(grey).items()}
    made |= {f"colour {kind}.jpg": content for kind, content in jpegs(colour).items()}
    made["cmyk.jpg"] = image_file(colour.convert("CMYK"), "JPEG", quality=90)
    made["grey.png"] = image_file(grey, "PNG")
    made["deep.png"] = image_file(deeper, "PNG")
    made["rgba.png"] = image_file(colour.convert("RGBA"), "PNG")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        made[f"{compression}.tif"] = image_file(grey, "TIFF", compression=compression)
    made["deep.tif"] = image_file(deeper, "TIFF", compression="tiff_lzw")
    made["lossy.webp"] = image_file(grey, "WEBP")
    made["lossless.webp"] = image_file(grey, "WEBP", lossless=True)
    made["grey.gif"] = image_file(grey, "GIF")
    made["grey.bmp"] = image_file(grey, "BMP")
    made["grey.pgm"] = image_file(grey, "PPM")
    return made


def cut(content: bytes, percent: int, ending: str, kind: str) -> bytes | None:
    """Cut the content of a file.

    `percent` is the share that is kept. The ending is ``bare`` for nothing after the cut, ``zeros``
    for zeros up to the old size, or ``ended`` for the regular end of such a file; None if its
    format, such as ``png``, has no regular end.
    """
    kept = content[: len(content) * percent // 100]
    if ending == "bare":
        return kept
    if ending == "zeros":
        return kept + bytes(len(content) - len(kept))
    return _ended(kept, kind) if ending == "ended" else None


def _ended(kept: bytes, kind: str) -> bytes | None:
    if kind in ("jpg", "j2k"):
        return kept + _EOI
    if kind == "gif":
        return kept + b"\0;"
    if kind == "webp":
        kept += bytes(len(kept) % 2)
        return (
            kept[:4]
            + struct.pack("<I", len(kept) - 8)
            + kept[8:16]
            + struct.pack("<I", len(kept) - 20)
            + kept[20:]
        )
    if kind == "png":
        return _ended_png(kept)
    return None


def _ended_png(kept: bytes) -> bytes:
    """Correct the length and the checksum of the last chunk, and add the end of a PNG file."""
    at = 8
    while at + 12 + (length := int.from_bytes(kept[at : at + 4], "big")) <= len(kept):
        at += 12 + length
    body = kept[at + 4 :]
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return kept[:at] + (chunk if len(body) >= 4 else b"") + _IEND


def damaged_dicoms(header: Dataset, folder: Path) -> Iterator[tuple[str, int, Path]]:
    """Yield a DICOM file that is cut, and DICOM files whose frame is cut.

    Each comes with the kind of damage and the share that is kept in per cent.
    """
    path = folder / "cut.dcm"
    header.save_as(folder / "whole.dcm", enforce_file_format=True)
    whole = (folder / "whole.dcm").read_bytes()
    syntax = header.file_meta.TransferSyntaxUID
    for percent in SHARES:
        path.write_bytes(whole[: len(whole) * percent // 100])
        yield "file", percent, path
        if not syntax.is_encapsulated:
            continue
        frame = get_frame(header.PixelData, 0, number_of_frames=1)
        for ending in ENDINGS[:3]:
            kind = "rle" if syntax == uid.RLELossless else "j2k"  # both JPEG end by one marker
            damaged = cut(frame, percent, ending, kind)
            if damaged is not None:
                with_frame(header, syntax, damaged).save_as(path, enforce_file_format=True)
                yield ending, percent, path


def evaluate(path: Path) -> str:
    """Return the outcome of a file: ``refused``, ``doubted``, ``calm``, or the exception."""
    try:
        image = read_image(path)
    except InputError as error:
        if "\n" in str(error) or not str(error).startswith(f"{path}: "):
            return f"unclear: {error}"
        return "cut short" if "is cut short" in str(error) else "refused"
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return repr(error)[:60]
    return "doubted" if getattr(image, "doubts", ()) else "calm"


def attack(
    films: dict[str, Dataset],
    plain: dict[str, bytes],
    folder: Path,
) -> Counter[str]:
    """Cut every file at every share and with every ending.

    Returns the number of files by outcome. Wrong outcomes have keys that name the file: ``calm:
    ...`` if a damaged file was read without a remark, and ``whole: ...`` if a whole file was
    refused.
    """
    total: Counter[str] = Counter()
    for name, header in films.items():
        outcomes: dict[str, list[str]] = {}
        for ending, _, path in damaged_dicoms(header, folder):
            outcomes.setdefault(ending, []).append(evaluate(path))
        _count(f"DICOM {name}", evaluate(folder / "whole.dcm"), outcomes, total)
    for name, content in plain.items():
        (folder / name).write_bytes(content)
        whole = evaluate(folder / name)
        outcomes = {}
        for ending in ENDINGS[:3]:
            for percent in SHARES:
                damaged = cut(content, percent, ending, name.rsplit(".", 1)[1])
                if damaged is not None:
                    (folder / name).write_bytes(damaged)
                    outcomes.setdefault(ending, []).append(evaluate(folder / name))
        _count(f"file {name}", whole, outcomes, total)
    return total


def _count(
    name: str,
    whole: str,
    outcomes: dict[str, list[str]],
    total: Counter[str],
) -> None:
    if whole != "calm":
        total[f"whole: {name}: {whole}"] += 1
    for ending, row in outcomes.items():
        total.update(row)
        for percent, outcome in zip(SHARES, row, strict=True):
            # What was filled up to its length is not cut; it is told for what it is worth.
            if outcome not in ("cut short", "refused", "doubted") and ending != "zeros":
                total[f"{outcome}: {name} {percent} % {ending}"] += 1


def real_films(data: Path) -> dict[str, Dataset]:
    """Read radiographs of the public sets in the folder of the shared data, by name."""
    odd = data / "dicom_odd"
    first = next((data / "rsna/stage_2_train_images").glob("*.dcm"))
    films = {"JPEG baseline, as published": pydicom.dcmread(first)}
    for name in (
        "dicom-test-files__RG3_JPLY",
        "pydicom__JPGExtended.dcm",
        "dicom-test-files__RG3_JLSN",
        "dicom-test-files__RG3_RLE",
        "pydicom-data__RG3_J2KR.dcm",
        "pydicom-data__RG3_J2KI.dcm",
        "pydicom-data__RG1_J2KI.dcm",
        "fo-dicom__CR-ModalitySequenceLUT.dcm",
        "pydicom-data__JPEG-LL.dcm",
        "pydicom-data__bad_sequence.dcm",
        "pydicom__SC_rgb_jpeg_dcmtk.dcm",
    ):
        header = pydicom.dcmread(odd / name)
        films[f"{name.split('__')[1][:12]} {header.file_meta.TransferSyntaxUID.name[:16]}"] = header
    return films
