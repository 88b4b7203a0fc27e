"""The process that decodes uploads, with little memory and time, so that it can fail without harm.

`serving.web.uploads` starts the process, sends it requests on stdin, and reads JSON from its
stdout, which no file can turn into code. Files and pixels are in anonymous memory that both
processes have open, because a pipe would deliver a large image in many small parts. A process that
takes too long ends itself, even if the server is gone.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.data_prep.images.image_limits import TooLargeError, lower_pixel_limit
from cxr_compare.serving.dicom_objects.source_header import Source, read_source
from cxr_compare.serving.guard import file_warnings

READY = b"ready"  # what a process says when it can decode
# Request for a file: two flags, for full depth and for the header facts of DICOM results.
ASKED = struct.Struct("<??")
# Before each answer: length of its JSON; the pixels are in shared memory.
ANSWERED = struct.Struct("<I")
_LEAST_BYTES = 1 << 30  # address space beyond that of the imports
_BYTES_A_PIXEL = 20
_SPARE_SECONDS = 5


def main(max_pixels: int, seconds: int, upload: int, pixels: int) -> None:
    """Decode uploaded images in a process of its own until stdin ends.

    Args:
        max_pixels: Largest image to decode, in pixels.
        seconds: Processor seconds after which the process is ended.
        upload: File descriptor of the memory from which uploads are read.
        pixels: File descriptor of the memory into which pixels are written.
    """
    with os.fdopen(os.dup(0), "rb") as asked, os.fdopen(os.dup(1), "wb") as answers:
        cv2.setNumThreads(1)
        lower_pixel_limit(max_pixels)
        _take_limits(max_pixels)
        answers.write(READY)
        answers.flush()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):  # decoders print what they find in files
            os.dup2(null, stream)
        path = Path(f"/proc/self/fd/{upload}")
        while len(request := asked.read(ASKED.size)) == ASKED.size:
            signal.alarm(seconds + _SPARE_SECONDS)
            deep, source = ASKED.unpack(request)
            text, arrays = _answer(path, deep=deep, source=source)
            end = 0
            for array in arrays:
                end += os.pwrite(pixels, array.data, end)
            answers.write(ANSWERED.pack(len(text)) + text)
            answers.flush()
            signal.alarm(0)


def _take_limits(max_pixels: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = used + _LEAST_BYTES + _BYTES_A_PIXEL * max_pixels
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would contain the image


def _answer(path: Path, *, deep: bool, source: bool) -> tuple[bytes, list[np.ndarray]]:
    """Return JSON and pixels of the answer for one file."""
    arrays: list[np.ndarray] = []
    try:
        answer, arrays = _read(path, deep=deep)
        if source:
            answer |= _source(path)
    except InputError as error:
        status = 413 if isinstance(error, TooLargeError) else 422
        reason = str(error).removeprefix(f"{path}: ").replace(str(path), "the file")
        answer = {"status": status, "reason": reason}
    return json.dumps(answer, default=lambda value: value.item()).encode(), arrays


def _read(path: Path, *, deep: bool) -> tuple[dict[str, Any], list[np.ndarray]]:
    image = read_image(path, deep=deep)
    answer: dict[str, Any] = {
        "status": 200,
        "shape": list(image.pixels.shape),
        "record": image.record,
        "header": image.header,
        "ids": [image.patient, image.instance],
        "spacing": [image.spacing_row_mm, image.spacing_col_mm],
        "colour": image.colour,
        "warnings": [(warning, warning.kind) for warning in file_warnings(path, image)],
    }
    arrays = [np.ascontiguousarray(image.pixels)]
    if image.deep is not None:
        answer["deep"] = [image.deep.black, image.deep.white]
        arrays.append(np.ascontiguousarray(image.deep.values, "<u2"))
    return answer, arrays


def _source(path: Path) -> dict[str, Any]:
    """Return what DICOM objects take from a file, or why there can be none."""
    try:
        return {"source": Source.from_header(read_source(path)).to_json()}
    except InputError as error:
        return {"no_source": str(error).replace(str(path), "DICOM source")}


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:]))
