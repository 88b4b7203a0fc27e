"""Size of an image file, without decoding its pixels."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from cxr_compare.data_prep.base.errors import PROGRAM_ERRORS, InputError
from cxr_compare.data_prep.images.refused_files import (
    EXIF_ORIENTATION,
    IMAGE_FORMATS,
    plain_reason,
    require_file,
    require_size,
)

_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations by which width and height change places


def image_size(path: Path) -> tuple[int, int]:
    """Return the width and height in px of the upright image, after any EXIF orientation."""
    require_file(path)
    turn = 1
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            width, height = image.size
            # For a PNG, Pillow decodes the pixels first: texts may stand behind them.
            is_whole = image.format != "PNG" or _has_text_behind_pixels(path)
            exif = image.getexif() if is_whole else Image.Image.getexif(image)
            turn = exif.get(EXIF_ORIENTATION, 1)
    except PROGRAM_ERRORS:
        raise
    except UnidentifiedImageError:
        width, height = _dicom_size(path)
    except Exception as error:  # noqa: BLE001 - Pillow raises all kinds on broken files
        raise InputError(f"{path}: its size cannot be read ({plain_reason(error)})") from None
    require_size(path, width, height)
    return (height, width) if turn in _SIDEWAYS else (width, height)


def _has_text_behind_pixels(png: Path) -> bool:
    """Return True for a PNG with EXIF or texts behind its pixels, by the heads of its chunks."""
    is_behind = False
    with png.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            kind = head[4:]
            if is_behind and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            is_behind |= kind == b"IDAT"
            file.seek(int.from_bytes(head[:4]) + 4, os.SEEK_CUR)
    return False


def _dicom_size(path: Path) -> tuple[int, int]:
    import pydicom  # 0.3 s, which labels of other images are read without

    try:
        tags = ["Rows", "Columns"]
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
        return int(header.Columns), int(header.Rows)
    except Exception:  # noqa: BLE001 - pydicom raises all kinds on broken files
        raise InputError(f"{path}: neither DICOM nor a known image format") from None
