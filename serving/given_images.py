"""Images in every form that `Run.predict` accepts: files, arrays, tensors, PIL and pydicom objects.

Pixels other than uint8 grey or RGB are converted if there is only one way to do it. All others are
refused, with a message that names the conversion to do first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, Union

import numpy as np
from PIL import Image, ImageOps

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.decoded_image import DecodedImage, decode_record, grey_from_rgb
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.serving.answer import ARRAY
from cxr_compare.serving.guard import Warned, file_warnings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


class Tensor(Protocol):
    """Interface of a torch tensor, as far as it is used here; torch itself is not imported."""

    def detach(self) -> Any:
        """Return the tensor without its gradient."""


GivenImage: TypeAlias = Union[str, Path, np.ndarray, Image.Image, Tensor, "Dataset"]
"""An image in any form in which a caller may give it to `Run.predict`."""
_BYTES = bytes | bytearray | memoryview
_EXPECTED = "a path, a PIL image, an array or tensor of pixels, or a pydicom data set"
_ONE_OF = "uint8, or float in [0, 1], of shape (H, W), (H, W, 3) or (3, H, W)"
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class ReadImage:
    """One image that a user gave for prediction, after reading.

    `name` is the path of the file, or ``array``. `warnings` say why a pydicom data set in memory is
    no frontal chest X-ray; None for others, which are checked later.
    """

    name: str
    image: DecodedImage
    warnings: tuple[Warned, ...] | None = None  # None if the file is checked later


def is_several(image: Any) -> bool:
    """Return True if a value holds several images: a list, or another iterable of images.

    A path, an array, a tensor, a mapping, bytes, a pydicom data set and a table are not several.
    """
    is_one = isinstance(image, str | np.ndarray | Mapping | _BYTES) or hasattr(image, "detach")
    is_table = hasattr(image, "columns")
    return isinstance(image, Iterable) and not (is_one or is_table or _is_dicom(image))


def read_given(image: Any) -> ReadImage:
    """Read one image as 8-bit grey.

    The image is a file; or pixels as an array or tensor of shape ``(H, W)``, ``(H, W, 3)``, ``(3,
    H, W)`` or with one channel, uint8 or float in [0, 1]; or a PIL image with 8 bits a channel; or
    a pydicom data set. 0 is black, and air is dark. Raises InputError if it cannot be read; the
    message says which conversion to do.
    """
    if isinstance(image, str | Path):
        return ReadImage(str(image), read_image(image))
    if isinstance(image, _BYTES):
        raise InputError(
            f"image: got {len(image):,} bytes, but expected {_EXPECTED}; of the bytes of a file "
            "give PIL.Image.open(io.BytesIO(data)) or pydicom.dcmread(io.BytesIO(data))"
        )
    if _is_dicom(image):
        return _read_dicom_object(image)
    if isinstance(image, Image.Image):
        return _of_pixels(_pixels_of_pil(image))
    if hasattr(image, "detach"):
        image = _array_of_tensor(image)
    if isinstance(image, np.ndarray):
        return _of_pixels(_as_grey_or_rgb(image))
    advice = ""
    if isinstance(image, Mapping) or hasattr(image, "columns"):
        advice = "; give its images or paths as a list"
    raise InputError(f"image: expected {_EXPECTED}, but got {type(image).__name__}{advice}")


def _of_pixels(pixels: np.ndarray) -> ReadImage:
    """Return uint8 pixels, ``(H, W)`` or ``(H, W, 3)``, as a decoded image."""
    grey = pixels if pixels.ndim == 2 else grey_from_rgb(pixels)
    return ReadImage(ARRAY, DecodedImage(grey, decode_record([])))


def _is_dicom(image: Any) -> bool:
    """Tell a pydicom data set, without importing pydicom for other images."""
    return any(
        kind.__module__ == "pydicom.dataset" and kind.__name__ == "Dataset"
        for kind in type(image).__mro__
    )


def _read_dicom_object(dataset: Any) -> ReadImage:
    """Read a data set as its file would be read: with its window, and with the same warnings."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.dcm"
        try:
            dataset.save_as(path, enforce_file_format=True)
        except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
            raise InputError(
                f"image: this pydicom data set makes no DICOM file ({type(error).__name__}); give "
                "the file's path, or dataset.pixel_array as uint8"
            ) from None
        try:
            image = read_image(path)
            return ReadImage(ARRAY, image, file_warnings(path, image))
        except InputError as error:
            message = str(error).replace(str(path), "image: the pydicom data set")
            raise InputError(message) from None


def _pixels_of_pil(image: Image.Image) -> np.ndarray:
    """Return a PIL image upright, transparency on black, uint8 grey or RGB."""
    if image.mode.startswith("I"):
        raise InputError(
            f"image: a PIL image of mode {image.mode} has more than 8 bits; give its file's path, "
            "which is scaled as prepare does, or scale it to uint8"
        )
    if image.mode == "F":
        return _as_grey_or_rgb(np.asarray(image))
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("1", "L"):
        return np.asarray(upright.convert("L"))
    if upright.has_transparency_data:
        black = Image.new("RGBA", upright.size, (0, 0, 0, 255))
        upright = Image.alpha_composite(black, upright.convert("RGBA"))
    return np.asarray(upright.convert("RGB"))


def _array_of_tensor(tensor: Any) -> np.ndarray:
    """Return a torch tensor of any device and type as an array."""
    values = tensor.detach().cpu()
    if "bfloat16" in str(values.dtype):
        values = values.float()
    return np.asarray(values)


def _as_grey_or_rgb(array: np.ndarray) -> np.ndarray:
    """Return pixels as uint8, ``(H, W)`` or ``(H, W, 3)``; errors say which conversion to do."""
    got = f"expected {_ONE_OF}, but got {array.dtype} {array.shape}"
    if array.ndim == 4:
        raise InputError(f"image: {got}; of a batch give a list of its images: list(batch)")
    if array.ndim == 3 and array.shape[2] not in _CHANNELS and array.shape[0] in _CHANNELS:
        array = np.moveaxis(array, 0, 2)  # (3, H, W), as torch has it
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or not array.size:
        advice = ""
        if array.ndim == 3 and array.shape[2] == 4:
            advice = "; leave the fourth channel out: image[..., :3]"
        raise InputError(f"image: {got}{advice}")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind == "f":
        return _of_shares(array, got)
    if array.dtype.kind == "b":
        raise InputError(
            f"image: {got}; a mask is no X-ray: for pixels give 255 * image.astype('uint8')"
        )
    low = int(array.min())
    high = int(array.max())
    advice = "scale to 8 bits, or give the file's path, which is scaled as prepare does"
    if low >= 0 and high <= 255:
        advice = "give image.astype('uint8')"
    raise InputError(f"image: {got}, values {low} to {high}; {advice}")


def _of_shares(array: np.ndarray, got: str) -> np.ndarray:
    """Return float pixels in [0, 1] as uint8."""
    if not np.isfinite(array).all():
        raise InputError(f"image: {got}, and a value is NaN or infinite; mend it")
    low = float(array.min())
    high = float(array.max())
    if low < 0 or high > 1:
        advice = "undo the normalisation (image * std + mean), so that values lie in [0, 1]"
        if low >= 0 and high <= 255:
            advice = "divide by 255, or give image.astype('uint8')"
        elif low >= 0:
            advice = "scale to [0, 1], or give the file's path, which is scaled as prepare does"
        raise InputError(f"image: {got}, values {low:g} to {high:g}; {advice}")
    return np.rint(array.astype(np.float64) * 255).astype(np.uint8)
