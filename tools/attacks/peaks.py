"""The greatest memory that the largest image of each kind takes to decode.

Usage: ``python -m tools.attacks.peaks [KIND ...] [--side PX]``. An image of each kind, of 10,000 x
10,000 px, the limit of `read_image`, is decoded in its own process, plainly and at full depth as
``cxr serve`` does for DICOM. The program prints the greatest memory of the process, and the part
beyond its imports. The exit status is 1 if an image was refused, or takes more memory than the
server's decoder may use.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pydicom import uid

from cxr_compare.serving.web.decode_worker import _BYTES_A_PIXEL, _LEAST_BYTES
from tests.small_dicom import dicom_image
from tools.attacks import material

_MIB = 1 << 20
_CHILD = """
import re, sys
from pathlib import Path
from cxr_compare.data_prep.images.image import read_image
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
image = read_image(sys.argv[1], deep=sys.argv[2] == "deep")
print(peak(), peak() - before, *image.pixels.shape)
"""


def grey(side: int, kind: type[np.generic]) -> np.ndarray:
    """Draw a smooth image with a little noise.

    Args:
        side: Width and height, px.
        kind: Type of the pixels.

    Returns:
        Pixels, shape ``(side, side)``.
    """
    rng = np.random.default_rng(0)
    line = np.linspace(0, 200, side, dtype=np.float32)
    most = np.iinfo(kind).max / 255
    values = np.empty((side, side), kind)
    for row in range(side):
        values[row] = (most * (line * (0.5 + row / side / 2) + rng.integers(0, 4, side))).astype(
            kind
        )
    return values


def _pillow(path: Path, values: np.ndarray, form: str, **options: object) -> None:
    Image.fromarray(values).save(path, format=form, **options)


def _dicom(path: Path, values: np.ndarray, syntax: str | None = None) -> None:
    data = dicom_image(values)
    if syntax is not None:
        data.compress(syntax, values, generate_instance_uid=False)
    data.save_as(path, enforce_file_format=True)


def _colour(values: np.ndarray, channels: int = 3) -> np.ndarray:
    return np.dstack([values] * channels)


KINDS: dict[str, tuple[type[np.generic], Callable[[Path, np.ndarray], object]]] = {
    "PNG, 8 bit": (np.uint8, lambda path, v: cv2.imwrite(f"{path}.png", v)),
    "PNG, 16 bit": (np.uint16, lambda path, v: cv2.imwrite(f"{path}.png", v)),
    "PNG, colour": (np.uint8, lambda path, v: cv2.imwrite(f"{path}.png", _colour(v))),
    "PNG, colour and alpha": (np.uint8, lambda path, v: cv2.imwrite(f"{path}.png", _colour(v, 4))),
    "PNG, palette": (np.uint8, lambda path, v: Image.fromarray(v).convert("P").save(path, "PNG")),
    "JPEG, grey": (np.uint8, lambda path, v: _pillow(path, v, "JPEG")),
    "JPEG, colour": (np.uint8, lambda path, v: _pillow(path, _colour(v), "JPEG")),
    "JPEG, progressive": (np.uint8, lambda path, v: _pillow(path, v, "JPEG", progressive=True)),
    "TIFF, 8 bit": (np.uint8, lambda path, v: _pillow(path, v, "TIFF")),
    "TIFF, 16 bit, deflate": (
        np.uint16,
        lambda path, v: _pillow(path, v, "TIFF", compression="tiff_deflate"),
    ),
    "BMP": (np.uint8, lambda path, v: _pillow(path, v, "BMP")),
    "PPM": (np.uint8, lambda path, v: _pillow(path, _colour(v), "PPM")),
    "GIF": (np.uint8, lambda path, v: _pillow(path, v, "GIF")),
    "WebP": (np.uint8, lambda path, v: _pillow(path, v, "WEBP", method=0)),
    "DICOM, 16 bit": (np.uint16, lambda path, v: _dicom(path, v)),
    "DICOM, 8 bit colour": (np.uint8, lambda path, v: _dicom(path, _colour(v))),
    "DICOM, RLE": (np.uint16, lambda path, v: _dicom(path, v, uid.RLELossless)),
    "DICOM, JPEG-LS": (np.uint16, lambda path, v: _dicom(path, v, uid.JPEGLSLossless)),
    "DICOM, JPEG 2000": (np.uint16, lambda path, v: _dicom(path, v, uid.JPEG2000Lossless)),
}


def measure(path: Path, how: str) -> tuple[float, float] | str:
    """Decode an image in its own process.

    Args:
        path: File of the image.
        how: Way of decoding.

    Returns:
        Memory of the process and the part beyond its imports, MiB; or why the image was refused.
    """
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(path), how],
        cwd=material.ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1][-200:]
    whole, beyond, *_ = done.stdout.split()
    return int(whole) / 1024, int(beyond) / 1024


def main() -> int:
    """Print a row for each kind; return 1 if an image was refused or takes too much memory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="these alone")
    parser.add_argument("--side", type=int, default=10_000)
    given = parser.parse_args()
    allowed = (_LEAST_BYTES + _BYTES_A_PIXEL * given.side**2) / _MIB
    fell = 0
    print(f"allowed beyond the imports: {allowed:.0f} MiB")
    with tempfile.TemporaryDirectory(prefix="cxr-peaks-") as folder:
        for name, (dtype, write) in KINDS.items():
            if given.kinds and name not in given.kinds:
                continue
            path = Path(folder) / "image"
            write(path, grey(given.side, dtype))
            if not path.exists():  # OpenCV goes by the name's end
                Path(f"{path}.png").rename(path)
            ends = [measure(path, how) for how in ("plain", "deep")]
            fell += sum(isinstance(end, str) or end[1] > allowed for end in ends)
            told = [
                end if isinstance(end, str) else f"{end[0]:5.0f} MiB ({end[1]:5.0f} beyond)"
                for end in ends
            ]
            size = path.stat().st_size / _MIB
            print(f"{name:22} {size:6.1f} MiB  plain {told[0]}  deep {told[1]}", flush=True)
            path.unlink()
    return int(fell > 0)


if __name__ == "__main__":
    sys.exit(main())
