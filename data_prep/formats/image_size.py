"""Width and height of an image file, read from its header alone."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.decode_errors import plain_reason
from cxr_compare.data_prep.images.image_limits import require_file, require_size

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "GIF")
_EXIF_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)


def image_size(path: Path) -> tuple[int, int]:
    """Return the width and height of an image in px, read from the header of its file.

    The pixels are not decoded.

    The EXIF orientation is applied, so that the sides are those of the upright image.

    Args:
        path: Path of the image.

    Returns:
        Width and height in px.

    Raises:
        InputError: The file is no image, is damaged, or is larger than the limit.
    """
    require_file(path)
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            if image.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS:
                width, height = height, width
    except UnidentifiedImageError:
        width, height = _dicom_size(path)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"{path}: larger than the limit; make it smaller") from None
    except Exception as error:  # noqa: BLE001 - Pillow raises all kinds on broken files
        raise InputError(f"{path}: its size cannot be read ({plain_reason(error)})") from None
    require_size(path, width, height)
    return width, height


def _dicom_size(path: Path) -> tuple[int, int]:
    import pydicom  # 0.3 s, which labels of other images are read without

    try:
        header = pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=["Rows", "Columns"], force=True
        )
        return int(header.Columns), int(header.Rows)
    except Exception:  # noqa: BLE001 - pydicom raises all kinds on broken files
        raise InputError(f"{path}: neither DICOM nor a known image format") from None
