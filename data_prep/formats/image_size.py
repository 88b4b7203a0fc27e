"""Width and height of an image file, read from its header alone."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.decode_errors import plain_reason
from cxr_compare.data_prep.images.image_limits import require_file, require_size

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "GIF")
_EXIF_ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations by which width and height change places."""


def image_size(path: Path) -> tuple[int, int]:
    """Return the width and height in px of the upright image, after any EXIF orientation.

    Args:
        path: Path of the image.

    Raises:
        InputError: The file is no image, is damaged, or is larger than the limit.
    """
    width, height, turn = stored_size(path)
    return (height, width) if turn in SIDEWAYS else (width, height)


def stored_size(path: Path) -> tuple[int, int, int]:
    """Return the width and height of an image as stored, and its EXIF orientation.

    They are read from the header of the file; the pixels are not decoded.

    Args:
        path: Path of the image.

    Returns:
        Width and height in px before the EXIF orientation is applied, and the orientation, 1 to 8;
        1 for an image without one.

    Raises:
        InputError: The file is no image, is damaged, or is larger than the limit.
    """
    require_file(path)
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            turn = image.getexif().get(_EXIF_ORIENTATION, 1)
    except UnidentifiedImageError:
        width, height = _dicom_size(path)
        turn = 1
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"{path}: larger than the limit; make it smaller") from None
    except Exception as error:  # noqa: BLE001 - Pillow raises all kinds on broken files
        raise InputError(f"{path}: its size cannot be read ({plain_reason(error)})") from None
    require_size(path, width, height)
    return width, height, turn if turn in range(2, 9) else 1


def _dicom_size(path: Path) -> tuple[int, int]:
    import pydicom  # 0.3 s, which labels of other images are read without

    try:
        header = pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=["Rows", "Columns"], force=True
        )
        return int(header.Columns), int(header.Rows)
    except Exception:  # noqa: BLE001 - pydicom raises all kinds on broken files
        raise InputError(f"{path}: neither DICOM nor a known image format") from None
